"""Writing files and folders so that a final name never holds half of anything."""

import hashlib
import shutil
import signal
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attngan_deploy.errors import OutputError

PART_SUFFIX = ".part"


def part_path(final: Path) -> Path:
    """A fresh hidden name beside `final`, for what is not finished yet."""
    return final.parent / f".{final.name}.{uuid.uuid4().hex[:8]}{PART_SUFFIX}"


def is_part(path: Path) -> bool:
    """True for a name that `part_path` gave: what a killed run left behind."""
    return path.name.startswith(".") and path.name.endswith(PART_SUFFIX)


def replaceable_file(path: Path) -> Path:
    """Where a file that is renamed to `path` really goes: behind symbolic links.

    Raises:
        OutputError: something that is no file is there; a rename would take its place.
    """
    path = path.resolve() if path.is_symlink() else path
    if path.exists() and not path.is_file():
        raise OutputError(f"{path} is not a file, and is left alone", next_step="choose another place for the output")
    return path


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write `data` (text as UTF-8) under a temporary name in the same folder, then rename it to `path`.

    A symbolic link is followed.

    Raises:
        OutputError: something that is no file is at `path`, such as a device.
        OSError: the disk is full or the folder can't be written; `path` is as it was, and nothing is left behind.
    """
    path = replaceable_file(path)
    part = part_path(path)
    try:
        part.write_bytes(data.encode() if isinstance(data, str) else data)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def check_writable(path: Path) -> None:
    """Refuse a file that can't be written before minutes of work, not after.

    Raises:
        OutputError: its folder is missing or can't be written, or something that is no file is there.
    """
    part = part_path(replaceable_file(path))
    try:
        part.touch()
        part.unlink()
    except OSError as error:
        raise OutputError(
            f"{path} can't be written: {error.strerror}", expected="a file name in a folder that you may write to"
        ) from error


def make_folder(path: Path) -> None:
    """Make a folder for output, and those above it, where they are missing.

    Raises:
        OutputError: something that is no folder is in the way.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(f"{path} is not a folder", next_step="choose another -o") from error


@contextmanager
def atomic_folder(final: Path, marker: str = "bundle.json") -> Iterator[Path]:
    """Yield an empty folder beside `final` to fill; on success it becomes `final`, on failure it is removed.

    A folder that is already at `final` is replaced only when it is empty or holds a file called `marker`,
    so that a mistyped path never deletes anything else.

    Raises:
        OutputError: something else is at `final`.
    """
    _check_replaceable(final, marker)
    make_folder(final.parent)
    part = part_path(final)
    part.mkdir()
    try:
        yield part
        _check_replaceable(final, marker)
        if final.exists():
            old = part_path(final)
            final.rename(old)
            try:
                part.rename(final)
            except BaseException:
                old.rename(final)
                raise
            shutil.rmtree(old)
        else:
            part.rename(final)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _check_replaceable(final: Path, marker: str) -> None:
    if final.is_symlink() or (final.exists() and not final.is_dir()):
        raise OutputError(f"{final} is not a folder", next_step="choose another -o")
    if final.is_dir() and not (final / marker).is_file() and any(final.iterdir()):
        raise OutputError(
            f"{final} holds other files and is left alone",
            expected=f"an empty folder, or one with a {marker}",
            next_step="choose another -o",
        )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def uninterrupted() -> Iterator[list[int]]:
    """Hold Ctrl-C and SIGTERM back until the block is done, so that they can't part steps that belong together.

    Yields a list in which the signals that came stand. Only the main thread receives signals; in others this does
    nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield []
        return
    held: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: held.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield held
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if held:
            signal.raise_signal(held[0])
