"""Pictures -> what a judge saw -> metrics -> passport."""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from attngan_deploy.errors import ScoreError
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.score.generated import GeneratedPictures
from attngan_deploy.score.judge import Judge
from attngan_deploy.score.matcher import Matcher
from attngan_deploy.score.measure import (
    DISTANCES,
    METRICS,
    Measured,
    Progress,
    ScoreOptions,
    judge_facts,
    measure,
    no_features,
)
from attngan_deploy.score.metrics.frechet import FeatureStatistics, frechet_distance
from attngan_deploy.score.metrics.inception_score import inception_score_from_logits, split_bounds
from attngan_deploy.score.metrics.kernel import SEED, SUBSET_SIZE, SUBSETS, kernel_distance_of_subsets
from attngan_deploy.score.passport import Passport, PictureFacts, order_warnings, picture_warnings, size_warnings
from attngan_deploy.score.pictures import PictureSource, find_pictures
from attngan_deploy.score.reference_cache import Reference, measure_reference

Scores = dict[str, dict[str, Any]]


def measure_and_score(
    source: Path | PictureSource,
    judge: Judge,
    options: ScoreOptions | None = None,
    reference: Path | None = None,
    progress: Progress | None = None,
    matcher: Matcher | None = None,
) -> Passport:
    """Score pictures.

    Args:
        source: folder of pictures or of shards, a tar, or e.g. `GeneratedPictures`.
        judge: who measures.
        options: how.
        reference: real pictures, for the distances; read like a folder of `source`, and cropped alike.
        progress: called with (pictures done, pictures in all).
        matcher: who tells captions apart for R-precision; None loads the one that ships.

    Raises:
        ScoreError: pictures, options, a judge or a matcher from which no honest score can be made.
        BundleError: the matcher can't be had.
        DataError: a damaged tar.
    """
    options = options or ScoreOptions()
    check_options(options, isinstance(source, GeneratedPictures), reference)
    pictures = find_pictures(source, options.order) if isinstance(source, Path) else source
    if isinstance(pictures, GeneratedPictures):
        _check_count(pictures, options)
    if "r-precision" in options.metrics:
        matcher = matcher or Matcher.load(threads=options.threads)
        matcher.check_judge(judge)
    else:
        matcher = None
    known = None if reference is None else measure_reference(reference, judge, options, progress)
    passport = passport_of(measure(pictures, judge, options, progress), judge, options, known, matcher)
    if "words" in options.metrics and isinstance(pictures, GeneratedPictures):
        return replace(passport, scores={**passport.scores, **_words(pictures.model, pictures.batch_size)})
    return passport


def passport_of(
    measured: Measured,
    judge: Judge,
    options: ScoreOptions,
    known: Reference | None = None,
    matcher: Matcher | None = None,
) -> Passport:
    """Every score of `options.metrics` but words, of what a judge saw; its features are used up.

    Args:
        known: reference pictures, for fid and kid.
        matcher: who tells captions apart, for r-precision.

    Raises:
        ScoreError: too few pictures for a score, or none with the captions that it needs.
    """
    warnings = picture_warnings(measured.facts)
    scores = _scores_of_pictures(measured, options, matcher, warnings)
    if known is not None:
        scores |= _distances(measured, known, options, warnings)
    return Passport(
        scores,
        judge_facts(judge),
        measured.facts,
        None if known is None else known.facts,
        warnings,
        version("attngan-deploy"),
        None if matcher is None else {"name": matcher.name, "hash": matcher.hash},
    )


def score_words(model: TextToImage, batch_size: int | None = None) -> Passport:
    """Word fidelity alone: the metric makes pictures of its own captions, and no judge looks at them.

    Raises:
        ScoreError, EngineError: see `word_fidelity`.
    """
    side = model.picture_size
    facts = PictureFacts(
        source=model.bundle.name,
        found=0,
        used=0,
        skipped=[],
        other_files=[],
        width=side,
        height=side,
        crop=None,
        resize="none",
        formats={},
        order="manifest",
        shuffle_seed=None,
    )
    return Passport(_words(model, batch_size), None, facts, version=version("attngan-deploy"))


def check_options(options: ScoreOptions, is_model: bool, reference: Path | None) -> None:
    """Refuse metrics that do not exist or lack what they need, before anything is read.

    Args:
        is_model: whether a model makes the pictures.

    Raises:
        ScoreError: says what to add.
    """
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
    if is_model and options.order != "auto":
        raise ScoreError("the pictures of --model have one order", found=f"--order {options.order}")
    if "words" in options.metrics and not is_model:
        raise ScoreError(
            "words is measured on a model, which makes pictures of other captions for it",
            found="pictures",
            expected="--model",
            next_step="t2i score --model base --metric words",
        )


def _check_count(pictures: GeneratedPictures, options: ScoreOptions) -> None:
    """Refuse numbers of pictures that a metric can't use before they are made, not after."""
    if "is" in options.metrics:
        split_bounds(pictures.count(), options.splits)
    if "diversity" in options.metrics and pictures.count() <= (captions := pictures.generated["captions"]):
        raise ScoreError(
            "diversity needs captions with two pictures or more",
            found=f"{pictures.count()} pictures of {captions} captions",
            next_step="add --n with ten times the number of captions, or take fewer captions",
        )


def _scores_of_pictures(
    measured: Measured, options: ScoreOptions, matcher: Matcher | None, warnings: list[str]
) -> Scores:
    scores: Scores = {}
    if "is" in options.metrics:
        scores["inception_score"] = _inception_score(measured, options)
        warnings += order_warnings(scores["inception_score"], options.shuffle_seed)
    if matcher is not None:
        from attngan_deploy.score.metrics.r_precision import CANDIDATES, r_precision

        codes = matcher.codes(measured.features)
        scores["r_precision"] = found = r_precision(codes, measured.captions, measured.class_ids, matcher)
        if found["candidates"] < CANDIDATES:
            warnings.append(
                f"R-precision is 1 of {found['candidates']} instead of {CANDIDATES}, for want of other captions: it "
                "is higher than it would be, and not comparable with that of real pictures"
            )
    if "diversity" in options.metrics:
        from attngan_deploy.score.metrics.diversity import diversity

        scores["diversity"] = diversity(measured.features, measured.captions)
    return scores


def _distances(measured: Measured, known: Reference, options: ScoreOptions, warnings: list[str]) -> Scores:
    scores: Scores = {}
    warnings += [*picture_warnings(known.facts, "reference: "), *size_warnings(measured.facts, known.facts)]
    warnings += [known.note] if known.note else []
    if "kid" in options.metrics:
        scores["kernel_distance"] = _kernel_distance(measured, known)
    if "fid" in options.metrics:
        measured.features = no_features()  # 150 MB of 30,000 pictures that nobody needs any more
        scores["frechet_distance"] = {"value": frechet_distance(measured.statistics, known.statistics)}
        warnings += _rank_warnings(measured.facts, measured.statistics) + _rank_warnings(known.facts, known.statistics)
    return scores


def _words(model: TextToImage, batch_size: int | None) -> Scores:
    from attngan_deploy.score.metrics.word_fidelity import word_fidelity

    return {"word_fidelity": word_fidelity(model, batch_size=batch_size)}


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


def _kernel_distance(measured: Measured, reference: Reference) -> dict[str, Any]:
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


def _rank_warnings(facts: PictureFacts, statistics: FeatureStatistics) -> list[str]:
    if not statistics.is_rank_deficient:
        return []
    return [
        f"{facts.source}: {facts.used} pictures are too few for the covariance of {statistics.dimensions} features "
        "(rank-deficient): the Frechet distance is far too high"
    ]
