"""Frechet distance between two sets of features, taken as two normal distributions (Heusel et al., 2017)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.errors import ScoreError


class FeatureStatistics:
    """Mean and covariance of features that arrive in batches, in float64 and in memory that does not grow.

    Batches are joined by Chan, Golub and LeVeque's update, which keeps its digits where the mean is far from zero.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean: NDArray[np.float64] = np.zeros(0)
        self._scatter: NDArray[np.float64] = np.zeros((0, 0))

    @classmethod
    def of(cls, features: NDArray[Any]) -> "FeatureStatistics":
        """Statistics of one array [N, F]."""
        statistics = cls()
        statistics.add(features)
        return statistics

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "FeatureStatistics":
        """Statistics that were kept as `arrays`.

        Raises:
            ScoreError: arrays that are none.
        """
        statistics = cls()
        try:
            statistics.count = int(arrays["count"])
            statistics._mean, statistics._scatter = (
                np.asarray(arrays[name], np.float64) for name in ("mean", "scatter")
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ScoreError(f"these are no statistics of features: {error!r}") from error
        width = statistics.dimensions
        fits = statistics._mean.shape == (width,) and statistics._scatter.shape == (width, width)
        if not fits or statistics.count < 1 or not np.isfinite(statistics._scatter).all():
            raise ScoreError("these are no statistics of features", found=f"{statistics.count} pictures")
        return statistics

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """All there is to keep: "count", "mean" [F] and "scatter" [F, F], the covariance times count - 1."""
        return {"count": np.array(self.count), "mean": self._mean, "scatter": self._scatter}

    def add(self, features: NDArray[Any]) -> None:
        """Take a batch [N, F].

        Raises:
            ScoreError: values that are not finite, or another F than before.
        """
        batch = np.asarray(features, np.float64)
        if batch.ndim != 2 or not np.isfinite(batch).all():
            raise ScoreError("features can't be used", found=f"shape {list(batch.shape)}", expected="finite [N, F]")
        if self.count == 0:
            width = batch.shape[1]
            self._mean, self._scatter = np.zeros(width), np.zeros((width, width))
        elif batch.shape[1] != self.dimensions:
            raise ScoreError(
                "features of another width", found=str(batch.shape[1]), expected=f"{self.dimensions}, as before"
            )
        if len(batch) == 0:
            return
        mean = batch.mean(axis=0)
        step, total = mean - self._mean, self.count + len(batch)
        shift = step * np.sqrt(self.count * len(batch) / total)  # as one more row: [F, F] is worked out only once
        rows = np.concatenate([batch - mean, shift[None]])
        self._scatter += rows.T @ rows
        self._mean = self._mean + step * (len(batch) / total)
        self.count = total

    @property
    def dimensions(self) -> int:
        """F, the width of the features."""
        return len(self._mean)

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean [F]."""
        return self._mean

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Covariance [F, F] with ddof 1.

        Raises:
            ScoreError: fewer than two rows so far.
        """
        if self.count < 2:
            raise ScoreError("no covariance", found=f"{self.count} pictures", expected="at least 2")
        return self._scatter / (self.count - 1)

    @property
    def is_rank_deficient(self) -> bool:
        """True where there are too few rows for a covariance of full rank."""
        return self.count <= self.dimensions


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """|mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), in float64; identical sets may give about -1e-13.

    The trace of the root is the sum of the roots of the eigenvalues of C_a^(1/2) C_b C_a^(1/2), which is symmetric,
    so that no complex numbers arise.

    Raises:
        ScoreError: features of different widths, or fewer than two pictures.
    """
    if a.dimensions != b.dimensions:
        raise ScoreError(
            "features of different judges can't be compared",
            found=f"{a.dimensions} and {b.dimensions} numbers a picture",
            expected="the same judge for both",
        )
    covariance_a, covariance_b = a.covariance, b.covariance
    values, vectors = np.linalg.eigh(covariance_a)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    product = root @ covariance_b @ root
    shared = np.sqrt(np.linalg.eigvalsh((product + product.T) / 2).clip(min=0)).sum()
    difference = a.mean - b.mean
    return float(difference @ difference + np.trace(covariance_a) + np.trace(covariance_b) - 2 * shared)
