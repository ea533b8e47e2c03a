"""Scores, figures and curves of models and of real pictures: everything that a report shows."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import count as count_from
from pathlib import Path

from attngan_deploy.bundles.bundle import open_bundle, write_manifest
from attngan_deploy.bundles.manifest import read_run
from attngan_deploy.engines.request import REFERENCE, EngineRequest
from attngan_deploy.errors import DataError
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.score.generated import GeneratedPictures, PictureSource, read_caption_list
from attngan_deploy.score.judge import DEFAULT_JUDGE, FEATURE_JUDGE, Judge
from attngan_deploy.score.matcher import Matcher
from attngan_deploy.score.measure import Progress, measure_by
from attngan_deploy.score.metrics.inception_score import split_bounds, splits_of
from attngan_deploy.score.metrics.metric import MetricInputs
from attngan_deploy.score.outputs import ScoreOptions
from attngan_deploy.score.pictures import find_pictures
from attngan_deploy.score.reference_cache import measure_reference
from attngan_deploy.score.report.figures import draw_figures
from attngan_deploy.score.report.results import ModelFigures, ReportRow, Results, parts
from attngan_deploy.score.scoring import passport_of, score_model

COUNT, QUICK = 30_000, 3_000
TEST, TRAIN = "test.tar", "train.tar"
Show = Callable[[str], AbstractContextManager[Progress]]


@dataclass(frozen=True)
class ReportOptions:
    """How a report is made."""

    count: int = COUNT  # pictures of each model
    splits: int | None = None  # of the Inception Score, as in `ScoreOptions`
    crop: int = 128  # side of the centre crop of real pictures, in pixels: the size of the models' own
    seed: int = 0  # of noise
    engine: EngineRequest = REFERENCE  # of the models; nothing in it is "auto", so that a report can be made again
    matcher: str | None = "matcher"  # who measures R-precision; None leaves it out


class Scorer:
    """Two judges that look at the same pictures: one for the Inception Score, one whose features tell more apart."""

    def __init__(self, reference: Path, options: ReportOptions, progress: Progress) -> None:
        self.options, threads = options, options.engine.threads
        self.judges = [Judge.load(name, threads=threads) for name in (DEFAULT_JUDGE, FEATURE_JUDGE)]
        self.matcher = None if options.matcher is None else Matcher.load(options.matcher, threads)
        if self.matcher is not None:
            self.matcher.check_judge(self.judges[1])
        how = ScoreOptions(("fid",), options.splits, options.crop, threads=threads)
        self._reference = measure_reference(reference, self.judges[1], how, progress)

    def score(
        self, name: str, source: PictureSource, crop: int | None, progress: Progress, variant: str = ""
    ) -> ReportRow:
        """Let both judges look, once, and score what they saw; the reference has no distance to itself."""
        splits, threads = self.options.splits, self.options.engine.threads
        reference = self._reference
        by_features: tuple[str, ...] = () if reference.facts.source == source.source else ("fid",)
        by_features += () if self.matcher is None else ("r-precision",)
        hows = [ScoreOptions(metrics, splits, crop, threads=threads) for metrics in (("is",), by_features)]
        passports = []
        outputs = measure_by(self.judges, source, hows, progress)
        for judge, how in zip(self.judges, hows, strict=True):
            known = reference if "fid" in how.metrics else None
            matcher = self.matcher if "r-precision" in how.metrics else None
            passports.append(passport_of(MetricInputs(outputs.pop(0), how, known, matcher), judge))
        return ReportRow(name, passports, variant)


def collect(names: Sequence[str], data: Path, options: ReportOptions, show: Show) -> Results:
    """Score and draw models, and score the real pictures beside them.

    Args:
        names: bundles, by name or folder.
        data: folder with `test.tar`, whose captions are drawn and whose pictures are the reference; `train.tar` beside
            it is scored too.
        show: called with each step in words, e.g. "step 2 of 6, base: pictures"; gives what is told of its progress.

    Raises:
        DataError: no `test.tar`, or one without captions.
    """
    test, train = data / TEST, data / TRAIN
    if not test.is_file():
        raise DataError(f"no {TEST} in {data}", expected="a folder that t2i data build made", next_step="--data FOLDER")
    models = [TextToImage.load_on(name, options.engine) for name in names]
    captions, classes = read_caption_list(test)
    sets = {path: find_pictures(path) for path in (test, train) if path.is_file()}
    for count in (options.count, *(pictures.count() for pictures in sets.values())):
        split_bounds(count, splits_of(count, options.splits))  # now, not after hours
    numbers = count_from(1)

    def step(what: str) -> AbstractContextManager[Progress]:
        return show(f"step {next(numbers)} of {1 + 2 * len(models) + len(sets)}, {what}")

    with step("real pictures to compare with") as progress:
        scorer = Scorer(test, options, progress)
    scored, drawn = [], []
    for model in models:
        source = GeneratedPictures(model, captions, options.count, options.seed, classes=classes)
        with step(f"{model.bundle.name}: pictures") as progress:
            row = scorer.score(model.bundle.name, source, None, progress, str(model.bundle.manifest.variant))
        with step(f"{model.bundle.name}: word fidelity and figures"):
            scored.append(replace(row, passports=[*row.passports, score_model(model)]))
            figures = draw_figures(model, options.seed)
        about = f"{model.bundle.name} {model.bundle.hash[:12]}, {model.description}, seed {options.seed}"
        run = read_run(model.bundle.manifest.told("provenance"))
        drawn.append(ModelFigures(model.bundle.name, about, figures, parts(run)))
    real = []
    for path, pictures in sets.items():
        name = f"real, {path.stem} species"
        with step(name) as progress:
            real.append(scorer.score(name, pictures, options.crop, progress))
    return Results(scored, real, drawn)


def record(names: Sequence[str], results: Results) -> None:
    """Write the scores of each model into its own `bundle.json`; `names` are as `collect` got them."""
    for name, row in zip(names, results.models, strict=True):
        bundle = open_bundle(name)
        scores = [passport.to_json() for passport in row.passports]
        write_manifest(bundle.folder, {**bundle.manifest.document, "scores": scores})
