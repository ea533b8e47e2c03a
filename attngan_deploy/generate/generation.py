"""From captions to pictures in a target: what `t2i generate` does, without the command.

One road for a folder of one process, a share of many and an actor of a cluster: open the output of a run, ask for the
parts that it lacks, and make each: check its captions, make its pictures, write them while the next ones are made.
"""

import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.errors import MissingExtraError, OutputError, install_line
from attngan_deploy.generate.batching import Picture
from attngan_deploy.generate.critic import Critic, best_of
from attngan_deploy.generate.features import Batch, Sheets
from attngan_deploy.generate.folder import OutputFolder, open_folder
from attngan_deploy.generate.pipeline import DEFAULT_BATCH_SIZE, TextToImage
from attngan_deploy.generate.plan import Part, Share
from attngan_deploy.generate.run import Run
from attngan_deploy.generate.run_record import EngineRecord, another_engine
from attngan_deploy.generate.shards import OutputShards, open_shards
from attngan_deploy.generate.storage import TAR
from attngan_deploy.generate.target import open_target
from attngan_deploy.media.images import encode_picture, make_grid
from attngan_deploy.media.tokenizer import MOST_UNKNOWN, Tokenizer, describe_unknown, encode_caption
from attngan_deploy.system.filesystems import is_url
from attngan_deploy.system.terminal import show
from attngan_deploy.system.threads import results_ahead

GRID = "grid.png"
LEAST_PICTURE = 200  # bytes of a picture with what is said of it
GRID_LIMIT = 100  # pictures in a grid
REMEMBERED = 4096  # captions whose words need not be numbered again

Output = OutputFolder | OutputShards


@dataclass(frozen=True)
class Report:
    """What was done: pictures that were made now, and in how many seconds."""

    made: int
    skipped: int  # pictures of this share that were there already, or are another worker's at this moment
    seconds: float
    gridded: int = 0  # pictures in the grid; 0 where none was asked for
    done: int = 0  # shards of the whole run that are there now, where it is in parts, of `shards`
    shards: int = 0
    # that made them; nothing where none was made, or by others
    engine: EngineRecord = field(default_factory=EngineRecord)


def say_to_person(line: str) -> None:
    """Print a line that is worth showing on standard error."""
    show(f"t2i: {line}", error=True)


def check_ray() -> None:
    """Raise MissingExtraError where Ray Data is not installed, which importing `ray_engine` needs."""
    missing = [name for name in ("ray", "pyarrow", "pandas") if find_spec(name) is None]
    if missing:
        what = f"--engine ray needs {missing[0]}, which is not installed"
        raise MissingExtraError(what, next_step=install_line("ray"))


def open_output(run: Run, out: str) -> AbstractContextManager[Output]:
    """Open what a run is written to: a folder, or for a run in parts also a URL.

    Raises:
        OutputError: as `open_folder` or `open_shards`, or a URL.
    """
    if run.shard_size is not None:
        return open_shards(open_target(out), run)
    if is_url(out):
        raise OutputError(f"{out} is no folder of this machine", next_step="add --shard 0/1, which writes to URLs too")
    return open_folder(open_target(out), run)


def generate(
    run: Run,
    out: str,
    share: Share = Share(),  # noqa: B008 -- it can't be changed
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = say_to_person,
    model: TextToImage | None = None,
) -> Report:
    """Make the pictures of a share of a run that a target lacks.

    Args:
        out: a folder, or for a run in parts also a URL.
        progress: called with (done, total) of what this process makes: at the start and after each batch.
        say: called with lines that are worth showing.
        model: an engine of the run's bundle, where the caller has one.

    Raises:
        CaptionError: a caption that can't be read, without a known word, or one that is too long.
        OutputError: the target belongs to another run, holds other things, or can't be written.
        T2IError: the bundle or the engine can't be loaded.
    """
    with open_output(run, out) as output:
        total, parts = output.missing(share)
        seconds, engine = 0.0, EngineRecord()
        if total:
            _check_room(out, total)
            worker = Generation(run, output, model)
            words = UnknownWords(worker.model.tokenizer, say)
            engine = worker.engine
            say(f"model {run.model} {run.model_hash[:12]}, {worker.model.description}")
            done = 0

            def step(pictures: int) -> None:
                nonlocal done
                done += pictures
                progress(done, total)

            step(0)
            start = time.perf_counter()
            for part in parts:
                worker.make(part, step, words.tell)
            seconds = time.perf_counter() - start
        gridded = _write_grid(output) if run.grid and isinstance(output, OutputFolder) else 0
        return Report(output.made, output.pictures_of(share) - output.made, seconds, gridded, *output.join(), engine)


class Generation:
    """An engine at work on a run: the caller's where it has one, and the one that the run began with.

    Raises as `generate`.
    """

    def __init__(self, run: Run, output: Output, model: TextToImage | None = None) -> None:
        self.run, self.output = run, output
        wanted = output.engine
        self.model = model or self._load(wanted)
        engine = self._engine(wanted)
        settled = output.settle(engine)
        if settled != engine:  # another worker was first and chose otherwise, or the caller did
            self.model = self._load(settled)
            if (engine := self._engine(settled)) != settled:
                raise another_engine(output.target, settled.json(), engine.json())
        self.engine = settled
        self.critic = Critic.load_as(run.critic) if run.best_of > 1 else None
        self._unknown = set[str]()  # words that were left out, the first hundred of them
        self._encode = lru_cache(REMEMBERED)(partial(encode_caption, tokenizer=self.model.tokenizer, strict=run.strict))

    def make(
        self,
        part: Part,
        progress: Callable[[int], None] = lambda pictures: None,
        tell: Callable[[dict[str, int]], None] = lambda unknown: None,
    ) -> None:
        """Make the pictures of a part; none is made before all of its captions were checked.

        Args:
            progress: called with the number of pictures of each batch.
            tell: called with the words that are left out, of all parts the first hundred, each with its first line.
        """
        run, unknown = self.run, dict[str, int]()
        for caption in part.captions.read():
            for word in self._encode(caption).unknown:
                if word not in self._unknown and len(self._unknown) < MOST_UNKNOWN:
                    self._unknown.add(word)
                    unknown[word] = caption.place
        tell(unknown)
        with self.output.writing(part) as add:
            if add is None:
                return
            pictures = (Picture(place, caption, self._encode(caption).ids) for place, caption in part)
            in_order = run.shard_size is not None or run.file_format == TAR  # members stand in the order of captions
            size = self.engine.batch_size or None
            stream = partial(
                self.model.stream_pictures,
                seed=run.seed,
                batch_size=size,
                shared_noise=run.shared_noise,
                attention=run.attention,
                in_order=in_order,
                truncation=run.truncation,
            )
            batches = best_of(stream, pictures, run.best_of, self.critic)

            def write(batch: Batch, sheets: Sheets | None) -> int:
                add(batch, sheets)
                return len(batch.places)

            calls = (partial(write, batch, self._sheets(batch) if run.attention else None) for batch in batches)
            with closing(results_ahead(calls, 3, threads=1, complete=True)) as written:
                for count in written:
                    progress(count)

    def _sheets(self, batch: Batch) -> list[NDArray[np.uint8]]:
        from attngan_deploy.media.attention import attention_sheet  # with Pillow, which few runs need

        assert batch.attention is not None
        words = [[self.model.tokenizer.words[number] for number in self._encode(each).ids] for each in batch.captions]
        return [attention_sheet(*each) for each in zip(batch.pictures, batch.attention, words, strict=True)]

    def _load(self, wanted: EngineRecord | None) -> TextToImage:
        """The engine that was asked for; what is "auto" is what the run began with."""
        bundle, asked = open_bundle(self.run.bundle), self.run.engine
        if bundle.hash != self.run.model_hash:
            raise OutputError(
                f"{bundle.folder} is not the model of this run",
                found=bundle.hash[:16],
                expected=self.run.model_hash[:16],
            )
        if wanted is not None:
            asked = replace(asked, **{key: value for key, value in wanted.json().items() if key in asked.names})
        return TextToImage.load_on(bundle, asked)

    def _engine(self, wanted: EngineRecord | None) -> EngineRecord:
        facts = self.model.facts
        usual = 0 if self.run.shard_size is None else DEFAULT_BATCH_SIZE
        batch_size = (wanted.batch_size if wanted else 0) or self.run.batch_size or usual
        return EngineRecord(facts.backend, facts.device.partition(":")[0], facts.precision, batch_size)


class UnknownWords:
    """Tells each word that was left out once, and stops after a hundred."""

    def __init__(self, tokenizer: Tokenizer, say: Callable[[str], None]) -> None:
        self._tokenizer, self._say, self._told = tokenizer, say, set[str]()

    def tell(self, unknown: dict[str, int]) -> None:
        """Say which words are new, each with the line that it stands on."""
        for word, line in unknown.items():
            if word not in self._told and len(self._told) < MOST_UNKNOWN:
                self._told.add(word)
                more = "; more are not told" if len(self._told) == MOST_UNKNOWN else ""
                self._say(f"line {line}: left out {describe_unknown(word, self._tokenizer)}{more}")


def _check_room(out: str, pictures: int) -> None:
    """Raise OutputError where pictures can't fit on a disk, however small they become."""
    if is_url(out):
        return
    free = shutil.disk_usage(out).free
    if pictures * LEAST_PICTURE > free:
        raise OutputError(
            f"{pictures:,} pictures don't fit where {out} is",
            found=f"{free / 1000:,.0f} kB free",
            expected=f"more than {pictures * LEAST_PICTURE / 1000:,.0f} kB",
            next_step="fewer captions or a smaller --n, or another -o",
        )


def _write_grid(out: OutputFolder) -> int:
    """One caption a row where it has several samples, else about square; returns how many pictures it shows."""
    samples = out.run.samples
    rows = min(max(1, GRID_LIMIT // samples), out.run.captions.count)
    places = [(index, sample) for index in range(rows) for sample in range(samples)]
    pictures = np.stack([out.picture(place) for place in places])
    out.target.write(GRID, encode_picture(make_grid(pictures, columns=samples if samples > 1 else None)))
    return len(places)
