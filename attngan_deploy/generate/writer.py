"""The output folder of a run: pictures, `manifest.jsonl`, and `run.json`, which says whose folder it is.

Pictures (or tar shards of them) appear under their final names only when they are whole, so the files are the truth:
the manifest is appended to after each batch and rebuilt from the files at the start and the end of a run. Whenever
a run is killed, every complete line of the manifest names a whole picture, and the next run makes what is missing.

What made a picture (backend, precision) is the one thing that files alone do not tell: a rebuilt manifest keeps what
its old lines say of it. A picture whose line a killed run did not come to write was made by the engine that `run.json`
names, which each run writes there when the lines of those before are settled.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.errors import OutputError
from attngan_deploy.generate.claim import RUN, is_claimed, not_written
from attngan_deploy.generate.storage import LooseFiles, PictureStore, TarShards
from attngan_deploy.media.caption import Caption
from attngan_deploy.media.images import decode_picture, encode_picture
from attngan_deploy.system.files import append_whole, is_part, read_file, read_json, uninterrupted, write_atomically
from attngan_deploy.system.lock import lock_folder

MANIFEST, ATTENTION = "manifest.jsonl", "attention"
ENGINE_OF_RUN = "engine"  # in run.json: what makes the pictures of the run that holds the folder, or held it last
ENGINE = ("backend", "precision")  # what a record says of the engine, where it says it
FORMATS = ("png", "webp", "jpg", "tar")
RUN_VERSION = 1
LARGEST_MANIFEST = 4 * 2**30  # bytes; a picture has some 350

Place = tuple[int, int]  # the caption's place in the input, the sample number


@dataclass(frozen=True)
class Run:
    """What decides the pictures of a folder; all of it must be the same for a run to continue there.

    The number of samples is not part of it: it may grow.

    Attributes:
        captions: the whole input, in order.
        seed: the seed.
        shared_noise: whether every caption has the same noise.
        model: name of the bundle.
        model_hash: its hash.
        file_format: one of `FORMATS`.
    """

    captions: Sequence[Caption]
    seed: int
    shared_noise: bool
    model: str
    model_hash: str
    file_format: str = "png"

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What `run.json` holds."""
        lines = json.dumps([[caption.line, caption.text] for caption in self.captions])
        return {
            "version": RUN_VERSION,
            "captions_sha256": hashlib.sha256(lines.encode()).hexdigest(),
            "seed": self.seed,
            "shared_noise": self.shared_noise,
            "model": self.model,
            "model_hash": self.model_hash,
            "format": self.file_format,
        }

    @cached_property
    def _width(self) -> int:
        return max(5, len(str(self.captions[-1].line)))

    @cached_property
    def _index_of_line(self) -> dict[int, int]:
        return {caption.line: index for index, caption in enumerate(self.captions)}

    def name_of(self, place: Place) -> str:
        """Name of a picture without suffix: line and sample number, e.g. "00001_00"."""
        return f"{self.captions[place[0]].line:0{self._width}d}_{place[1]:02d}"

    def place_of(self, name: str) -> Place | None:
        """The place that a name was made from; None for a name that this run does not make."""
        line, _, sample = name.partition("_")
        if not (line.isdecimal() and sample.isdecimal() and int(line) in self._index_of_line):
            return None
        place = self._index_of_line[int(line)], int(sample)
        return place if self.name_of(place) == name else None

    def record(self, place: Place, file: str) -> dict[str, Any]:
        """What the manifest, and a PNG's metadata, say of a picture, but for the engine that made it."""
        caption = self.captions[place[0]]
        return {
            "caption": caption.text,
            "line": caption.line,
            "index": place[0],
            "sample": place[1],
            "seed": self.seed,
            "file": file,
            "model": self.model,
            "model_hash": self.model_hash,
            "shared_noise": self.shared_noise,
        }


class OutputFolder:
    """The folder of a run, open for writing: `with OutputFolder(folder, run) as out: ...`.

    Args:
        folder: where.
        run: whose.
        engine: what makes the pictures that are added, e.g. {"backend": "openvino", "precision": "bf16"}; their
            lines of the manifest and their own metadata say it.

    Attributes:
        files: the file of each picture that stands there whole, by place.
        made: pictures that were added.

    Raises:
        OutputError: the folder holds other things, belongs to another run, is in use, or can't be written.
    """

    def __init__(self, folder: Path, run: Run, engine: Mapping[str, str] | None = None) -> None:
        self.folder, self.run, self.made = folder, run, 0
        self._engine = dict(engine or {})
        self.files: dict[Place, str] = {}
        self._sheets = LooseFiles(folder / ATTENTION, "png")
        self._sheet_names: set[str] = set()
        self._pending: dict[Place, str] = {}  # added, but without a final name yet
        self._settled: list[tuple[Place, str]] = []  # got final names since `add` began
        self._engine_of: dict[str, dict[str, str]] = {}  # by file, where it is known
        self._made_folders: list[Path] = []  # by this run, the innermost first
        self._is_new = False  # whether this run wrote run.json
        self._lock: int | None = None

    def __enter__(self) -> "OutputFolder":
        """Create or take over the folder, and find out what is there."""
        with self._explained():
            self._made_folders = [each for each in (self.folder, *self.folder.parents) if not each.exists()]
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = lock_folder(self.folder)
            try:
                self._claim()
                self._find()
            except BaseException:
                self._withdraw()
                self._unlock()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Keep what is done, also after Ctrl-C or an error; where that is nothing, it leaves nothing."""
        failed = error is not None
        try:
            self.finish()
        except OutputError:
            failed = True
            if error is None:
                raise
        finally:
            if failed and not self.files:
                self._withdraw()
            self._unlock()

    def is_done(self, place: Place, with_sheet: bool = False) -> bool:
        """Whether nothing is left to make for a place."""
        return place in self.files and (not with_sheet or self.run.name_of(place) in self._sheet_names)

    def add(
        self, places: Sequence[Place], pictures: NDArray[np.uint8], sheets: Sequence[NDArray[np.uint8]] | None = None
    ) -> None:
        """Write pictures uint8 [N, S, S, 3], and the sheets of their attention; what is there already stays.

        Raises:
            OutputError: the disk is full or the folder can't be written. What was whole is kept.
        """
        with self._explained(), uninterrupted():
            self._settled.clear()
            try:
                for number, (place, picture) in enumerate(zip(places, pictures, strict=True)):
                    if sheets is not None:
                        self._add_sheet(place, sheets[number])
                    if place not in self.files:
                        self._add_picture(place, picture)
            finally:
                self._append_manifest(self._settled)

    def finish(self) -> None:
        """Give final names to all that was added, and sort the manifest.

        Raises:
            OutputError: the disk is full or the folder can't be written. What was whole is kept.
        """
        with self._explained(), uninterrupted():
            try:
                self._store.finish()
                self._settle()
                self._rebuild_manifest()
            except OSError:
                self._store.abandon()
                self._pending.clear()
                with suppress(OSError):  # the manifest as it stands is right, only shorter
                    self._rebuild_manifest()
                raise

    def picture(self, place: Place) -> NDArray[np.uint8]:
        """Read back a picture that stands there, uint8 [S, S, 3]."""
        return decode_picture(self._store.read(self.files[place]))

    def write(self, name: str, data: bytes) -> None:
        """Write another file into the folder, e.g. a grid.

        Raises:
            OutputError: the disk is full or the folder can't be written.
        """
        with self._explained():
            write_atomically(self.folder / name, data)

    def _claim(self) -> None:
        if not is_claimed(self.folder, self.run.identity):
            self._is_new = True
            self._describe()

    def _last_engine(self) -> dict[str, dict[str, str]]:
        """The engine that `run.json` names, of each file that was written after it."""
        path = self.folder / RUN
        engine, begun = _engine_in(read_json(path).get(ENGINE_OF_RUN)), path.stat().st_mtime_ns
        written = {file: (self.folder / file.partition("/")[0]).stat().st_mtime_ns for file in self.files.values()}
        return {file: engine for file, moment in written.items() if moment >= begun}

    def _describe(self) -> None:
        """Write whose folder it is, and what makes the pictures whose lines a kill may keep from being written."""
        told = self.run.identity | {ENGINE_OF_RUN: self._engine}
        text = json.dumps(told, indent=2) + "\n"
        path = self.folder / RUN
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_atomically(path, text)

    def _withdraw(self) -> None:
        """Leave no trace of a run that failed before its first picture, where it began the folder itself."""
        with suppress(OSError):
            if self._is_new:
                with suppress(OSError):
                    self._sheets.folder.rmdir()
                if all(path.name in (RUN, MANIFEST) or is_part(path) for path in self.folder.iterdir()):
                    for name in (MANIFEST, RUN):
                        (self.folder / name).unlink(missing_ok=True)
            for folder in self._made_folders:
                folder.rmdir()

    def _find(self) -> None:
        for folder in (self.folder, self._sheets.folder):
            for path in folder.iterdir() if folder.is_dir() else []:
                if is_part(path) and path.is_file():
                    path.unlink()
        tar = self.run.file_format == "tar"
        self._store: PictureStore = TarShards(self.folder) if tar else LooseFiles(self.folder, self.run.file_format)
        for name, file in self._store.scan().items():
            if (place := self.run.place_of(name)) is not None:
                self.files[place] = file
        self._sheet_names = set(self._sheets.scan())
        self._engine_of = self._last_engine() | _told_engines(self.folder / MANIFEST)
        self._rebuild_manifest()
        self._describe()

    def _add_picture(self, place: Place, picture: NDArray[np.uint8]) -> None:
        name = self.run.name_of(place)
        file = self._store.file_of(name)
        record = self.run.record(place, file) | self._engine
        whole = self._store.add(name, encode_picture(picture, self._store.suffix, record), record)
        self._pending[place] = file
        self._engine_of[file] = self._engine
        self.made += 1
        if whole:
            self._settle()

    def _add_sheet(self, place: Place, sheet: NDArray[np.uint8]) -> None:
        name = self.run.name_of(place)
        if name not in self._sheet_names:
            self._sheets.folder.mkdir(exist_ok=True)
            self._sheets.add(name, encode_picture(sheet), {})
            self._sheet_names.add(name)

    def _settle(self) -> None:
        self.files.update(self._pending)
        self._settled += self._pending.items()
        self._pending.clear()

    def _line(self, place: Place, file: str) -> bytes:
        return json.dumps(self.run.record(place, file) | self._engine_of.get(file, {})).encode() + b"\n"

    def _append_manifest(self, entries: Sequence[tuple[Place, str]]) -> None:
        """Add lines in one write, or none of them."""
        lines = b"".join(self._line(place, file) for place, file in entries)
        if not lines:
            return
        append_whole(self.folder / MANIFEST, lines)

    def _rebuild_manifest(self) -> None:
        path = self.folder / MANIFEST
        if not path.is_file() or not _holds(path, self._lines()):
            write_atomically(path, self._lines())

    def _lines(self) -> Iterator[bytes]:
        """The lines of a whole manifest, one after another: together they may be large."""
        return (self._line(place, file) for place, file in sorted(self.files.items()))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise not_written(str(self.folder), error) from error

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def read_manifest(folder: Path) -> list[dict[str, Any]]:
    """The records of a folder's `manifest.jsonl`, in order; a last line that a killed run cut short is left out.

    Raises:
        OutputError: there is no manifest, or a line of it is not one of ours.
    """
    path = folder / MANIFEST
    try:
        lines = read_file(path, LARGEST_MANIFEST).split(b"\n")[:-1]
        records = [json.loads(line) for line in lines]
    except FileNotFoundError as error:
        raise OutputError(f"{folder} has no {MANIFEST}", expected="a folder made by t2i generate") from error
    except (ValueError, RecursionError) as error:
        raise OutputError(
            f"{path} is damaged ({error})", next_step="run t2i generate into that folder again"
        ) from error
    if not all(isinstance(record, dict) and isinstance(record.get("file"), str) for record in records):
        raise OutputError(f"{path} is not a manifest of t2i generate", expected='lines with a "file"')
    return records


def _holds(path: Path, lines: Iterable[bytes]) -> bool:
    """Whether a file is these lines and nothing more."""
    with path.open("rb") as stream:
        return all(stream.read(len(line)) == line for line in lines) and not stream.read(1)


def _told_engines(manifest: Path) -> dict[str, dict[str, str]]:
    """What the lines of a manifest say of the engines, by file; lines that are damaged say nothing."""
    engines: dict[str, dict[str, str]] = {}
    for line in manifest.read_bytes().splitlines() if manifest.is_file() else []:
        with suppress(ValueError, RecursionError):
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(file := record.get("file"), str):
                engines[file] = _engine_in(record)
    return engines


def _engine_in(told: object) -> dict[str, str]:
    """What a JSON value says of an engine."""
    return {key: told[key] for key in ENGINE if isinstance(told.get(key), str)} if isinstance(told, dict) else {}
