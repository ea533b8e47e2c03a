"""`t2i bench`, as a person types it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.makers.commands import PATIENCE, children, cpu_seconds, t2i, wait_for

QUICK = ("--rounds", "1", "--seconds", "0.01", "--threads", "1")
ENGINE = ("--backend", "onnxruntime", "--device", "cpu")
COMMAND = "import sys; from tests.makers.commands import t2i; sys.exit(t2i(*sys.argv[1:]))"


@pytest.fixture(autouse=True)
def folder(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("T2I_MODELS", str(tiny_bundle.parent))
    return tmp_path


def test_table_and_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert t2i("bench", "tiny", *ENGINE, "--precision", "all", "--batch", "2,1", *QUICK, "--html", "page.html") == 0
    told = capsys.readouterr()
    assert "img/s" in told.out and "PSNR dB" in told.out
    rows = [line for line in told.out.splitlines() if "│ fp32" in line]
    assert [row.split("│")[4].strip() for row in rows] == ["1", "2"]
    assert "onnxruntime on cpu, int8: can't run: bundle" in told.out
    assert "loading onnxruntime on cpu, fp32" in told.err
    assert Path("page.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert t2i("bench", "tiny", *ENGINE, "--precision", "fp32", "--batch", "1", *QUICK, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    (row,) = told["rows"]
    assert row["engine"]["backend"] == "onnxruntime" and row["latency_p99_seconds"] > 0
    assert told["schedule"] == {"batches": [1], "rounds": 1, "seconds": 0.01, "threads": 1}


def test_nothing_that_runs_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert t2i("bench", "tiny", *ENGINE, "--precision", "int8", *QUICK) == 1
    assert "can't run: bundle" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["none"], 1, "no model 'none'"),
        (["judge"], 1, "is not a text-to-image bundle"),
        (["tiny", "--backend", "caffe"], 1, "no backend 'caffe'"),
        (["tiny", "--html", "."], 1, "is not a file, and is left alone"),
        (["tiny", "--html", "none/page.html"], 1, "can't be written: No such file or directory; expected a file name"),
        (["tiny", "--html", f"{'x' * 240}.html"], 1, "can't be written: File name too long"),
        (["tiny", "--batch", "0"], 2, "is not a list of numbers"),
        (["tiny", "--batch", "1,,2"], 2, "is not a list of numbers"),
        (["tiny", "--batch", "many"], 2, "is not a list of numbers"),
        (["tiny", "--batch", "99999"], 2, "is not a list of numbers"),
        (["tiny", "--rounds", "0"], 2, "--rounds"),
        (["tiny", "--seconds", "-1"], 2, "--seconds"),
    ],
)
def test_bad_input(capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, told: str) -> None:
    assert t2i("bench", *arguments) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert told in " ".join(captured.err.replace("│", " ").split())
    assert status == 2 or len(captured.err.splitlines()) == 1


def test_ctrl_c_ends_every_process(folder: Path) -> None:
    """A terminal sends Ctrl-C to the whole group: the bench must end, in one line, and its workers with it."""
    root = Path(__file__).resolve().parents[2]
    children()  # skips where it can't tell
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "bench", "tiny", *ENGINE, "--rounds", "1000", "--threads", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    wait_for(lambda: any(cpu_seconds(int(worker)) > 1 for worker in children(process.pid)), process)  # it measures
    workers = children(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    out, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, errors
    assert out == ""
    assert errors.splitlines()[-1] == "t2i: stopped"
    assert "Traceback" not in errors
    assert workers and not any(Path("/proc", worker).exists() for worker in workers)
