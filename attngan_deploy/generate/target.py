"""Where a run's files go: a folder here, or a place at a URL of fsspec such as s3://bucket/birds.

Both keep one promise: what stands under a final name is whole. Several workers may write into one target at once.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import IO, cast

from attngan_deploy.errors import OutputError
from attngan_deploy.system.files import LARGEST_JSON, is_ignored, is_part, part_path, read_file, write_atomically
from attngan_deploy.system.filesystems import explained, file_system, is_url
from attngan_deploy.system.lock import is_lock, lock_byte, lock_folder
from attngan_deploy.system.os_errors import FULL, advice, reason

RUN = "run.json"
MANIFEST = "manifest.jsonl"
ANOTHER_FOLDER = "choose another -o"


class Target:
    """A folder for files, by name.

    Locks need a file system that has them; where it has none, equal shards are made twice, no worse.
    """

    def __init__(self, where: str | Path) -> None:
        self.where, self.folder = str(where), Path(where)

    def names(self) -> set[str]:
        """What is there and finished; nothing where the place itself is missing."""
        with written(self.where):
            there = self.folder.iterdir() if self.folder.exists() else ()
            return {path.name for path in there if not (is_part(path) or is_lock(path) or is_ignored(path.name))}

    def __contains__(self, name: object) -> bool:
        """Whether one file is there; cheaper than `names` where there are many."""
        with written(self.where):
            return (self.folder / str(name)).exists()

    def read(self, name: str, limit: int = LARGEST_JSON) -> bytes:
        """A file's bytes, which must not be more than `limit`.

        Raises:
            OutputError: it is not there, or can't be read.
            ValueError: it is no file, or larger.
        """
        with written(self.where):
            return read_file(self.folder / name, limit)

    def lines(self, name: str, limit: int = LARGEST_JSON) -> Iterator[bytes]:
        """The lines of a file, one after another, so that memory stays flat; raises as `read`."""
        with written(self.where), self._opened(name) as stream:
            while line := stream.readline(limit + 1):
                if len(line) > limit:
                    raise ValueError(f"a line has more than {limit:,} bytes")
                yield line

    def _opened(self, name: str) -> IO[bytes]:
        path = self.folder / name
        if not path.is_file():  # a pipe would be waited for
            raise ValueError("it is no file")
        return path.open("rb")

    def is_blank(self) -> bool:
        """Whether what is there is of a run that ended before its first picture, so that another may begin."""
        with written(self.where):
            return all(name == RUN or not (self.folder / name).stat().st_size for name in self.names())

    def clear(self) -> None:
        """Remove what a run left that ended before its first picture."""
        with self.hold(alone=True):
            for name in self.names():
                (self.folder / name).unlink()

    def create(self, name: str, data: bytes) -> None:
        """Write a file, unless it is there already."""
        final = self.folder / name
        with written(self.where):
            part = part_path(final)
            part.write_bytes(data)
            try:
                os.link(part, final)
            except FileExistsError:
                pass
            except OSError:  # a file system without hard links
                if not final.exists():
                    part.replace(final)
            finally:
                part.unlink(missing_ok=True)

    def write(self, name: str, data: bytes | Iterable[bytes]) -> None:
        with written(self.where):
            write_atomically(self.folder / name, data)

    def take(self, file: Path) -> None:
        """Give a finished file of this machine, which lies in a `workspace`, its final place."""
        with written(self.where):
            file.replace(self.folder / file.name)

    @contextmanager
    def workspace(self, shard: str) -> Iterator[Path]:
        """An empty folder of this machine to build a shard in, which is removed afterwards."""
        place = part_path(self.folder / shard)
        with written(self.where):
            place.mkdir()
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    @contextmanager
    def reserve(self, number: int, shard: str) -> Iterator[bool]:
        """Keep a shard (its number and file) from others; False where someone else is at work on it."""
        # A byte of `run.json` is locked, which leaves no file behind, whatever happens.
        try:
            stream = (self.folder / RUN).open("r+b")
        except OSError:
            yield True
            return
        with stream:
            got = lock_byte(stream, number)
            for left in self.folder.glob(f".{shard}.*") if got else []:  # of a worker that was killed
                shutil.rmtree(left, ignore_errors=True)
            yield got is not False

    @contextmanager
    def hold(self, alone: bool = False) -> Iterator[None]:
        """Keep runs of other kinds out, or with `alone` everyone.

        Raises:
            OutputError: they are at work here, or nothing can be written here.
        """
        with written(self.where):
            above = (self.folder, *self.folder.absolute().parents)
            missing = list(takewhile(lambda each: not (each.exists() or each.is_symlink()), above))
            if not above[len(missing)].is_dir():
                what = f"{above[len(missing)]} is not a folder: pictures can't be written there"
                raise OutputError(what, next_step=ANOTHER_FOLDER)
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = lock_folder(self.folder, shared=not alone)
        try:
            with written(self.where):  # before minutes of work
                part = part_path(self.folder / RUN)
                part.touch()
                part.unlink()
            yield
        except BaseException:
            with suppress(OSError):  # what was made for a run that made nothing goes again
                for folder in missing if alone else ():
                    folder.rmdir()
            raise
        finally:
            if handle is not None:
                os.close(handle)


class RemoteTarget(Target):
    """A folder of an fsspec file system. It has no locks: a shard that two workers make is written twice, equally.

    A shard is built on this machine, then sent. Object stores show what is sent when it is whole; elsewhere a shard
    counts from its manifest on, which is sent after it.
    """

    def __init__(self, where: str) -> None:
        self.where = where.rstrip("/")
        with written(self.where):
            self._system, self._root = file_system(self.where)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def names(self) -> set[str]:
        with written(self.where):
            self._system.invalidate_cache()
            try:
                listed = self._system.ls(self._root, detail=False)
            except FileNotFoundError:
                return set()
            names = {str(path).rstrip("/").rpartition("/")[2] for path in listed} - {self._root.rpartition("/")[2]}
            return {name for name in names if not is_ignored(name)}

    def __contains__(self, name: object) -> bool:
        with written(self.where):
            self._system.invalidate_cache()
            return bool(self._system.exists(self._path(str(name))))

    def read(self, name: str, limit: int = LARGEST_JSON) -> bytes:
        with written(self.where):
            self._system.invalidate_cache()
            return bytes(self._system.cat_file(self._path(name)))

    def _opened(self, name: str) -> IO[bytes]:
        return cast("IO[bytes]", self._system.open(self._path(name), "rb"))

    def create(self, name: str, data: bytes) -> None:
        with written(self.where):
            self._system.makedirs(self._root, exist_ok=True)
            with suppress(FileExistsError):
                self._system.pipe_file(self._path(name), data, mode="create")

    def write(self, name: str, data: bytes | Iterable[bytes]) -> None:
        with written(self.where):
            if isinstance(data, bytes):
                self._system.pipe_file(self._path(name), data)
                return
            with self._system.open(self._path(name), "wb") as joined:
                for part in data:
                    joined.write(part)

    def take(self, file: Path) -> None:
        with written(self.where):
            self._system.put_file(str(file), self._path(file.name))

    @contextmanager
    def workspace(self, shard: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="t2i-") as place:
            yield Path(place)

    @contextmanager
    def reserve(self, number: int, shard: str) -> Iterator[bool]:
        yield True

    def is_blank(self) -> bool:
        return False  # without locks, nobody can tell that a run has ended

    @contextmanager
    def hold(self, alone: bool = False) -> Iterator[None]:
        yield


def open_target(where: str) -> Target:
    """The target at a path or URL; nothing is made yet. Raises what `file_system` does."""
    return RemoteTarget(where) if is_url(where) else Target(where)


@contextmanager
def written(where: str) -> Iterator[None]:
    """Say in one line why a target can't be read or written."""
    with explained(where, OutputError, ANOTHER_FOLDER):
        try:
            yield
        except OSError as error:
            if is_url(where):
                raise
            kept = ", then the same command again: what is done is kept" if error.errno in FULL else ""
            raise OutputError(f"{where} can't be written: {reason(error)}", next_step=advice(error) + kept) from error
