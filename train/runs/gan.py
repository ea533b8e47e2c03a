"""Training of a generator: what makes a run ready, and the loop around its steps: scores, grids and checkpoints."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.bundles.manifest import read_run
from attngan_deploy.errors import CheckpointError, DataError, StoppedError
from attngan_deploy.media.images import encode_picture
from attngan_deploy.media.tokenizer import Tokenizer
from attngan_deploy.system.allocator import keep_freed_memory
from attngan_deploy.system.files import inside, write_atomically
from attngan_deploy.system.records import JsonObject
from attngan_deploy.system.signals import uninterrupted
from attngan_deploy.train.compiled import why_not_compiled
from attngan_deploy.train.config import GanRecipe
from attngan_deploy.train.data.picture_set import PictureSet, TrainingBatch, TrainingBatches, read_pictures
from attngan_deploy.train.generator import Generator
from attngan_deploy.train.runs.checkpoint import Checkpoint
from attngan_deploy.train.runs.damsm import load_damsm
from attngan_deploy.train.runs.distributed import Processes
from attngan_deploy.train.runs.evaluation import Evaluation
from attngan_deploy.train.runs.gan_step import Encoders, GanTraining
from attngan_deploy.train.runs.machine import prepare_process, resolve_precision
from attngan_deploy.train.runs.origin import Progress, computed_as_before, start_from
from attngan_deploy.train.runs.progress import Clock, Means
from attngan_deploy.train.runs.run_folder import RunFolder, training_curve
from attngan_deploy.train.runs.sampling import GRID_CAPTIONS, sample_grid

LOG_EVERY = 20
LINE_SECONDS = 15.0
COMPILED_FROM = 2000  # steps of a run: compiling takes a minute or two


class GanData:
    """The training shard of a run."""

    def __init__(self, folder: Path, recipe: GanRecipe, tokenizer: Tokenizer, processes: Processes) -> None:
        processes.say("reading pictures")
        pictures = self._read(folder / "train.tar", processes)
        for line in pictures.remarks:
            processes.say(line)
        self.recipe, self.tokenizer, self.processes = recipe, tokenizer, processes
        # word numbers of the first caption of each picture that has one
        first = (tokenizer.encode(captions[0]).ids for captions in pictures.captions)
        self.captions = [ids for ids in first if ids]
        self.batches = TrainingBatches(pictures, tokenizer, recipe.crop, recipe.batch_size, recipe.max_words)

    @staticmethod
    def _read(shard: Path, processes: Processes) -> PictureSet:
        """The pictures, which the first process of every machine reads for all of them where memory can be shared."""
        own = read_pictures([shard]) if processes.place == 0 else None
        told = processes.from_first_here(None if own is None else own.share())
        if own is not None:
            return own
        return read_pictures([shard]) if told is None else PictureSet.shared(**told)

    def __len__(self) -> int:
        return len(self.batches.data)

    def grid_captions(self) -> list[list[int]]:
        """Captions of the grid: the usual ones, or the first pictures' own where birds are not the subject."""
        usual = [self.tokenizer.encode(caption) for caption in GRID_CAPTIONS]
        if all(len(encoded.unknown) < 3 for encoded in usual):
            return [encoded.ids for encoded in usual]
        return self.captions[: len(GRID_CAPTIONS)]

    def steps(self, first: int, last: int) -> Iterator[tuple[int, TrainingBatch, np.random.Generator]]:
        """Number, batch and source of randomness of each step in [first, last), of this process.

        The order depends on (seed, epoch) alone, and all else on (seed, step, rank).

        Raises:
            DataError: too few pictures for one step of all processes.
        """
        seed, rank = self.recipe.seed, self.processes.rank
        per_epoch = len(self._order(0))
        if not per_epoch:
            raise DataError(
                "a step of all processes needs more pictures than there are",
                found=f"{self.recipe.batch_size * self.processes.count} pictures a step",
                expected=f"at most {self.batches.usable.size}",
                next_step="--batch-size, or fewer processes",
            )
        for epoch in range(first // per_epoch, -(-last // per_epoch)):
            order = self._order(epoch)
            for number in range(max(first, epoch * per_epoch), min(last, (epoch + 1) * per_epoch)):
                rng = np.random.default_rng((seed, number, rank))
                yield number, self.batches.batch(order[number - epoch * per_epoch], rng), rng

    def _order(self, epoch: int) -> NDArray[np.int64]:
        return self.batches.epoch_order(self.recipe.seed, epoch, self.processes.rank, self.processes.count)


class GanRun:
    """A run: the training state, its data and its folder, and how far it is. `prepare` makes one."""

    def __init__(
        self,
        recipe: GanRecipe,
        data: GanData,
        damsm: Checkpoint,
        training: GanTraining,
        evaluation: Evaluation | None,
        folder: RunFolder,
    ) -> None:
        self.recipe, self.data, self.damsm, self.training = recipe, data, damsm, training
        self.evaluation, self.folder, self.processes = evaluation, folder, training.processes
        self.means = Means()
        self.step = self.resumed_at = self.seen_before = 0  # the latter two: of the checkpoint that it goes on from
        self.started_from: list[JsonObject] = []
        self.is_whole = True  # False in the middle of a step

    @classmethod
    def prepare(
        cls,
        recipe: GanRecipe,
        data: Path,
        damsm: Path,
        out: Path,
        backbone: Path | None,
        *,
        start: Sequence[Path] = (),
        resume: bool = False,
        processes: Processes | None = None,
    ) -> "GanRun":
        """Make everything ready to train.

        Args:
            recipe: hyper-parameters; precision "auto" is resolved here.
            data: folder with `train.tar`, and `test.tar` where the recipe has a judge.
            damsm: run folder or checkpoint of the encoders.
            start: runs or bundles whose generator it begins with; a later one goes first.
            processes: this process among others; None joins those that `torchrun` started.

        Raises:
            CheckpointError: the encoders, `start` or the run in `out` can't be used.
            DataError: the pictures can't be used.
            EngineError: the precision or a GPU can't be had.
            OutputError: something else is in `out`, or a run and `resume` is False.
        """
        prepare_process()
        processes = processes or Processes.start()
        if resume and recipe.precision == "auto" and (out / "recipe.json").is_file():
            recipe = computed_as_before(recipe, out)
        else:
            own = resolve_precision(recipe, processes.device).precision if processes.rank == 0 else None
            recipe = replace(recipe, precision=processes.from_first(own) or recipe.precision)  # the same for all
        text, image, words, checkpoint = load_damsm(damsm, backbone)
        if text.config.features != recipe.generator.features:
            raise CheckpointError(
                f"{damsm} does not fit the generator",
                found=f"{text.config.features} features",
                expected=str(recipe.generator.features),
            )
        tokenizer = Tokenizer(words)
        material = GanData(data, recipe, tokenizer, processes)
        training = GanTraining(recipe, Encoders(text, image), processes)
        evaluation = None
        if recipe.judge != "none" and processes.rank == 0:
            processes.say(f"reading what judge {recipe.judge} compares with")
            evaluation = Evaluation(
                recipe.judge, data, tokenizer, recipe.score_pictures, recipe.crop, recipe.generator.sizes[-1]
            )
            for line in evaluation.remarks:
                processes.say(line)
            training.probe = evaluation.probe
        folder = RunFolder(out, recipe, resume=resume, writes=processes.rank == 0)
        run = cls(recipe, material, checkpoint, training, evaluation, folder)
        run._begin(start, resume)
        keep_freed_memory()  # not before: a start needs several times the memory of a step
        run._compile()
        return run

    def _begin(self, start: Sequence[Path], resume: bool) -> None:
        """Go on from the run's own checkpoint, or begin with what other runs or bundles have learned."""
        checkpoint = self.folder.latest(self.processes.say)
        if checkpoint is not None:
            self.training.restore(checkpoint)
            self.step = self.resumed_at = checkpoint.step
            progress = checkpoint.facts(Progress)
            self.seen_before = progress.pictures
            self.means.values = {name: list(values) for name, values in (progress.since_last_line or {}).items()}
            self.started_from = [run.document for run in read_run(checkpoint.document).before]
            return
        if resume:
            self.processes.say(f"there is no checkpoint in {self.folder.path} to resume: a new run begins")
        if not start and self.recipe.freeze_first_stage:
            raise CheckpointError(
                "a frozen first stage has to come from another run", next_step="add --start RUN, or drop --freeze-first"
            )
        words, captions = self.data.tokenizer.words, self.data.captions
        for path in start:
            self.processes.say(f"starting from {path}")
            self.started_from.append(start_from(path, self.training, words, captions))

    def _compile(self) -> None:
        """Compile what pays for it, in a run that is long enough; the whole run decides, so that resuming is exact."""
        setting = os.environ.get("T2I_COMPILE", "")
        pays = self.steps >= COMPILED_FROM or setting == "1"
        if setting == "0" or not pays or self.processes.device.type != "cpu":
            return
        missing = why_not_compiled()
        if missing is None:
            self.processes.say("steps are compiled: the first one takes minutes")
            self.training.use_compiled()
        else:
            self.processes.say(f"steps are not compiled, which makes them slower: {missing}")

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
            self._loop()
            self.processes.stop()
            return self.folder.path
        finally:
            self.folder.close()

    def _loop(self) -> None:
        recipe = self.recipe
        self.processes.say(
            f"{len(self.data)} pictures; batch {recipe.batch_size} x {self.processes.count} processes = "
            f"{self.effective_batch} effective; {recipe.precision} on {self.processes.device}; step {self.step} of "
            f"{self.steps}"
        )
        clock = Clock(
            self.step, line=LINE_SECONDS, grid=recipe.grid_minutes * 60, checkpoint=recipe.checkpoint_minutes * 60
        )
        try:
            self.training.train_mode()
            for number, batch, rng in self.data.steps(self.step, self.steps):
                self._step(number, batch, rng)
                is_last = self.step == self.steps  # it is scored and saved below
                if is_last or self.step % LOG_EVERY == 0:
                    self._log(clock)  # before it is saved: a run that is killed and resumed would log it again
                if clock.due("grid"):
                    self.save_grid()
                if self._score_due() and not is_last:
                    self.save(self.score())
                elif clock.due("checkpoint"):
                    self.save()
            if self.means.values:  # of a run that was stopped between its last step and the line of it
                self._log(clock)
            self.save_grid()
            self.save(self.score())
        except KeyboardInterrupt:
            self._stop()

    def _step(self, number: int, batch: TrainingBatch, rng: np.random.Generator) -> None:
        with uninterrupted():  # half a step could not be continued exactly
            self.is_whole = False
            self.means.add(self.training.step(batch, number, self.seen, rng))
            self.step, self.is_whole = number + 1, True

    def _stop(self) -> None:
        if not self.is_whole:  # another process died in the middle of the step, and torchrun ends this one
            raise StoppedError(
                "stopped in the middle of a step, as another process died; --resume continues from what was saved"
            ) from None
        self.save()
        raise StoppedError(f"stopped and saved after {self.seen} pictures; --resume continues") from None

    def _log(self, clock: Clock) -> None:
        metrics = self.means.take()
        speed = clock.speed(self.step) * self.effective_batch
        self.folder.log(self.step, {"pictures": self.seen, "img/s": round(speed, 2), **metrics})
        if clock.due("line"):
            shown = {name.removeprefix("loss/"): value for name, value in metrics.items() if name.startswith("loss/")}
            losses = "  ".join(f"{name} {value:.3f}" for name, value in shown.items())
            hours = clock.hours_left(self.step, self.steps)
            self.processes.say(f"{self.seen} pictures  {losses}  {speed:.1f} img/s  {hours:.1f} h left")

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
        self.processes.say("  ".join(f"{name} {value:.3f}" for name, value in scores.items()))
        return scores

    def save_grid(self) -> None:
        """Write a sample grid of the averaged generator: fixed captions, fixed noise."""
        if self.processes.rank:
            return
        captions, words = self.data.grid_captions(), self.data.tokenizer.words
        grid = sample_grid(self._averaged(), self.training.text, captions, words)
        path = inside(inside(self.folder.path, "grids"), f"{self.seen:08d}.png")
        write_atomically(path, encode_picture(grid, "png"))

    def save(self, scores: Mapping[str, float] | None = None) -> None:
        """Write a checkpoint; one that was scored may become the best."""
        updates = self.training.average.updates
        description = {
            "kind": "gan",
            "generator": asdict(self.recipe.generator),
            "text_encoder": asdict(self.training.text.config),
            "recipe": asdict(self.recipe),
            "data": self.recipe.data_name,
            "pictures": self.seen,
            "started_from": self.started_from,
            "curve": training_curve(self.folder.path),
            "since_last_line": self.means.values,
            "training_pictures": len(self.data),
            "effective_batch": self.effective_batch,
            "damsm": {key: self.damsm.document.get(key) for key in ("image_encoder", "r_precision", "step")},
            **({} if updates == self.step else {"average_updates": updates}),
        }
        name = f"score/{self.recipe.best}"
        self.folder.save(
            self.step,
            description | ({"scores_in_training": dict(scores)} if scores else {}),
            self.training.tensors(),
            self.data.tokenizer.words,
            score=(name, scores[name]) if scores else None,
            lower_is_better=self.recipe.best == "fid",
        )
