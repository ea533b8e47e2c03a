"""What `t2i score` is asked for, and the one function that answers it."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from attngan_deploy.engines.request import AUTO, EngineRequest
from attngan_deploy.errors import ScoreError
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.score.compare import Comparison, compare, read_passport
from attngan_deploy.score.generated import GeneratedPictures, read_caption_list
from attngan_deploy.score.judge import DEFAULT_JUDGE, FEATURE_JUDGE, Judge
from attngan_deploy.score.matcher import Matcher
from attngan_deploy.score.metrics.metric import Needs
from attngan_deploy.score.metrics.registry import find_metrics, needs_of
from attngan_deploy.score.outputs import ScoreOptions
from attngan_deploy.score.passport import Passport
from attngan_deploy.score.reference_cache import measure_reference
from attngan_deploy.score.regression import SEEDS, PictureMaker, Regression, regression
from attngan_deploy.score.scoring import check_options, measure_and_score, score_model
from attngan_deploy.system.progress import show_progress

PICTURES = 1000  # a seed, where an engine is judged by another


@dataclass(frozen=True)
class ModelRequest:
    """Which model makes the pictures, and how; what is None was not asked for."""

    model: str | None = None
    captions: Path | None = None
    n: int | None = None
    seed: int | None = None
    backend: str | None = None
    device: str | None = None
    precision: str | None = None
    batch_size: int | None = None
    threads: int | None = None

    def options(self, *names: str) -> list[str]:
        """Those of the options `names` that were given."""
        return [f"--{name}" for name in names if getattr(self, name) is not None]

    def load(self) -> TextToImage:
        """The model, which is told on standard error."""
        assert self.model is not None
        engine = EngineRequest(self.backend or AUTO, self.device or AUTO, self.precision or AUTO, self.threads)
        network = TextToImage.load_on(self.model, engine)
        print(f"t2i: model {network.bundle.name} {network.bundle.hash[:12]}, {network.description}", file=sys.stderr)
        return network

    def caption_list(self) -> tuple[list[str], list[int] | None]:
        """The captions, and their classes where they are known."""
        if self.captions is None:
            raise ScoreError("--model needs captions to make pictures of", next_step="add --captions data/test.tar")
        return read_caption_list(self.captions)

    def pictures(self) -> GeneratedPictures:
        """What the model makes of the captions."""
        captions, classes = self.caption_list()
        count = self.n or len(captions)
        return GeneratedPictures(self.load(), captions, count, self.seed or 0, self.batch_size, classes)


@dataclass(frozen=True)
class ScoreRequest:
    """A score of pictures, of a model, of a model's engine against another one, or two passports side by side."""

    path: Path | None  # the pictures
    model: ModelRequest  # what makes them instead
    options: ScoreOptions  # how to score
    judge: str | None = None  # name or folder; None for the one that the metrics ask for
    matcher: str = "matcher"  # name or folder, for metrics that need one
    reference: Path | None = None  # real pictures, for metrics that need them
    against: str | None = None  # BACKEND or BACKEND:PRECISION that the model's engine is judged by
    against_torch: Path | None = None  # a checkpoint that it is judged by
    compare: tuple[Path, Path] | None = None  # two files of passports

    def check(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            ScoreError: says which.
        """
        sources = {"PATH": self.path, "--model": self.model.model, "--compare": self.compare}
        given = [name for name, value in sources.items() if value is not None]
        if len(given) != 1:
            raise ScoreError(
                "what shall be scored?",
                found=" and ".join(given) or "nothing",
                expected=f"one of {', '.join(sources)}",
                next_step="t2i score out/",
            )
        extra = self.model.options("captions", "n", "seed", "backend", "device", "precision")
        if self.model.model is None and extra:
            raise ScoreError(f"{', '.join(extra)}: this says how --model makes pictures", next_step="add --model NAME")
        if self.against is None and self.against_torch is None:
            return
        if self.model.model is None or (self.against is not None and self.against_torch is not None):
            raise ScoreError(
                "an engine is judged against another one",
                expected="--model with either --against or --against-torch",
                next_step="t2i score --model base --captions test.tar --backend openvino --against onnxruntime:fp32",
            )
        if tuple(self.options.metrics) != ("is",):
            raise ScoreError(
                "--against measures the Inception Score and Frechet distances",
                found=f"--metric {','.join(self.options.metrics)}",
            )


def answer(request: ScoreRequest, load_torch: Callable[[Path], PictureMaker]) -> Passport | Comparison | Regression:
    """Score, compare, or judge an engine by another one; progress is shown on standard error.

    Args:
        request: one that its `check` lets pass.
        load_torch: opens a checkpoint that torch runs.

    Raises:
        T2IError: something that was asked for can't be had or used.
    """
    if request.compare is not None:
        return compare(*map(read_passport, request.compare))
    if request.against is not None or request.against_torch is not None:
        return _regression(request, load_torch)
    options, model = request.options, request.model
    check_options(options, model.model is not None, request.reference)
    if all(Needs.MODEL in metric.needs for metric in find_metrics(options.metrics)):
        if unused := model.options("captions", "n", "seed"):
            own = f"{' and '.join(options.metrics)} has captions and seeds of its own"
            raise ScoreError(f"{', '.join(unused)} would not be used: {own}")
        return score_model(model.load(), options.metrics, model.batch_size)
    source = model.pictures() if request.path is None else request.path
    matcher = Matcher.load(request.matcher, options.threads) if Needs.MATCHER in needs_of(options.metrics) else None
    with show_progress("score", "img") as progress:
        return measure_and_score(source, _judge(request), options, request.reference, progress, matcher)


def _judge(request: ScoreRequest) -> Judge:
    usual = FEATURE_JUDGE if Needs.MATCHER in needs_of(request.options.metrics) else DEFAULT_JUDGE
    return Judge.load(request.judge or usual, threads=request.options.threads)


def _regression(request: ScoreRequest, load_torch: Callable[[Path], PictureMaker]) -> Regression:
    """The model's engine judged by another one, or by torch: the same captions, three seeds from --seed on."""
    model, judge, crop = request.model, _judge(request), request.options.crop
    captions, _ = model.caption_list()
    tested = model.load()
    if crop not in (None, tested.picture_size):
        raise ScoreError("--crop is for the reference here", found=str(crop), expected=str(tested.picture_size))
    other: PictureMaker
    if request.against is None:
        assert request.against_torch is not None
        other = load_torch(request.against_torch)
    else:
        assert model.model is not None
        backend, _, precision = request.against.partition(":")
        other = TextToImage.load_on(model.model, EngineRequest(backend, AUTO, precision or AUTO, model.threads))
    with show_progress("score", "img") as progress:
        known = None
        if request.reference is not None:
            how = replace(request.options, metrics=("fid",))
            known = measure_reference(request.reference, judge, how, progress).statistics
        return regression(
            other,
            tested,
            judge,
            captions,
            [(model.seed or 0) + seed for seed in SEEDS],
            PICTURES if model.n is None else model.n,
            reference=known,
            batch_size=model.batch_size,
            progress=progress,
        )
