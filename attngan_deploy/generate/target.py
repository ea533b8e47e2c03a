"""Where a run's files go: a folder here, or a place at a URL of fsspec such as s3://bucket/birds.

Both keep one promise: what stands under a final name is whole. Several workers may write into one target at once.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import IO, cast

from attngan_deploy.errors import OutputError
from attngan_deploy.generate.storage import is_begun, is_whole
from attngan_deploy.system.durable import make_folders, sync_files, sync_folder
from attngan_deploy.system.files import (
    ANOTHER_FOLDER,
    LARGEST_JSON,
    inside,
    is_ignored,
    is_part,
    open_file,
    part_path,
    read_file,
    read_lines,
    remove,
    remove_parts,
    replaceable_file,
    sha256_of,
    sweep,
    write_atomically,
)
from attngan_deploy.system.filesystems import explained, file_system, is_url
from attngan_deploy.system.lock import is_lock, lock_byte, lock_folder
from attngan_deploy.system.os_errors import FULL, advice, reason

RUN = "run.json"
MANIFEST = "manifest.jsonl"
METADATA = "metadata.jsonl"  # the captions, as `imagefolder` of Hugging Face datasets reads them
PATIENCE = 1.0  # seconds


class Target:
    """A folder for files, by name.

    Locks need a file system that has them; where it has none, equal shards are made twice, no worse.
    """

    def __init__(self, where: str | Path) -> None:
        self.where, self.folder = str(where), Path(where)

    def sizes(self) -> dict[str, int]:
        """What is there and finished, each with its bytes; nothing where the place itself is missing."""
        with written(self.where):
            there = self.folder.iterdir() if self.folder.exists() else ()
            kept = [path for path in there if not (is_part(path) or is_lock(path) or is_ignored(path.name))]
            return {path.name: path.lstat().st_size for path in kept}

    def size(self, name: str) -> int:
        """The bytes of one file, cheaper than `sizes` where there are many; -1 where it is not there."""
        with written(self.where):
            path = self.folder / name
            return path.lstat().st_size if path.is_file() else -1

    def __contains__(self, name: object) -> bool:
        """Whether one file is there."""
        with written(self.where):
            return (self.folder / str(name)).exists()

    def is_intact(self, name: str, sha256: str) -> bool:
        """Whether a file has a hash."""
        with written(self.where):
            return sha256_of(inside(self.folder, name)) == sha256

    def is_whole(self, name: str) -> bool:
        """Whether a picture or shard begins and ends as a whole one does."""
        with written(self.where):
            path = self.folder / name
            return path.is_file() and is_whole(path, path.suffix.removeprefix("."))

    def read(self, name: str, limit: int = LARGEST_JSON) -> bytes:
        """A file's bytes, which must not be more than `limit`.

        Raises:
            OutputError: it is not there, a link, or can't be read.
            ValueError: it is no file, or larger.
        """
        with written(self.where):
            return read_file(inside(self.folder, name), limit)

    def lines(self, name: str, limit: int = LARGEST_JSON) -> Iterator[bytes]:
        """The lines of a file, one after another, so that memory stays flat; raises as `read`."""
        with written(self.where), self._opened(name) as stream:
            yield from read_lines(stream, limit)

    def _opened(self, name: str) -> IO[bytes]:
        return open_file(inside(self.folder, name))

    def is_blank(self) -> bool:
        """Whether what is there is of a run that ended before its first picture, so that another may begin."""
        with written(self.where):
            files = [self.folder / name for name in self.sizes() if name != RUN]
            is_ours = (self.folder / RUN).is_file()  # no pipe, which would be removed with the rest
            return is_ours and all(not (any(path.iterdir()) if path.is_dir() else is_begun(path)) for path in files)

    def clear(self) -> None:
        """Remove what a run left that ended before its first picture."""
        with written(self.where):
            for name in self.sizes():
                remove(self.folder / name)

    def create(self, name: str, data: bytes) -> None:
        """Write a file, unless it is there already."""
        with written(self.where):
            final = inside(self.folder, name)
            part = part_path(final)
            try:
                part.write_bytes(data)
                sync_files([part])
                os.link(part, final)
            except FileExistsError:
                pass
            except OSError:  # a file system without hard links
                if not final.exists():
                    part.replace(final)
            finally:
                part.unlink(missing_ok=True)
                sync_folder(self.folder)

    def write(self, name: str, data: bytes | Iterable[bytes]) -> None:
        with written(self.where):
            write_atomically(inside(self.folder, name), data)

    def take(self, place: Path) -> None:
        """Give all files of this machine, which lie finished in a `workspace`, their final places."""
        with written(self.where):
            files = sorted(place.iterdir())
            finals = [replaceable_file(inside(self.folder, file.name)) for file in files]
            sync_files(files)
            for file, final in zip(files, finals, strict=True):
                file.replace(final)
            sync_folder(self.folder)

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
    def reserve(self, number: int, *names: str) -> Iterator[bool]:
        """Keep a shard (its number and files) from others; False where someone else is at work on it."""
        # A byte of `run.json` is locked, which leaves no file behind, whatever happens.
        try:
            stream = inside(self.folder, RUN).open("r+b")
        except OSError:
            yield True
            return
        with stream:
            got = lock_byte(stream, number)
            if got:
                remove_parts(self.folder, *names)  # of a worker that was killed
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
            make_folders(self.folder)
            handle = self._lock(alone)
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

    def _lock(self, alone: bool) -> int | None:
        if alone:
            return lock_folder(self.folder)
        if any(map(is_part, self.folder.iterdir())):
            with suppress(OutputError):  # others are at work, and it may be theirs
                if (handle := lock_folder(self.folder)) is not None:
                    sweep(self.folder)
                    os.close(handle)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return lock_folder(self.folder, shared=True)
            except OutputError:  # perhaps of another worker, which only removes what was left
                if time.monotonic() > end:
                    raise
                time.sleep(PATIENCE / 50)


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

    def sizes(self) -> dict[str, int]:
        with written(self.where):
            self._system.invalidate_cache()
            try:
                listed = self._system.ls(self._root, detail=True)
            except FileNotFoundError:
                return {}
            sizes = {str(each["name"]).rstrip("/").rpartition("/")[2]: int(each["size"] or 0) for each in listed}
            own = self._root.rstrip("/").rpartition("/")[2]
            return {name: size for name, size in sizes.items() if name != own and not is_ignored(name)}

    def size(self, name: str) -> int:
        with written(self.where):
            self._system.invalidate_cache()
            try:
                return int(self._system.size(self._path(name)) or 0)
            except FileNotFoundError:
                return -1

    def __contains__(self, name: object) -> bool:
        with written(self.where):
            self._system.invalidate_cache()
            return bool(self._system.exists(self._path(str(name))))

    def is_whole(self, name: str) -> bool:
        return self.size(name) > 0

    def is_intact(self, name: str, sha256: str) -> bool:
        return True  # its size tells: a store shows what was sent when it is whole, and hashes it itself

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

    def take(self, place: Path) -> None:
        with written(self.where):
            for file in sorted(place.iterdir()):
                self._system.put_file(str(file), self._path(file.name))

    @contextmanager
    def workspace(self, shard: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="t2i-") as place:
            yield Path(place)

    @contextmanager
    def reserve(self, number: int, *names: str) -> Iterator[bool]:
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
