"""Power cuts: what was written reaches the disk before anything says that it is there, or takes the place of another.

A rename may reach the disk before what is in the file, so that a file is synced before it gets its final name, and
the folder of the name after it; only then may what it replaced be removed.
"""

import ctypes
import os
import re
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

from attngan_deploy.system.lock import FCNTL
from attngan_deploy.system.os_errors import numbers_of

NO_SYNC = numbers_of("EINVAL", "ENOSYS", "ENOTSUP", "EOPNOTSUPP")  # of a file system that knows no such thing
AT_ONCE = 8  # files that are synced side by side, which a journal takes together; of more, their whole file system is
# whether syncfs tells of what could not be written
TELLS_ERRORS = sys.platform == "linux" and [int(each) for each in re.findall(r"\d+", os.uname().release)[:2]] >= [5, 8]
DRIVE_TOO = getattr(FCNTL, "F_FULLFSYNC", None)  # macOS: fsync alone leaves data in the drive's own memory


def sync_handle(handle: int) -> None:
    """Wait until an open file, or folder, is on the disk. OSError: the disk failed to write it."""
    try:
        if DRIVE_TOO is not None:
            with suppress(OSError):  # a drive that can't
                FCNTL.fcntl(handle, DRIVE_TOO)
                return
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise


def sync_files(paths: Iterable[Path]) -> None:
    """Wait until files are on the disk, which takes hardly longer for a batch of them than for one."""
    paths = list(paths)
    if len(paths) > AT_ONCE and len(folders := {path.parent for path in paths}) == 1 and _sync_file_system(*folders):
        return
    if len(paths) < 2:
        for path in paths:
            _sync_file(path)
        return
    with ThreadPoolExecutor(min(AT_ONCE, len(paths))) as pool:
        for _ in pool.map(_sync_file, paths):
            pass


def _sync_file_system(folder: Path) -> bool:
    """Wait until all that was written on a disk of this machine is there; False where only fsync is sure to do that.

    Ten times as fast as fsync of each of 200 files, and a fiftieth of the processor's time. Linux tells of what could
    not be written since 5.8; a file system without a disk of its own (FUSE, NFS, overlay) need not wait for its server.
    """
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None) if TELLS_ERRORS else None
    if syncfs is None or os.major(folder.stat().st_dev) == 0:
        return False
    handle = os.open(folder, os.O_RDONLY)
    try:
        if syncfs(handle):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(handle)
    return True


def _sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)  # Windows syncs what may be written
    try:
        sync_handle(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk: what was made, renamed or removed there."""
    if os.name == "nt":  # which opens no folders, and writes names down itself
        return
    with suppress(PermissionError):  # a folder that may be written and not read
        handle = os.open(path, os.O_RDONLY)
        try:
            sync_handle(handle)
        finally:
            os.close(handle)


def sync_tree(folder: Path) -> None:
    """Wait until all that is in a folder is on the disk; the name of the folder itself is left to `sync_folder`."""
    found = [path for path in _below(folder) if not path.is_symlink()]
    sync_files(path for path in found if path.is_file())
    for path in (*found, folder):
        if path.is_dir():
            sync_folder(path)


def _below(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            yield from _below(path)
        yield path


def make_folders(path: Path) -> None:
    """Make a folder and those above it, so that they outlive a power cut; raises as `Path.mkdir`."""
    missing = list(takewhile(lambda each: not each.exists(), (path, *path.absolute().parents)))
    path.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_folder(made.absolute().parent)


def move(part: Path, final: Path) -> None:
    """Rename a finished file or folder, whose content is on the disk, and wait until its name is too."""
    part.replace(final)
    sync_folder(final.parent)
