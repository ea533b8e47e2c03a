"""One writer at a time: whoever writes a file or a folder holds its lock, and a second one is refused.

A lock belongs to an open file, so the system frees it however its process ends, SIGKILL included.
"""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from attngan_deploy.errors import OutputError

LOCK_SUFFIX = ".lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)  # of a file system without them


def lock_path(final: Path) -> Path:
    """The hidden file beside `final` that is locked while `final` is written."""
    return final.parent / f".{final.name}{LOCK_SUFFIX}"


def is_lock(path: Path) -> bool:
    """True for a name that `lock_path` gave; a killed process may leave such a file, which locks nothing."""
    return path.name.startswith(".") and path.name.endswith(LOCK_SUFFIX)


@contextmanager
def writing(final: Path) -> Iterator[bool]:
    """Hold the lock of a file or folder that is going to be at `final`, in a folder that is there.

    Yields whether it is held; False on Windows, and on a file system that knows no locks.

    Raises:
        OutputError: another process holds it.
        OSError: the folder of `final` can't be written.
    """
    final = final.resolve() if final.is_symlink() else final
    path = lock_path(final)
    handle = _locked_file(path, final)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            with suppress(OSError):
                path.unlink()  # before the lock is freed: whoever waits for it finds that the name is gone
            os.close(handle)


def lock_folder(folder: Path, shared: bool = False) -> int | None:
    """Hold a folder itself until the file descriptor that is returned is closed; None where there are no locks.

    Where it is shared, only those are kept out who want it for themselves. OutputError: another process holds it.
    """
    if sys.platform == "win32":
        return None
    handle = os.open(folder, os.O_RDONLY)
    if _lock(handle, folder, "another run is writing into", shared):
        return handle
    os.close(handle)
    return None


def lock_byte(stream: IO[bytes], number: int) -> bool | None:
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


def _locked_file(path: Path, final: Path) -> int | None:
    if sys.platform == "win32":
        return None
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            error.filename = str(final)  # the name that was asked for, not that of its lock
            raise
        if not _lock(handle, final, "another command is writing"):
            os.close(handle)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        os.close(handle)  # its last holder took the name away in between


def _lock(handle: int, what: Path, how: str, shared: bool = False) -> bool:
    """Lock an open file; closes it where that fails."""
    import fcntl

    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise OutputError(f"{how} {what}", next_step="wait for it, or choose another -o") from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            os.close(handle)
            raise
        return False
    return True
