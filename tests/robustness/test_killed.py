"""Commands killed at random moments: `benchmarks/robustness/kill_at_random.py`, which kills each 50 times, in short."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOMENTS = 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_no_kill_leaves_half_of_anything() -> None:
    """Each is run again after it, and must end with what an uninterrupted run makes."""
    command = [
        "benchmarks/robustness/kill_at_random.py",
        "--moments",
        str(MOMENTS),
        "--only",
        "generate",
        "train gan",
        "export",
    ]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()[2:]]
    made = ["generate", "generate --format tar", "generate --shard"]
    names = [*made, "train gan", "export", "export over a bundle", "export --bundle"]
    assert [row[0] for row in rows] == names
    for name, killed, early, *faults in rows:
        assert int(killed) + int(early) >= MOMENTS and int(killed) > 0, name
        assert faults == ["0"] * 4, name
