"""Commands of the toolkit, run in this process or in one of their own; and waiting for what these do."""

import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from attngan_deploy.cli import app, register, report_errors

PATIENCE = 600.0  # seconds. It only ends a test that hangs: nothing takes so long on the busiest machine.


def t2i(*arguments: str) -> int:
    """Run `t2i ARGUMENTS`; returns the exit status."""
    register("bench", "doctor", "export", "generate", "models", "replay", "verify")
    try:
        return report_errors(lambda: app(list(arguments), standalone_mode=True))
    except SystemExit as end:
        return int(end.code or 0)


def children(process: int | None = None) -> set[str]:
    """Processes that a process (this one unless named) started and that still run; skips where nobody lists them."""
    if not Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").is_file():
        pytest.skip("this system does not list the children of a process")
    found: set[str] = set()
    for table in Path(f"/proc/{process or os.getpid()}/task").glob("*/children"):
        with suppress(OSError):  # a thread that has ended since
            found |= set(table.read_text().split())
    return found


def cpu_seconds(process: int) -> float:
    """Time of the processor that a process has taken, 0 where it is gone; skips where nobody tells it."""
    if not Path("/proc/self/stat").is_file():
        pytest.skip("this system does not tell how much time of the processor a process took")
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_seconds_of_ended() -> float:
    """Time of the processor that all processes took that this one started and that ended."""
    import resource  # no such thing on Windows

    taken = resource.getrusage(resource.RUSAGE_CHILDREN)
    return taken.ru_utime + taken.ru_stime


def wait_for(condition: Callable[[], object], process: "subprocess.Popen[Any] | None" = None) -> None:
    """Wait until a condition holds; fails where the process that should make it true ends before."""
    end = time.monotonic() + PATIENCE
    while not condition():
        ended = process is not None and process.poll() is not None
        if process is not None and (ended or time.monotonic() > end):
            process.kill()
            assert ended and condition(), process.communicate()
            return
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)
