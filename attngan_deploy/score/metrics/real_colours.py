"""The measure of word fidelity on real pictures: what it gives where people wrote the words, as a yardstick."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.errors import ScoreError
from attngan_deploy.media.images import decode_picture
from attngan_deploy.media.shards import iter_samples
from attngan_deploy.media.tokenizer import split_words
from attngan_deploy.score.metrics.colours import COLOURS
from attngan_deploy.score.metrics.word_fidelity import REGION, Shares, shares_of, summarise

SEED = 0


def real_word_colours(shard: Path, seed: int = SEED) -> dict[str, Any]:
    """Word fidelity of real pictures: those whose first caption names exactly one of the colours.

    Sets of one picture a colour are drawn, each picture at most once, so that there are as many as the rarest colour
    has pictures. The centre, a quarter of the picture, stands for the attended region. Unlike a model's, the pictures
    of a set differ in all else too, which costs accuracy; and a caption may name the colour of a bill.

    Args:
        shard: tar of square pictures with captions.
        seed: of the drawing.

    Returns:
        `word_fidelity.summarise`'s of these sets, and "pictures" (of each colour), "sets" and "centre": for each
        colour's pictures the mean share of each colour {"inside": {...}, "outside": {...}}, over all of them.

    Raises:
        ScoreError: no picture for a colour.
        DataError: a damaged shard.
    """
    found = _read(shard)
    if missing := [colour for colour, shares in found.items() if not shares]:
        raise ScoreError(f"{shard.name} has no picture whose first caption names {missing[0]} and no other colour")
    rng = np.random.RandomState(seed)
    count = min(map(len, found.values()))
    drawn = [[shares[place] for place in rng.permutation(len(shares))[:count]] for shares in found.values()]
    sets = [
        Shares(*(np.concatenate(parts) for parts in zip(*one_each, strict=True)))
        for one_each in zip(*drawn, strict=True)
    ]
    return {
        **summarise(sets, COLOURS),
        "pictures": {colour: len(shares) for colour, shares in found.items()},
        "sets": count,
        "centre": {
            colour: {part: _mean(shares, part) for part in ("inside", "outside")} for colour, shares in found.items()
        },
    }


def centre_region(size: int) -> NDArray[np.float64]:
    """The middle of a picture of `size` px that holds a quarter of it: f64 [size, size] of 0 and 1."""
    margin = round(size * (1 - REGION**0.5) / 2)
    region = np.zeros((size, size))
    region[margin : size - margin, margin : size - margin] = 1
    return region


def _read(shard: Path) -> dict[str, list[Shares]]:
    found: dict[str, list[Shares]] = {colour: [] for colour in COLOURS}
    for sample in iter_samples(shard):
        named = [colour for colour in COLOURS if sample.captions and colour in split_words(sample.captions[0])]
        if len(named) == 1:
            picture = decode_picture(sample.picture)
            found[named[0]].append(shares_of(picture[None], centre_region(len(picture))))
    return found


def _mean(shares: list[Shares], part: str) -> dict[str, float]:
    values = np.concatenate([getattr(one, part) for one in shares]).mean(axis=0)
    return dict(zip(COLOURS, values.tolist(), strict=True))
