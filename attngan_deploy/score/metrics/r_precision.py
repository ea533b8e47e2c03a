"""R-precision: how often a picture is closer to its own caption than to wrong ones (section 4 of AttnGAN)."""

from collections import Counter
from collections.abc import Sequence
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.errors import ScoreError
from attngan_deploy.score.metrics.metric import Column, Metric, MetricInputs, Needs, Rows, ScoreFacts

if TYPE_CHECKING:
    from attngan_deploy.score.matcher import Matcher

CANDIDATES = 100  # the own caption and 99 wrong ones
SEED = 0
BLOCK = 64  # pictures compared together: 64 x 100 x 256 float64 numbers are 13 MB
SMALLEST_NORM = 1e-8
OTHER_CLASSES, OTHER_CAPTIONS = "other classes", "other captions"


def r_precision(
    codes: NDArray[np.float32],
    captions: Sequence[str],
    class_ids: NDArray[np.int64],
    matcher: "Matcher",
    candidates: int = CANDIDATES,
    seed: int = SEED,
) -> dict[str, Any]:
    """Share of pictures whose own caption is closer to them, by cosine, than every wrong one; a tie is a miss.

    Wrong captions are drawn from the other captions of the same set, each at most once a picture: captions that no
    picture of its class has, or, where classes are not known, any other. Captions that the matcher reads alike, such
    as those that differ by a comma, are one.

    Args:
        codes: what the matcher makes of the pictures, f32 [N, D].
        captions: the caption that each picture shows, N; pictures whose caption has no known word are not asked.
        class_ids: int64 [N]; -1 where it is not known.
        candidates: captions that each picture chooses from, its own one included; fewer where the set has fewer.

    Returns:
        "value"; "deviation", its binomial standard error; "candidates" and "chance", 1 / candidates; "asked" and
        "not_asked" pictures; "distinct_captions"; "wrong_captions", "other classes" or "other captions"; "seed"; and
        "real", what real pictures get ("r_precision", "candidates", "pictures", "data"), from the matcher's manifest.

    Raises:
        ScoreError: fewer than two candidates, no caption that the matcher knows, or arrays that do not fit each other.
    """
    if not len(codes) == len(captions) == len(class_ids):
        raise ScoreError(
            "R-precision needs a caption and a class of each picture",
            found=f"{len(codes)} pictures, {len(captions)} captions, {len(class_ids)} classes",
        )
    read = [matcher.read(caption) for caption in captions]
    asked = np.array([place for place, ids in enumerate(read) if ids], np.int64)
    if not asked.size:
        raise ScoreError(
            "R-precision needs the captions of the pictures",
            found=f"none of {len(captions)} with a word that matcher {matcher.name} knows",
            next_step="score a folder of t2i generate, or a shard with captions",
        )
    spelled: dict[tuple[int, ...], str] = {}
    for place in asked:
        spelled.setdefault(read[place], captions[place])
    numbers = {ids: number for number, ids in enumerate(sorted(spelled))}  # whatever the order of the pictures
    own = np.array([numbers[read[place]] for place in asked], np.int64)
    classes = np.asarray(class_ids)[asked]
    known = bool(classes.min() >= 0)
    wrong = draw_wrong(own, classes if known else None, candidates, seed)
    right = count_right(np.asarray(codes)[asked], matcher.sentences([spelled[ids] for ids in numbers]), own, wrong)
    value, count = right / len(asked), wrong.shape[1] + 1
    return {
        "value": value,
        "deviation": sqrt(value * (1 - value) / len(asked)),
        "candidates": count,
        "chance": 1 / count,
        "asked": len(asked),
        "not_asked": len(captions) - len(asked),
        "distinct_captions": len(spelled),
        "wrong_captions": OTHER_CLASSES if known else OTHER_CAPTIONS,
        "seed": seed,
        "real": dict(matcher.real),
    }


def draw_wrong(
    own: NDArray[np.int64], classes: NDArray[np.int64] | None, candidates: int, seed: int = SEED
) -> NDArray[np.int64]:
    """Wrong captions of each picture, drawn without repetition: int64 [N, K - 1].

    K is `candidates`, or as many as every picture can have where that is less, so that all are asked alike. What is
    drawn depends on the caption, and on how many pictures of the class had it before, but not on the order otherwise.

    Args:
        own: number of each picture's own caption, from 0, int64 [N].
        classes: class of each picture, int64 [N]; None draws from all captions but the own one.

    Raises:
        ScoreError: K is less than 2.
    """
    every = np.arange(own.max() + 1)
    if classes is None:
        groups = own
        left = {int(number): len(every) - 1 for number in np.unique(own)}
    else:
        groups = classes
        others = {int(kind): np.setdiff1d(every, own[classes == kind]) for kind in np.unique(classes)}
        left = {kind: len(numbers) for kind, numbers in others.items()}
    count = min(candidates - 1, min(left.values()))
    if count < 1:
        raise ScoreError(
            "R-precision has no wrong caption to choose from",
            found=f"{candidates} candidates" if candidates < 2 else f"{len(every)} captions that are read differently",
            expected="two candidates or more" if candidates < 2 else "captions of two classes or more",
        )
    wrong = np.empty((len(own), count), np.int64)
    before: Counter[tuple[int, int]] = Counter()
    for row, (number, group) in enumerate(zip(own.tolist(), groups.tolist(), strict=True)):
        rng = np.random.default_rng((seed, number, before[number, group]))
        before[number, group] += 1
        drawn = rng.choice(left[group], count, replace=False)
        wrong[row] = drawn + (drawn >= number) if classes is None else others[group][drawn]
    return wrong


def count_right(
    codes: NDArray[np.float32],
    sentences: NDArray[np.float32],
    own: NDArray[np.int64],
    wrong: NDArray[np.int64],
) -> int:
    """How many picture codes [N, D] are strictly closer, by cosine, to sentence `own` [N] than to each `wrong` [N, K].

    Args:
        sentences: [M, D], that `own` and `wrong` number.
    """
    choices = np.concatenate([own[:, None], wrong], axis=1)
    directions = _directions(sentences)
    right = 0
    for start in range(0, len(codes), BLOCK):
        rows = slice(start, start + BLOCK)
        similar = np.einsum("nkd,nd->nk", directions[choices[rows]], _directions(codes[rows]))
        right += int((similar[:, 0] > similar[:, 1:].max(axis=1)).sum())
    return right


def _directions(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    lengths: NDArray[np.float64] = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.maximum(lengths, SMALLEST_NORM)


def _compute(inputs: MetricInputs) -> ScoreFacts:
    assert inputs.matcher is not None
    outputs = inputs.outputs
    codes = inputs.matcher.codes(outputs.features)
    return r_precision(codes, outputs.captions, outputs.class_ids, inputs.matcher)


def _warnings(_: MetricInputs, facts: ScoreFacts) -> list[str]:
    if facts["candidates"] >= CANDIDATES:
        return []
    return [
        f"R-precision is 1 of {facts['candidates']} instead of {CANDIDATES}, for want of other captions: it "
        "is higher than it would be, and not comparable with that of real pictures"
    ]


def _rows(facts: ScoreFacts) -> Rows:
    real = facts["real"]
    unasked = f", {facts['not_asked']} not asked" if facts["not_asked"] else ""
    return [
        ("R-precision", f"{facts['value']:.2%} +- {facts['deviation']:.2%} of {facts['asked']} pictures{unasked}"),
        ("candidates", f"{facts['candidates']}, wrong ones of {facts['wrong_captions']}; chance {facts['chance']:.2%}"),
        ("real pictures", f"{real['r_precision']:.2%}, 1 of {real['candidates']}"),
    ]


METRIC = Metric(
    name="r-precision",
    key="r_precision",
    label="R-precision",
    needs=Needs.FEATURES | Needs.CAPTIONS | Needs.MATCHER,
    compute=_compute,
    rows=_rows,
    noise="deviation",
    settings=("candidates", "asked", "wrong_captions", "distinct_captions", "seed"),
    warnings=_warnings,
    summary="R-precision {value:.1%}",
    column=Column("R-precision", "R-precision", "{value:.1%}", "R-precision: 1 of {candidates}, chance {chance:.1%}."),
)
