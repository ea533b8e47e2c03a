"""Memory that is freed goes back to the system."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import sys
from attngan_deploy.system.allocator import return_freed_memory
done = return_freed_memory() if sys.argv[1] == "1" else None
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
import ctypes
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.free.argtypes = [ctypes.c_void_p]
grown = library.malloc(20 * 2**20)  # freed, it tells glibc to take blocks of this size from its heap from now on
library.free(grown)
blocks = [library.malloc(4 * 2**20) for _ in range(32)]
for block in blocks:
    ctypes.memset(block, 1, 4 * 2**20)
last = library.malloc(100_000)  # above them: the heap can not shrink
for block in blocks:
    library.free(block)
print(done, resident() // 2**20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc's allocator")
def test_freed_blocks_are_given_back() -> None:
    def run(wanted: bool, **environment: str) -> list[str]:
        command = [sys.executable, "-c", SCRIPT, "1" if wanted else "0"]
        return subprocess.run(
            command, env={"PATH": "", **environment}, capture_output=True, text=True, check=True
        ).stdout.split()

    done, small = run(True)
    assert done == "True"
    kept = int(run(False)[1])
    assert int(small) < 60 < kept
    assert run(True, MALLOC_ARENA_MAX="4")[0] == "False"  # somebody's own settings stay
    assert run(True, GLIBC_TUNABLES="glibc.malloc.arena_max=4")[0] == "False"
