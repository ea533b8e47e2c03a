"""Word fidelity: does a generator follow the colour words of a caption, and where? Figures 7 to 9 as a number.

One word of a caption is replaced by each colour in turn while the noise stays as it is, so that all that differs
between the four pictures is owed to the word. With p_k(w) the share of pixels of colour k (`colours.BOUNDS`) in the
picture made with word w, of W words:

    fidelity of k = p_k(k) - mean of p_k(w) over the other words w
    accuracy of k = how often p_k(k) is the largest of p_k(w) over all words w; ties share it, so chance is 1 / W

Both are also taken inside the attended region, the quarter of the picture that the colour word gets most attention in
(its map summed to 1, mean over the four pictures, so that one region serves all four), and outside of it; leakage =
outside / inside is 0 for a word that recolours only what it attends to, and 1 where it recolours everything alike.

A word may change the rest of the picture without bringing its colour there. So the change itself is measured too: the
mean CIELAB distance (Delta E, 1976) of a pixel between two pictures of the set, over all pairs, inside and outside.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.errors import ScoreError
from attngan_deploy.score.metrics.colours import BOUNDS, COLOURS, colour_masks, lab
from attngan_deploy.score.metrics.metric import Column, Metric, MetricInputs, Needs, Rows, ScoreFacts

if TYPE_CHECKING:
    from attngan_deploy.generate.pipeline import TextToImage

PLACE = "{colour}"
WORD_CAPTIONS = (
    # Caption 2 of the paper: both of its red words change.
    "this smaller bird has a gray belly and breast with {colour} speckles, a {colour} crown, and a short pointy bill.",
    "this is a small {colour} bird.",
    "this bird is {colour} all over, with a short pointed bill.",
    "a small bird with a {colour} belly and a short beak.",
    "a {colour} bird with white wings and a long tail.",
    "the bird has a {colour} head and a white breast.",
    "its crown is {colour}, while the rest of its body is gray.",
    "the wings of this bird are {colour} and its belly is white.",
    "a bird whose breast and throat are bright {colour}.",
    "a bird with {colour} feathers sits on a branch.",
    "this large bird has long legs and a {colour} back.",
    "{colour} bird with a thick beak and brown wings.",
    "a medium sized bird that is mostly {colour}, with white wing bars.",
    "there is a patch of {colour} on the throat of this brown bird.",
    "the tail feathers and the nape of this bird are {colour}.",
    "its breast is {colour}.",
)
SEEDS = tuple(range(16))
REGION = 0.25  # share of the picture that counts as attended
PARTS = ("inside", "outside")
TINY = 1e-12


class Shares(NamedTuple):
    """Shares of pixels f64 [W, K] of colour k in the picture of word w, of one set of pictures: one a word, W = K."""

    whole: NDArray[np.float64]  # in the whole picture
    inside: NDArray[np.float64]  # inside the attended region (or the centre, of real pictures)
    outside: NDArray[np.float64]  # in the rest


def word_fidelity(
    model: "TextToImage",
    captions: Sequence[str] = WORD_CAPTIONS,
    colours: Sequence[str] = COLOURS,
    seeds: Sequence[int] = SEEDS,
    batch_size: int | None = None,
) -> dict[str, Any]:
    """Measure how a model follows colour words.

    The noise of a picture depends on its seed and its caption's place, and not on the colour. Memory does not grow with
    the number of captions or seeds.

    Args:
        captions: with "{colour}" where the colour word stands.
        colours: two or more of `COLOURS`.
        seeds: each gives one picture of every caption and colour.

    Returns:
        `summarise`'s, and
        change_inside, change_outside: mean Delta E between pictures of a set, with standard errors (.._error);
        change_ratio: outside / inside.
        focus: share of the word's attention that falls into the region; `REGION` where it is spread evenly.
        region, captions, seeds, pictures, model, model_hash, engine: what was used.

    Raises:
        ScoreError: a caption without "{colour}", one colour only, or one that is unknown to the program or the model.
        CaptionError: a caption without a known word.
    """
    _check(model, captions, colours, seeds)
    measured: list[Shares] = []
    changes: list[tuple[float, float]] = []
    focus: list[float] = []
    for pictures, maps in _sets(model, captions, colours, seeds, batch_size):
        attention = (maps / maps.sum(axis=(1, 2), keepdims=True).clip(min=TINY)).mean(axis=0)
        region = attended_region(attention, pictures.shape[1])
        measured.append(shares_of(pictures, region, colours))
        changes.append(colour_change(pictures, region))
        focus.append(float((attention * attended_region(attention, attention.shape[0])).sum()))
    inside, outside = (_mean(f"change_{part}", column) for part, column in zip(PARTS, np.array(changes).T, strict=True))
    return {
        **summarise(measured, colours),
        **inside,
        **outside,
        "change_ratio": _ratio(outside["change_outside"], inside["change_inside"]),
        "focus": float(np.mean(focus)),
        "region": REGION,
        "captions": list(captions),
        "seeds": list(seeds),
        "pictures": len(measured) * len(colours),
        "model": model.bundle.name,
        "model_hash": model.bundle.hash,
        "engine": str(model.facts),
    }


def summarise(measured: Sequence[Shares], colours: Sequence[str]) -> dict[str, Any]:
    """Fidelity and accuracy of M sets of pictures.

    Returns:
        fidelity, accuracy: means over colours, of the whole picture.
        inside, outside: the fidelity there. inside_accuracy, outside_accuracy: likewise.
        leakage: outside / inside; None where no colour is gained inside.
        NAME_error: standard error of each of these but leakage; it takes the M sets as independent.
        chance: accuracy of pictures that do not depend on the word, 1 / W.
        colours: all these for each colour, and "shares": the mean share of that colour with each word.
    """
    whole, inside, outside = (np.stack(part) for part in zip(*measured, strict=True))  # [M, W, K]
    measures = {
        "fidelity": _fidelity(whole),
        "accuracy": _accuracy(whole),
        "inside": _fidelity(inside),
        "outside": _fidelity(outside),
        "inside_accuracy": _accuracy(inside),
        "outside_accuracy": _accuracy(outside),
    }
    return {
        **_means({name: values.mean(axis=1) for name, values in measures.items()}),
        "chance": 1 / len(colours),
        "colours": {
            colour: {
                **_means({name: values[:, place] for name, values in measures.items()}),
                "shares": dict(zip(colours, whole[:, :, place].mean(axis=0).tolist(), strict=True)),
            }
            for place, colour in enumerate(colours)
        },
    }


def attended_region(attention: NDArray[np.float32], size: int) -> NDArray[np.float64]:
    """The quarter of a picture of `size` px that a map [A, A] is largest in: f64 [size, size] of 0 and 1.

    Where the map has ties at the edge of the quarter they share what is left of it, so that an even map gives 0.25.
    """
    side = attention.shape[-1]
    flat = attention.ravel()
    wanted = round(flat.size * REGION)
    edge = np.partition(flat, flat.size - wanted)[flat.size - wanted]
    above, ties = flat > edge, flat == edge
    region = (above + ties * ((wanted - above.sum()) / ties.sum())).reshape(side, side)
    nearest = np.arange(size) * side // size
    return np.asarray(region[nearest][:, nearest], np.float64)


def shares_of(pictures: NDArray[np.uint8], region: NDArray[np.float64], colours: Sequence[str] = COLOURS) -> Shares:
    """Shares of each colour in pictures uint8 [W, S, S, 3], with a region f64 [S, S] of weights from 0 to 1."""
    masks = colour_masks(pictures, colours).astype(np.float64)
    parts = (np.ones_like(region), region, 1 - region)
    return Shares(*(np.einsum("wyxk,yx->wk", masks, part) / part.sum() for part in parts))


def colour_change(pictures: NDArray[np.uint8], region: NDArray[np.float64]) -> tuple[float, float]:
    """Mean CIELAB distance of a pixel between two of the pictures uint8 [W, S, S, 3], inside a region and outside."""
    colours = lab(pictures)
    pairs = list(combinations(colours, 2))
    distance = sum(np.linalg.norm(a - b, axis=-1) for a, b in pairs) / len(pairs)
    return float((distance * region).sum() / region.sum()), float((distance * (1 - region)).sum() / (1 - region).sum())


def _sets(
    model: "TextToImage", captions: Sequence[str], colours: Sequence[str], seeds: Sequence[int], batch_size: int | None
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """Pictures uint8 [W, S, S, 3] of one caption and seed, one a colour, and the attention [W, A, A] of its word."""
    texts = [caption.replace(PLACE, colour) for caption in captions for colour in colours]
    words = [_positions(model, text, colour) for text, colour in zip(texts, list(colours) * len(captions), strict=True)]
    places = [(text, text // len(colours)) for text in range(len(texts))]  # a caption's colours share a sample number
    for seed in seeds:
        pictures: list[NDArray[np.uint8]] = []
        maps: list[NDArray[np.float32]] = []
        for batch in model.stream(texts, seed, batch_size=batch_size, shared_noise=True, places=places):
            pictures += list(batch.pictures)
            assert batch.attention is not None  # see `_check`
            maps += [
                attention[words[text]].sum(axis=0)
                for (text, _), attention in zip(batch.places, batch.attention, strict=True)
            ]
            while len(pictures) >= len(colours):
                yield np.stack(pictures[: len(colours)]), np.stack(maps[: len(colours)])
                del pictures[: len(colours)], maps[: len(colours)]


def _positions(model: "TextToImage", text: str, word: str) -> list[int]:
    """Where `word` stands among the words that the model sees."""
    number = model.tokenizer.index[word]
    return [place for place, other in enumerate(model.tokenizer.encode(text).ids) if other == number]


def _fidelity(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """[M, W, K] to [M, K]: a colour's share with its own word less the mean of those with the others."""
    named = np.diagonal(shares, axis1=1, axis2=2)
    return np.asarray(named - (shares.sum(axis=1) - named) / (shares.shape[1] - 1))


def _accuracy(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """[M, W, K] to [M, K]: 1 where a colour's share is largest with its own word, 1 / n where n words tie, else 0."""
    is_largest = shares == shares.max(axis=1, keepdims=True)
    return np.asarray(np.diagonal(is_largest, axis1=1, axis2=2) / is_largest.sum(axis=1))


def _means(values: dict[str, NDArray[np.float64]]) -> dict[str, float | None]:
    """Mean and standard error of each measure's values [M], and leakage."""
    result: dict[str, float | None] = {}
    for name, numbers in values.items():
        result |= _mean(name, numbers)
    return {**result, "leakage": _ratio(result["outside"], result["inside"])}


def _mean(name: str, values: NDArray[np.float64]) -> dict[str, float | None]:
    error = float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else None
    return {name: float(values.mean()), f"{name}_error": error}


def _ratio(outside: float | None, inside: float | None) -> float | None:
    return outside / inside if outside is not None and inside is not None and inside > TINY else None


def _check(model: "TextToImage", captions: Sequence[str], colours: Sequence[str], seeds: Sequence[int]) -> None:
    if not captions or not seeds:
        raise ScoreError("word fidelity needs captions and seeds", found=f"{len(captions)} and {len(seeds)}")
    if without := [caption for caption in captions if PLACE not in caption]:
        raise ScoreError(f"a caption has no {PLACE}", found=without[0][:80])
    if len(set(colours)) < 2 or len(set(colours)) != len(colours):
        raise ScoreError("word fidelity compares colours", found=", ".join(colours), expected="two or more, each once")
    if not model.bundle.manifest.sizes.attention:
        raise ScoreError(
            f"model {model.bundle.name} has no attention, which word fidelity measures",
            next_step="leave out the metric words, or choose another --model",
        )
    if unknown := [name for name in colours if name not in BOUNDS]:
        raise ScoreError(f"no bounds for the colour '{unknown[0]}'", expected=", ".join(COLOURS))
    if unknown := [name for name in colours if name not in model.tokenizer.index]:
        raise ScoreError(f"model {model.bundle.name} does not know the word '{unknown[0]}'")


def _compute(inputs: MetricInputs) -> ScoreFacts:
    assert inputs.model is not None
    return word_fidelity(inputs.model, batch_size=inputs.batch_size)


def _rows(facts: ScoreFacts) -> Rows:
    leakage = "none" if facts["leakage"] is None else f"{facts['leakage']:.2f}"
    per_colour = [f"{name}: {_moved(each)}" for name, each in facts["colours"].items()]
    moved = f"{_moved(facts)}, +- {facts['fidelity_error']:.2%}"
    return [
        ("word fidelity", f"{moved}; chance {facts['chance']:.0%}, {facts['pictures']} pictures"),
        ("generated by", f"{facts['model']} {facts['model_hash'][:12]}, {facts['engine']}"),
        ("attended region", f"{facts['inside']:+.2%} inside, {facts['outside']:+.2%} outside, leakage {leakage}"),
        ("any change", f"{facts['change_inside']:.1f} inside, {facts['change_outside']:.1f} outside (CIELAB)"),
        ("per colour", "\n".join(per_colour)),
    ]


def _moved(facts: ScoreFacts) -> str:
    return f"{facts['fidelity']:+.2%} of the pixels, right colour {facts['accuracy']:.1%}"


METRIC = Metric(
    name="words",
    key="word_fidelity",
    label="word fidelity",
    needs=Needs.MODEL,
    compute=_compute,
    rows=_rows,
    values=("fidelity", "accuracy", "leakage"),
    noise="fidelity_error",
    settings=("captions", "seeds", "region", "chance"),
    may_be_none=True,
    summary="colour words followed {accuracy:.1%}",
    column=Column(
        "words followed",
        "words followed",
        "{accuracy:.0%}",
        "Words followed: how often a caption's colour word gives the picture more of that colour than any other of "
        "four words does, with the same noise (chance 25 %).",
    ),
)
