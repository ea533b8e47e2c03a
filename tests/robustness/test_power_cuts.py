"""Power that fails after any step: `benchmarks/robustness/power_cuts.py`, which plays 200 cuts a command, in short."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ["generate", "generate --format tar", "generate --shard", "export --bundle"]
STATES = 6

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("gcc") is None, reason="needs Linux, and gcc for what records"
)


def states(*options: str) -> dict[str, list[int]]:
    """Steps, states and faults of each command."""
    command = [
        "benchmarks/robustness/power_cuts.py",
        "--states",
        str(STATES),
        "--captions",
        "12",
        "--only",
        *COMMANDS,
        *options,
    ]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()[2:]]
    assert [row[0] for row in rows] == COMMANDS, done.stderr
    assert bool(done.returncode) == any(fault != "0" for row in rows for fault in row[3:]), done.stderr
    return {name: [int(cell) for cell in cells] for name, *cells in rows}


def test_nothing_that_was_reported_is_lost_and_every_command_goes_on() -> None:
    for name, (steps, seen, *faults) in states().items():
        assert steps > 30 and seen == STATES and faults == [0] * 5, name


def test_a_disk_that_ignores_syncs_is_found_out() -> None:
    for name, (_, _, half_written, lost, *_) in states("--deaf").items():
        assert half_written + lost > 0, name
