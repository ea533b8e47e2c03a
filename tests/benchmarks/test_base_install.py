"""Benchmarks on a base install: what they lack is told in one line with the line that installs it, not a traceback."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.makers.commands import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [path for path in sorted((ROOT / "benchmarks").glob("*/*.py")) if "__main__" in path.read_text()]
NEED = {
    "check",
    "families",
    "fuzz",
    "generation_speed",
    "gpu_speed",
    "kill_at_random",
    "parity",
    "power_cuts",
    "training_speed",
}
RUN = """
import contextlib, importlib.abc, io, json, runpy, sys
extras = {"torch", "onnx", "onnxscript", "safetensors", "openvino", "fastapi", "uvicorn", "hypothesis", "nltk", "scipy"}
class Nothing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in extras:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Nothing())
told = {}
for script, *arguments in json.loads(sys.argv[1]):
    sys.path.insert(0, script.rpartition("/")[0])
    sys.argv[:] = [script, *arguments]
    error, status = io.StringIO(), 0
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            status = end.code or 0
        except Exception as failure:
            status, _ = 99, print(repr(failure), file=error)
    told[script] = [status, error.getvalue()]
print(json.dumps(told))
"""


@pytest.mark.parametrize("arguments", [["--help"], []])
def test_what_is_missing_is_one_line(arguments: list[str]) -> None:
    need = [path for path in SCRIPTS if arguments or (path.stem in NEED and path.parent.name != "serve")]
    asked = [[str(path), *arguments] for path in need]
    command = [sys.executable, "-c", RUN, json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True, cwd=ROOT)
    told = {Path(script).stem: outcome for script, outcome in json.loads(done.stdout).items()}
    assert len(told) >= len(NEED) - 1
    for name, (status, line) in told.items():
        if status:
            assert status == 1 and name in NEED, (name, line)
            assert line.startswith("t2i: this command needs the '") and line.count("\n") == 1, (name, line)
            assert "Next: pip install 'attngan-deploy[" in line
        else:
            assert arguments and not line, (name, line)
