"""What a judge gives of a set of pictures, and how it is asked to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.errors import ScoreError
from attngan_deploy.score.passport import PictureFacts

BATCH_SIZE = 16  # as fast as 64 on CPUs, in 150 MB less
SHUFFLE_SEED = 2020  # torch-fidelity's


@dataclass(frozen=True)
class ScoreOptions:
    """How to score."""

    metrics: Sequence[str] = ("is",)  # names of some of `metrics.registry.METRICS`
    splits: int | None = None  # splits of the Inception Score; None for 10, or one a picture where there are fewer
    crop: int | None = None  # side of a centre crop in pixels, or None
    order: str = "auto"  # one of `pictures.ORDERS`; of files only
    # shuffles that order as torch-fidelity does, so that no split holds a few classes only; None keeps it
    shuffle_seed: int | None = SHUFFLE_SEED
    batch_size: int = BATCH_SIZE  # pictures that the judge looks at together
    threads: int | None = None  # threads that decode; None for one a core
    strict: bool = False  # a broken picture is an error


class FeatureStatistics:
    """Mean and covariance of features that arrive in batches, in float64 and in memory that does not grow.

    Batches are joined by Chan, Golub and LeVeque's update, which keeps its digits where the mean is far from zero.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: NDArray[np.float64] = np.zeros(0)
        self._scatter: NDArray[np.float64] = np.zeros((0, 0))

    @classmethod
    def of(cls, features: NDArray[Any]) -> "FeatureStatistics":
        """Statistics of one array [N, F]."""
        statistics = cls()
        statistics.add(features)
        return statistics

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "FeatureStatistics":
        """Statistics that were kept as `arrays`; a ScoreError where they are none."""
        statistics = cls()
        try:
            statistics.count = int(arrays["count"])
            statistics.mean, statistics._scatter = (
                np.asarray(arrays[name], np.float64) for name in ("mean", "scatter")
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ScoreError(f"these are no statistics of features: {error!r}") from error
        width = statistics.dimensions
        fits = statistics.mean.shape == (width,) and statistics._scatter.shape == (width, width)
        finite = np.isfinite(statistics.mean).all() and np.isfinite(statistics._scatter).all()
        if not fits or statistics.count < 1 or not finite:
            found = f"{statistics.count} pictures, mean {statistics.mean.shape}, scatter {statistics._scatter.shape}"
            raise ScoreError("these are no statistics of features", found=found)
        return statistics

    @classmethod
    def from_covariance(cls, mean: NDArray[np.float64], covariance: NDArray[np.float64]) -> "FeatureStatistics":
        """Statistics of an unknown number of pictures, taken as enough of them; a ScoreError as `from_arrays`."""
        count = 1 + 2 ** mean.size.bit_length()  # a power of two, by which no number loses a digit
        return cls.from_arrays({"count": np.array(count), "mean": mean, "scatter": covariance * (count - 1)})

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """All there is to keep: "count", "mean" [F] and "scatter" [F, F], the covariance times count - 1."""
        return {"count": np.array(self.count), "mean": self.mean, "scatter": self._scatter}

    def add(self, features: NDArray[Any]) -> None:
        """Take a batch [N, F]; a ScoreError where values are not finite, or F is another one than before."""
        batch = np.asarray(features, np.float64)
        if batch.ndim != 2 or not np.isfinite(batch).all():
            raise ScoreError("features can't be used", found=f"shape {list(batch.shape)}", expected="finite [N, F]")
        if self.count == 0:
            width = batch.shape[1]
            self.mean, self._scatter = np.zeros(width), np.zeros((width, width))
        elif batch.shape[1] != self.dimensions:
            raise ScoreError(
                "features of another width", found=str(batch.shape[1]), expected=f"{self.dimensions}, as before"
            )
        if len(batch) == 0:
            return
        mean = batch.mean(axis=0)
        step, total = mean - self.mean, self.count + len(batch)
        shift = step * np.sqrt(self.count * len(batch) / total)  # as one more row: [F, F] is worked out only once
        rows = np.concatenate([batch - mean, shift[None]])
        self._scatter += rows.T @ rows
        self.mean = self.mean + step * (len(batch) / total)
        self.count = total

    @property
    def dimensions(self) -> int:
        """F, the width of the features."""
        return len(self.mean)

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Covariance [F, F] with ddof 1; a ScoreError where there are fewer than two rows so far."""
        if self.count < 2:
            raise ScoreError("no covariance", found=f"{self.count} pictures", expected="at least 2")
        return self._scatter / (self.count - 1)

    @property
    def is_rank_deficient(self) -> bool:
        """True where there are too few rows for a covariance of full rank."""
        return self.count <= self.dimensions


def no_features() -> NDArray[np.float32]:
    """Features that were not kept."""
    return np.zeros((0, 0), np.float32)


@dataclass(frozen=True)
class JudgeOutputs:
    """What a judge gave of one set of pictures, in the order in which they count."""

    facts: PictureFacts  # what was measured
    logits: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))  # f64 [N, C]
    # of the features, where a metric needs them
    statistics: FeatureStatistics = field(default_factory=FeatureStatistics)
    # f32 [N, F], where a metric needs every picture's; otherwise empty
    features: NDArray[np.float32] = field(default_factory=no_features)
    captions: list[str] = field(default_factory=list)  # what each picture shows, or ""
    # i64 [N], the class of each, or -1
    class_ids: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    note: str = ""  # what was wrong with what had been kept of them, in a line; "" if nothing


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities float64 [N, C] of logits [N, C]."""
    shifted = np.asarray(logits, np.float64)
    shifted = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return probabilities
