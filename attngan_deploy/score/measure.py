"""Pictures -> judge -> metrics -> passport."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.errors import ScoreError
from attngan_deploy.score.frechet import FeatureStatistics, frechet_distance
from attngan_deploy.score.inception_score import inception_score_from_logits, split_bounds
from attngan_deploy.score.judge import Judge
from attngan_deploy.score.kernel import SEED, SUBSET_SIZE, SUBSETS, kernel_distance_of_subsets
from attngan_deploy.score.passport import (
    JudgeFacts,
    Passport,
    PictureFacts,
    describe_resize,
    order_warnings,
    picture_warnings,
)
from attngan_deploy.score.pictures import PictureFiles, Prepared, find_pictures, prepare_all

METRICS = ("is", "fid", "kid")
DISTANCES = ("fid", "kid")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ScoreOptions:
    """How to score.

    Attributes:
        metrics: some of `METRICS`.
        splits: splits of the Inception Score.
        crop: side of a centre crop in pixels, or None.
        order: one of `pictures.ORDERS`.
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
    shuffle_seed: int | None = SEED
    batch_size: int = 64
    threads: int | None = None
    strict: bool = False


@dataclass
class Measured:
    """What the judge saw of one set of pictures, in the order in which they count.

    Attributes:
        facts: what was measured.
        logits: f64 [N, C].
        statistics: of the features, where a Frechet distance needs them.
        features: f32 [N, F], where a kernel distance needs them; otherwise empty.
    """

    facts: PictureFacts
    logits: NDArray[np.float64]
    statistics: FeatureStatistics
    features: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))


def measure_and_score(
    path: Path,
    judge: Judge,
    options: ScoreOptions | None = None,
    reference: Path | None = None,
    progress: Progress | None = None,
) -> Passport:
    """Score the pictures of a folder or tar.

    Args:
        path: folder of pictures or of shards, or a tar.
        judge: who measures.
        options: how.
        reference: real pictures, for the distances; read like `path`, and cropped alike.
        progress: called with (pictures done, pictures in all).

    Raises:
        ScoreError: pictures, options or a judge from which no honest score can be made.
        DataError: a damaged tar.
    """
    options = options or ScoreOptions()
    _check_options(options, reference)
    files = find_pictures(path, options.order)
    reference_files = None if reference is None else find_pictures(reference)
    measured = measure(files, judge, options, progress)
    other = None if reference_files is None else measure(reference_files, judge, options, progress)
    scores: dict[str, dict[str, Any]] = {}
    warnings = picture_warnings(measured.facts)
    if "is" in options.metrics:
        scores["inception_score"] = _inception_score(measured, options)
        warnings += order_warnings(scores["inception_score"], options.shuffle_seed)
    if other is not None:
        warnings += picture_warnings(other.facts, "reference: ")
        if "fid" in options.metrics:
            scores["frechet_distance"] = {"value": frechet_distance(measured.statistics, other.statistics)}
            warnings += _rank_warnings(measured, other)
        if "kid" in options.metrics:
            scores["kernel_distance"] = _kernel_distance(measured, other)
    other_facts = None if other is None else other.facts
    return Passport(scores, judge_facts(judge), measured.facts, other_facts, warnings, version("attngan-deploy"))


def measure(files: PictureFiles, judge: Judge, options: ScoreOptions, progress: Progress | None = None) -> Measured:
    """Let the judge look at pictures, a batch at a time; while it looks, the next ones are decoded.

    Raises:
        ScoreError: no usable picture, a broken one with `strict`, too few for the splits, or a judge that fails.
    """
    total, seen = files.count(), 0
    names: list[str] = []
    read: set[str] = set()
    skipped: list[str] = []
    other = list(files.other_files)
    formats: Counter[str] = Counter()
    size = (0, 0)
    statistics = FeatureStatistics()
    logits: list[NDArray[np.float32]] = []
    features: list[NDArray[np.float32]] = []
    if progress is not None:
        progress(0, total)
    for batch in _batches(prepare_all(files, judge.size, options.crop, options.threads), options.batch_size):
        good = []
        read.update(item.name for item in batch)
        for item in batch:
            if files.places is not None and item.name not in files.places:
                other.append(item.name)
            elif item.pixels is None:
                skipped.append(f"{item.name}: {item.reason}")
            else:
                good.append(item)
        if skipped and options.strict:
            raise ScoreError(f"a broken picture: {skipped[0]}", next_step="repair it, or leave out --strict")
        if good:
            pixels = np.stack([item.pixels for item in good if item.pixels is not None])
            rows, vectors = judge.look(pixels, [item.name for item in good])
            logits.append(rows)
            if "fid" in options.metrics:
                statistics.add(vectors)
            if "kid" in options.metrics:
                features.append(vectors)
            names += [item.name for item in good]
            formats.update(item.file_format for item in good)
            size = good[0].size
        seen += len(batch)
        if progress is not None:
            progress(seen, max(total, seen))
    skipped += [f"{name}: in the manifest, but not there" for name in files.places or {} if name not in read]
    if not names:
        raise ScoreError(f"{files.source} has no usable picture", found=skipped[0] if skipped else "none")
    order = np.array(files.arrange(names))
    if options.shuffle_seed is not None:
        order = order[np.random.RandomState(options.shuffle_seed).permutation(len(order))]
    facts = PictureFacts(
        source=files.source,
        found=len(names) + len(skipped),
        used=len(names),
        skipped=skipped,
        other_files=other,
        width=size[0],
        height=size[1],
        crop=options.crop,
        resize=describe_resize(*size, options.crop, judge.size, judge.resize),
        formats=dict(formats),
        order=files.order,
        shuffle_seed=options.shuffle_seed,
    )
    kept = np.concatenate(features)[order] if features else np.zeros((0, 0), np.float32)
    return Measured(facts, np.concatenate(logits).astype(np.float64)[order], statistics, kept)


def judge_facts(judge: Judge) -> JudgeFacts:
    """What a passport says about a judge."""
    accuracy = judge.bundle.manifest.get("provenance", {}).get("held_out_accuracy")
    return JudgeFacts(judge.name, judge.hash, judge.classes, judge.size, accuracy, str(judge.engine.facts))


def _batches(items: Iterator[Prepared], size: int) -> Iterator[list[Prepared]]:
    batch: list[Prepared] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _inception_score(measured: Measured, options: ScoreOptions) -> dict[str, Any]:
    result = inception_score_from_logits(measured.logits, options.splits)
    return {
        "mean": result.mean,
        "deviation": result.deviation,
        "ddof": 0,
        "splits": options.splits,
        "per_split": result.per_split.tolist(),
        "pictures_per_split": [end - start for start, end in split_bounds(len(measured.logits), options.splits)],
        "one_split": inception_score_from_logits(measured.logits, 1).mean,
    }


def _kernel_distance(measured: Measured, reference: Measured) -> dict[str, Any]:
    size = min(SUBSET_SIZE, len(measured.features), len(reference.features))
    result = kernel_distance_of_subsets(measured.features, reference.features, SUBSETS, size, SEED)
    return {
        "mean": result.mean,
        "deviation": result.deviation,
        "ddof": 0,
        "subsets": SUBSETS,
        "subset_size": size,
        "seed": SEED,
    }


def _rank_warnings(*sets: Measured) -> list[str]:
    return [
        f"{item.facts.source}: {item.facts.used} pictures are too few for the covariance of "
        f"{item.statistics.dimensions} features (rank-deficient): the Frechet distance is far too high"
        for item in sets
        if item.statistics.is_rank_deficient
    ]


def _check_options(options: ScoreOptions, reference: Path | None) -> None:
    unknown = [name for name in options.metrics if name not in METRICS]
    if unknown or not options.metrics:
        raise ScoreError(f"no metric '{', '.join(unknown)}'", expected=" or ".join(METRICS))
    if (reference is not None) != any(name in DISTANCES for name in options.metrics):
        raise ScoreError(
            "fid and kid are distances to a reference" if reference is None else "a reference is given, but not used",
            expected="--metric fid or kid together with --reference",
            next_step="add --reference train.tar" if reference is None else "add --metric fid",
        )
    if min(options.splits, options.batch_size) < 1 or (options.crop is not None and options.crop < 1):
        raise ScoreError("splits, batch size and crop must be 1 or more")
