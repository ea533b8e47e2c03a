"""What pictures are stored in: one file each, or tar shards in the WebDataset layout.

Both keep one promise: a picture that `scan` reports is whole, whatever killed the run that wrote it.
"""

import io
import json
import os
import re
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attngan_deploy.errors import OutputError
from attngan_deploy.media.images import is_complete
from attngan_deploy.media.shards import BAD_TAR
from attngan_deploy.system.durable import sync_files, sync_folder, sync_handle
from attngan_deploy.system.files import inside, part_path, replaceable_file, write_all

TAR = "tar"
SHARD_SIZE = 1000
SETTLED_EVERY = 0.25  # seconds in which a fast engine's pictures wait for the disk together
SHARD_NAME = re.compile(r"pictures-(\d{5,})\.tar")
NO_CLASS = -1
BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)  # of a tar
HEADER = bytearray(tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT))
HEADER[148:156] = b" " * 8  # its checksum


class LooseFiles:
    """Pictures by name, e.g. "00001_00", encoded by the caller, each in a file of its own.

    They get final names together: to wait for the disk takes as long for many as for one.

    Args:
        waits: for the disk; False where it is waited for once everything is there.
    """

    def __init__(self, folder: Path, suffix: str, waits: bool = True) -> None:
        self.folder, self.suffix, self.waits = folder, suffix, waits
        self._added: list[tuple[Path, Path]] = []  # temporary and final place
        self._due = 0.0  # when what was added is to get final names

    def file_of(self, name: str) -> str:
        """The file that a picture added now goes to, relative to the folder."""
        return f"{name}.{self.suffix}"

    def scan(self) -> dict[str, str]:
        """Names of the whole pictures in the folder, each with its file; raise OutputError where a shard is damaged."""
        found: dict[str, str] = {}
        if not self.folder.is_dir():
            return found
        with os.scandir(self.folder) as entries:
            for entry in entries:
                name, _, suffix = entry.name.rpartition(".")
                if suffix == self.suffix and entry.is_file() and is_whole(Path(entry.path), suffix):
                    found[name] = entry.name
        return found

    def read(self, file: str) -> bytes:
        """The bytes of a picture by the file that `scan` gave."""
        return (self.folder / file).read_bytes()

    def add(self, name: str, data: bytes, record: Mapping[str, Any]) -> bool:
        """Take a picture and what is said of it; True when it and all before it stand under final names."""
        final = replaceable_file(inside(self.folder, self.file_of(name)))
        part = part_path(final)
        try:
            part.write_bytes(data)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        self._added.append((part, final))
        return False

    def settle(self) -> bool:
        """Give final names to what was added, some times a second; returns whether it was all of it.

        Nothing takes them away any more, a power cut included.
        """
        if time.monotonic() < self._due:
            return False
        self.finish()
        return True

    def finish(self) -> None:
        """Give final names to all that was added."""
        if self._added:
            if self.waits:
                sync_files(part for part, _ in self._added)
            for part, final in self._added:
                part.replace(final)
            if self.waits:
                sync_folder(self.folder)
            self._added.clear()
        self._due = time.monotonic() + SETTLED_EVERY

    def abandon(self) -> None:
        """Drop what has no final name yet."""
        for part, _ in self._added:
            part.unlink(missing_ok=True)
        self._added.clear()


class TarShards(LooseFiles):
    """Tar files of `SHARD_SIZE` PNG pictures, each followed by a `.json` of its class (none: -1) and caption.

    A shard is written under a temporary name and renamed when it is full or the run ends. What a killed run had
    not renamed is made again; a shard is never added to afterwards. One that a power cut emptied (older versions did
    not wait for the disk) is made again too. Behind each sample its end is written too, so that
    a disk that is full has room for the end of what was whole. With a name, it is that of the only shard.
    """

    def __init__(self, folder: Path, shard_size: int = SHARD_SIZE, name: str | None = None, waits: bool = True) -> None:
        super().__init__(folder, "png", waits)
        self.shard_size, self._name = shard_size, name
        self._next = self._number_of_next()
        self._stream: io.FileIO | None = None
        self._part = Path()
        self._count = self._end = 0

    def _number_of_next(self) -> int:
        return 1 + max((int(match[1]) for match, _ in self._shards()), default=-1)

    def _shards(self) -> list[tuple[re.Match[str], Path]]:
        paths = sorted(self.folder.iterdir())
        return [(match, path) for path in paths if (match := SHARD_NAME.fullmatch(path.name))]

    def settle(self) -> bool:
        return self._stream is None

    @property
    def _shard(self) -> str:
        return self._name or f"pictures-{self._next:05d}.tar"

    def file_of(self, name: str) -> str:
        return f"{self._shard}/{name}.{self.suffix}"

    def scan(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for _, path in self._shards():
            if not is_begun(replaceable_file(path)):
                path.unlink()
                continue
            try:
                with tarfile.open(path, "r:") as tar:
                    members = [member.name for member in tar if member.isfile() or member.islnk()]
            except BAD_TAR as error:
                raise OutputError(
                    f"{path} is damaged ({error})", next_step="delete it and run the same again"
                ) from error
            for member in members:
                name, _, suffix = member.removeprefix("./").rpartition(".")
                if suffix == self.suffix:
                    found.setdefault(name, f"{path.name}/{member}")
        self._next = self._number_of_next()
        return found

    def read(self, file: str) -> bytes:
        shard, _, member = file.partition("/")
        with tarfile.open(self.folder / shard, "r:") as tar:
            stream = tar.extractfile(member)
            return stream.read() if stream else b""

    def add(self, name: str, data: bytes, record: Mapping[str, Any]) -> bool:
        if self._stream is None:
            self._part = part_path(replaceable_file(inside(self.folder, self._shard)))
            self._stream = self._part.open("xb", buffering=0)
            self._count = self._end = 0
        facts = {"class": NO_CLASS, "captions": [record["caption"]], **record}
        sample = _member(f"{name}.{self.suffix}", data) + _member(f"{name}.json", json.dumps(facts).encode())
        self._stream.seek(self._end)
        write_all(self._stream, sample + END)
        self._end += len(sample)
        self._count += 1
        if self._count == self.shard_size:
            self.finish()
        return self._stream is None

    def finish(self) -> None:
        if self._stream is None:
            return
        if self._count == 0:
            self.abandon()
            return
        with self._stream as stream:  # a sample that was only half added is cut off
            stream.seek(self._end)
            write_all(stream, END)
            stream.truncate()
            if self.waits:
                sync_handle(stream.fileno())
        self._part.replace(self.folder / self._shard)
        if self.waits:
            sync_folder(self.folder)
        self._stream = None
        self._next += 1

    def abandon(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            self._part.unlink(missing_ok=True)
            stream.close()


def picture_store(folder: Path, file_format: str, shard_size: int | None = None, name: str | None = None) -> LooseFiles:
    """What holds pictures of a format of `t2i generate`.

    The last two are for shards that `Target.take` gives their places, and waits for; see `TarShards`.
    """
    if file_format != TAR:
        return LooseFiles(folder, file_format, waits=name is None)
    return TarShards(folder, shard_size or SHARD_SIZE, name, waits=name is None)


def _member(name: str, data: bytes) -> bytes:
    """A file as it stands in a tar; without time and owner, so that equal runs make equal shards."""
    header = bytearray(HEADER)
    header[: len(name)] = name.encode()
    header[124:136] = b"%011o\0" % len(data)
    header[148:156] = b"%06o\0 " % sum(header)  # of a header with spaces in its own place
    return bytes(header) + data + bytes(-len(data) % BLOCK)


def is_begun(path: Path) -> bool:
    """Whether a file has a first block: what a power cut empties has none, or one of zeros.

    What is no file, such as a pipe, was not emptied by any, and is not opened.
    """
    if not path.is_file():
        return True
    with path.open("rb") as stream:
        return any(stream.read(BLOCK))


def is_whole(path: Path, file_format: str) -> bool:
    """Whether a picture or a shard begins and ends as a whole one does."""
    if file_format == TAR:
        with path.open("rb") as stream:
            size = stream.seek(0, io.SEEK_END)
            stream.seek(max(0, size - len(END)))
            return is_begun(path) and size % BLOCK == 0 and stream.read() == END
    with path.open("rb") as stream:
        head = stream.read(12)
        size = stream.seek(0, io.SEEK_END)
        stream.seek(max(0, size - 12))
        return is_complete(head, stream.read(12), size, file_format)
