"""Training of a generator: the loop around `gan_step`, with checkpoints, sample grids, metrics and resuming."""

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.bundles.manifest import MANIFEST
from attngan_deploy.bundles.provenance import read_run
from attngan_deploy.errors import CheckpointError, DataError, StoppedError
from attngan_deploy.media.images import encode_picture
from attngan_deploy.media.tokenizer import Tokenizer
from attngan_deploy.system.files import read_json, uninterrupted, write_atomically
from attngan_deploy.system.records import JsonObject
from attngan_deploy.train.compiled import why_not_compiled
from attngan_deploy.train.config import GanRecipe
from attngan_deploy.train.data.picture_set import PictureSet, TrainingBatches, read_pictures
from attngan_deploy.train.generator import Generator
from attngan_deploy.train.imports.from_bundle import check_same_text_encoder, generator_of
from attngan_deploy.train.runs.checkpoint import Checkpoint, load_checkpoint
from attngan_deploy.train.runs.damsm import load_damsm
from attngan_deploy.train.runs.distributed import Processes
from attngan_deploy.train.runs.evaluation import Evaluation
from attngan_deploy.train.runs.gan_step import Encoders, GanTraining
from attngan_deploy.train.runs.machine import prepare_cpu
from attngan_deploy.train.runs.run_folder import RunFolder, training_curve
from attngan_deploy.train.runs.sampling import GRID_CAPTIONS, sample_grid

LOG_EVERY = 20
COMPILED_FROM = 2000  # steps of a run: compiling takes a minute or two
REMEMBERED = ("generator", "recipe", "pictures", "started_from", "curve")  # of a run that another one started from


def resolve_precision(recipe: GanRecipe, device: torch.device) -> GanRecipe:
    """Replace precision "auto" by the faster of fp32 and bf16 on this device, measured on a convolution."""
    if recipe.precision != "auto":
        return recipe
    x = torch.randn(16, 64, 32, 32, device=device).contiguous(memory_format=torch.channels_last).requires_grad_()
    conv = torch.nn.Conv2d(64, 128, 3, padding=1, device=device).to(memory_format=torch.channels_last)

    def seconds(enabled: bool) -> float:
        best = float("inf")
        for _ in range(5):
            started = time.perf_counter()
            for _ in range(4):
                with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
                    y = conv(x)
                float(y.float().sum().detach())
                y.float().square().sum().backward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best = min(best, time.perf_counter() - started)
        return best

    return replace(recipe, precision="bf16" if seconds(True) < seconds(False) else "fp32")


class GanRun:
    """A run: the training state, its data and its folder."""

    def __init__(
        self,
        recipe: GanRecipe,
        data: Path,
        damsm: Path,
        out: Path,
        backbone: Path | None,
        *,
        start: Sequence[Path] = (),
        resume: bool = False,
        processes: Processes | None = None,
    ) -> None:
        prepare_cpu()
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        self.processes = processes or Processes.start()
        recipe = self._resolved(recipe, out, resume)
        self.recipe, self.words = recipe, []
        text, image, self.words, self.damsm = load_damsm(damsm, backbone)
        if text.config.features != recipe.generator.features:
            raise CheckpointError(
                f"{damsm} does not fit the generator",
                found=f"{text.config.features} features",
                expected=str(recipe.generator.features),
            )
        self.tokenizer = Tokenizer(self.words)
        self._say("reading pictures")
        pictures = read_pictures([data / "train.tar"])
        for line in pictures.skipped:
            self._say(f"skipped {line}")
        self.pictures = len(pictures)
        self.grid_captions = self._grid_captions(pictures)
        self.batches = TrainingBatches(pictures, self.tokenizer, recipe.crop, recipe.batch_size, recipe.max_words)
        self.training = GanTraining(recipe, Encoders(text, image), self.processes)
        self.evaluation = None
        if recipe.judge != "none" and self.processes.rank == 0:
            self.evaluation = Evaluation(recipe.judge, data, self.tokenizer, recipe.score_pictures, recipe.crop)
        self.folder = RunFolder(out, recipe, resume=resume, writes=self.processes.rank == 0)
        self.step, self.means = 0, _Means()
        self.resumed_at = self.seen_before = 0  # step and pictures of the checkpoint that it goes on from
        self.started_from: list[JsonObject] = []
        checkpoint = self.folder.latest()
        if resume and checkpoint is None:
            self._say(f"there is no checkpoint in {out} to resume: a new run begins")
        if checkpoint is not None:
            self.training.restore(checkpoint)
            self.step = self.resumed_at = checkpoint.step
            progress = checkpoint.facts(Progress)
            self.seen_before = progress.pictures
            self.means.sums = {name: list(values) for name, values in (progress.since_last_line or {}).items()}
            self.started_from = [run.document for run in read_run(checkpoint.document).before]
        elif start:
            self.started_from = [self._start_from(path, pictures) for path in start]
        elif recipe.freeze_first_stage:
            raise CheckpointError(
                "a frozen first stage has to come from another run", next_step="add --start RUN, or drop --freeze-first"
            )
        self._compile()

    def _start_from(self, path: Path, pictures: PictureSet) -> JsonObject:
        """Begin with the generator of another run or of a bundle; returns what is to be remembered of it."""
        if not (path / MANIFEST).is_file():
            before = load_checkpoint(path, "gan")
            self.training.start_from(before)
            return _ancestor(before)
        bundle = open_bundle(path)
        check_same_text_encoder(bundle, self.training.text, self.words)
        captions = [self.tokenizer.encode(options[0]).ids for options in pictures.captions]
        self.training.start_with(generator_of(bundle, [ids for ids in captions if ids]).state_dict())
        kept = {name: bundle.manifest.told("provenance", name) for name in REMEMBERED}
        return {**kept, "bundle": {"name": bundle.name, "hash": bundle.hash}}

    def _grid_captions(self, pictures: PictureSet) -> list[list[int]]:
        """Captions of the grid: the usual ones, or the first pictures' own where birds are not the subject."""
        usual = [self.tokenizer.encode(caption) for caption in GRID_CAPTIONS]
        if all(len(encoded.unknown) < 3 for encoded in usual):
            return [encoded.ids for encoded in usual]
        own = [self.tokenizer.encode(captions[0]).ids for captions in pictures.captions]
        return [ids for ids in own if ids][: len(GRID_CAPTIONS)]

    def _resolved(self, recipe: GanRecipe, out: Path, resume: bool) -> GanRecipe:
        """A resumed run keeps the precision that it measured when it began, and how it computed what it computes."""
        if resume and recipe.precision == "auto" and (out / "recipe.json").is_file():
            try:
                before = read_json(out / "recipe.json")
            except (OSError, ValueError):
                return recipe  # damaged, which the run's folder says when it is opened
            return _as_it_began(recipe, before if isinstance(before, dict) else {})
        return resolve_precision(recipe, self.processes.device)

    def _compile(self) -> None:
        """Compile what pays for it, in a run that is long enough; the whole run decides, so that resuming is exact."""
        told = os.environ.get("T2I_COMPILE", "")
        pays = self.steps >= COMPILED_FROM or told == "1"
        if told == "0" or not pays or self.processes.device.type != "cpu":
            return
        missing = why_not_compiled()
        if missing is None:
            self.training.use_compiled()
        else:
            self._say(f"steps are not compiled, which makes them slower: {missing}")

    def _say(self, line: str) -> None:
        if self.processes.rank == 0:
            print(line, file=sys.stderr, flush=True)

    @property
    def effective_batch(self) -> int:
        """Pictures a step over all processes."""
        return self.recipe.batch_size * self.processes.count

    @property
    def seen(self) -> int:
        """Real pictures seen so far by all processes."""
        return self.seen_before + (self.step - self.resumed_at) * self.effective_batch

    @property
    def steps(self) -> int:
        """Steps of the whole run; those that are left, where a resumed run has another number of processes."""
        return self.resumed_at + max(0, -(-(self.recipe.pictures - self.seen_before) // self.effective_batch))

    def train(self) -> Path:
        """Train to the end of the recipe, saving on the way; Ctrl-C or SIGTERM saves and stops.

        Returns:
            The run folder.
        """
        try:
            path = self._train()
            self.processes.stop()
            return path
        finally:
            self.folder.close()

    def _train(self) -> Path:
        recipe = self.recipe
        self._say(
            f"{self.pictures} pictures; batch {recipe.batch_size} x {self.processes.count} processes = "
            f"{self.effective_batch} effective; {recipe.precision} on {self.processes.device}; step {self.step} of "
            f"{self.steps}"
        )
        clock = _Clock(recipe)
        first, totals, is_whole = self.step, self.means, True
        try:
            for number, indices in self._batches():
                rng = np.random.default_rng((recipe.seed, number, self.processes.rank))
                batch = self.batches.batch(indices, rng)
                with uninterrupted():  # half a step could not be continued exactly
                    is_whole = False
                    totals.add(self.training.step(batch, number, self.seen, rng))
                    self.step, is_whole = number + 1, True
                if self.step % LOG_EVERY == 0:
                    self._log(totals, clock, first)
                if clock.due("grid"):
                    self.save_grid()
                if self._score_due() and self.step < self.steps:  # the last one is scored below
                    self.save(self.score())
                elif clock.due("checkpoint"):
                    self.save()
            if totals.sums:
                self._log(totals, clock, first)
            self.save_grid()
            self.save(self.score())
        except KeyboardInterrupt:
            if not is_whole:  # another process died in the middle of the step, and torchrun ends this one
                raise StoppedError(
                    "stopped in the middle of a step, as another process died; --resume continues from what was saved"
                ) from None
            self.save()
            raise StoppedError(f"stopped and saved after {self.seen} pictures; --resume continues") from None
        return self.folder.path

    def _batches(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """(step, picture numbers) from the present step to the last; the order depends on (seed, epoch) alone."""
        self.training.train_mode()
        rank, ranks = self.processes.rank, self.processes.count
        per_epoch = len(self.batches.epoch_order(self.recipe.seed, 0, rank, ranks))
        if not per_epoch:
            raise DataError(
                "a step of all processes needs more pictures than there are",
                found=f"{self.effective_batch} pictures a step",
                expected=f"at most {self.batches.usable.size}",
                next_step="--batch-size, or fewer processes",
            )
        for epoch in range(self.step // per_epoch, -(-self.steps // per_epoch)):
            order = self.batches.epoch_order(self.recipe.seed, epoch, rank, ranks)
            for place in range(per_epoch):
                number = epoch * per_epoch + place
                if self.step <= number < self.steps:
                    yield number, order[place]

    def _log(self, totals: "_Means", clock: "_Clock", first: int) -> None:
        metrics = totals.take()
        seen = self.seen
        speed = (self.step - first) * self.effective_batch / clock.seconds
        self.folder.log(self.step, {"pictures": seen, "img/s": round(speed, 2), **metrics})
        if clock.due("line"):
            left = (self.steps - self.step) * self.effective_batch / speed
            losses = "  ".join(f"{name.removeprefix('loss/')} {value:.3f}" for name, value in metrics.items())
            self._say(f"{seen} pictures  {losses}  {speed:.1f} img/s  {left / 3600:.1f} h left")

    def _averaged(self) -> Generator:
        averaged = Generator(self.recipe.generator).to(self.processes.device)
        averaged.load_state_dict(self.training.average.state_dict(self.training.generator))
        return averaged

    def _score_due(self) -> bool:
        """True at the step with which the pictures seen pass a multiple of `score_every`."""
        seen, every = self.seen, self.recipe.score_every
        passed = seen // every > (seen - self.effective_batch) // every
        return self.evaluation is not None and seen >= self.recipe.score_from and passed

    def score(self) -> dict[str, float]:
        """Score the averaged generator by the recipe's judge, and log it."""
        if self.evaluation is None:
            return {}
        scores = self.evaluation.scores(self._averaged(), self.training.text)
        self.folder.log(self.step, {"pictures": self.seen, **scores})
        self._say("  ".join(f"{name} {value:.2f}" for name, value in scores.items()))
        return scores

    def save_grid(self) -> None:
        """Write a sample grid of the averaged generator: fixed captions, fixed noise."""
        if self.processes.rank:
            return
        grid = sample_grid(self._averaged(), self.training.text, self.grid_captions)
        path = self.folder.path / "grids" / f"{self.seen:08d}.png"
        write_atomically(path, encode_picture(grid, "png"))

    def save(self, scores: Mapping[str, float] | None = None) -> None:
        """Write a checkpoint; one that was scored may become the best."""
        description = {
            "kind": "gan",
            "generator": asdict(self.recipe.generator),
            "text_encoder": asdict(self.training.text.config),
            "recipe": asdict(self.recipe),
            "data": self.recipe.data_name,
            "pictures": self.seen,
            "started_from": self.started_from,
            "curve": training_curve(self.folder.path),
            "since_last_line": self.means.sums,
            "training_pictures": self.pictures,
            "effective_batch": self.effective_batch,
            "damsm": {key: self.damsm.document.get(key) for key in ("image_encoder", "r_precision", "step")},
        }
        name = f"score/{self.recipe.best}"
        self.folder.save(
            self.step,
            description | ({"scores_in_training": dict(scores)} if scores else {}),
            self.training.tensors(),
            self.words,
            score=(name, scores[name]) if scores else None,
            lower_is_better=self.recipe.best == "fid",
        )


def _as_it_began(recipe: GanRecipe, before: Mapping[str, Any]) -> GanRecipe:
    """The recipe with what `recipe.json` of its run says of how it is computed; what is damaged there says nothing."""
    shape = before.get("generator")
    precision, layout = before.get("precision"), before.get("channels_last")
    upsampling = shape.get("upsampling") if isinstance(shape, dict) else None
    return replace(
        recipe,
        precision=precision if precision in ("fp32", "bf16") else "fp32",
        channels_last=layout if isinstance(layout, bool) else recipe.channels_last,
        generator=replace(recipe.generator, upsampling=upsampling)
        if upsampling in ("nearest", "transposed")
        else recipe.generator,
    )


def _ancestor(checkpoint: Checkpoint) -> JsonObject:
    """What a run remembers of one that it started from."""
    kept = {name: checkpoint.document.get(name) for name in REMEMBERED}
    curve = checkpoint.document.get("curve") or training_curve(checkpoint.folder.parent.parent)
    return {**kept, "curve": curve}


@dataclass(frozen=True)
class Progress:
    """How far a run had come when a checkpoint was written: pictures seen, and metrics since the last line of them."""

    pictures: int
    since_last_line: Mapping[str, tuple[float, ...]] | None = None


class _Means:
    """Running means of the metrics since they were last taken."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = {}

    def add(self, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self.sums.setdefault(name, []).append(value)

    def take(self) -> dict[str, float]:
        means = {name: round(sum(values) / len(values), 5) for name, values in self.sums.items()}
        self.sums.clear()
        return means


class _Clock:
    """What is due by the wall clock."""

    def __init__(self, recipe: GanRecipe) -> None:
        self.started = time.monotonic()
        self.every = {"grid": recipe.grid_minutes * 60, "checkpoint": recipe.checkpoint_minutes * 60, "line": 15.0}
        self.last = dict.fromkeys(self.every, self.started)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def due(self, what: str) -> bool:
        now = time.monotonic()
        if now - self.last[what] < self.every[what]:
            return False
        self.last[what] = now
        return True
