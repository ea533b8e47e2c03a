"""How much memory there is, and how much of it this process has held."""

import os
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def main_memory() -> int | None:
    """Main memory in bytes; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


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
