"""Training under `torchrun`: a process that is killed is started again, and all go on from the last checkpoint."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from attngan_deploy.train.checkpoint import load_checkpoint
from tests.test_gan import Ground, ground, weights  # noqa: F401

SCRIPT = """
import os, signal, sys
from pathlib import Path
from attngan_deploy.train.gan import GanRun
from tests.tiny_training import tiny_gan_recipe

folder, out, mark = (Path(argument) for argument in sys.argv[1:4])
run = GanRun(tiny_gan_recipe(pictures=48, checkpoint_minutes=0.0), folder / "data", folder / "damsm", out,
             folder / "backbone.safetensors", resume=True)
sys.stderr.write(f"rank {run.processes.rank} begins at step {run.step}\\n")
step = run.training.step

def dying(*arguments):
    if run.processes.rank == 1 and run.step == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return step(*arguments)

run.training.step = dying
run.train()
"""


@pytest.mark.usefixtures("ctrl_c")
def test_a_killed_process_goes_on_from_the_last_checkpoint(ground: Ground, tmp_path: Path) -> None:  # noqa: F811
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", "1", str(script), str(ground.folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    never, mark = tmp_path / "never", tmp_path / "killed"
    never.touch()
    for out, marked in (("whole", never), ("parts", mark)):
        arguments = [*command, str(tmp_path / out), str(marked)]
        done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False, timeout=240)
        assert done.returncode == 0, done.stderr
    assert mark.exists()
    begun = [line.rpartition(" ")[2] for line in done.stderr.splitlines() if "begins at step" in line]
    assert sorted(begun) == ["0", "0", "3", "3"]
    assert load_checkpoint(tmp_path / "parts").description["step"] == 6
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
