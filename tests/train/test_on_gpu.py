"""Training on a stand-in for a GPU, in a process of its own: torch counts its devices when it first learns."""

import subprocess
import sys
from pathlib import Path

CASES = Path(__file__).parent / "on_gpu.py"
PATIENCE = 900


def test_training_on_a_stand_in_for_a_gpu(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--basetemp={tmp_path / 'cases'}",
        CASES,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=CASES.parents[2])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout or "[100%]" in done.stdout
