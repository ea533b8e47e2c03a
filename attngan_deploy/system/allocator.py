"""Settings of the C library's allocator that keep a command's memory small."""

import ctypes
import os
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8  # mallopt's parameters in glibc
LARGE = 2**20
ARENAS = 2


def return_freed_memory() -> bool:
    """Let glibc give freed blocks of a MiB back at once, and keep few arenas; to be called before threads start.

    It otherwise keeps for itself what a graph needed while it was compiled, and in an arena a thread: a tenth of what
    `t2i generate` takes. Somebody's own settings in the environment (`MALLOC_...`, `GLIBC_TUNABLES`) stay.

    Returns:
        Whether it was done: not with another C library, nor where there are settings.
    """
    own = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if own or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    done = [mallopt(MMAP_THRESHOLD, LARGE), mallopt(TRIM_THRESHOLD, LARGE), mallopt(ARENA_MAX, ARENAS)]
    return all(done)
