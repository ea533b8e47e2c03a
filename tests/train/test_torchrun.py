"""Training under `torchrun`: killed processes are started again, and a run goes on with another number of them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from attngan_deploy.errors import DataError, EngineError
from attngan_deploy.train.runs.checkpoint import load_checkpoint
from attngan_deploy.train.runs.distributed import Processes
from attngan_deploy.train.runs.gan import GanRun
from tests.makers.commands import PATIENCE
from tests.makers.tiny_training import tiny_gan_recipe
from tests.train.test_gan import Ground, ground, weights  # noqa: F401

SCRIPT = """
import os, signal, sys
from pathlib import Path
from attngan_deploy.train.runs.gan import GanRun
from tests.makers.tiny_training import tiny_gan_recipe

folder, out, mark, pictures = (*map(Path, sys.argv[1:4]), int(sys.argv[4]))
run = GanRun.prepare(tiny_gan_recipe(pictures=pictures, checkpoint_minutes=0.0), folder / "data", folder / "damsm", out,
             folder / "backbone.safetensors", resume=True)
sys.stderr.write(f"rank {run.processes.rank} begins at step {run.step} of {run.steps}\\n")
step = run.training.step

def dying(*arguments):
    if run.processes.rank == 1 and run.step == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return step(*arguments)

run.training.step = dying
run.train()
"""


def train(ground: Ground, folder: Path, out: str, processes: int, mark: Path, pictures: int = 48) -> list[str]:  # noqa: F811
    """Train under torchrun, which starts dead processes again once; returns where each rank began."""
    script = folder / "train.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += ["--max-restarts", "1", str(script), str(ground.folder), str(folder / out), str(mark), str(pictures)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        _, error = running.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        running.send_signal(signal.SIGTERM)  # torchrun ends its processes
        _, error = running.communicate(timeout=PATIENCE)
        pytest.fail(f"torchrun hangs: {error}")
    assert running.returncode == 0, error
    print(error)  # shown where a test fails
    return sorted(line.partition("begins at step ")[2] for line in error.splitlines() if "begins at step" in line)


def test_a_killed_process_goes_on_from_the_last_checkpoint(ground: Ground, tmp_path: Path) -> None:  # noqa: F811
    """All processes are started again, and end with the weights of a run of which none was killed."""
    never, mark = tmp_path / "never", tmp_path / "killed"
    never.touch()
    assert train(ground, tmp_path, "whole", 2, never) == ["0 of 6", "0 of 6"]
    assert train(ground, tmp_path, "parts", 2, mark) == ["0 of 6", "0 of 6", "3 of 6", "3 of 6"]
    assert mark.exists()
    assert load_checkpoint(tmp_path / "parts").document["step"] == 6
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")


def test_a_run_goes_on_with_another_number_of_processes(ground: Ground, tmp_path: Path) -> None:  # noqa: F811
    """Pictures are counted, not steps: after 5 steps of one process, 28 pictures are left, which are 4 steps of two."""
    never, stopped = tmp_path / "never", tmp_path / "run"
    never.touch()
    ground.train(tiny_gan_recipe(pictures=20, checkpoint_minutes=0.0), stopped)
    recipe = json.loads((stopped / "recipe.json").read_text())
    (stopped / "recipe.json").write_text(json.dumps(recipe | {"pictures": 48}))
    assert train(ground, tmp_path, "run", 2, never) == ["5 of 9", "5 of 9"]
    description = load_checkpoint(stopped).document
    assert (description["step"], description["pictures"], description["effective_batch"]) == (9, 52, 8)
    steps = [json.loads(line)["pictures"] for line in (stopped / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps) and steps[-1] == 52


def test_more_processes_than_there_are_pictures_for(ground: Ground, tmp_path: Path) -> None:  # noqa: F811
    run = GanRun.prepare(
        tiny_gan_recipe(), ground.data, ground.damsm, tmp_path / "run", ground.backbone, processes=Processes(0, 4)
    )
    with pytest.raises(DataError, match="found 16 pictures a step; expected at most 12"):
        run.train()


@pytest.mark.parametrize(
    ("odd", "told"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE is 'abc'"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE is ''"),
        ({"WORLD_SIZE": "-3"}, "WORLD_SIZE is '-3'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'"),
        ({"RANK": "first"}, "RANK is 'first'"),
        ({"LOCAL_RANK": "y"}, "LOCAL_RANK is 'y'"),
        ({"WORLD_SIZE": "2"}, "RANK expected, but not set"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "x"}, "'x'"),
    ],
)
def test_an_environment_of_others_is_told_in_a_line(
    odd: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Schedulers of clusters set some of torchrun's variables, to what they like."""
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in odd.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(EngineError, match="can't be joined") as refused:
        Processes.start()
    assert told in refused.value.found
    assert refused.value.next_step.startswith("unset WORLD_SIZE")
