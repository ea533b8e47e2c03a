"""Diversity: how much the pictures of one caption differ, which the Inception Score can't see.

A generator that draws one good picture for each caption and ignores its noise may have a high Inception Score; here its
ratio is 0, and all its pictures are near-duplicates.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.errors import ScoreError
from attngan_deploy.score.metrics.metric import Metric, Needs, Rows, ScoreFacts

NEAR_DUPLICATE = 0.1
"""Cosine distance in the features of the shipped judge (5e442a1ac77b) below which two pictures count as one.

Chosen on 2,933 real birds of 50 species, 152 px, centre crop 144 resized to 128: a copy moved by 1 px each way is
nearer than this for 99.3 % of them, one moved by 4 px for 98 %, one saved as JPEG of quality 75 for 81 %; another real
picture is nearer for 0.3 % (shots of one bird in one pose, by eye too), while the nearest other picture is at 0.36 in
the median, and two pictures of one species are at 0.55 on average (`benchmarks/paper/near_duplicates.py`). Another
judge needs its own threshold.
"""
BLOCK = 512  # rows that are worked on together: what bounds memory
TINY = 1e-12


def diversity(
    features: NDArray[np.float32], captions: Sequence[str], threshold: float = NEAR_DUPLICATE
) -> dict[str, Any]:
    """How far pictures of one caption are from each other, next to how far pictures of different captions are.

    The cosine distance of two pictures is 1 - cos of their features. `within` is its mean over the pairs of a caption,
    and then over captions; `between` is its mean over all pairs of pictures with different captions. The Euclidean ones
    are root mean squares over the same pairs. Memory beside the features does not grow with their number.

    Args:
        features: f32 [N, F] of a judge.
        captions: of each picture. Pictures without one ("") are left out.
        threshold: cosine distance below which a picture is a near-duplicate of another one of its caption.

    Returns:
        value: within / between of the cosine distance: 0 where every seed gives one picture, about 1 where the caption
            changes nothing. None where there is one caption only.
        standard_error: of `value`, over captions; None where one caption only was used.
        cosine, euclidean: {"within", "between"}.
        near_duplicates: share of the pictures whose nearest other one of the same caption is nearer than `threshold`.
            It grows with the number of pictures of a caption.
        threshold, captions, pictures, pictures_per_caption: what was used: captions of two pictures or more.

    Raises:
        ScoreError: no caption with two pictures, or features that can't be used.
    """
    _check(features, captions)
    groups = _groups(captions)
    used = [rows for rows in groups if len(rows) > 1]
    if not used:
        raise ScoreError(
            "no caption has two pictures, so their diversity can't be measured",
            found=f"{len(groups)} captions, {len(captions)} pictures",
            expected="at least two pictures of a caption, made from different noise",
            next_step="make them with t2i generate captions.txt --n 10 -o out/",
        )
    within, between = _mean_squares(features, groups, unit=True)
    squares, squares_between = _mean_squares(features, groups, unit=False)
    cosine = within / 2  # of unit vectors, |u - v|^2 = 2 (1 - cos)
    cosine_between = None if between is None else between / 2
    sizes = np.array([len(rows) for rows in used])
    return {
        "value": _ratio(float(cosine.mean()), cosine_between),
        "standard_error": _ratio(float(cosine.std(ddof=1)) / len(used) ** 0.5, cosine_between)
        if len(used) > 1
        else None,
        "cosine": {"within": float(cosine.mean()), "between": cosine_between},
        "euclidean": {
            "within": float(squares.mean()) ** 0.5,
            "between": None if squares_between is None else squares_between**0.5,
        },
        "near_duplicates": sum(_near_duplicates(features, rows, threshold) for rows in used) / int(sizes.sum()),
        "threshold": threshold,
        "captions": len(used),
        "pictures": int(sizes.sum()),
        "pictures_per_caption": float(sizes.mean()),
    }


def _groups(captions: Sequence[str]) -> list[NDArray[np.int64]]:
    """Places of the pictures of each caption."""
    places: dict[str, list[int]] = {}
    for place, caption in enumerate(captions):
        if caption:
            places.setdefault(caption, []).append(place)
    return [np.array(rows, np.int64) for rows in places.values()]


def _mean_squares(
    features: NDArray[np.float32], groups: list[NDArray[np.int64]], unit: bool
) -> tuple[NDArray[np.float64], float | None]:
    """Mean squared distance over the pairs within each group of two or more, and over all pairs between groups.

    The squared distances of n rows add up to n times their scatter around the mean, so that no pair is ever formed.
    """
    scatters = [_scatter(features, rows, unit) for rows in groups]
    sizes = np.array([len(rows) for rows in groups], np.float64)
    sums, pairs = sizes * scatters, sizes * (sizes - 1) / 2
    total = float(sizes.sum())
    pairs_between = total * (total - 1) / 2 - pairs.sum()
    within = sums[sizes > 1] / pairs[sizes > 1]
    if pairs_between == 0:
        return within, None
    everything = total * _scatter(features, np.concatenate(groups), unit)
    return within, max(0.0, float(everything - sums.sum()) / float(pairs_between))


def _scatter(features: NDArray[np.float32], rows: NDArray[np.int64], unit: bool) -> float:
    """Sum of squared distances of rows from their mean."""
    blocks = [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
    mean = sum(_take(features, block, unit).sum(axis=0) for block in blocks) / len(rows)
    return float(sum(((_take(features, block, unit) - mean) ** 2).sum() for block in blocks))


def _near_duplicates(features: NDArray[np.float32], rows: NDArray[np.int64], threshold: float) -> int:
    """How many rows have another one nearer than the threshold."""
    count = 0
    for start in range(0, len(rows), BLOCK):
        block = _take(features, rows[start : start + BLOCK])
        nearest = np.full(len(block), -np.inf)
        for other in range(0, len(rows), BLOCK):
            cosines = block @ _take(features, rows[other : other + BLOCK]).T
            if other == start:
                np.fill_diagonal(cosines, -np.inf)
            nearest = np.maximum(nearest, cosines.max(axis=1))
        count += int((1 - nearest < threshold).sum())
    return count


def _take(features: NDArray[np.float32], rows: NDArray[np.int64], unit: bool = True) -> NDArray[np.float64]:
    taken = features[rows].astype(np.float64)
    return taken / np.linalg.norm(taken, axis=1, keepdims=True).clip(min=TINY) if unit else taken


def _ratio(value: float, yardstick: float | None) -> float | None:
    if yardstick is None:
        return None
    return value / yardstick if yardstick > TINY else 0.0


def _check(features: NDArray[np.float32], captions: Sequence[str]) -> None:
    if features.ndim != 2 or len(features) != len(captions) or not np.isfinite(features).all():
        raise ScoreError(
            "features can't be used",
            found=f"shape {list(features.shape)} with {len(captions)} captions",
            expected="finite [N, F], and a caption for each",
        )


def _check_count(pictures: int, captions: int, _: int | None) -> None:
    if pictures <= captions:
        raise ScoreError(
            "diversity needs captions with two pictures or more",
            found=f"{pictures} pictures of {captions} captions",
            next_step="add --n with ten times the number of captions, or take fewer captions",
        )


def _rows(facts: ScoreFacts) -> Rows:
    noise = "" if facts["standard_error"] is None else f" +- {facts['standard_error']:.3f}"
    value = "none: one caption only" if facts["value"] is None else f"{facts['value']:.3f}{noise}"
    distances = [
        f"{name} {_optional(pair['within'])} within a caption, {_optional(pair['between'])} between"
        for name, pair in (("cosine", facts["cosine"]), ("Euclidean", facts["euclidean"]))
    ]
    used = f"{facts['pictures']} pictures of {facts['captions']} captions"
    return [
        ("diversity", f"{value} of the distance between captions, {used}"),
        ("feature distance", "\n".join(distances)),
        ("near-duplicates", f"{facts['near_duplicates']:.2%}, nearer than {facts['threshold']:g} (cosine)"),
    ]


def _optional(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


METRIC = Metric(
    name="diversity",
    key="diversity",
    label="diversity",
    needs=Needs.FEATURES | Needs.CAPTIONS,
    compute=lambda inputs: diversity(inputs.outputs.features, inputs.outputs.captions),
    rows=_rows,
    values=("value", "near_duplicates"),
    noise="standard_error",
    settings=("threshold", "captions", "pictures"),
    may_be_none=True,
    check=_check_count,
)
