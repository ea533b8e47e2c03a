"""Inception Score: exp(E_x KL(p(y|x) || p(y))), equation 9 of the paper, per split of the pictures in their order."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.errors import ScoreError
from attngan_deploy.score.metrics.metric import Column, Metric, MetricInputs, Needs, Rows, ScoreFacts
from attngan_deploy.score.outputs import softmax

USUAL_SPLITS = 10
SORTED_BELOW = 0.7  # a mean over unshuffled splits below this share of the one-split score
SUM_TOLERANCE = 1e-4  # float32 softmax is within 1e-6; logits are not within 1e-1


class InceptionScore(NamedTuple):
    """Mean and standard deviation (ddof 0) over splits, and the score of each split."""

    mean: float
    deviation: float
    per_split: NDArray[np.float64]


def split_bounds(count: int, splits: int) -> list[tuple[int, int]]:
    """Bounds [i * N // S, (i + 1) * N // S) of each split; a ScoreError for fewer pictures than splits."""
    if splits < 1 or count < splits:
        raise ScoreError(
            "fewer pictures than splits",
            found=f"{count} pictures, {splits} splits",
            expected="at least one picture a split",
            next_step="make more pictures, or lower --splits",
        )
    return [(i * count // splits, (i + 1) * count // splits) for i in range(splits)]


def splits_of(count: int, asked: int | None) -> int:
    """Splits of so many pictures: as asked, else 10, or one a picture where there are fewer."""
    return max(1, min(USUAL_SPLITS, count)) if asked is None else asked


def inception_score(probabilities: NDArray[Any], splits: int = 10) -> InceptionScore:
    """Inception Score of the class probabilities [N, C] of N pictures; 0 log 0 is 0, so one-hot rows are fine.

    A split's score is exp(H(mean of its rows) - mean of H(row)), which equals the mean divergence.

    Raises:
        ScoreError: rows that are not probabilities (logits, for one), or fewer rows than splits.
    """
    p = _checked(probabilities, "probabilities")
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
    values = _checked(logits, "logits")
    split_bounds(len(values), splits)  # before the softmax of an empty array
    return inception_score(softmax(values), splits)


def _x_log_x(p: NDArray[np.float64]) -> NDArray[np.float64]:
    return p * np.log(p, out=np.zeros_like(p), where=p > 0)


def _checked(values: NDArray[Any], what: str) -> NDArray[np.float64]:
    """The same in float64, where they are finite numbers [N, classes]."""
    rows = np.asarray(values, np.float64)
    found = f"shape {list(rows.shape)}"
    if rows.ndim == 2 and rows.shape[1] > 0:
        if np.isfinite(rows).all():
            return rows
        found = f"{int((~np.isfinite(rows)).sum())} values that are not finite"
    raise ScoreError(f"these are not {what}", found=found, expected="finite numbers [N, classes]")


def order_warnings(score: ScoreFacts, shuffle_seed: int | None) -> list[str]:
    """Whether an Inception Score was spoilt by pictures sorted by class, whose order was kept (no `shuffle_seed`)."""
    if shuffle_seed is not None or score["mean"] >= SORTED_BELOW * score["one_split"]:
        return []
    return [
        f"the mean over splits, {score['mean']:.2f}, is far below the score as one split, {score['one_split']:.2f}: "
        "the pictures seem to be sorted; shuffle them"
    ]


def _warnings(inputs: MetricInputs, facts: ScoreFacts) -> list[str]:
    splits = facts["splits"]
    if inputs.options.splits is None and splits < USUAL_SPLITS:
        return [f"{splits} splits of a picture each instead of {USUAL_SPLITS}: so few pictures say nothing"]
    return order_warnings(facts, inputs.options.shuffle_seed)


def _compute(inputs: MetricInputs) -> ScoreFacts:
    logits = inputs.outputs.logits
    splits = splits_of(len(logits), inputs.options.splits)
    result = inception_score_from_logits(logits, splits)
    return {
        "mean": result.mean,
        "deviation": result.deviation,
        "ddof": 0,
        "splits": splits,
        "per_split": result.per_split.tolist(),
        "pictures_per_split": [end - start for start, end in split_bounds(len(logits), splits)],
        "one_split": inception_score_from_logits(logits, 1).mean,
    }


def _rows(facts: ScoreFacts) -> Rows:
    low, high = min(facts["pictures_per_split"]), max(facts["pictures_per_split"])
    each = str(low) if low == high else f"{low} to {high}"
    return [
        ("Inception Score", f"{facts['mean']:.3f} +- {facts['deviation']:.3f}"),
        ("splits", f"{facts['splits']} of {each} pictures, ddof 0"),
        ("per split", " ".join(f"{value:.3f}" for value in facts["per_split"])),
        ("as one split", f"{facts['one_split']:.3f}"),
    ]


METRIC = Metric(
    name="is",
    key="inception_score",
    label="Inception Score",
    needs=Needs.LOGITS,
    compute=_compute,
    rows=_rows,
    values=("mean",),
    noise="deviation",
    settings=("splits", "ddof", "pictures_per_split"),
    warnings=_warnings,
    check=lambda pictures, _, splits: split_bounds(pictures, splits_of(pictures, splits)),
    summary="Inception Score {mean:.4g}",
    column=Column(
        "Inception Score",
        "Inception Score, our judge",
        "{mean:.2f} ± {deviation:.2f}",
        "Inception Score: mean ± standard deviation (ddof 0) over {splits} splits.",
    ),
)
