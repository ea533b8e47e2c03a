"""Ctrl-C and SIGTERM at any moment of a command: one line, exit status 130, no traceback."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attngan_deploy.cli import report_errors
from attngan_deploy.errors import MissingExtraError
from tests.makers.commands import PATIENCE, children, wait_for

ROOT = Path(__file__).resolve().parents[2]
LAST = "t2i: stopped"
# A process presses Ctrl-C at its n-th import, file or other step that Python tells of: by the clock, it would be
# another moment on a busy machine. Signals that come while C code runs wait for one of Python's own steps too.
PRESS = """
import atexit, os, signal, sys
from attngan_deploy.__main__ import main
moment, steps = int(sys.argv.pop(1)), 0
def press(event, arguments):
    global steps
    steps += 1
    if steps == moment:
        os.kill(os.getpid(), signal.SIGINT)
if not moment:
    atexit.register(lambda: print("steps", steps))
sys.addaudithook(press)
main()
"""


def generate(moment: int, pictures: int, folder: Path, bundle: Path) -> "subprocess.CompletedProcess[str]":
    """`t2i generate`, which presses Ctrl-C at a step; with 0, it does not, and says at its end how many there were."""
    command = ["generate", "--caption", "a red bird", "--model", str(bundle), "--n", str(pictures)]
    command += ["-o", str(folder), "--backend", "onnxruntime", "--threads", "1"]
    return subprocess.run(
        [sys.executable, "-c", PRESS, str(moment), *command], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_ctrl_c_at_every_moment_of_a_start(tiny_bundle: Path, tmp_path: Path) -> None:
    steps = int(generate(0, 1, tmp_path / "whole", tiny_bundle).stdout.rpartition("steps ")[2])
    assert steps > 1000
    for part in range(10):
        done = generate(1 + part * steps // 10, 5000, tmp_path / str(part), tiny_bundle)
        assert "Traceback" not in done.stderr, (part, done.stderr)
        assert done.returncode == 130, (part, done)
        lines = [line for line in done.stderr.splitlines() if line.startswith(LAST)]
        assert len(lines) == 1 and done.stderr.splitlines()[-1] == lines[0], (part, done.stderr)
        assert not list(tmp_path.rglob("*.part"))


def test_ctrl_c_once_more_while_the_command_ends() -> None:
    code = """
import signal, sys
from attngan_deploy import __main__ as entry, cli
real, times = signal.signal, []
def again(number, what):
    if what is signal.SIG_DFL and len(times) < 2:
        times.append(number)
        raise KeyboardInterrupt
    return real(number, what)
cli.main = lambda: sys.exit(130)
signal.signal = again
entry.main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "")


def test_a_shell_that_ignores_ctrl_c_is_obeyed(tiny_bundle: Path, tmp_path: Path) -> None:
    """`nohup`, and a shell without job control, start commands that shall not be stopped by it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "attngan_deploy", "models", "--check"],
        cwd=ROOT,
        env=os.environ | {"T2I_MODELS": str(tiny_bundle.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # it is ignored before Python starts
    )
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    out, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert "tiny" in out


def test_ctrl_c_while_a_module_in_c_is_imported(capsys: pytest.CaptureFixture[str]) -> None:
    """ONNX Runtime's own start makes an ImportError of it, which `load_extra` would take for a missing package."""

    def interrupted() -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ImportError("initialization failed") from error

    def extra() -> None:
        try:
            interrupted()
        except ImportError as error:
            raise MissingExtraError("this command needs the 'serve' extra") from error

    for run in (interrupted, extra):
        assert report_errors(run) == 130
        assert capsys.readouterr().err == "t2i: stopped\n"
    with pytest.raises(ImportError, match="really missing"):
        report_errors(lambda: (_ for _ in ()).throw(ImportError("really missing")))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_ended_leaves_what_a_kill_leaves(tiny_bundle: Path, tmp_path: Path, number: int) -> None:
    """The system's own way to end a command is no other than a kill: files are whole at every moment."""
    command = ["generate", "--caption", "a red bird", "--model", str(tiny_bundle), "--n", "5000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "attngan_deploy", *command, "-o", str(tmp_path), "--backend", "onnxruntime"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # under nohup the tests ignore one of them
    )
    wait_for(lambda: len(list(tmp_path.glob("*.png"))) > 20, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == -number
    assert "Traceback" not in errors
    assert len(list(tmp_path.glob("*.png"))) > 20


ALONE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]  # a container's processes


@pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode,
    reason="needs a name space of processes",
)
def test_the_first_process_of_a_container_is_stopped(tiny_bundle: Path, tmp_path: Path) -> None:
    """The system spares it a SIGTERM about which it does nothing."""
    command = ["generate", "--caption", "a red bird", "--model", str(tiny_bundle), "--n", "5000"]
    process = subprocess.Popen(
        [*ALONE, sys.executable, "-m", "attngan_deploy", *command, "-o", str(tmp_path), "--backend", "onnxruntime"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: len(list(tmp_path.glob("*.png"))) > 20, process)
    (first,) = children(process.pid)
    os.kill(int(first), signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert errors.splitlines()[-1].startswith("t2i: stopped; what is done is kept") and "Traceback" not in errors
    assert len(list(tmp_path.glob("*.png"))) == len((tmp_path / "manifest.jsonl").read_text().splitlines())


LARGE_WORK = """
import signal, sys, threading, time
import numpy as np
from attngan_deploy.cli import report_errors
from attngan_deploy.score.metrics.frechet import frechet_distance
from attngan_deploy.score.outputs import FeatureStatistics
from attngan_deploy.system.signals import interruptibly
small = FeatureStatistics.of(np.eye(8))
if sys.argv[1] == "batch":
    work = lambda: interruptibly(lambda: time.sleep(30))
else:
    np.linalg.eigh = lambda matrix: time.sleep(30)
    work = lambda: frechet_distance(small, small)
threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGINT)).start()
begun = time.perf_counter()
status = report_errors(work)
print(status, time.perf_counter() - begun)
"""


@pytest.mark.parametrize("work", ["batch", "distance"])
def test_ctrl_c_is_heard_in_a_large_batch_and_in_linear_algebra(work: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LARGE_WORK, work], cwd=ROOT, capture_output=True, text=True, timeout=25
    )
    status, seconds = done.stdout.split()
    assert status == "130" and float(seconds) < 5, done
