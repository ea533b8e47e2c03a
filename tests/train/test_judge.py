"""Training and exporting a judge: the split, exact resuming, hostile weights, and parity of the graph."""

import io
import json
import shutil
import tarfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from attngan_deploy.cli import app, register
from attngan_deploy.errors import CheckpointError, DataError, OutputError, ParityError
from attngan_deploy.export import judge as export
from attngan_deploy.export.deploy import deploy
from attngan_deploy.media.shards import iter_samples
from attngan_deploy.score.judge import Judge
from attngan_deploy.score.preprocessing import prepare
from attngan_deploy.train.backbones.efficientnet_lite import EfficientNetLite0
from attngan_deploy.train.data.picture_set import read_pictures
from attngan_deploy.train.runs.checkpoint import load_checkpoint, save_checkpoint
from attngan_deploy.train.runs.judge import (
    JudgeRecipe,
    JudgeTraining,
    imagenet_classifier,
    jitter_colours,
    load_judge,
    split_by_name,
    train_judge,
)

CARD_TOLERANCE = 0.01  # weights rounded to float16 may change the first class of a few pictures
RECIPE = JudgeRecipe(epochs=2, batch_size=4, size=32)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like the published one, with random weights."""
    torch.manual_seed(0)
    state = {f"_{name}".replace(".", "._"): value for name, value in EfficientNetLite0(1000).state_dict().items()}
    named = {name.replace("._running", ".running").replace("._num", ".num"): value for name, value in state.items()}
    named = {name.replace("._weight", ".weight").replace("._bias", ".bias"): value for name, value in named.items()}
    numbered = {name.replace("blocks._", "blocks."): value for name, value in named.items()}
    path = tmp_path_factory.mktemp("weights") / "lite0.pth"
    torch.save(numbered, path)
    return path


def make_shard(path: Path, classes: int = 3, each: int = 5, side: int = 36, labelled: bool = True) -> Path:
    rng = np.random.default_rng(0)
    with tarfile.open(path, "w") as tar:
        for number in range(classes * each):
            tint = np.eye(3)[number % 3] * 120
            stream = io.BytesIO()
            pixels = (rng.uniform(0, 130, (side, side, 3)) + tint).astype(np.uint8)
            Image.fromarray(pixels).save(stream, "PNG")
            facts = {"captions": ["a bird"], **({"class": number % classes * 10} if labelled else {})}
            for name, data in (("png", stream.getvalue()), ("json", json.dumps(facts).encode())):
                member = tarfile.TarInfo(f"kind{number % classes}/{number}.{name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shard(tmp_path_factory.mktemp("shards") / "test.tar")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, shard: Path, weights: Path) -> Path:
    """A finished run. Shared: copy it before changing it."""
    out = tmp_path_factory.mktemp("runs") / "judge"
    train_judge(RECIPE, [shard], out, weights)
    return out


def test_a_fifth_of_each_class_is_held_out_whatever_the_order() -> None:
    names = [f"bird{number}" for number in range(95)]
    labels = np.arange(95) % 3
    split = split_by_name(names, labels, 0.2)
    assert not set(split.train) & set(split.held_out) and len(split.train) + len(split.held_out) == 95
    assert [int((labels[split.held_out] == label).sum()) for label in range(3)] == [6, 6, 6]
    order = np.random.default_rng(0).permutation(95)
    again = split_by_name([names[place] for place in order], labels[order], 0.2)
    assert {names[place] for place in split.held_out} == {names[order[place]] for place in again.held_out}


def test_the_judge_that_ships_is_as_accurate_as_its_card_says(real_birds: Path) -> None:
    judge = Judge.load("judge")
    facts = judge.bundle.manifest.document
    samples = list(iter_samples(real_birds / "test.tar"))
    labels = np.array([facts["class_ids"].index(sample.class_id) for sample in samples])
    share = facts["provenance"]["recipe"]["held_out"]
    held_out = split_by_name([sample.name for sample in samples], labels, share).held_out
    pixels = [prepare(samples[place].name, samples[place].picture, judge.size, judge.size).pixels for place in held_out]
    probabilities, _ = judge.predict(np.stack(pixels))
    accuracy = float(np.mean(probabilities.argmax(axis=1) == labels[held_out]))
    assert accuracy == pytest.approx(facts["provenance"]["held_out_accuracy"], abs=CARD_TOLERANCE)


def test_jitter_keeps_the_range_and_zero_strength_changes_nothing() -> None:
    images = torch.rand(4, 3, 8, 8) * 2 - 1
    torch.testing.assert_close(jitter_colours(images, 0.0, np.random.default_rng(0)), images)
    changed = jitter_colours(images, 0.5, np.random.default_rng(0))
    assert changed.abs().max() <= 1 and (changed - images).abs().mean() > 0.01
    grey = torch.full((1, 3, 4, 4), 0.25)
    jittered = jitter_colours(grey, 0.5, np.random.default_rng(1))
    assert torch.allclose(jittered, jittered[0, 0, 0, 0].expand_as(jittered), atol=1e-6)  # grey stays grey


def test_a_killed_run_ends_like_one_that_was_not(tmp_path: Path, shard: Path, weights: Path, run: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000002")
    train_judge(RECIPE, [shard], tmp_path / "run", weights, resume=True)
    for name in ("judge", "optimizer"):
        ours, theirs = load_checkpoint(tmp_path / "run").tensors(name), load_checkpoint(run).tensors(name)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    metrics = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert metrics == [1, 2]


def test_training_learns(tmp_path: Path, weights: Path) -> None:
    recipe = JudgeRecipe(epochs=6, batch_size=8, size=32, dropout=0.0, jitter=0.0)
    training = JudgeTraining(recipe, read_pictures([make_shard(tmp_path / "train.tar", each=30)]), weights)
    right = [training.epoch(number)["training_accuracy"] for number in range(6)]
    assert right[-1] > right[0] + 0.1, right  # of three classes; over five seeds 0.25 to 0.32 more


def test_a_run_says_what_it_was_made_from(run: Path, shard: Path) -> None:
    facts = load_checkpoint(run, "judge").document
    assert facts["class_ids"] == [0, 10, 20] and facts["class_names"] == ["kind0", "kind1", "kind2"]
    assert facts["pictures"] == {"trained": 12, "held_out": 3}
    assert facts["data"][0]["file"] == shard.name and len(facts["imagenet_weights"]["sha256"]) == 64
    assert facts["recipe"] == asdict(RECIPE)


def test_an_existing_run_is_not_overwritten(run: Path, shard: Path, weights: Path) -> None:
    with pytest.raises(OutputError, match="--resume"):
        train_judge(RECIPE, [shard], run, weights)


class Hostile:
    """Runs code when it is unpickled without care."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code was run')",)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"_fc.bias": Hostile()}, "could run code"),
        ({"conv.weight": torch.zeros(1)}, "another network"),
        ({"_conv_stem.weight": torch.zeros(1)}, "another network"),
        ([1, 2], "holds no weights"),
    ],
)
def test_other_weights_are_refused(tmp_path: Path, content: object, what: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=what):
        imagenet_classifier(tmp_path / "w.pth", 3, 0.0)


def test_weights_that_are_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("hello")
    for name, what in (("text.pth", "is no file of weights"), ("gone.pth", "No such file")):
        with pytest.raises(CheckpointError, match=what):
            imagenet_classifier(tmp_path / name, 3, 0.0)


@pytest.mark.parametrize(
    ("shape", "what"),
    [
        ({"labelled": False}, "needs the class of every picture"),
        ({"classes": 1}, "too few pictures for a judge"),
        ({"each": 1}, "too few pictures for a judge"),
        ({"side": 24}, "the pictures are too small"),
    ],
)
def test_data_without_a_judge_in_it_is_refused(
    tmp_path: Path, weights: Path, shape: dict[str, int | bool], what: str
) -> None:
    shard = make_shard(tmp_path / "a.tar", **shape)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=what):
        train_judge(RECIPE, [shard], tmp_path / "run", weights)


def test_the_bundle_computes_what_torch_computes(tmp_path: Path, run: Path) -> None:
    parity = export.export_judge(run, tmp_path / "judge")
    assert max(parity["logits"], parity["features"]) <= export.TOLERANCE
    judge = Judge.load(tmp_path / "judge")
    net, _ = load_judge(run)
    pictures = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        logits, features = deploy(net, export.STORED)(images)
    found_logits, found_features = judge.look(pictures)
    np.testing.assert_allclose(found_logits, logits, atol=export.TOLERANCE)
    np.testing.assert_allclose(found_features, features, atol=export.TOLERANCE)
    manifest = judge.bundle.manifest.document
    assert manifest["classes"] == 3 and manifest["parity"]["batches"] == [1, 3, 7]
    assert "held-out pictures" in (tmp_path / "judge" / "README.md").read_text()


def test_folding_changes_nothing_but_rounding_does_a_little(run: Path) -> None:
    net, _ = load_judge(run)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        difference = (deploy(net, export.STORED)(images)[0] - net(images)[0]).abs().max()
    assert 0 < difference < 0.05


def test_matrices_are_stored_in_half_precision(run: Path) -> None:
    model = export.judge_graph(deploy(load_judge(run)[0], export.STORED), 32)
    large = [item for item in model.graph.initializer if len(item.dims) > 1]
    assert large and all(item.data_type == onnx.TensorProto.FLOAT16 for item in large)


def test_a_graph_that_differs_leaves_no_bundle(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "TOLERANCE", 0.0)
    with pytest.raises(ParityError, match="differ from torch's at batch"):
        export.export_judge(run, tmp_path / "judge")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_with_nan_leaves_no_bundle(tmp_path: Path, run: Path) -> None:
    checkpoint = load_checkpoint(run)
    state = checkpoint.tensors("judge")
    state["bn1.running_var"] = -torch.ones_like(state["bn1.running_var"])
    save_checkpoint(tmp_path / "damaged", checkpoint.document, {"judge": state})
    with pytest.raises(CheckpointError, match="not finite"):
        export.export_judge(tmp_path / "damaged", tmp_path / "judge")
    assert not (tmp_path / "judge").exists()


def test_the_command_trains_resumes_and_exports(tmp_path: Path, shard: Path, weights: Path, run: Path) -> None:
    register("models", "train.judge")
    shutil.copytree(run, tmp_path / "run")
    options = ["--data", shard, "--out", tmp_path / "run", "--weights", weights, "--size", "32"]
    options += ["--epochs", "2", "--batch-size", "4", "--resume", "--bundle", tmp_path / "mine"]
    result = CliRunner().invoke(app, ["train", "judge", *map(str, options)], catch_exceptions=False)
    assert result.exit_code == 0 and "held-out accuracy" in result.stdout
    assert Judge.load(tmp_path / "mine").name == "mine"


def test_a_dry_run_prints_the_recipe_and_writes_nothing(tmp_path: Path) -> None:
    register("models", "train.judge")
    options = ["--data", "no.tar", "--out", str(tmp_path / "run"), "--epochs", "3", "--dry-run"]
    result = CliRunner().invoke(app, ["train", "judge", *options], catch_exceptions=False)
    assert json.loads(result.stdout)["epochs"] == 3 and not (tmp_path / "run").exists()
