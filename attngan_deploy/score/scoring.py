"""What `t2i score` is asked for, and its answer: pictures -> what a judge gives of them -> metrics -> passport."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from attngan_deploy.engines.request import AUTO, EngineRequest
from attngan_deploy.errors import ScoreError
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.score.compare import Comparison, compare, read_passport
from attngan_deploy.score.generated import GeneratedPictures, PictureSource, read_caption_list
from attngan_deploy.score.judge import DEFAULT_JUDGE, FEATURE_JUDGE, Judge
from attngan_deploy.score.matcher import Matcher
from attngan_deploy.score.measure import Progress, measure
from attngan_deploy.score.metrics.metric import Metric, MetricInputs, Needs, ScoreFacts
from attngan_deploy.score.metrics.registry import find_metrics, names_that_need, needs_of
from attngan_deploy.score.outputs import JudgeOutputs, ScoreOptions, no_features
from attngan_deploy.score.passport import (
    JudgeFacts,
    MatcherFacts,
    Passport,
    PictureFacts,
    picture_warnings,
    size_warnings,
)
from attngan_deploy.score.pictures import find_pictures
from attngan_deploy.score.preprocessing import CropError
from attngan_deploy.score.reference_cache import STATISTICS, measure_reference
from attngan_deploy.score.regression import SEEDS, PictureMaker, Regression, regression
from attngan_deploy.system.progress import show_progress
from attngan_deploy.system.terminal import show

PICTURES = 1000  # a seed, where an engine is judged by another


@dataclass(frozen=True)
class ScoreRequest:
    """A score of pictures, of a model, of a model's engine against another one, or two passports side by side.

    What is None was not asked for.
    """

    options: ScoreOptions  # how to score
    path: Path | None  # the pictures
    model: str | None  # what makes them instead, by the options that follow
    captions: Path | None
    column: str | None
    n: int | None
    seed: int | None
    backend: str | None
    device: str | None
    precision: str | None
    batch_size: int | None
    judge: str | None  # name or folder; None for the one that the metrics ask for
    matcher: str  # name or folder, for metrics that need one
    reference: Path | None  # real pictures, for metrics that need them
    against: str | None  # BACKEND or BACKEND:PRECISION that the model's engine is judged by
    against_torch: Path | None  # a checkpoint that it is judged by
    compare: tuple[Path, Path] | None  # two files of passports

    def given(self, *names: str) -> list[str]:
        """Those of the options `names` that were given."""
        return [f"--{name}" for name in names if getattr(self, name) is not None]

    def load_model(self) -> TextToImage:
        """The model, which is told on standard error."""
        assert self.model is not None
        names = (self.backend or AUTO, self.device or AUTO, self.precision or AUTO)
        model = TextToImage.load_on(self.model, EngineRequest(*names, self.options.threads))
        show(f"t2i: model {model.bundle.name} {model.bundle.hash[:12]}, {model.description}", error=True)
        return model

    def caption_list(self) -> tuple[list[str], list[int] | None]:
        """The captions, and their classes where they are known."""
        if self.captions is None:
            raise ScoreError("--model needs captions to make pictures of", next_step="add --captions data/test.tar")
        return read_caption_list(self.captions, self.column)

    def check(self) -> None:
        """Refuse options that contradict each other, by a ScoreError that names them."""
        sources = {"PATH": self.path, "--model": self.model, "--compare": self.compare}
        given = [name for name, value in sources.items() if value is not None]
        if len(given) != 1:
            raise ScoreError(
                "what shall be scored?",
                found=" and ".join(given) or "nothing",
                expected=f"one of {', '.join(sources)}",
                next_step="t2i score out/",
            )
        extra = self.given("captions", "column", "n", "seed", "backend", "device", "precision")
        if self.model is None and extra:
            raise ScoreError(f"{', '.join(extra)}: this says how --model makes pictures", next_step="add --model NAME")
        if self.against is None and self.against_torch is None:
            return
        if self.model is None or (self.against is not None and self.against_torch is not None):
            raise ScoreError(
                "an engine is judged against another one",
                expected="--model with either --against or --against-torch",
                next_step="t2i score --model base --captions test.tar --backend openvino --against onnxruntime:fp32",
            )
        if tuple(self.options.metrics) != ("is",):
            raise ScoreError(
                "--against measures the Inception Score and Frechet distances",
                found=f"--metric {','.join(self.options.metrics)}",
                next_step="t2i score --help",
            )


def answer(request: ScoreRequest, load_torch: Callable[[Path], PictureMaker]) -> Passport | Comparison | Regression:
    """Score, compare, or judge an engine by another one, as a checked request says; `load_torch` opens a checkpoint."""
    if request.compare is not None:
        return compare(*map(read_passport, request.compare))
    if request.against is not None or request.against_torch is not None:
        return _regression(request, load_torch)
    options = request.options
    source: Path | PictureSource | None = request.path
    check_options(options, request.model is not None, request.reference)
    if all(Needs.MODEL in metric.needs for metric in find_metrics(options.metrics)):
        if unused := request.given("captions", "column", "n", "seed"):
            own = f"{' and '.join(options.metrics)} has captions and seeds of its own"
            raise ScoreError(f"{', '.join(unused)} would not be used: {own}", next_step="leave it out")
        return score_model(request.load_model(), options.metrics, request.batch_size)
    if source is None:
        captions, classes = request.caption_list()
        count, seed = request.n or len(captions), request.seed or 0
        source = GeneratedPictures(request.load_model(), captions, count, seed, request.batch_size, classes)
    matcher = Matcher.load(request.matcher, options.threads) if Needs.MATCHER in needs_of(options.metrics) else None
    with show_progress("score", "img") as progress:
        return measure_and_score(source, _judge(request), options, request.reference, progress, matcher)


def _judge(request: ScoreRequest) -> Judge:
    usual = FEATURE_JUDGE if Needs.MATCHER in needs_of(request.options.metrics) else DEFAULT_JUDGE
    return Judge.load(request.judge or usual, threads=request.options.threads)


def _regression(request: ScoreRequest, load_torch: Callable[[Path], PictureMaker]) -> Regression:
    """The model's engine judged by another one, or by torch: the same captions, three seeds from --seed on."""
    judge, crop = _judge(request), request.options.crop
    captions, _ = request.caption_list()
    tested = request.load_model()
    if crop not in (None, tested.picture_size):
        raise ScoreError(
            "--crop is for the reference here",
            found=str(crop),
            expected=str(tested.picture_size),
            next_step="leave --crop out",
        )
    other: PictureMaker
    if request.against is None:
        assert request.against_torch is not None
        other = load_torch(request.against_torch)
    else:
        assert request.model is not None
        backend, _, precision = request.against.partition(":")
        engine = EngineRequest(backend, AUTO, precision or AUTO, request.options.threads)
        other = TextToImage.load_on(request.model, engine)
    with show_progress("score", "img") as progress:
        known = None
        if request.reference is not None:
            how = replace(request.options, metrics=("fid",))
            try:
                known = measure_reference(request.reference, judge, how, progress).statistics
            except CropError as error:
                side = "another reference" if crop else f"add --crop {tested.picture_size}"
                raise error.advising(side) from error
        return regression(
            other,
            tested,
            judge,
            captions,
            [(request.seed or 0) + seed for seed in SEEDS],
            PICTURES if request.n is None else request.n,
            reference=known,
            batch_size=request.batch_size,
            progress=progress,
        )


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
        reference: real pictures, for the distances; read like a folder of `source`, and cropped alike.
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
    try:
        known = None if reference is None else measure_reference(reference, judge, options, progress)
        outputs = [measure(pictures, judge, options, progress)]
    except CropError as error:
        raise _with_crop(error, pictures, reference) from error
    return passport_of(
        MetricInputs(
            outputs.pop(),  # held by nobody else, so that its features can be let go
            options,
            known,
            matcher,
            None if made is None else made.model,
            None if made is None else made.batch_size,
        ),
        judge,
    )


def _with_crop(error: CropError, pictures: PictureSource, reference: Path | None) -> CropError:
    """The error with the largest crop that all pictures have, those of the reference too."""
    sources = [pictures]
    if reference is not None and reference.suffix.lower() != STATISTICS:
        sources.append(find_pictures(reference))
    (side, name), source = min((source.smallest_side(), source.source) for source in sources)
    return error.advising(f"add --crop {side}, the shorter side of the smallest picture, {name} of {source}")


def score_model(model: TextToImage, metrics: Sequence[str] = (), batch_size: int | None = None) -> Passport:
    """Scores by metrics that make pictures of their own captions, which no judge looks at; by all of them where ()."""
    side = model.picture_size
    facts = PictureFacts(source=model.bundle.name, width=side, height=side, resize="none", order="manifest")
    options = ScoreOptions(metrics or names_that_need(Needs.MODEL))
    return passport_of(MetricInputs(JudgeOutputs(facts), options, model=model, batch_size=batch_size), None)


def passport_of(inputs: MetricInputs, judge: Judge | None) -> Passport:
    """Every score of `inputs.options.metrics`, by a judge's outputs; None where no judge looked."""
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
    judged = None
    if judge is not None:
        told = judge.bundle.manifest.told("provenance", "held_out_accuracy")
        accuracy = told if isinstance(told, float) else None
        judged = JudgeFacts(judge.name, judge.hash, judge.classes, judge.size, accuracy, str(judge.engine.facts))
    return Passport(
        scores,
        judged,
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
    """Refuse, by a ScoreError, metrics that do not exist or lack what they need, before anything is read.

    Args:
        is_model: whether a model makes the pictures.
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
    if any(number is not None and number < 1 for number in (options.splits, options.batch_size, options.crop)):
        raise ScoreError("splits, batch size and crop must be 1 or more", next_step="t2i score --help")
    if is_model and options.order != "auto":
        raise ScoreError(
            "the pictures of --model have one order", found=f"--order {options.order}", next_step="leave --order out"
        )
    if not is_model and (of_model := [metric.name for metric in metrics if Needs.MODEL in metric.needs]):
        raise ScoreError(
            f"{of_model[0]} is measured on a model, which makes pictures of other captions for it",
            found="pictures",
            expected="--model",
            next_step=f"t2i score --model base --metric {of_model[0]}",
        )
