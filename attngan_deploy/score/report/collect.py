"""Scores, figures and curves of models and of real pictures: everything that a report shows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from attngan_deploy.bundles.bundle import open_bundle, write_manifest
from attngan_deploy.errors import DataError
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.score.generated import GeneratedPictures, read_caption_list
from attngan_deploy.score.judge import DEFAULT_JUDGE, FEATURE_JUDGE, Judge
from attngan_deploy.score.matcher import Matcher
from attngan_deploy.score.measure import ScoreOptions, measure_by
from attngan_deploy.score.metrics.inception_score import split_bounds
from attngan_deploy.score.pictures import PictureSource, find_pictures
from attngan_deploy.score.reference_cache import measure_reference
from attngan_deploy.score.report.curve import parts
from attngan_deploy.score.report.figures import draw_figures
from attngan_deploy.score.report.results import Drawn, Results, Scored
from attngan_deploy.score.scoring import passport_of, score_words

COUNT, QUICK = 30_000, 3_000
TEST, TRAIN = "test.tar", "train.tar"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ReportOptions:
    """How a report is made.

    Attributes:
        count: pictures of each model.
        splits: of the Inception Score.
        crop: side of the centre crop of real pictures, in pixels: the size of the models' own.
        seed: of noise.
        backend, device, precision, threads: the engine of the models; not "auto", so that a report can be made again.
        matcher: who measures R-precision; None leaves it out.
    """

    count: int = COUNT
    splits: int = 10
    crop: int = 128
    seed: int = 0
    backend: str = "onnxruntime"
    device: str = "cpu"
    precision: str = "fp32"
    threads: int | None = None
    matcher: str | None = "matcher"


class Scorer:
    """Two judges that look at the same pictures: one for the Inception Score, one whose features tell more apart.

    Args:
        reference: real pictures for the Frechet distance.
        options: how.
    """

    def __init__(self, reference: Path, options: ReportOptions) -> None:
        self.options = options
        self.judges = [Judge.load(name, threads=options.threads) for name in (DEFAULT_JUDGE, FEATURE_JUDGE)]
        self.matcher = None if options.matcher is None else Matcher.load(options.matcher, options.threads)
        if self.matcher is not None:
            self.matcher.check_judge(self.judges[1])
        more = () if self.matcher is None else ("r-precision",)
        self.metrics: list[tuple[str, ...]] = [("is",), ("fid", *more)]
        self._path = reference

    def how(self, crop: int | None, *metrics: str) -> ScoreOptions:
        """Options of a score."""
        return ScoreOptions(metrics, self.options.splits, crop, threads=self.options.threads)

    def score(
        self, name: str, source: PictureSource, crop: int | None, progress: Progress | None, variant: str = ""
    ) -> Scored:
        """Let both judges look, once, and score what they saw; the reference has no distance to itself."""
        reference = measure_reference(self._path, self.judges[1], self.how(self.options.crop, "fid"), progress)
        is_reference = reference.facts.source == source.source
        hows = [
            self.how(crop, *(name for name in metrics if not (is_reference and name == "fid")))
            for metrics in self.metrics
        ]
        passports = []
        for judge, how, measured in zip(
            self.judges, hows, measure_by(self.judges, source, hows, progress), strict=True
        ):
            known = reference if "fid" in how.metrics else None
            matcher = self.matcher if "r-precision" in how.metrics else None
            passports.append(passport_of(measured, judge, how, known, matcher).to_json())
        return Scored(name, passports, variant)


def collect(names: Sequence[str], data: Path, options: ReportOptions, progress: Progress | None = None) -> Results:
    """Score and draw models, and score the real pictures beside them.

    Args:
        names: bundles, by name or folder.
        data: folder with `test.tar`, whose captions are drawn and whose pictures are the reference; `train.tar` beside
            it is scored too.
        options: how.
        progress: called with (pictures done, pictures in all) of what is being scored.

    Raises:
        DataError: no `test.tar`, or one without captions.
        BundleError, EngineError, ScoreError: a model, a judge or the matcher can't be used.
    """
    test, train = data / TEST, data / TRAIN
    if not test.is_file():
        raise DataError(f"no {TEST} in {data}", expected="a folder that t2i data build made", next_step="--data FOLDER")
    models = [
        TextToImage.load(name, options.backend, options.precision, options.threads, options.device) for name in names
    ]
    captions, classes = read_caption_list(test)
    sets = {path: find_pictures(path) for path in (test, train) if path.is_file()}
    for count in (options.count, *(pictures.count() for pictures in sets.values())):
        split_bounds(count, options.splits)  # now, not after hours
    scorer = Scorer(test, options)
    scored, drawn = [], []
    for model in models:
        source = GeneratedPictures(model, captions, options.count, options.seed, classes=classes)
        row = scorer.score(model.bundle.name, source, None, progress, str(model.bundle.manifest["variant"]))
        scored.append(Scored(row.name, [*row.passports, score_words(model).to_json()], row.variant))
        drawn.append(_draw(model, options.seed))
    real = [
        scorer.score(f"real, {path.stem} species", pictures, options.crop, progress) for path, pictures in sets.items()
    ]
    return Results(scored, real, drawn)


def record(names: Sequence[str], results: Results) -> None:
    """Write the scores of each model into its own `bundle.json`, for `t2i models` and whoever gets the bundle.

    Args:
        names: as `collect` got them.

    Raises:
        BundleError: a bundle is damaged.
        OSError: it can't be written.
    """
    for name, row in zip(names, results.models, strict=True):
        bundle = open_bundle(name)
        write_manifest(bundle.folder, {**bundle.manifest, "scores": list(row.passports)})


def _draw(model: TextToImage, seed: int) -> Drawn:
    provenance = model.bundle.manifest.get("provenance", {})
    about = f"{model.bundle.name} {model.bundle.hash[:12]}, {model.description}, seed {seed}"
    return Drawn(model.bundle.name, about, draw_figures(model, seed), parts(provenance))
