"""Whether two engines, precisions or programs make equally good pictures of one model, not only similar pixels.

Both make pictures of the same captions from the same seeds, so that all noise but their own difference cancels.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.errors import ScoreError
from attngan_deploy.generate.features import Batch
from attngan_deploy.media.images import resize_pictures
from attngan_deploy.score.generated import spread
from attngan_deploy.score.judge import BATCH_SIZE, Judge
from attngan_deploy.score.measure import Progress
from attngan_deploy.score.metrics.frechet import frechet_distance
from attngan_deploy.score.metrics.inception_score import inception_score_from_logits, split_bounds
from attngan_deploy.score.outputs import SHUFFLE_SEED, FeatureStatistics

SEEDS = (0, 1, 2)
LEAST_SEEDS = 3
STANDARD_ERRORS = 2


class PictureMaker(Protocol):
    """What makes pictures: a `TextToImage` of any engine, or of a checkpoint `export.parity.torch_maker`'s."""

    @property
    def description(self) -> str:
        """What runs it."""

    def stream(
        self,
        captions: Sequence[str],
        seed: int = ...,
        *,
        batch_size: int | None = ...,
        places: Iterable[tuple[int, int]] | None = ...,
    ) -> Iterator[Batch]:
        """Pictures of places (caption, sample), in their order, with the noise of `noise.noise_batch`."""


@dataclass(frozen=True)
class RegressionLimits:
    """What a difference may be at most, as a share of what it is compared with."""

    # of the first maker's Inception Score. 1 %: published scores have a deviation over splits of about 0.05 of 4.5, so
    # that a smaller change can't be seen in any table of the field.
    inception_score: float = 0.01
    # of the spread of the first maker's features, the trace of their covariance. 2 %: bfloat16 in OpenVINO stays below
    # 1 %, exchanged colours or a lost detail are at tens. The distance of paired sets is at most the mean squared
    # difference of their pairs, so that this does not depend on how many there are.
    frechet_distance: float = 0.02
    reference: float = 0.02  # of the first maker's Frechet distance to real pictures: 2 %


@dataclass(frozen=True)
class Check:
    """One difference against its limit."""

    name: str  # what was measured
    # a, b: means over seeds of what is compared: both scores, or the spread of the features and the distance
    a: float
    b: float
    difference: float  # mean over seeds; of the distance, the distance itself
    noise: float  # its standard error over seeds
    limit: float  # what |difference| + 2 standard errors may be at most: a noisy measurement can't pass by its noise

    @property
    def passed(self) -> bool:
        """False also where a number is not one."""
        return abs(self.difference) + STANDARD_ERRORS * self.noise <= self.limit

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "passed": self.passed}

    def __str__(self) -> str:
        """One line."""
        return (
            f"{'pass' if self.passed else 'FAIL'}  {self.name}: {self.difference:+.4g} +- {self.noise:.2g} "
            f"({self.a:.4g} and {self.b:.4g}), limit {self.limit:.3g}"
        )


@dataclass(frozen=True)
class Regression:
    """What came out."""

    # a, b: what ran
    a: str
    b: str
    judge: str  # name and hash of who measured
    judge_hash: str
    # seeds, count, captions, splits: how many pictures a seed, of how many captions
    seeds: list[int]
    count: int
    captions: int
    splits: int
    identical: float  # share of pictures that are equal in every pixel
    checks: list[Check]  # every difference against its limit
    per_seed: list[dict[str, float]]  # what was measured with each seed

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "checks": [check.to_json() for check in self.checks], "passed": self.passed}

    def __str__(self) -> str:
        """A line for each check, after who and how."""
        head = (
            f"{self.b}\nagainst {self.a}\n{self.count} pictures of {self.captions} captions with each of "
            f"{len(self.seeds)} seeds by judge {self.judge} {self.judge_hash[:12]}; {self.identical:.1%} are identical"
        )
        return "\n".join([head, *map(str, self.checks)])


def regression(
    a: PictureMaker,
    b: PictureMaker,
    judge: Judge,
    captions: Sequence[str],
    seeds: Sequence[int] = SEEDS,
    count: int = 1000,
    limits: RegressionLimits | None = None,
    reference: FeatureStatistics | None = None,
    splits: int = 1,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Regression:
    """Judge the pictures of `b` against those of `a`, of the same captions and seeds.

    Three differences, each with its standard error over seeds: of the Inception Score; the Frechet distance between
    the two sets; and of the Frechet distances to real pictures, where a reference is given. One passes where
    |mean| + 2 standard errors is within its limit. The Inception Score alone would not do: a generator whose red and
    blue are exchanged can score as well as before, but lies far from where it was.

    Pictures of `b` that equal those of `a` are not looked at twice, so that an engine differs from itself by exactly 0.

    Args:
        a: the reference, such as float32.
        b: what is checked.
        captions: C texts; the first `count` are used.
        seeds: three or more.
        count: pictures a seed by each; spread over captions, sorted by caption.
        limits: None for the defaults.
        reference: features of real pictures by this judge.
        splits: of the Inception Score. 1 has the least bias at few pictures, and splits cancel in a difference.

    Raises:
        ScoreError: fewer than three seeds or two pictures, or makers whose pictures differ in number or size.
        CaptionError: a caption that can't be used.
    """
    limits = limits or RegressionLimits()
    _check(captions, seeds, count, splits, limits)
    captions = list(captions[:count])
    per_seed, identical = [], 0
    for number, seed in enumerate(seeds):
        told = (progress, number * count, len(seeds) * count)
        logits, (ours, theirs), same = _look(a, b, judge, captions, seed, count, batch_size, told)
        row = {"seed": float(seed)}
        for side, rows in zip("ab", logits, strict=True):
            row[f"inception_score_{side}"] = inception_score_from_logits(rows, splits).mean
        are_equal = np.array_equal(ours.mean, theirs.mean) and np.array_equal(ours.covariance, theirs.covariance)
        row["frechet_distance"] = 0.0 if are_equal else frechet_distance(ours, theirs)  # which may give 1e-13 for both
        row["spread"] = float(np.trace(ours.covariance))
        if reference is not None:
            row["reference_a"] = row["reference_b"] = frechet_distance(ours, reference)
            if row["frechet_distance"] != 0:
                row["reference_b"] = frechet_distance(theirs, reference)
        per_seed.append(row)
        identical += same
    return Regression(
        a.description,
        b.description,
        judge.name,
        judge.hash,
        list(seeds),
        count,
        len(captions),
        splits,
        identical / (count * len(seeds)),
        _checks(per_seed, limits),
        per_seed,
    )


def _checks(per_seed: list[dict[str, float]], limits: RegressionLimits) -> list[Check]:
    def column(name: str) -> NDArray[np.float64]:
        return np.array([row[name] for row in per_seed if name in row])

    def check(name: str, a: NDArray[np.float64], b: NDArray[np.float64], limit: float) -> Check:
        mean, error = _mean_and_error(b - a)
        return Check(name, float(a.mean()), float(b.mean()), mean, error, limit)

    score = column("inception_score_a")
    between, variance = column("frechet_distance"), float(column("spread").mean())
    mean, error = _mean_and_error(between)
    checks = [
        check("Inception Score", score, column("inception_score_b"), limits.inception_score * float(score.mean())),
        Check("Frechet distance between both", variance, mean, mean, error, limits.frechet_distance * variance),
    ]
    if (real := column("reference_a")).size:
        limit = limits.reference * float(real.mean())
        checks.append(check("Frechet distance to the reference", real, column("reference_b"), limit))
    return checks


def _mean_and_error(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean, and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def _look(
    a: PictureMaker,
    b: PictureMaker,
    judge: Judge,
    captions: list[str],
    seed: int,
    count: int,
    batch_size: int | None,
    told: tuple[Progress | None, int, int],
) -> tuple[list[NDArray[np.float64]], tuple[FeatureStatistics, FeatureStatistics], int]:
    """What the judge saw of the pictures of both with one seed: logits, features, and how many pictures are equal."""
    statistics = FeatureStatistics(), FeatureStatistics()
    logits: tuple[list[NDArray[Any]], list[NDArray[Any]]] = [], []
    seen = identical = 0
    streams = [_batches(maker, captions, seed, count, batch_size) for maker in (a, b)]
    progress, done, total = told
    for ours, theirs in zip_longest(*streams):
        if ours is None or theirs is None or ours.shape != theirs.shape:
            shapes = ["none" if made is None else str(list(made.shape)) for made in (ours, theirs)]
            raise ScoreError("the two do not make pictures of one number and size", found=" and ".join(shapes))
        same = (ours == theirs).reshape(len(ours), -1).all(axis=1)
        identical += int(same.sum())
        outputs = judge.look(resize_pictures(ours, judge.size))
        others = outputs if same.all() else judge.look(resize_pictures(theirs, judge.size))
        for side, (rows, features) in enumerate((outputs, others)):
            logits[side].append(rows)
            statistics[side].add(features)
        seen += len(ours)
        if progress is not None:
            progress(done + seen, total)
    order = np.random.RandomState(SHUFFLE_SEED).permutation(count)
    return [np.concatenate(rows).astype(np.float64)[order] for rows in logits], statistics, identical


def _batches(
    maker: PictureMaker, captions: list[str], seed: int, count: int, batch_size: int | None
) -> Iterator[NDArray[np.uint8]]:
    """Pictures in batches of the judge's size, however they were made."""
    waiting: list[NDArray[np.uint8]] = []
    for batch in maker.stream(captions, seed, batch_size=batch_size, places=spread(len(captions), count)):
        waiting.append(batch.pictures)
        if sum(map(len, waiting)) >= BATCH_SIZE:
            whole = np.concatenate(waiting)
            cut = len(whole) // BATCH_SIZE * BATCH_SIZE
            yield from np.split(whole[:cut], cut // BATCH_SIZE)
            waiting = [whole[cut:]] if cut < len(whole) else []
    if waiting:
        yield np.concatenate(waiting)


def _check(captions: Sequence[str], seeds: Sequence[int], count: int, splits: int, limits: RegressionLimits) -> None:
    if len(set(seeds)) < LEAST_SEEDS or len(set(seeds)) != len(seeds):
        raise ScoreError(
            "too few seeds to know the noise of a difference",
            found=", ".join(map(str, seeds)) or "none",
            expected=f"at least {LEAST_SEEDS} different ones",
            next_step="t2i score --help",
        )
    if count < 2 or not captions:
        raise ScoreError(
            "too few pictures",
            found=f"{count} of {len(captions)} captions",
            expected="at least 2, and a caption",
            next_step="more captions",
        )
    split_bounds(count, splits)
    if not all(np.isfinite(limit) and limit > 0 for limit in asdict(limits).values()):
        raise ScoreError("a limit must be above 0", found=str(limits), next_step="t2i score --help")
