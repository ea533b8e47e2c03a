"""Frechet distance between two sets of features, taken as two normal distributions (Heusel et al., 2017)."""

import numpy as np

from attngan_deploy.errors import ScoreError
from attngan_deploy.score.metrics.metric import Column, Metric, MetricInputs, Needs, ScoreFacts
from attngan_deploy.score.outputs import FeatureStatistics
from attngan_deploy.system.signals import interruptibly


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """|mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), in float64; identical sets may give about -1e-13.

    The trace of the root is the sum of the roots of the eigenvalues of C_a^(1/2) C_b C_a^(1/2), which is symmetric,
    so that no complex numbers arise.

    Raises:
        ScoreError: features of different widths, or so large that it has no value; or fewer than two pictures.
    """
    if a.dimensions != b.dimensions:
        raise ScoreError(
            "features of different judges can't be compared",
            found=f"{a.dimensions} and {b.dimensions} numbers a picture",
            expected="the same judge for both",
        )
    covariance_a, covariance_b = a.covariance, b.covariance
    values, vectors = interruptibly(lambda: np.linalg.eigh(covariance_a))
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    product = root @ covariance_b @ root
    squares = interruptibly(lambda: np.linalg.eigvalsh((product + product.T) / 2))
    shared = np.sqrt(squares.clip(min=0)).sum()
    difference = a.mean - b.mean
    with np.errstate(over="ignore", invalid="ignore"):  # said below, in words
        distance = float(difference @ difference + np.trace(covariance_a) + np.trace(covariance_b) - 2 * shared)
    if not np.isfinite(distance):
        raise ScoreError(
            "the Fréchet distance is no finite number",
            expected="features of a size that networks make",
            next_step="--reference with a folder or a .tar of the real pictures",
        )
    return distance


def _compute(inputs: MetricInputs) -> ScoreFacts:
    assert inputs.reference is not None
    return {"value": frechet_distance(inputs.outputs.statistics, inputs.reference.statistics)}


def _warnings(inputs: MetricInputs, _: ScoreFacts) -> list[str]:
    assert inputs.reference is not None
    return [
        f"{each.facts.source}: {each.facts.used} pictures are too few for the covariance of "
        f"{each.statistics.dimensions} features (rank-deficient): the Frechet distance is far too high"
        for each in (inputs.outputs, inputs.reference)
        if each.statistics.is_rank_deficient
    ]


METRIC = Metric(
    name="fid",
    key="frechet_distance",
    label="Frechet distance",
    needs=Needs.STATISTICS | Needs.REFERENCE,
    compute=_compute,
    warnings=_warnings,
    rows=lambda facts: [("Frechet distance", f"{facts['value']:.3f}, of this judge's features")],
    summary="Fréchet distance {value:.4g}",
    column=Column("Fréchet distance", "Fréchet distance", "{value:.1f}"),
)
