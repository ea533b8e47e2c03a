"""The processor: what it can do, and how many of its cores this process may use."""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CPU_INFO = Path("/proc/cpuinfo")
OWN_GROUPS, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")  # control groups of Linux


def usable_cores() -> int:
    """Cores that this process may use: by its affinity, and by the quotas of its container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *map(math.ceil, _quotas())]))


def limited_threads() -> int | None:
    """Threads for a library that would start one for every core that there is; None where it may use all of them."""
    cores = usable_cores()
    return cores if cores < (os.cpu_count() or 1) else None


def cpu_lines(*names: str) -> list[str]:
    """What Linux says of the processor under these names, a line "name : value" each time; [] on other systems."""
    return [line for line in _read(CPU_INFO).splitlines() if line.partition(":")[0].strip() in names]


def cpu_flags() -> set[str]:
    """What Linux says that the processor can do, e.g. "avx512_bf16"; nothing on other systems."""
    return {flag for line in cpu_lines("flags", "Features") for flag in line.partition(":")[2].split()}


def _quotas() -> Iterator[float]:
    """Cores by the quotas of this process's control groups, of version 1 and 2, and of those that they are in.

    A container may see its own group as the root, or the name that it has outside, which is not to be found inside.
    """
    for line in _read(OWN_GROUPS).splitlines():
        _, controllers, place = (*line.split(":", 2), "", "")[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        for root in {GROUPS / "cpu", GROUPS / controllers} if controllers else {GROUPS, GROUPS / "unified"}:
            inside = PurePosixPath("/", place.replace("..", "").lstrip("/"))
            for group in (inside, *inside.parents):
                yield from _quota(root / str(group).lstrip("/"))


def _quota(group: Path) -> Iterator[float]:
    """The quota of a group in cores, where it has one: microseconds of a period, "max" or -1 for none."""
    version_2 = _read(group / "cpu.max").split()
    version_1 = [_read(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    for pair in (version_2, version_1):
        if len(pair) == 2 and all(part.isdecimal() and int(part) for part in pair):
            yield int(pair[0]) / int(pair[1])


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
