"""Where shards go: a folder here, or at a URL of fsspec such as s3://bucket/birds.

Both keep one promise: what stands under a final name is whole. Several workers may write into one target at once.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Protocol

from attngan_deploy.errors import OutputError
from attngan_deploy.generate.claim import ANOTHER_FOLDER, RUN, not_written
from attngan_deploy.system.files import is_part, part_path, write_atomically
from attngan_deploy.system.filesystems import explained, file_system, is_url
from attngan_deploy.system.lock import is_lock

COPY_BYTES = 2**20


class Target(Protocol):
    """A place for shards, by file name."""

    where: str

    def names(self) -> set[str]:
        """What is there and finished; nothing where the place itself is missing."""

    def __contains__(self, name: object) -> bool:
        """Whether one file is there; cheaper than `names` where there are many."""

    def read(self, name: str) -> bytes:
        """A file's bytes.

        Raises:
            OutputError: it is not there.
        """

    def create(self, name: str, data: bytes) -> None:
        """Write a file, unless it is there already."""

    def write(self, name: str, data: bytes) -> None:
        """Write a file, or replace it."""

    def remove(self, name: str) -> None:
        """Delete a file."""

    def take(self, name: str, file: Path) -> None:
        """Give a finished file of this machine, which lies in a `workspace`, its final name."""

    def join(self, name: str, parts: Iterable[str]) -> None:
        """Write a file that is made of others that are here, in order."""

    def workspace(self, shard: str) -> AbstractContextManager[Path]:
        """An empty folder of this machine to build a shard in, which is removed afterwards."""

    def reserve(self, number: int, shard: str) -> AbstractContextManager[bool]:
        """Keep a shard (its number and file) from others; False where someone else is at work on it."""

    def hold(self, alone: bool = False) -> AbstractContextManager[None]:
        """Keep runs of other kinds out, or with `alone` everyone.

        Raises:
            OutputError: they are at work here.
        """


def open_target(where: str) -> Target:
    """The target at a path or URL; nothing is made yet.

    Raises:
        MissingExtraError: a URL without the package that reads it.
    """
    return RemoteTarget(where) if is_url(where) else LocalTarget(where)


class LocalTarget:
    """A folder. Locks need a file system that has them; where it has none, equal shards are made twice, no worse."""

    def __init__(self, where: str) -> None:
        self.where, self.folder = where, Path(where)

    def names(self) -> set[str]:
        """See `Target`."""
        with written(self.where):
            there = self.folder.iterdir() if self.folder.exists() else ()
            return {path.name for path in there if not (is_part(path) or is_lock(path))}

    def __contains__(self, name: object) -> bool:
        """See `Target`."""
        with written(self.where):
            return (self.folder / str(name)).exists()

    def read(self, name: str) -> bytes:
        """See `Target`."""
        with written(self.where):
            return (self.folder / name).read_bytes()

    def create(self, name: str, data: bytes) -> None:
        """See `Target`."""
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

    def write(self, name: str, data: bytes) -> None:
        """See `Target`."""
        with written(self.where):
            write_atomically(self.folder / name, data)

    def remove(self, name: str) -> None:
        """See `Target`."""
        with written(self.where):
            (self.folder / name).unlink(missing_ok=True)

    def take(self, name: str, file: Path) -> None:
        """See `Target`."""
        with written(self.where):
            file.replace(self.folder / name)

    def join(self, name: str, parts: Iterable[str]) -> None:
        """See `Target`."""
        final = self.folder / name
        with written(self.where):
            part = part_path(final)
            try:
                with part.open("wb") as joined:
                    for each in parts:
                        with (self.folder / each).open("rb") as stream:
                            shutil.copyfileobj(stream, joined, COPY_BYTES)
                part.replace(final)
            finally:
                part.unlink(missing_ok=True)

    @contextmanager
    def workspace(self, shard: str) -> Iterator[Path]:
        """See `Target`."""
        place = part_path(self.folder / shard)
        with written(self.where):
            place.mkdir()
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    @contextmanager
    def reserve(self, number: int, shard: str) -> Iterator[bool]:
        """See `Target`; a byte of `run.json` is locked, which leaves no file behind, whatever happens."""
        try:
            stream = (self.folder / RUN).open("r+b")
        except OSError:
            yield True
            return
        with stream:
            got = _lock_byte(stream, number)
            for left in self.folder.glob(f".{shard}.*") if got else []:  # of a worker that was killed
                shutil.rmtree(left, ignore_errors=True)
            yield got is not False

    @contextmanager
    def hold(self, alone: bool = False) -> Iterator[None]:
        """See `Target`."""
        with written(self.where):
            self.folder.mkdir(parents=True, exist_ok=True)
        if sys.platform == "win32":
            yield
            return
        import fcntl

        handle = os.open(self.folder, os.O_RDONLY)
        try:
            with suppress(OSError):  # a file system without locks
                try:
                    fcntl.flock(handle, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise OutputError(
                        f"another run is writing into {self.where}", next_step="wait for it, or choose another -o"
                    ) from error
            yield
        finally:
            os.close(handle)


class RemoteTarget:
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
        """See `Target`."""
        with written(self.where):
            self._system.invalidate_cache()
            try:
                listed = self._system.ls(self._root, detail=False)
            except FileNotFoundError:
                return set()
            return {str(path).rstrip("/").rpartition("/")[2] for path in listed} - {self._root.rpartition("/")[2]}

    def __contains__(self, name: object) -> bool:
        """See `Target`."""
        with written(self.where):
            self._system.invalidate_cache()
            return bool(self._system.exists(self._path(str(name))))

    def read(self, name: str) -> bytes:
        """See `Target`."""
        with written(self.where):
            self._system.invalidate_cache()
            return bytes(self._system.cat_file(self._path(name)))

    def create(self, name: str, data: bytes) -> None:
        """See `Target`."""
        with written(self.where):
            self._system.makedirs(self._root, exist_ok=True)
            with suppress(FileExistsError):
                self._system.pipe_file(self._path(name), data, mode="create")

    def write(self, name: str, data: bytes) -> None:
        """See `Target`."""
        with written(self.where):
            self._system.pipe_file(self._path(name), data)

    def remove(self, name: str) -> None:
        """See `Target`."""
        with written(self.where):
            self._system.rm_file(self._path(name))

    def take(self, name: str, file: Path) -> None:
        """See `Target`."""
        with written(self.where):
            self._system.put_file(str(file), self._path(name))

    def join(self, name: str, parts: Iterable[str]) -> None:
        """See `Target`."""
        with written(self.where), self._system.open(self._path(name), "wb") as joined:
            for each in parts:
                joined.write(self._system.cat_file(self._path(each)))

    @contextmanager
    def workspace(self, shard: str) -> Iterator[Path]:
        """See `Target`."""
        with tempfile.TemporaryDirectory(prefix="t2i-") as place:
            yield Path(place)

    @contextmanager
    def reserve(self, number: int, shard: str) -> Iterator[bool]:
        """See `Target`."""
        yield True

    @contextmanager
    def hold(self, alone: bool = False) -> Iterator[None]:
        """See `Target`."""
        if alone:
            raise OutputError(f"{self.where} belongs to another run", next_step=ANOTHER_FOLDER)
        yield


def _lock_byte(stream: IO[bytes], number: int) -> bool | None:
    """Lock a byte of a file until it is closed; False where another process has it, None where there are no locks."""
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
    except (BlockingIOError, PermissionError):  # POSIX allows both
        return False
    except OSError:
        return None
    return True


@contextmanager
def written(where: str) -> Iterator[None]:
    """Say in one line why a target can't be read or written."""
    with explained(where, OutputError, ANOTHER_FOLDER):
        try:
            yield
        except OSError as error:
            if is_url(where):
                raise
            raise not_written(where, error) from error
