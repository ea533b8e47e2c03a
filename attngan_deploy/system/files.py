"""Writing files and folders so that a final name never holds half of anything."""

import ctypes
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import sys
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from attngan_deploy.errors import OutputError
from attngan_deploy.system.lock import is_lock, writing
from attngan_deploy.system.os_errors import advice, reason

PART_SUFFIX = ".part"
OLD_SUFFIX = ".old" + PART_SUFFIX  # of a folder that is being replaced
IGNORED = frozenset(  # what systems leave, in whatever case
    (
        *(".ds_store", "__macosx", ".trashes", ".fseventsd", ".spotlight-v100", ".apdisk"),  # macOS
        *("thumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),  # Windows
        *("lost+found", ".directory", ".thumbnails", "@eadir", "#recycle"),  # Linux, and disks on a network
    )
)
LARGEST_JSON = 64 * 2**20  # bytes
EXCHANGE, HERE = 2, -100  # RENAME_EXCHANGE and AT_FDCWD of Linux


def is_ignored(name: str) -> bool:
    """True for what a system leaves in a folder that people think of as theirs alone: `IGNORED`, and macOS's "._x"."""
    return name.startswith("._") or name.lower() in IGNORED


def entries(folder: Path) -> list[Path]:
    """What people put into a folder, sorted; raises as `Path.iterdir`."""
    return sorted(path for path in folder.iterdir() if not is_ignored(path.name))


def part_path(final: Path) -> Path:
    """A fresh hidden name beside `final`, for what is not finished yet."""
    return final.parent / f".{final.name}.{uuid.uuid4().hex[:8]}{PART_SUFFIX}"


def is_part(path: Path) -> bool:
    """True for a name that `part_path` gave: what a killed run left behind."""
    return path.name.startswith(".") and path.name.endswith(PART_SUFFIX)


def sweep(folder: Path) -> None:
    """Remove what killed processes left in a folder that is locked, so that nobody writes into it now."""
    for left in [path for path in folder.iterdir() if is_part(path) or is_lock(path)]:
        _remove(left)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def replaceable_file(path: Path) -> Path:
    """Where a file that is renamed to `path` goes, behind links; raise OutputError where something else is there."""
    path = path.resolve() if path.is_symlink() else path
    if path.exists() and not path.is_file():
        raise OutputError(f"{path} is not a file, and is left alone", next_step="choose another place for the output")
    return path


def write_atomically(path: Path, data: bytes | str | Iterable[bytes]) -> None:
    """Write `data` (text as UTF-8, or parts) under a temporary name in the same folder, then rename it to `path`.

    A symbolic link is followed.

    Raises:
        OutputError: something that is no file is at `path`, such as a device.
        OSError: the disk is full or the folder can't be written; `path` is as it was, and nothing is left behind.
    """
    path = replaceable_file(path)
    part = part_path(path)
    if isinstance(data, str):
        data = data.encode()
    try:
        with part.open("wb") as stream:
            stream.writelines([data] if isinstance(data, bytes) else data)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_all(stream: IO[bytes], data: bytes) -> None:
    """Write data to a stream without a buffer, which may take a part of it at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[stream.write(rest) :]


def append_whole(path: Path, data: bytes) -> None:
    """Add lines to a file in one write, or none of them.

    Raises:
        OSError: the disk is full or the file can't be written; it is as it was.
    """
    with path.open("ab", buffering=0) as stream:
        end = stream.tell()
        try:
            if stream.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except OSError:
            stream.truncate(end)
            raise


def check_writable(path: Path) -> None:
    """Raise OutputError where a file can't be written, or something else is there: before minutes of work."""
    part = part_path(replaceable_file(path))
    try:
        part.touch()
        part.unlink()
    except OSError as error:
        raise OutputError(
            f"{path} can't be written: {reason(error)}",
            expected="a file name in a folder that you may write to",
            next_step=advice(error),
        ) from error


def make_folder(path: Path) -> None:
    """Make a folder, and those above it; raise OutputError where something that is no folder is in the way."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(f"{path} is not a folder", next_step="choose another -o") from error


@contextmanager
def atomic_folder(final: Path, marker: str = "bundle.json") -> Iterator[Path]:
    """Yield an empty folder beside `final` to fill; on success it becomes `final`, on failure it is removed.

    A folder that is already at `final` is replaced only when it is empty or holds a file called `marker`,
    so that a mistyped path never deletes anything else.

    Where the system can swap two names in one step (Linux can), a whole folder is at `final` at every moment.

    Raises:
        OutputError: something else is at `final`, or another process is writing there.
    """
    _check_replaceable(final, marker)
    make_folder(final.parent)
    with writing(final) as alone:
        if alone:
            _tidy(final)
        part = part_path(final)
        part.mkdir()
        try:
            yield part
            _check_replaceable(final, marker)
            _put(part, final)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise


def _put(part: Path, final: Path) -> None:
    """Rename a folder to `final`; one that was there is removed."""
    if not final.exists():
        part.rename(final)
    elif _exchange(part, final):
        shutil.rmtree(part, ignore_errors=True)
    else:
        old = part.with_name(part.name.removesuffix(PART_SUFFIX) + OLD_SUFFIX)
        final.rename(old)
        try:
            part.rename(final)
        except BaseException:
            old.rename(final)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; False where that can't be done."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    return rename is not None and rename(HERE, os.fsencode(one), HERE, os.fsencode(other), EXCHANGE) == 0


def _tidy(final: Path) -> None:
    """Remove what killed processes left beside `final`, and put back a folder that one had just moved away."""
    name = re.compile(rf"\.{re.escape(final.name)}\.[0-9a-f]{{8}}(\.old)?{re.escape(PART_SUFFIX)}")
    for left in [path for path in final.parent.iterdir() if name.fullmatch(path.name) and path.is_dir()]:
        if left.name.endswith(OLD_SUFFIX) and not final.exists():
            left.rename(final)
        else:
            _remove(left)


def _check_replaceable(final: Path, marker: str) -> None:
    if final.is_symlink() or (final.exists() and not final.is_dir()):
        raise OutputError(f"{final} is not a folder", next_step="choose another -o")
    if final.is_dir() and not (final / marker).is_file() and entries(final):
        raise OutputError(
            f"{final} holds other files and is left alone",
            expected=f"an empty folder, or one with a {marker}",
            next_step="choose another -o",
        )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_file(path: Path, limit: int) -> bytes:
    """The bytes of a regular file, `limit` at most; a pipe or a device, which may never end, is not opened.

    Raises:
        OSError: missing, a folder, or not to be read.
        ValueError: no regular file, or one of more than `limit` bytes.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "rb") as stream:  # noqa: PTH123 -- the path is open already
        status = os.fstat(handle)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is a pipe or a device, no file")
        data = stream.read(limit + 1) if status.st_size <= limit else b""
    if max(len(data), status.st_size) > limit:
        raise ValueError(f"it has more than {limit:,} bytes")
    return data


def read_json(path: Path, limit: int = LARGEST_JSON) -> Any:
    """What a JSON file holds; raises as `read_file`, and ValueError where it is not JSON, or nested too deeply."""
    try:
        return json.loads(read_file(path, limit))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
