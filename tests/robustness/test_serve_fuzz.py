"""A short form of `benchmarks/serve/fuzz.py`: odd requests to a server of a tiny bundle, by schema and as bytes."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.makers.commands import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
REQUESTS = 200


def test_no_odd_request_gets_a_5xx(tiny_bundle: Path) -> None:
    if find_spec("schemathesis") is None:
        pytest.skip("needs schemathesis: pip install 'attngan-deploy[dev]'")
    server = ["--model", str(tiny_bundle), "--backend", "onnxruntime", "--threads", "1"]
    command = [sys.executable, "benchmarks/serve/fuzz.py", "--requests", str(REQUESTS), "--", *server]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["requests_in_all"] >= REQUESTS and told["schemathesis"]["requests"] >= REQUESTS // 2
    assert told["bytes"]["requests"] == REQUESTS // 2 and told["bytes"]["answers"].get("422", 0) > 0
    assert told["answers_5xx"] == 0 and told["health_afterwards"] == "ok"
