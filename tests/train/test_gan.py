"""Training of generators on tiny shards: exact resuming, kills, several processes, stages."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attngan_deploy.errors import CheckpointError, StoppedError, T2IError
from attngan_deploy.system.records import look_up
from attngan_deploy.train.config import DiscriminatorConfig, GanRecipe, GeneratorConfig, ImageEncoderConfig, checked
from attngan_deploy.train.runs.checkpoint import load_checkpoint
from attngan_deploy.train.runs.damsm import train_damsm
from attngan_deploy.train.runs.distributed import Processes
from attngan_deploy.train.runs.gan import GanRun
from tests.makers.tiny_judge import make_tiny_judge
from tests.makers.tiny_training import make_tiny_backbone, make_tiny_shards, tiny_damsm_recipe, tiny_gan_recipe

ALONE = Processes()


class Ground:
    """Data, backbone and a trained DAMSM that all tests of this file share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = make_tiny_shards(folder / "data")
        self.backbone = make_tiny_backbone(folder / "backbone.safetensors")
        self.damsm = folder / "damsm"
        train_damsm(tiny_damsm_recipe(epochs=1), self.data, self.damsm, self.backbone)

    def run(self, recipe: GanRecipe, out: Path, **options: object) -> GanRun:
        return GanRun.prepare(recipe, self.data, self.damsm, out, self.backbone, processes=ALONE, **options)  # type: ignore[arg-type]

    def train(self, recipe: GanRecipe, out: Path, **options: object) -> Path:
        return self.run(recipe, out, **options).train()


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return Ground(tmp_path_factory.mktemp("ground"))


def weights(run: Path) -> dict[str, bytes]:
    folder = load_checkpoint(run).folder
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


@pytest.mark.parametrize(("recipe", "stages"), [("fast", 1), ("paper", 2)])
def test_every_network_learns_and_the_checkpoint_is_complete(
    ground: Ground, tmp_path: Path, recipe: str, stages: int
) -> None:
    shape = GeneratorConfig("att2", stages, 2, 4, 4, 16)
    chosen = tiny_gan_recipe(recipe, pictures=8, generator=shape, crop=shape.sizes[-1], damsm_every=1)
    if stages == 2:
        make_tiny_shards(tmp_path / "large", size=140)
        run = GanRun.prepare(
            chosen, tmp_path / "large", ground.damsm, tmp_path / "run", ground.backbone, processes=ALONE
        )
    else:
        run = ground.run(chosen, tmp_path / "run")
    before = {name: value.clone() for name, value in run.training.generator.state_dict().items()}
    run.train()
    after = run.training.generator.state_dict()
    still = [name for name, value in after.items() if name.endswith("weight") and torch.equal(value, before[name])]
    assert still == []
    checkpoint = load_checkpoint(tmp_path / "run", "gan")
    assert checkpoint.document["pictures"] == 8
    assert set(checkpoint.tensors("generator")) == set(after)
    assert list((tmp_path / "run/grids").glob("*.png"))


def test_the_average_follows_the_parameters_and_takes_live_statistics(ground: Ground, tmp_path: Path) -> None:
    run = ground.run(tiny_gan_recipe(ema=0.5), tmp_path / "run")
    run.train()
    averaged = load_checkpoint(tmp_path / "run").tensors("generator")
    live = run.training.generator.state_dict()
    weight, statistic = "first.linear.weight", "first.norm.running_mean"
    assert torch.equal(averaged[statistic], live[statistic])
    assert 0 < (averaged[weight] - live[weight]).abs().max() < 0.1


def test_an_average_that_starts_with_trained_weights_does_not_begin_anew(ground: Ground, tmp_path: Path) -> None:
    recipe = tiny_gan_recipe(ema=0.999)
    first = ground.train(recipe, tmp_path / "first")
    start = load_checkpoint(first).tensors("generator")
    again = ground.run(recipe, tmp_path / "again", start=[first])
    again.train()
    assert again.training.average.rate_now == 0.999
    averaged, live = load_checkpoint(tmp_path / "again").tensors("generator"), again.training.generator.state_dict()
    weight = "first.linear.weight"
    assert (averaged[weight] - start[weight]).norm() < 0.1 * (live[weight] - start[weight]).norm()
    resumed = ground.run(recipe, tmp_path / "again", resume=True)
    assert resumed.training.average.rate_now == 0.999
    assert ground.run(recipe, tmp_path / "new").training.average.rate_now == 0.1


def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(ground: Ground, tmp_path: Path) -> None:
    """SIGKILL in the middle of writing the third checkpoint, then resume from the second."""
    recipe = tiny_gan_recipe(checkpoint_minutes=0.0)
    ground.train(recipe, tmp_path / "whole")
    script = f"""
import os, signal, torch
torch.set_num_threads({torch.get_num_threads()})  # sums of floats depend on how they are shared out
from pathlib import Path
from attngan_deploy.train.runs import checkpoint
from tests.train.test_gan import ALONE, GanRun
from tests.makers.tiny_training import tiny_gan_recipe

write, calls = checkpoint.save_file, []
def save_file(tensors, path):
    calls.append(path)
    if len(calls) == 15:  # six files a checkpoint
        path.write_bytes(b"half a file")
        os.kill(os.getpid(), signal.SIGKILL)
    write(tensors, path)
checkpoint.save_file = save_file
folder = Path({str(ground.folder)!r})
recipe = tiny_gan_recipe(checkpoint_minutes=0.0)
GanRun.prepare(recipe, folder / "data", folder / "damsm", Path({str(tmp_path / "parts")!r}),
               folder / "backbone.safetensors", processes=ALONE).train()
"""
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    left = load_checkpoint(tmp_path / "parts")
    assert left.document["step"] == 2
    ground.train(recipe, tmp_path / "parts", resume=True)
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    assert not [path for path in (tmp_path / "parts/checkpoints").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_a_step_waits_for_its_end(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Between the discriminators' update and the generator's: what is saved continues exactly."""
    whole = ground.train(tiny_gan_recipe(), tmp_path / "whole")
    run = ground.run(tiny_gan_recipe(), tmp_path / "parts")
    update, calls = run.training._update_generator, []

    def interrupted(*arguments: Any) -> dict[str, float]:
        calls.append(number)
        if len(calls) == 3:
            signal.raise_signal(number)
        return update(*arguments)

    monkeypatch.setattr(run.training, "_update_generator", interrupted)
    with pytest.raises(StoppedError, match="after 12 pictures"):
        run.train()
    ground.train(tiny_gan_recipe(), tmp_path / "parts", resume=True)
    assert weights(tmp_path / "parts") == weights(whole)


def test_two_processes_train_one_model(ground: Ground, tmp_path: Path) -> None:
    """Under torchrun both ranks end with the same weights, which are not those of one process."""
    script = tmp_path / "train.py"
    script.write_text(f"""
import sys
from pathlib import Path
from attngan_deploy.train.runs.gan import GanRun
from tests.makers.tiny_training import tiny_gan_recipe
import torch
folder = Path({str(ground.folder)!r})
run = GanRun.prepare(tiny_gan_recipe(), folder / "data", folder / "damsm", Path({str(tmp_path / "run")!r}),
             folder / "backbone.safetensors")
run.train()
total = sum(float(value.double().sum()) for value in run.training.generator.state_dict().values())
sys.stdout.write(f"rank {{run.processes.rank}} {{total!r}}\\n")
""")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([*command, str(script)], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    sums = dict(line.split()[1:] for line in done.stdout.splitlines() if line.startswith("rank"))
    assert set(sums) == {"0", "1"} and sums["0"] == sums["1"]
    assert "8 effective" in done.stderr
    assert load_checkpoint(tmp_path / "run").document["step"] == 3
    alone = ground.run(tiny_gan_recipe(), tmp_path / "alone")
    alone.train()
    assert sums["0"] != repr(sum(float(v.double().sum()) for v in alone.training.generator.state_dict().values()))


def test_a_second_stage_starts_from_a_trained_first_stage_and_keeps_it(ground: Ground, tmp_path: Path) -> None:
    first = ground.train(tiny_gan_recipe(pictures=8), tmp_path / "first")
    make_tiny_shards(tmp_path / "large", size=140)
    shape = GeneratorConfig("base", 2, 2, 4, 4, 16)
    recipe = tiny_gan_recipe(generator=shape, crop=128, freeze_first_stage=True, pictures=8)
    GanRun.prepare(
        recipe, tmp_path / "large", ground.damsm, tmp_path / "run", ground.backbone, start=(first,), processes=ALONE
    ).train()
    before, after = load_checkpoint(first).tensors("generator"), load_checkpoint(tmp_path / "run").tensors("generator")
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert set(after) > set(before)
    again = GanRun.prepare(
        replace(recipe, generator=replace(recipe.generator, variant="att1")),
        *(tmp_path / "large", ground.damsm, tmp_path / "again", ground.backbone),
        start=(tmp_path / "run",),
        processes=ALONE,
    )
    learned = load_checkpoint(tmp_path / "run").tensors("discriminators")
    assert all(value.equal(learned[name]) for name, value in again.training.discriminators.state_dict().items())
    newer = ground.train(tiny_gan_recipe(pictures=4, seed=7), tmp_path / "newer")
    description = load_checkpoint(newer).folder / "checkpoint.json"
    document = json.loads(description.read_text())
    document["recipe"]["lattice_weight"] = 3.0  # which earlier code had
    description.write_text(json.dumps(document))
    joint = GanRun.prepare(
        *(replace(recipe, freeze_first_stage=False), tmp_path / "large", ground.damsm, tmp_path / "joint"),
        ground.backbone,
        start=(newer, tmp_path / "run"),
        processes=ALONE,
    ).training.discriminators.state_dict()  # of 64 px and of 128 px, each from the run that had one
    small = load_checkpoint(newer).tensors("discriminators")
    assert all(value.equal(joint[name]) for name, value in small.items())
    assert all(value.equal(joint[name.replace("0.", "1.", 1)]) for name, value in learned.items())
    both = GanRun.prepare(
        *(recipe, tmp_path / "large", ground.damsm, tmp_path / "both", ground.backbone),
        start=(tmp_path / "run", newer),
        processes=ALONE,
    )
    fresh = load_checkpoint(newer).tensors("generator")
    for name, value in both.training.generator.state_dict().items():
        assert value.equal(fresh[name] if name in fresh else after[name]), name
    assert [before["pictures"] for before in both.started_from] == [8, 4]
    with pytest.raises(CheckpointError, match="--start"):
        GanRun.prepare(recipe, tmp_path / "large", ground.damsm, tmp_path / "other", ground.backbone, processes=ALONE)


def test_metrics_are_numbers_with_the_pictures_seen(ground: Ground, tmp_path: Path) -> None:
    ground.train(tiny_gan_recipe(pictures=168), tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["pictures"] for row in rows] == [80, 160, 168]
    assert all(row["loss/words"] > 0 and row["img/s"] > 0 for row in rows)


def test_a_checkpoint_with_nan_is_refused(ground: Ground, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    run = ground.train(tiny_gan_recipe(pictures=8), tmp_path / "run")
    path = load_checkpoint(run).folder / "live_generator.safetensors"
    state = load_file(path)
    state["first.linear.weight"][0, 0] = float("nan")
    save_file(state, path)
    with pytest.raises(CheckpointError, match=r"not finite.*first\.linear\.weight"):
        ground.run(tiny_gan_recipe(pictures=8), tmp_path / "run", resume=True)


def test_scores_on_the_way_choose_the_best_checkpoint(ground: Ground, tmp_path: Path) -> None:
    judge = make_tiny_judge(tmp_path / "judge")
    recipe = tiny_gan_recipe(judge=str(judge), score_every=8, score_pictures=12)
    run = ground.run(recipe, tmp_path / "run")
    run.train()
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    scored = {row["step"]: row["score/fid"] for row in rows if "score/fid" in row}
    assert set(scored) == {2, 4, 6}
    best = json.loads((tmp_path / "run/best.json").read_text())
    assert best["value"] == min(scored.values()) == scored[best["step"]]
    assert load_checkpoint(tmp_path / "run").document["step"] == best["step"]
    latest = load_checkpoint(tmp_path / "run/checkpoints/step-00000006").document
    assert [point["fid"] for point in latest["curve"]] == [scored[2], scored[4], scored[6]]
    assert [point["pictures"] for point in latest["curve"]] == [8, 16, 24]
    later = GanRun.prepare(
        *(tiny_gan_recipe(), ground.data, ground.damsm, tmp_path / "later", ground.backbone),
        start=(tmp_path / "run/checkpoints/step-00000006",),
        processes=ALONE,
    )
    assert later.started_from[0]["curve"] == latest["curve"]
    assert run.score()["score/fid"] == scored[6]  # the same captions and noise at every call


def test_a_signal_after_the_last_step_saves_what_was_learned(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ground.run(tiny_gan_recipe(pictures=8), tmp_path / "run", resume=True)
    assert "no checkpoint in" in capsys.readouterr().err

    def stopped() -> dict[str, float]:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "score", stopped)
    with pytest.raises(StoppedError, match="stopped and saved after 8 pictures"):
        run.train()
    assert load_checkpoint(tmp_path / "run").document["pictures"] == 8
    ground.train(tiny_gan_recipe(pictures=8), tmp_path / "run", resume=True)


def test_a_run_killed_behind_its_last_step_logs_it_once(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_gan_recipe(pictures=8, checkpoint_minutes=0.0)
    run = ground.run(recipe, tmp_path / "run")

    def killed() -> dict[str, float]:
        raise SystemExit

    monkeypatch.setattr(run, "score", killed)
    with pytest.raises(SystemExit):
        run.train()
    ground.train(recipe, tmp_path / "run", resume=True)
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2]


@pytest.mark.parametrize("name", ["decay", "head_start"])
def test_a_recipe_that_does_not_fit_together(name: str) -> None:
    assert checked(tiny_gan_recipe(pictures=8, **{name: 8})).pictures == 8
    with pytest.raises(T2IError, match=r"--(decay|head-start) is longer than the run; found 9; expected at most 8"):
        checked(tiny_gan_recipe(pictures=8, **{name: 9}))


def test_rates_fall_to_zero_over_the_last_pictures(ground: Ground, tmp_path: Path) -> None:
    run = ground.run(tiny_gan_recipe(decay=16), tmp_path / "run")
    rates: list[tuple[float, float]] = []
    step = run.training.generator_optimizer.step

    def noted() -> None:
        optimizers = (run.training.generator_optimizer, run.training.discriminator_optimizer)
        rates.append(tuple(optimizer.param_groups[0]["lr"] for optimizer in optimizers))  # type: ignore[arg-type]
        step()

    run.training.generator_optimizer.step = noted  # type: ignore[assignment]
    run.train()
    shares = [1.0, 1.0, 1.0, 0.75, 0.5, 0.25]
    assert np.array(rates) == pytest.approx(np.outer(shares, [2e-4, 4e-4]))


def test_a_run_that_began_before_a_setting_existed_resumes(ground: Ground, tmp_path: Path) -> None:
    ground.train(tiny_gan_recipe(pictures=8), tmp_path / "run")
    described = tmp_path / "run/recipe.json"
    recipe = json.loads(described.read_text())
    del recipe["decay"]
    described.write_text(json.dumps(recipe))
    assert ground.run(tiny_gan_recipe(pictures=8), tmp_path / "run", resume=True).step == 2
    described.write_text(json.dumps(recipe))
    with pytest.raises(CheckpointError, match=r"another recipe.*decay 0.*expected 4"):
        ground.run(tiny_gan_recipe(pictures=8, decay=4), tmp_path / "run", resume=True)


def test_a_run_of_the_earlier_recipe_paper_resumes_as_it_began(ground: Ground, tmp_path: Path) -> None:
    now = tiny_gan_recipe("paper", pictures=8, precision="auto")
    nearest = replace(now.generator, upsampling="nearest")
    ground.train(replace(now, precision="fp32", channels_last=False, generator=nearest), tmp_path / "run")
    resumed = ground.run(now, tmp_path / "run", resume=True)
    assert resumed.step == 2
    assert (resumed.recipe.precision, resumed.recipe.channels_last) == ("fp32", False)
    assert resumed.recipe.generator == nearest


def test_a_long_run_compiles_its_steps_or_says_why_not(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("T2I_COMPILE", raising=False)
    monkeypatch.setenv("CXX", str(tmp_path / "no-compiler"))
    ground.run(tiny_gan_recipe(pictures=4 * 2000), tmp_path / "long")
    assert "steps are not compiled, which makes them slower: there is no C++ compiler" in capsys.readouterr().err
    ground.run(tiny_gan_recipe(), tmp_path / "short")
    assert "compiled" not in capsys.readouterr().err
    monkeypatch.setenv("T2I_COMPILE", "1")
    ground.run(tiny_gan_recipe(), tmp_path / "wanted")
    assert "steps are not compiled" in capsys.readouterr().err


def test_a_run_that_earlier_code_left_half_finished_goes_on(ground: Ground, tmp_path: Path) -> None:
    """`data/half_finished_run` was stopped after 22 of 24 steps, two steps after its last line of metrics."""
    folder = tmp_path / "run"
    shutil.copytree(Path(__file__).parents[1] / "data/half_finished_run", folder)
    encoder = ImageEncoderConfig(features=8, input_size=64)
    train_damsm(tiny_damsm_recipe(epochs=1, image_encoder=encoder), ground.data, tmp_path / "damsm", ground.backbone)
    recipe = tiny_gan_recipe(
        pictures=96,
        generator=GeneratorConfig("base", 1, 1, 2, 2, 8),
        discriminator=DiscriminatorConfig("one_way", 1, 8),
        data_name="coloured squares",
    )
    before = load_checkpoint(folder)
    (line,) = (folder / "metrics.jsonl").read_text().splitlines()
    run = GanRun.prepare(recipe, ground.data, tmp_path / "damsm", folder, ground.backbone, resume=True, processes=ALONE)
    assert (run.step, run.seen, run.steps) == (22, 88, 24)
    for name, value in before.tensors("live_generator").items():
        assert value.equal(run.training.generator.state_dict()[name])
    run.train()
    after = load_checkpoint(folder / "checkpoints/step-00000024")
    assert set(before.document) == set(after.document)
    assert {path.name for path in before.folder.iterdir()} == {path.name for path in after.folder.iterdir()}
    assert (after.step, after.document["pictures"]) == (24, 96)
    moved = after.tensors("live_generator")["first.linear.weight"]
    assert 0 < (moved - before.tensors("live_generator")["first.linear.weight"]).abs().max() < 1e-2
    first, last = (folder / "metrics.jsonl").read_text().splitlines()
    assert first == line and json.loads(last)["pictures"] == 96
    waiting = look_up(before.document, "since_last_line", "loss/discriminator")  # of steps 21 and 22
    assert isinstance(waiting, list)
    assert abs(json.loads(last)["loss/discriminator"] - sum(waiting) / 2) < 0.1
