"""Pictures -> what a judge gives of them -> metrics -> passport."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from attngan_deploy.errors import ScoreError
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.score.generated import GeneratedPictures
from attngan_deploy.score.judge import Judge
from attngan_deploy.score.matcher import Matcher
from attngan_deploy.score.measure import Progress, judge_facts, measure
from attngan_deploy.score.metrics.metric import Metric, MetricInputs, Needs, ScoreFacts
from attngan_deploy.score.metrics.registry import find_metrics, names_that_need, needs_of
from attngan_deploy.score.outputs import JudgeOutputs, ScoreOptions, no_features
from attngan_deploy.score.passport import MatcherFacts, Passport, PictureFacts, picture_warnings, size_warnings
from attngan_deploy.score.pictures import PictureSource, find_pictures
from attngan_deploy.score.reference_cache import measure_reference


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
    made = source if isinstance(source, GeneratedPictures) else None
    check_options(options, made is not None, reference)
    pictures = find_pictures(source, options.order) if isinstance(source, Path) else source
    if made is not None:
        for metric in find_metrics(options.metrics):
            metric.check(made.count(), made.generated.captions, options.splits)
    if Needs.MATCHER in needs_of(options.metrics):
        matcher = matcher or Matcher.load(threads=options.threads)
        matcher.check_judge(judge)
    else:
        matcher = None
    known = None if reference is None else measure_reference(reference, judge, options, progress)
    return passport_of(
        MetricInputs(
            measure(pictures, judge, options, progress),  # held by nobody else, so that its features can be let go
            options,
            known,
            matcher,
            None if made is None else made.model,
            None if made is None else made.batch_size,
        ),
        judge,
    )


def score_model(model: TextToImage, metrics: Sequence[str] = (), batch_size: int | None = None) -> Passport:
    """Scores by metrics that make pictures of their own captions, which no judge looks at; by all of them where () is.

    Raises:
        ScoreError, EngineError: as the metrics.
    """
    side = model.picture_size
    facts = PictureFacts(source=model.bundle.name, width=side, height=side, resize="none", order="manifest")
    options = ScoreOptions(metrics or names_that_need(Needs.MODEL))
    return passport_of(MetricInputs(JudgeOutputs(facts), options, model=model, batch_size=batch_size), None)


def passport_of(inputs: MetricInputs, judge: Judge | None) -> Passport:
    """Every score of `inputs.options.metrics`, by a judge's outputs; None where no judge looked.

    Raises:
        ScoreError: too few pictures for a score, or none with the captions that it needs.
    """
    facts, reference, matcher = inputs.outputs.facts, inputs.reference, inputs.matcher
    metrics = sorted(find_metrics(inputs.options.metrics), key=_place)
    distances = [metric for metric in metrics if Needs.REFERENCE in metric.needs]
    scores: dict[str, ScoreFacts] = {}
    warnings = [] if judge is None else picture_warnings(facts)
    for number, metric in enumerate(metrics):
        if reference is not None and metric in distances[:1]:
            warnings += [*picture_warnings(reference.facts, "reference: "), *size_warnings(facts, reference.facts)]
            warnings += [reference.note] if reference.note else []
        if not any(Needs.FEATURES in later.needs for later in metrics[number:]):
            inputs = replace(inputs, outputs=replace(inputs.outputs, features=no_features()))  # 150 MB of 30,000
        scores[metric.key] = metric.compute(inputs)
        warnings += metric.warnings(inputs, scores[metric.key])
    return Passport(
        scores,
        None if judge is None else judge_facts(judge),
        facts,
        None if reference is None else reference.facts,
        tuple(warnings),
        version("attngan-deploy"),
        None if matcher is None else MatcherFacts(matcher.name, matcher.hash),
    )


def _place(metric: Metric) -> tuple[bool, ...]:
    """What metrics are sorted by before they are computed: all that need every picture's features come early."""
    return tuple(need in metric.needs for need in (Needs.MODEL, Needs.REFERENCE, Needs.STATISTICS))


def check_options(options: ScoreOptions, is_model: bool, reference: Path | None) -> None:
    """Refuse metrics that do not exist or lack what they need, before anything is read.

    Args:
        is_model: whether a model makes the pictures.

    Raises:
        ScoreError: says what to add.
    """
    metrics = find_metrics(options.metrics or [""])  # a name that no metric has
    distances = names_that_need(Needs.REFERENCE)
    if (reference is not None) != (Needs.REFERENCE in needs_of(options.metrics)):
        raise ScoreError(
            f"{' and '.join(distances)} are distances to a reference"
            if reference is None
            else "a reference is given, but not used",
            expected=f"--metric {' or '.join(distances)} together with --reference",
            next_step="add --reference train.tar" if reference is None else "add --metric fid",
        )
    if min(options.splits, options.batch_size) < 1 or (options.crop is not None and options.crop < 1):
        raise ScoreError("splits, batch size and crop must be 1 or more")
    if is_model and options.order != "auto":
        raise ScoreError("the pictures of --model have one order", found=f"--order {options.order}")
    if not is_model and (of_model := [metric.name for metric in metrics if Needs.MODEL in metric.needs]):
        raise ScoreError(
            f"{of_model[0]} is measured on a model, which makes pictures of other captions for it",
            found="pictures",
            expected="--model",
            next_step=f"t2i score --model base --metric {of_model[0]}",
        )
