"""`t2i` in a process that permissions bind, also where root runs the tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.makers.commands import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
# CAP_DAC_OVERRIDE (1) and CAP_DAC_READ_SEARCH (2) out of the bounding set, which the next program starts from.
DROP = """
import ctypes, os, sys
if os.geteuid() == 0:
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if any(prctl(24, number, 0, 0, 0) for number in (1, 2)):
        sys.exit("permissions do not bind here")
os.execv(sys.executable, [sys.executable, "-m", "attngan_deploy", *sys.argv[1:]])
"""


def run_capless(*arguments: str, environment: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """Run `t2i ARGUMENTS` as somebody whom read-only folders stop; skips where that can't be had."""
    done = subprocess.run(
        [sys.executable, "-c", DROP, *arguments],
        cwd=ROOT,
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if "permissions do not bind here" in done.stderr:
        pytest.skip("root can't be bound by permissions here")
    return done
