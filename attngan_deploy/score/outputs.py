"""What a judge gives of a set of pictures, and how it is asked to."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.score.feature_statistics import FeatureStatistics
from attngan_deploy.score.passport import PictureFacts

BATCH_SIZE = 16  # as fast as 64 on CPUs, in 150 MB less
SHUFFLE_SEED = 2020  # torch-fidelity's


@dataclass(frozen=True)
class ScoreOptions:
    """How to score.

    Attributes:
        metrics: names of some of `metrics.registry.METRICS`.
        splits: splits of the Inception Score.
        crop: side of a centre crop in pixels, or None.
        order: one of `pictures.ORDERS`; of files only.
        shuffle_seed: shuffles that order as torch-fidelity does, so that no split holds a few classes only; None
            keeps it.
        batch_size: pictures that the judge looks at together.
        threads: threads that decode; None for one a core.
        strict: a broken picture is an error.
    """

    metrics: Sequence[str] = ("is",)
    splits: int = 10
    crop: int | None = None
    order: str = "auto"
    shuffle_seed: int | None = SHUFFLE_SEED
    batch_size: int = BATCH_SIZE
    threads: int | None = None
    strict: bool = False


def no_features() -> NDArray[np.float32]:
    """Features that were not kept."""
    return np.zeros((0, 0), np.float32)


@dataclass(frozen=True)
class JudgeOutputs:
    """What a judge gave of one set of pictures, in the order in which they count.

    Attributes:
        facts: what was measured.
        logits: f64 [N, C].
        statistics: of the features, where a metric needs them.
        features: f32 [N, F], where a metric needs every picture's; otherwise empty.
        captions: what each picture shows, or "".
        class_ids: i64 [N], the class of each, or -1.
    """

    facts: PictureFacts
    logits: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    statistics: FeatureStatistics = field(default_factory=FeatureStatistics)
    features: NDArray[np.float32] = field(default_factory=no_features)
    captions: list[str] = field(default_factory=list)
    class_ids: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True)
class ReferencePictures:
    """Real pictures that others are compared with, as a judge sees them.

    Attributes:
        facts: what was measured.
        statistics: of the features.
        features: f32 [N, F], where a kernel distance needs them; otherwise empty.
        note: what was wrong with the cache, in a line; "" if nothing.
    """

    facts: PictureFacts
    statistics: FeatureStatistics
    features: NDArray[np.float32] = field(default_factory=no_features)
    note: str = ""


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities float64 [N, C] of logits [N, C]."""
    shifted = np.asarray(logits, np.float64)
    shifted = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return probabilities
