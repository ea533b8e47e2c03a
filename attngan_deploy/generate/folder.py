"""The output folder of a run that is not in parts: pictures, `manifest.jsonl`, and `run.json`, which says whose it is.

Beside loose pictures stands `metadata.jsonl`, their captions for other programs, written with each whole manifest.

Pictures (or tar shards of them) appear under their final names only when they are whole and on the disk, so the files
are the truth: the manifest is appended to after each batch and rebuilt from the files at the start and the end of a
run. Whenever a run is killed, or the power fails, every complete line of the manifest names a whole picture, and the
next run makes what is missing.

What made a picture (backend, precision) is the one thing that files alone do not tell: a rebuilt manifest keeps what
its old lines say of it. A picture whose line a killed run did not come to write was made by the engine that `run.json`
names: the first run writes it there, and later ones go on with it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.errors import OutputError
from attngan_deploy.generate.features import Batch, Sheets
from attngan_deploy.generate.manifest import engines_in, holds, is_metadata_of_ours, manifest_line, metadata_line
from attngan_deploy.generate.placed_files import PlacedFiles
from attngan_deploy.generate.plan import Part, Place, Share
from attngan_deploy.generate.recovery import recover_record
from attngan_deploy.generate.run import Run
from attngan_deploy.generate.run_record import DamagedRecordError, EngineRecord, RunRecord, find_record, held_engine
from attngan_deploy.generate.storage import TAR, LooseFiles, picture_store
from attngan_deploy.generate.target import MANIFEST, METADATA, RUN, Target, written
from attngan_deploy.media.caption import Caption
from attngan_deploy.media.images import decode_picture, encode_picture
from attngan_deploy.system.durable import sync_files
from attngan_deploy.system.files import append_whole, entries, inside, is_part, make_folder, sweep, write_atomically
from attngan_deploy.system.signals import uninterrupted

ATTENTION = "attention"


@contextmanager
def open_folder(target: Target, run: Run) -> Iterator["OutputFolder"]:
    """Create or take over the folder of a run, and find out what is there; what is done is kept, whatever happens.

    Where an error leaves nothing done, it leaves nothing.

    Raises:
        OutputError: the folder holds other things, belongs to another run, is in use, or can't be written.
    """
    with target.hold(alone=True):
        out = OutputFolder(target, run)
        try:
            out.begin()
            try:
                yield out
            except BaseException:
                with suppress(Exception):  # the first error is the one to tell
                    out.finish()
                raise
            out.finish()
        except BaseException:
            if not out.files:
                out.withdraw()
            raise


class OutputFolder:
    """The folder of a run; `open_folder` opens one."""

    def __init__(self, target: Target, run: Run) -> None:
        self.target, self.folder, self.run, self.made = target, target.folder, run, 0
        self.files = PlacedFiles(run.samples, run.digits)  # of pictures that stand there whole
        self._attended: set[Place] = set()  # whose sheets of attention are there
        self._sheets = LooseFiles(self.folder / ATTENTION, "png")
        self.engine: EngineRecord | None = None  # that the run must have, as pictures of it are there
        self._engine = EngineRecord()
        self._pending: list[tuple[Place, Caption, str]] = []  # added, but without a final name yet
        self._engine_of: dict[str, EngineRecord] = {}  # of files that were there; others are by the run's engine
        self._is_new = False  # whether this run wrote run.json
        self._is_sorted = False  # whether the manifest is as a run leaves it

    def begin(self) -> None:
        """Find out what is there, and put right what a killed run left."""
        with written(self.target.where):
            self._store = picture_store(self.folder, self.run.file_format)
            record, kept = self._take_over()
            for folder in (self.folder, inside(self.folder, ATTENTION)):
                if folder.is_dir():
                    sweep(folder)
            pictures, sheets = self._store.scan(), self._sheets.scan()
            if kept is not None:
                pictures = {name: file for name, file in pictures.items() if file in kept}
            places = self.run.places_of(pictures.keys() | sheets.keys())
            self.files.update((places[name], file) for name, file in pictures.items() if name in places)
            self._attended = {places[name] for name in sheets if name in places}
            self._engine_of = dict.fromkeys(self.files.values(), EngineRecord()) | self._last_engine(record)
            self._engine_of |= (kept or {}) | engines_in(self.folder / MANIFEST)
            self._rebuild_manifest()
            if self.files and record.engine.backend:
                self.engine = held_engine(self.target, record, self.run.engine)

    def _take_over(self) -> tuple[RunRecord, dict[str, EngineRecord] | None]:
        """The record of the run, new where nothing is there; where it was damaged, also the engines of its files."""
        kept = None
        try:
            record = find_record(self.target, self.run.record, self.run.captions)
        except DamagedRecordError as error:
            record, kept = recover_record(self.target, self.run, self._store, error)
            write_atomically(inside(self.folder, RUN), record.json())
        self._is_new = record is None
        if record is None:
            record = self.run.record
            write_atomically(inside(self.folder, RUN), record.json())
        return record, kept

    def settle(self, engine: EngineRecord) -> EngineRecord:
        """Write down what makes the pictures, before the first of them; returns the run's engine, as far as it is told.

        A kill may keep their lines from being written.
        """
        if self.engine is not None:
            self._engine = self.engine
            return replace(engine, **self.engine.json())
        self._engine = EngineRecord(engine.backend, precision=engine.precision)
        data = replace(self.run.record, engine=self._engine).json()
        with written(self.target.where):
            if (self.folder / RUN).read_bytes() != data:
                write_atomically(inside(self.folder, RUN), data)
        return engine

    def is_done(self, place: Place) -> bool:
        """Whether nothing is left to make for a place."""
        return place in self.files and (not self.run.attention or place in self._attended)

    def pictures_of(self, share: Share) -> int:
        """How many pictures a share has: the run has only one."""
        return self.run.pictures

    def missing(self, share: Share) -> tuple[int, Iterator[Part]]:
        """How many pictures are left to make, and all of them as one part."""
        run = self.run
        done = sum(self.is_done(place) for place in self.files if place[1] < run.samples)
        size = run.pictures - done
        return size, iter([Part(0, size, run.captions, 0, run.samples, lambda place: not self.is_done(place))])

    @contextmanager
    def writing(self, part: Part) -> Iterator[Callable[[Batch, Sheets | None], None]]:
        """Yield what takes the batches of a part."""
        yield self.add
        self.finish()

    def add(self, batch: Batch, sheets: Sheets | None = None) -> None:
        """Write pictures and sheets of attention that are not there; raise OutputError where they can't be written."""
        with written(self.target.where), uninterrupted():
            lines: list[bytes] = []
            try:
                for number, (place, caption) in enumerate(zip(batch.places, batch.captions, strict=True)):
                    if sheets is not None and place not in self._attended:
                        self._add_sheet(place, caption, sheets[number])
                    if place not in self.files:
                        lines += self._add_picture(place, caption, batch.pictures[number])
            finally:
                self._sheets.settle()
                if self._store.settle():
                    lines += self._settle_pending()
                if lines:  # of what is on the disk
                    self._is_sorted = False
                    append_whole(inside(self.folder, MANIFEST), b"".join(lines))

    def finish(self) -> None:
        """Give final names to all that was added, and sort the manifest; raises what `add` does."""
        with written(self.target.where), uninterrupted():
            try:
                self._sheets.finish()
                self._store.finish()
                if self._settle_pending() or not self._is_sorted:
                    self._rebuild_manifest()
            except (OSError, OutputError):
                self._store.abandon()
                self._sheets.abandon()
                self._pending.clear()
                with suppress(OSError):  # the manifest as it stands is right, only shorter
                    self._rebuild_manifest()
                raise

    def join(self) -> tuple[int, int]:
        """How many shards are there, and how many the run has: it is not in parts."""
        return 0, 0

    def picture(self, place: Place) -> NDArray[np.uint8]:
        """Read back a picture that stands there, uint8 [S, S, 3]."""
        return decode_picture(self._store.read(self.files[place]))

    def withdraw(self) -> None:
        """Leave no trace of a run that failed before its first picture, where it began the folder itself."""
        with suppress(OSError):
            if self._is_new:
                with suppress(OSError):
                    self._sheets.folder.rmdir()
                if all(path.name in (RUN, MANIFEST) or is_part(path) for path in entries(self.folder)):
                    for name in (MANIFEST, RUN):
                        (self.folder / name).unlink(missing_ok=True)

    def _last_engine(self, record: RunRecord) -> dict[str, EngineRecord]:
        """The engine that `run.json` names, of each file that was written after it."""
        begun = (self.folder / RUN).stat().st_mtime_ns
        moments = {file: (self.folder / file.partition("/")[0]).stat().st_mtime_ns for file in self.files.values()}
        return {file: record.engine for file, moment in moments.items() if moment >= begun}

    def _add_picture(self, place: Place, caption: Caption, picture: NDArray[np.uint8]) -> list[bytes]:
        """Store a picture; returns the lines of those that got final names by it."""
        name = self.run.name_of(caption, place[1])
        file = self._store.file_of(name)
        record = self.run.picture_record(place, caption, file, self._engine)
        whole = self._store.add(name, encode_picture(picture, self._store.suffix, record), record)
        self._pending.append((place, caption, file))
        self._engine_of.pop(file, None)
        self.made += 1
        return self._settle_pending() if whole else []

    def _add_sheet(self, place: Place, caption: Caption, sheet: NDArray[np.uint8]) -> None:
        make_folder(inside(self.folder, ATTENTION))
        self._sheets.add(self.run.name_of(caption, place[1]), encode_picture(sheet), {})
        self._attended.add(place)

    def _settle_pending(self) -> list[bytes]:
        lines = [self._line(place, caption, file) for place, caption, file in self._pending]
        self.files.update((place, file) for place, _, file in self._pending)
        self._pending.clear()
        return lines

    def _record(self, place: Place, caption: Caption, file: str) -> dict[str, Any]:
        return self.run.picture_record(place, caption, file, self._engine_of.get(file, self._engine))

    def _line(self, place: Place, caption: Caption, file: str) -> bytes:
        return manifest_line(self._record(place, caption, file))

    def _rebuild_manifest(self) -> None:
        self._rebuild(MANIFEST, manifest_line)
        self._is_sorted = True
        there = inside(self.folder, METADATA)
        if self.run.file_format != TAR and (is_metadata_of_ours(there) if there.exists() else self.files):
            self._rebuild(METADATA, metadata_line)

    def _rebuild(self, name: str, line: Callable[[dict[str, Any]], bytes]) -> None:
        path = inside(self.folder, name)
        if holds(path, map(line, self._records())):
            sync_files([path])
        else:
            write_atomically(path, map(line, self._records()))

    def _records(self) -> Iterator[dict[str, Any]]:
        """The records of a whole manifest, one after another: together they may be large."""
        captions = enumerate(self.run.captions.read())
        index, caption = -1, Caption("", 0)
        for place in self.files:
            while index < place[0]:
                index, caption = next(captions)
            yield self._record(place, caption, self.files[place])
