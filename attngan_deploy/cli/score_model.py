"""Options of `t2i score` that say which model makes pictures, and what they make of them."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attngan_deploy.cli import load_extra

if TYPE_CHECKING:
    from attngan_deploy.generate.pipeline import TextToImage
    from attngan_deploy.score.generated import GeneratedPictures
    from attngan_deploy.score.judge import Judge
    from attngan_deploy.score.measure import ScoreOptions
    from attngan_deploy.score.regression import Regression

PICTURES = 1000  # a seed, where an engine is judged by another


@dataclass(frozen=True)
class Maker:
    """The options that say which model makes pictures, and how."""

    model: str | None
    captions: Path | None
    n: int | None
    seed: int | None
    backend: str | None
    device: str | None
    precision: str | None
    batch_size: int | None
    threads: int | None

    def given(self) -> list[str]:
        """Those that were given and need --model."""
        names = ("captions", "n", "seed", "backend", "device", "precision")
        return [f"--{name}" for name in names if getattr(self, name) is not None]

    def load(self) -> "TextToImage":
        """The model, which is told on standard error."""
        from attngan_deploy.generate.pipeline import TextToImage

        assert self.model is not None
        engine = self.backend or "auto", self.precision or "auto", self.threads, self.device or "auto"
        network = TextToImage.load(self.model, *engine)
        print(f"t2i: model {network.bundle.name} {network.bundle.hash[:12]}, {network.description}", file=sys.stderr)
        return network

    def check_unused(self, *names: str) -> None:
        """Refuse options that would change nothing.

        Raises:
            ScoreError: one was given.
        """
        from attngan_deploy.errors import ScoreError

        if unused := [f"--{name}" for name in names if getattr(self, name) is not None]:
            raise ScoreError(f"{', '.join(unused)} would not be used: words has captions and seeds of its own")

    def caption_list(self) -> tuple[list[str], list[int] | None]:
        """The captions, and their classes where they are known."""
        from attngan_deploy.errors import ScoreError
        from attngan_deploy.score.generated import read_caption_list

        if self.captions is None:
            raise ScoreError("--model needs captions to make pictures of", next_step="add --captions data/test.tar")
        return read_caption_list(self.captions)

    def pictures(self) -> "GeneratedPictures":
        """What the model makes of the captions."""
        from attngan_deploy.score.generated import GeneratedPictures

        captions, classes = self.caption_list()
        count = self.n or len(captions)
        return GeneratedPictures(self.load(), captions, count, self.seed or 0, self.batch_size, classes)

    def regression(
        self,
        against: str | None,
        against_torch: Path | None,
        judge: "Judge",
        options: "ScoreOptions",
        reference: Path | None,
    ) -> "Regression":
        """The model's engine judged by another one, or by torch: the same captions, three seeds from --seed on."""
        from attngan_deploy.errors import ScoreError
        from attngan_deploy.score.reference_cache import measure_reference
        from attngan_deploy.score.regression import SEEDS, regression
        from attngan_deploy.system.progress import show_progress

        captions, _ = self.caption_list()
        tested = self.load()
        if options.crop not in (None, tested.picture_size):
            raise ScoreError(
                "--crop is for the reference here", found=str(options.crop), expected=str(tested.picture_size)
            )
        other = self._other(against) if against_torch is None else load_torch(against_torch)
        with show_progress("score", "img") as progress:
            known = None
            if reference is not None:
                known = measure_reference(reference, judge, replace(options, metrics=("fid",)), progress).statistics
            seeds = [(self.seed or 0) + seed for seed in SEEDS]
            count = PICTURES if self.n is None else self.n
            return regression(
                other,
                tested,
                judge,
                captions,
                seeds,
                count,
                reference=known,
                batch_size=self.batch_size,
                progress=progress,
            )

    def _other(self, against: str | None) -> "TextToImage":
        from attngan_deploy.generate.pipeline import TextToImage

        assert self.model is not None and against is not None
        backend, _, precision = against.partition(":")
        return TextToImage.load(self.model, backend, precision or "auto", self.threads)


def load_torch(checkpoint: Path) -> Any:
    """A checkpoint that torch runs.

    Raises:
        MissingExtraError: torch is not installed.
        CheckpointError: missing, damaged, or without a generator.
    """
    return load_extra("attngan_deploy.export.parity.torch_maker", "train").torch_maker(checkpoint)
