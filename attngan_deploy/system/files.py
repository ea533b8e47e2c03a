"""Writing files and folders so that a final name never holds half of anything, whatever ends the writing.

What has its final name when a function returns is on the disk: a power cut takes nothing of it.
"""

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
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from attngan_deploy.errors import OutputError
from attngan_deploy.system.durable import make_folders, move, sync_folder, sync_handle, sync_tree
from attngan_deploy.system.lock import is_lock, writing
from attngan_deploy.system.os_errors import FULL, advice, reason

PART_SUFFIX = ".part"
OLD_SUFFIX = ".old" + PART_SUFFIX  # of a folder that is being replaced
PART = re.compile(r"\.(.+)\.[0-9a-f]{8}(?:\.old)?\.part", re.DOTALL)
IGNORED = frozenset(  # what systems leave, in whatever case
    (
        *(".ds_store", "__macosx", ".trashes", ".fseventsd", ".spotlight-v100", ".apdisk"),  # macOS
        *("thumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),  # Windows
        *("lost+found", ".directory", ".thumbnails", "@eadir", "#recycle"),  # Linux, and disks on a network
    )
)
LARGEST_JSON = 64 * 2**20  # bytes
ANOTHER_FOLDER = "choose another -o"
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
    return PART.fullmatch(path.name) is not None


def remove_parts(folder: Path, *names: str) -> None:
    """Remove what killed processes left of files or folders that nobody else writes now."""
    for left in _parts_of(folder, *names):
        remove(left)


def _parts_of(folder: Path, *names: str) -> list[Path]:
    found = ((path, PART.fullmatch(path.name)) for path in folder.iterdir())
    return [path for path, match in found if match and match[1] in names]


def sweep(folder: Path) -> None:
    """Remove what killed processes left in a folder that is locked, so that nobody writes into it now."""
    for left in [path for path in folder.iterdir() if is_part(path) or is_lock(path)]:
        remove(left)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, as far as that can be done."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def remove_folder(path: Path) -> None:
    """Remove a folder, so that no power cut leaves a part of it under its name."""
    part = part_path(path)
    move(path, part)
    remove(part)


def inside(folder: Path, name: str) -> Path:
    """The place of a file or folder of ours, in a folder that somebody named.

    Raises:
        OutputError: a link is there, through which something elsewhere would be written.
    """
    path = folder / name
    if path.is_symlink():
        raise OutputError(f"{path} is a link, and is left alone", next_step=f"remove it, or {ANOTHER_FOLDER}")
    return path


def replaceable_file(path: Path) -> Path:
    """Where a file that is renamed to `path` goes, behind links; raise OutputError where something else is there."""
    path = path.resolve() if path.is_symlink() else path
    if path.exists() and not path.is_file():
        raise OutputError(f"{path} is not a file, and is left alone", next_step="choose another place for the output")
    return path


@contextmanager
def _at(final: Path) -> Iterator[None]:
    """Have errors of a full disk say where: those of an open file don't, and a copy names the file that it reads."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            error.filename, error.filename2 = str(final), None
        raise


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
        with _at(path), part.open("xb") as stream:
            stream.writelines([data] if isinstance(data, bytes) else data)
            stream.flush()
            sync_handle(stream.fileno())
        move(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_all(stream: IO[bytes], data: bytes) -> None:
    """Write data to a stream without a buffer, which may take a part of it at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[stream.write(rest) :]


def append_whole(path: Path, data: bytes) -> None:
    """Add lines to a file in one write, or none of them; they are on the disk when the file is synced.

    Raises:
        OSError: the disk is full or the file can't be written, or a link is there; it is as it was.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    with _at(path), open(os.open(path, flags, 0o666), "ab", buffering=0) as stream:  # noqa: PTH123 -- the path is open already
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
        make_folders(path)
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(f"{path} is not a folder", next_step=ANOTHER_FOLDER) from error


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
    with _at(final), writing(final) as alone:
        if alone:
            _tidy(final)
        part = part_path(final)
        try:  # from here on, as Ctrl-C may come before the next line
            part.mkdir()
            yield part
            sync_tree(part)
            _check_replaceable(final, marker)
            _put(part, final)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise


def _put(part: Path, final: Path) -> None:
    """Rename a folder to `final`; one that was there is removed, once the new one is on the disk."""
    if not final.exists():
        move(part, final)
    elif _exchange(part, final):
        try:
            sync_folder(final.parent)
        except BaseException:
            _exchange(part, final)
            raise
        shutil.rmtree(part, ignore_errors=True)
    else:
        old = part.with_name(part.name.removesuffix(PART_SUFFIX) + OLD_SUFFIX)
        move(final, old)
        try:
            move(part, final)
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
    for left in _parts_of(final.parent, final.name):
        if left.name.endswith(OLD_SUFFIX) and not final.exists():
            move(left, final)
        else:
            remove(left)


def _check_replaceable(final: Path, marker: str) -> None:
    if final.is_symlink() or (final.exists() and not final.is_dir()):
        raise OutputError(f"{final} is not a folder", next_step=ANOTHER_FOLDER)
    if final.is_dir() and not (final / marker).is_file() and entries(final):
        raise OutputError(
            f"{final} holds other files and is left alone",
            expected=f"an empty folder, or one with a {marker}",
            next_step=ANOTHER_FOLDER,
        )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; raises as `open_file`."""
    with open_file(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def open_file(path: Path) -> BufferedReader:
    """A regular file, to be read; a pipe or a device, which may never end, is not opened.

    Raises:
        OSError: missing, a folder, or not to be read.
        ValueError: no regular file.
    """
    _check_regular(path, path.stat())  # before it is opened, of which a device may take notice
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    stream = open(handle, "rb")  # noqa: PTH123, SIM115 -- the path is open already, and the caller closes it
    try:
        _check_regular(path, os.fstat(handle))
    except BaseException:
        stream.close()
        raise
    return stream


def read_file(path: Path, limit: int) -> bytes:
    """The bytes of a regular file, `limit` at most.

    Raises:
        OSError: as `open_file`.
        ValueError: no regular file, or one of more than `limit` bytes.
    """
    with open_file(path) as stream:
        status = os.fstat(stream.fileno())
        data = stream.read(limit + 1) if status.st_size <= limit else b""
    if max(len(data), status.st_size) > limit:
        raise ValueError(f"it has more than {limit:,} bytes")
    return data


def read_lines(stream: IO[bytes], limit: int) -> Iterator[bytes]:
    """The lines of a file, one after another; raise ValueError at one of more than `limit` bytes."""
    while line := stream.readline(limit + 1):
        if len(line) > limit:
            raise ValueError(f"a line has more than {limit:,} bytes")
        yield line


def _check_regular(path: Path, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is a pipe or a device, no file")


def read_json(path: Path, limit: int = LARGEST_JSON) -> Any:
    """What a JSON file holds; raises as `read_file`, and ValueError where it is not JSON, or nested too deeply.

    So it does where a text holds half of a surrogate pair, which no file could take again.
    """
    try:
        value = json.loads(read_file(path, limit))
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeEncodeError as error:
        raise ValueError("a text in it holds half of a surrogate pair") from error
    return value
