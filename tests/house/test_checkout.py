"""Commands in a checkout after a plain install, whose source folder hides the installed package; also by torchrun."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from attngan_deploy.cli import app, register, report_errors
from attngan_deploy.errors import StoppedError
from attngan_deploy.train.runs.gan import GanRun
from tests.makers.commands import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
# An editable install would find the rooms that the source folder lacks.
PLAIN = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in str(getattr(finder, "__module__", ""))]
"""
GAN = ("train", "gan", "--data", "data/", "--damsm", "runs/damsm", "--out", "runs/base")
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "attngan_deploy.cli")


def python(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (place / "sitecustomize.py").write_text(PLAIN)
    environment = {**os.environ, "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-m", "attngan_deploy.cli", *GAN, "--dry-run"), '"pictures"'),
        (("-m", "attngan_deploy", "export", "--bundle", "nothing", "-o", "x"), "no model 'nothing'; found installed: "),
        (("-m", "attngan_deploy", "models"), "att1"),
        (("-c", "import attngan_deploy.export.judge as room; print(room.__file__)"), str(ROOT / "export/judge.py")),
    ],
)
def test_every_room_is_found_in_a_checkout(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = python(tmp_path, *arguments)
    assert said in done.stdout + done.stderr and "Traceback" not in done.stderr


def test_torchrun_in_a_checkout_prints_a_recipe_once(tmp_path: Path) -> None:
    done = python(tmp_path, "-m", *TORCHRUN, *GAN, "--dry-run")
    assert json.loads(done.stdout)["data"] == "data", done.stderr


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize("is_stopped", [False, True])
def test_one_process_says_the_last_lines_for_all(
    rank: str, is_stopped: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train() -> str:
        if is_stopped:
            raise StoppedError("stopped and saved")
        return "runs/base"

    register("train.gan")
    monkeypatch.setattr(GanRun, "prepare", lambda *arguments, **options: SimpleNamespace(train=train, seen=8))
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert report_errors(lambda: app(list(GAN))) == (StoppedError.exit_status if is_stopped else 0)
    out, err = capsys.readouterr()
    if rank == "1":
        assert (out, err) == ("", "")
    elif is_stopped:
        assert (out, err) == ("", "t2i: stopped and saved\n")
    else:
        assert json.loads(out)["pictures"] == 8 and err.startswith("next: t2i export --variant base")


@pytest.mark.parametrize("command", ["damsm", "judge", "all"])
def test_what_is_one_process_is_refused_under_torchrun(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    register(f"train.{command}")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert report_errors(lambda: app(["train", command, "--data", "data", "--out", "runs"])) == 1
    assert f"t2i train {command} is one process; found 2 of torchrun" in capsys.readouterr().err
