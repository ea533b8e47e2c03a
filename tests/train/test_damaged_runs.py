"""Runs that a power cut damaged: training goes on from the newest whole checkpoint, and says which are not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from attngan_deploy.errors import CheckpointError, OutputError
from attngan_deploy.train.config import GanRecipe
from attngan_deploy.train.runs.checkpoint import DESCRIPTION, checkpoints_of, load_checkpoint, newest_whole
from attngan_deploy.train.runs.run_folder import RunFolder
from tests.makers.tiny_training import tiny_gan_recipe
from tests.train.test_gan import Ground, ground, weights

__all__ = ["ground"]

RECIPE = tiny_gan_recipe(pictures=12, checkpoint_minutes=0.0)  # three steps, of which the last two checkpoints stay
FIRST, LAST = "step-00000002", "step-00000003"


@pytest.fixture(scope="module")
def whole(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ground.train(RECIPE, tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def empty(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(b"")


def cut(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-5])


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "an empty description": (empty(DESCRIPTION), "checkpoint.json is empty"),
    "a description of zeros": (lambda folder: (folder / DESCRIPTION).write_bytes(bytes(99)), "checkpoint.json can't"),
    "half a description": (cut(DESCRIPTION), "checkpoint.json can't be read"),
    "empty weights": (empty("generator.safetensors"), "generator.safetensors is empty"),
    "weights cut short": (cut("generator_optimizer.safetensors"), "generator_optimizer.safetensors can't be read"),
    "weights that are gone": (remove("discriminators.safetensors"), "discriminators.safetensors can't be read"),
    "an empty vocabulary": (empty("vocabulary.txt"), "vocabulary.txt is empty"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_goes_on_from_the_newest_whole_checkpoint(
    ground: Ground, whole: Path, run: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, told = DAMAGES[damage]
    spoil(run / "checkpoints" / LAST)
    capsys.readouterr()
    resumed = ground.run(RECIPE, run, resume=True)
    assert resumed.step == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "damaged" in line]
    assert f"{LAST} is damaged: {told}" in line and line.endswith(f"the run goes on from {FIRST}")
    assert [path.name for path in checkpoints_of(run)] == [FIRST]
    resumed.train()
    assert weights(run) == weights(whole)
    rows = [
        [json.loads(line)["step"] for line in (each / "metrics.jsonl").read_text().splitlines()]
        for each in (run, whole)
    ]
    assert rows[0] == rows[1]


def test_where_no_checkpoint_is_whole_the_newest_says_why(ground: Ground, run: Path) -> None:
    for name in (FIRST, LAST):
        (run / "checkpoints" / name / DESCRIPTION).write_bytes(b"")
    before = sorted(run.rglob("*"))
    with pytest.raises(CheckpointError, match=f"{LAST}/{DESCRIPTION} can't be read"):
        ground.run(RECIPE, run, resume=True)
    assert sorted(run.rglob("*")) == before
    assert newest_whole(run) == (run / "checkpoints" / LAST, {})


def test_what_a_newer_version_wrote_is_not_taken_for_damaged(ground: Ground, run: Path) -> None:
    path = run / "checkpoints" / LAST / DESCRIPTION
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    with pytest.raises(CheckpointError, match="has another format"):
        ground.run(RECIPE, run, resume=True)
    assert path.is_file()


@pytest.mark.parametrize("lost", [b"", b"{", b"[]"])
def test_a_lost_recipe_is_that_of_the_checkpoint(ground: Ground, run: Path, lost: bytes) -> None:
    before = (run / "recipe.json").read_bytes()
    (run / "recipe.json").write_bytes(lost)
    with pytest.raises(CheckpointError, match=r"another recipe; found batch_size 4; expected 6"):
        ground.run(tiny_gan_recipe(pictures=12, checkpoint_minutes=0.0, batch_size=6), run, resume=True)
    assert ground.run(RECIPE, run, resume=True).step == 3
    assert (run / "recipe.json").read_bytes() == before


def test_a_removal_that_was_cut_short_is_done(ground: Ground, run: Path) -> None:
    half = run / "checkpoints" / "step-00000001"
    half.mkdir()
    (half / "generator.safetensors").write_bytes(b"")
    (run / "metrics.jsonl").write_bytes((run / "metrics.jsonl").read_bytes() + b'{"step": 9\xff' + bytes(40))
    assert ground.run(RECIPE, run, resume=True).step == 3
    assert not half.exists()
    assert all(json.loads(line)["step"] <= 3 for line in (run / "metrics.jsonl").read_text().splitlines())


def test_a_run_that_ended_in_its_first_moment_begins_again(tmp_path: Path) -> None:
    (tmp_path / ".recipe.json.0123abcd.part").write_bytes(b"")
    RunFolder(tmp_path, GanRecipe(), resume=False).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "grids", "recipe.json"]


@pytest.mark.parametrize("name", ["recipe.json", "metrics.jsonl", "best.json", "grids", "checkpoints", "tensorboard"])
def test_a_link_in_the_folder_is_not_written_through(tmp_path: Path, name: str) -> None:
    mine, run = tmp_path / "mine", tmp_path / "run"
    RunFolder(run, GanRecipe(), resume=False).close()
    (run / name).rmdir() if (run / name).is_dir() else (run / name).unlink(missing_ok=True)
    mine.mkdir() if "." not in name else mine.touch()
    (run / name).symlink_to(mine)
    with pytest.raises(OutputError, match=rf"run/{name} is a link, and is left alone"):
        folder = RunFolder(run, GanRecipe(), resume=False)
        folder.log(1, {"loss": 1.0})
        folder.save(1, {"kind": "gan"}, {}, score=("fid", 1.0))
    assert not list(mine.iterdir()) if mine.is_dir() else not mine.read_bytes()
    assert load_checkpoint(run).step == 1 if name == "best.json" else not checkpoints_of(run)
