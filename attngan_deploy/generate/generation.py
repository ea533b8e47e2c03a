"""From captions to a folder of pictures: what `t2i generate` does, without the command."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.bundles.bundle import Bundle
from attngan_deploy.generate.claim import check_folder
from attngan_deploy.generate.pipeline import Batch, TextToImage
from attngan_deploy.generate.writer import OutputFolder, Place, Run
from attngan_deploy.media.attention import attention_sheet
from attngan_deploy.media.caption import Caption
from attngan_deploy.media.captions import Tokenized, tokenize
from attngan_deploy.media.images import encode_picture, make_grid
from attngan_deploy.system.files import uninterrupted

GRID = "grid.png"
GRID_LIMIT = 100  # pictures in a grid
WAITING = 2  # batches that are not written yet


@dataclass(frozen=True)
class Options:
    """How to make pictures.

    Attributes:
        seed: 0 to 2**64 - 1.
        samples: pictures of each caption.
        shared_noise: give every caption the same noise.
        batch_size: pictures made together; None for the model's default.
        file_format: "png", "webp", "jpg" or "tar".
        grid: also write `grid.png`.
        attention: also write a sheet of each picture's attention into `attention/`.
    """

    seed: int = 0
    samples: int = 1
    shared_noise: bool = False
    batch_size: int | None = None
    file_format: str = "png"
    grid: bool = False
    attention: bool = False


@dataclass(frozen=True)
class Report:
    """What was done.

    Attributes:
        made: pictures that were made now.
        skipped: pictures that stood there already.
        seconds: how long making and writing took.
        gridded: pictures in the grid; 0 where none was asked for.
    """

    made: int
    skipped: int
    seconds: float
    gridded: int


def check_output(bundle: Bundle, captions: Sequence[Caption], folder: Path, options: Options) -> None:
    """Refuse a folder that `generate_folder` would refuse, before an engine is loaded; nothing is made.

    Raises:
        OutputError: the folder belongs to another run, holds other things, or can't be written.
    """
    check_folder(folder, _run(bundle, captions, options).identity)


def generate_folder(
    model: TextToImage,
    captions: Sequence[Caption],
    folder: Path,
    options: Options,
    progress: Callable[[int, int], None] = lambda done, total: None,
    tokenized: Tokenized | None = None,
) -> Report:
    """Make the pictures of `captions` that `folder` lacks.

    Args:
        progress: called with (done, total) of what this run makes: once at the start and after each batch.
        tokenized: what `tokenize` makes of the captions, where the caller has it.

    Raises:
        CaptionError: a caption without a known word, or one that is too long.
        OutputError: the folder belongs to another run, holds other things, or can't be written.
    """
    run = _run(model.bundle, captions, options)
    ids = (tokenized or tokenize(captions, model.tokenizer)).ids
    engine = {"backend": model.facts.backend, "precision": model.facts.precision}
    with OutputFolder(folder, run, engine) as out:
        places = [place for place in _places(captions, options) if not out.is_done(place, options.attention)]
        skipped = sum(place in out.files for place in _places(captions, options))
        progress(0, len(places))
        start, done = time.perf_counter(), 0
        if places:
            batches = model.stream_tokenized(
                ids,
                places,
                options.seed,
                options.batch_size,
                options.shared_noise,
                attention=options.attention,
                in_order=options.file_format == "tar",  # whose members stand in the order of the captions
            )
            with _Behind(out) as behind:
                for batch in batches:
                    sheets = _sheets(model, ids, batch) if options.attention else None
                    for written in behind.add(batch, sheets):
                        done += written
                        progress(done, len(places))
                for written in behind.rest():
                    done += written
                    progress(done, len(places))
        out.finish()
        seconds = time.perf_counter() - start
        gridded = _write_grid(out, options.samples) if options.grid else 0
        return Report(out.made, skipped, seconds, gridded)


class _Behind:
    """Encodes and writes pictures in a thread of its own while the next ones are made."""

    def __init__(self, out: OutputFolder) -> None:
        self._out, self._pool = out, ThreadPoolExecutor(1)
        self._waiting: deque[tuple[int, Future[None]]] = deque()

    def __enter__(self) -> "_Behind":
        return self

    def __exit__(self, *_: object) -> None:
        with uninterrupted():  # what was made is written, also after Ctrl-C or an error
            self._pool.shutdown()

    def add(self, batch: Batch, sheets: Sequence[NDArray[np.uint8]] | None) -> Iterator[int]:
        """Take a batch; yields the sizes of those that were written since, and waits where too many are not."""
        job = self._pool.submit(self._out.add, batch.places, batch.pictures, sheets)
        self._waiting.append((len(batch.places), job))
        yield from self._written(WAITING)

    def rest(self) -> Iterator[int]:
        """Wait for all; yields the size of each batch."""
        yield from self._written(0)

    def _written(self, waiting: int) -> Iterator[int]:
        while self._waiting and (len(self._waiting) > waiting or self._waiting[0][1].done()):
            size, job = self._waiting.popleft()
            job.result()
            yield size


def _run(bundle: Bundle, captions: Sequence[Caption], options: Options) -> Run:
    return Run(captions, options.seed, options.shared_noise, bundle.name, bundle.hash, options.file_format)


def _places(captions: Sequence[Caption], options: Options) -> Iterator[Place]:
    return ((index, sample) for index in range(len(captions)) for sample in range(options.samples))


def _sheets(model: TextToImage, ids: Sequence[list[int]], batch: Batch) -> list[NDArray[np.uint8]]:
    sheets = []
    assert batch.attention is not None
    for (index, _), picture, attention in zip(batch.places, batch.pictures, batch.attention, strict=True):
        words = [model.tokenizer.words[number] for number in ids[index]]
        sheets.append(attention_sheet(picture, attention, words))
    return sheets


def _write_grid(out: OutputFolder, samples: int) -> int:
    """One caption a row where it has several samples, else about square; returns how many pictures it shows."""
    rows = max(1, GRID_LIMIT // samples)
    places: list[Place] = [
        (index, sample) for index in range(min(rows, len(out.run.captions))) for sample in range(samples)
    ]
    if samples == 1:
        places = [(index, 0) for index in range(min(GRID_LIMIT, len(out.run.captions)))]
    pictures = np.stack([out.picture(place) for place in places])
    out.write(GRID, encode_picture(make_grid(pictures, columns=samples if samples > 1 else None)))
    return len(places)
