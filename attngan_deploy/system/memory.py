"""How much memory there is, how much of it this process may take, and how much of it it has held."""

import os
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")
AMPLE = 2**30  # bytes of addresses with which every command starts, unless a machine has very many cores
START = "import numpy, typer; bytearray(2**25)"


def main_memory() -> int | None:
    """Main memory in bytes; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def address_limit() -> int | None:
    """Bytes that this process may address (`ulimit -v`); None where there is no limit, or none of the kind."""
    try:
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
    except (ImportError, AttributeError, ValueError, OSError):
        return None
    return None if most in (-1, resource.RLIM_INFINITY) else most


def can_start() -> bool:
    """Whether commands can start within the limit of addresses; tried in another process where it is a low one.

    numpy's library of linear algebra takes a buffer when it is imported, and ends the process where it gets none.
    """
    most = address_limit()
    if most is None or most >= AMPLE:
        return True
    import subprocess  # slow to import, and seldom needed

    return not subprocess.run([sys.executable, "-P", "-c", START], capture_output=True, check=False).returncode


def peak_memory() -> int | None:
    """Most memory that this process has held, in bytes; None where the system does not say."""
    if STATUS.is_file():  # Linux' ru_maxrss also counts the parent, at the moment of starting
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None
