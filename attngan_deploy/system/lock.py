"""One writer at a time: whoever writes a file or a folder holds its lock, and a second one is refused.

A lock belongs to an open file, so the system frees it however its process ends, SIGKILL included.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from attngan_deploy.errors import OutputError
from attngan_deploy.system.os_errors import numbers_of

LOCK_SUFFIX = ".lock"
NO_LOCKS = numbers_of("ENOLCK", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EINVAL")  # of a file system without them
INTO = "another run is writing into"
MOST_SHARING = 64  # who share a folder on Windows
BEHIND_DATA = 2**30  # there a locked byte can't be read by others


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        return None


FCNTL, MSVCRT = _module("fcntl"), _module("msvcrt")  # of Linux and macOS, of Windows


def lock_path(final: Path) -> Path:
    """The hidden file beside `final` that is locked while `final` is written."""
    return final.parent / f".{final.name}{LOCK_SUFFIX}"


def is_lock(path: Path) -> bool:
    """True for a name that `lock_path` gave; a killed process may leave such a file, which locks nothing."""
    return path.name.startswith(".") and path.name.endswith(LOCK_SUFFIX)


@contextmanager
def writing(final: Path) -> Iterator[bool]:
    """Hold the lock of a file or folder that is going to be at `final`, in a folder that is there.

    Yields whether it is held; False on a file system that knows no locks.

    Raises:
        OutputError: another process holds it.
        OSError: the folder of `final` can't be written.
    """
    final = final.resolve() if final.is_symlink() else final
    path = lock_path(final)
    handle = _locked_file(path, final, "another command is writing")
    try:
        yield handle is not None
    finally:
        if handle is not None:
            if FCNTL is None:  # Windows removes no file that is open, nor one that another process has locked by now
                os.close(handle)
            with suppress(OSError):
                path.unlink()  # before the lock is freed: whoever waits for it finds that the name is gone
            if FCNTL is not None:
                os.close(handle)


def lock_folder(folder: Path, shared: bool = False) -> int | None:
    """Hold a folder itself until the file descriptor that is returned is closed; None where there are no locks.

    Where it is shared, only those are kept out who want it for themselves. OutputError: another process holds it.
    """
    if FCNTL is None:  # Windows opens no folders: the file beside it is locked, and stays
        final = folder.resolve()
        return _locked_file(lock_path(final), final, INTO, shared)
    handle = os.open(folder, os.O_RDONLY)
    if _lock(handle, folder, INTO, shared):
        return handle
    os.close(handle)
    return None


def lock_byte(stream: IO[bytes], number: int) -> bool | None:
    """Lock a byte of a file until it is closed; False where another process has it, None where there are no locks."""
    try:
        if FCNTL is None:
            return _lock_region(stream.fileno(), BEHIND_DATA + number, 1) or None
        FCNTL.lockf(stream, FCNTL.LOCK_EX | FCNTL.LOCK_NB, 1, number)
    except (BlockingIOError, PermissionError):  # POSIX allows both
        return False
    except OSError:
        return None
    return True


def _locked_file(path: Path, final: Path, how: str, shared: bool = False) -> int | None:
    while True:
        try:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
            handle = os.open(path, flags, 0o666)
        except OSError as error:
            error.filename = str(final)  # the name that was asked for, not that of its lock
            raise
        if not _lock(handle, final, how, shared):
            os.close(handle)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        os.close(handle)  # its last holder took the name away in between


def _lock(handle: int, what: Path, how: str, shared: bool = False) -> bool:
    """Lock an open file; closes it where that fails."""
    try:
        if FCNTL is None:
            return _lock_by_region(handle, shared)
        FCNTL.flock(handle, (FCNTL.LOCK_SH if shared else FCNTL.LOCK_EX) | FCNTL.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise OutputError(f"{how} {what}", next_step="wait for it, or choose another -o") from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            os.close(handle)
            raise
        return False
    return True


def _lock_by_region(handle: int, shared: bool) -> bool:
    """Lock many bytes of a file or, as one of many who share it, any of them: Windows has no other shared lock."""
    if not shared:
        return _lock_region(handle, 0, MOST_SHARING)
    for place in range(MOST_SHARING):
        with suppress(BlockingIOError):
            return _lock_region(handle, place, 1)
    raise BlockingIOError


def _lock_region(handle: int, start: int, size: int) -> bool:
    """Lock bytes of an open file as Windows does; False where there is no such lock. BlockingIOError: it is taken."""
    if MSVCRT is None:
        return False
    os.lseek(handle, start, os.SEEK_SET)
    try:
        MSVCRT.locking(handle, MSVCRT.LK_NBLCK, size)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EDEADLK):
            raise BlockingIOError(*error.args) from error
        raise
    return True
