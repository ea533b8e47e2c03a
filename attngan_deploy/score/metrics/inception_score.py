"""Inception Score: exp(E_x KL(p(y|x) || p(y))), equation 9 of the paper, per split of the pictures in their order."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.errors import ScoreError

SUM_TOLERANCE = 1e-4  # float32 softmax is within 1e-6; logits are not within 1e-1


class InceptionScore(NamedTuple):
    """Mean and standard deviation (ddof 0) over splits, and the score of each split."""

    mean: float
    deviation: float
    per_split: NDArray[np.float64]


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities float64 [N, C] of logits [N, C]."""
    shifted = np.asarray(logits, np.float64)
    shifted = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return probabilities


def split_bounds(count: int, splits: int) -> list[tuple[int, int]]:
    """Bounds [i * N // S, (i + 1) * N // S) of each split.

    Raises:
        ScoreError: fewer pictures than splits.
    """
    if splits < 1 or count < splits:
        raise ScoreError(
            "fewer pictures than splits",
            found=f"{count} pictures, {splits} splits",
            expected="at least one picture a split",
            next_step="make more pictures, or lower --splits",
        )
    return [(i * count // splits, (i + 1) * count // splits) for i in range(splits)]


def inception_score(probabilities: NDArray[Any], splits: int = 10) -> InceptionScore:
    """Inception Score of the class probabilities [N, C] of N pictures; 0 log 0 is 0, so one-hot rows are fine.

    A split's score is exp(H(mean of its rows) - mean of H(row)), which equals the mean divergence.

    Raises:
        ScoreError: rows that are not probabilities (logits, for one), or fewer rows than splits.
    """
    p = np.asarray(probabilities, np.float64)
    _check_probabilities(p)
    negative_entropy = _x_log_x(p).sum(axis=1)
    scores = [
        np.exp(negative_entropy[start:end].mean() - _x_log_x(p[start:end].mean(axis=0)).sum())
        for start, end in split_bounds(len(p), splits)
    ]
    per_split = np.array(scores)
    return InceptionScore(float(per_split.mean()), float(per_split.std()), per_split)


def inception_score_from_logits(logits: NDArray[Any], splits: int = 10) -> InceptionScore:
    """Inception Score of the logits [N, C] of N pictures.

    Raises:
        ScoreError: logits that are not finite, or fewer rows than splits.
    """
    values = np.asarray(logits, np.float64)
    if values.ndim != 2 or values.shape[1] == 0 or not np.isfinite(values).all():
        raise ScoreError("these are not logits", found=_describe(values), expected="finite numbers [N, classes]")
    split_bounds(len(values), splits)  # before the softmax of an empty array
    return inception_score(softmax(values), splits)


def _x_log_x(p: NDArray[np.float64]) -> NDArray[np.float64]:
    return p * np.log(p, out=np.zeros_like(p), where=p > 0)


def _check_probabilities(p: NDArray[np.float64]) -> None:
    if p.ndim != 2 or p.shape[1] == 0 or not np.isfinite(p).all():
        raise ScoreError("these are not probabilities", found=_describe(p), expected="finite numbers [N, classes]")
    sums = p.sum(axis=1)
    wrong = np.flatnonzero((np.abs(sums - 1) > SUM_TOLERANCE) | (p.min(axis=1) < 0))
    if wrong.size:
        row = int(wrong[0])
        raise ScoreError(
            "these are not probabilities",
            found=f"row {row} sums to {sums[row]:.4g}, its smallest value is {p[row].min():.4g}",
            expected="rows of values from 0 to 1 that sum to 1",
            next_step="use inception_score_from_logits for logits",
        )


def _describe(values: NDArray[np.float64]) -> str:
    if values.ndim != 2 or values.shape[1] == 0:
        return f"shape {list(values.shape)}"
    return f"{int((~np.isfinite(values)).sum())} values that are not finite"
