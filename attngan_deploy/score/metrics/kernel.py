"""Kernel distance between two sets of features: squared MMD with a cubic kernel (Binkowski et al., 2018)."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.errors import ScoreError
from attngan_deploy.score.metrics.metric import Metric, MetricInputs, Needs, Rows, ScoreFacts

SUBSETS, SUBSET_SIZE, SEED = 100, 1000, 2020  # torch-fidelity's


class KernelDistance(NamedTuple):
    """Mean and standard deviation (ddof 0) over subsets, and the distance of each."""

    mean: float
    deviation: float
    per_subset: NDArray[np.float64]


def kernel_distance(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Unbiased squared MMD of features [N, F] and [M, F] with the kernel (x.y / F + 1)^3; may be negative.

    Raises:
        ScoreError: other shapes, or fewer than two rows.
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    _check(x, y, 2)
    width = x.shape[1]
    within = [_off_diagonal_mean((z @ z.T / width + 1) ** 3) for z in (x, y)]
    return float(sum(within) - 2 * ((x @ y.T / width + 1) ** 3).mean())


def kernel_distance_of_subsets(
    a: NDArray[Any], b: NDArray[Any], subsets: int = SUBSETS, size: int = SUBSET_SIZE, seed: int = SEED
) -> KernelDistance:
    """`kernel_distance` of random subsets of both, drawn as torch-fidelity draws them; rows are at least `size`."""
    x, y = np.asarray(a), np.asarray(b)
    _check(x, y, size)
    rng = np.random.RandomState(seed)
    distances = [
        kernel_distance(x[rng.choice(len(x), size, replace=False)], y[rng.choice(len(y), size, replace=False)])
        for _ in range(subsets)
    ]
    per_subset = np.array(distances)
    return KernelDistance(float(per_subset.mean()), float(per_subset.std()), per_subset)


def _off_diagonal_mean(kernel: NDArray[np.float64]) -> float:
    count = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (count * (count - 1)))


def _check(x: NDArray[Any], y: NDArray[Any], least: int) -> None:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ScoreError(
            "features can't be compared", found=f"{list(x.shape)} and {list(y.shape)}", expected="[N, F] and [M, F]"
        )
    if min(len(x), len(y)) < max(least, 2):
        raise ScoreError(
            "too few pictures for the kernel distance",
            found=f"{len(x)} and {len(y)}",
            expected=f"at least {max(least, 2)} of each",
        )


def _compute(inputs: MetricInputs) -> ScoreFacts:
    assert inputs.reference is not None
    features, real = inputs.outputs.features, inputs.reference.features
    size = min(SUBSET_SIZE, len(features), len(real))
    result = kernel_distance_of_subsets(features, real, SUBSETS, size, SEED)
    return {
        "mean": result.mean,
        "deviation": result.deviation,
        "ddof": 0,
        "subsets": SUBSETS,
        "subset_size": size,
        "seed": SEED,
    }


def _rows(facts: ScoreFacts) -> Rows:
    subsets = f"{facts['subsets']} subsets of {facts['subset_size']}, seed {facts['seed']}"
    return [("kernel distance", f"{facts['mean']:.5f} +- {facts['deviation']:.5f}, {subsets}")]


METRIC = Metric(
    name="kid",
    key="kernel_distance",
    label="kernel distance",
    needs=Needs.FEATURES | Needs.REFERENCE,
    compute=_compute,
    rows=_rows,
    values=("mean",),
    noise="deviation",
    settings=("ddof", "subsets", "subset_size", "seed"),
    summary="kernel distance {mean:.4g}",
)
