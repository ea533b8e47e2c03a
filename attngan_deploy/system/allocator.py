"""What the C library's allocator does with freed memory: give it back, for a small command, or keep it, for speed."""

import ctypes
import os
import platform
from collections.abc import Mapping

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -3, -4, -8  # mallopt's parameters in glibc
LARGE = 2**20
ARENAS = 2


def return_freed_memory() -> bool:
    """Let glibc give freed blocks of a MiB back at once, and keep few arenas; to be called before threads start.

    It otherwise keeps for itself what a graph needed while it was compiled, and in an arena a thread: a tenth of what
    `t2i generate` takes. Somebody's own settings in the environment (`MALLOC_...`, `GLIBC_TUNABLES`) stay. Returns
    whether it was done: not with another C library, nor where there are settings.
    """
    own = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")
    return not own and _set({MMAP_THRESHOLD: LARGE, TRIM_THRESHOLD: LARGE, ARENA_MAX: ARENAS})


def keep_freed_memory() -> bool:
    """Let glibc keep large blocks for the next training step.

    It otherwise gives them back to the system at every step, and page faults cost a quarter of the time. Returns
    whether it was done: not with another C library.
    """
    return _set({MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1})


def _set(values: Mapping[int, int]) -> bool:
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    done = [mallopt(parameter, value) for parameter, value in values.items()]
    return all(done)
