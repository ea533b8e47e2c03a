"""The best of several candidates: chosen among numbered pictures, told in every record and made again; critics."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.cli import register
from attngan_deploy.engines.request import EngineRequest
from attngan_deploy.errors import BundleError, DataError, EngineError
from attngan_deploy.export.critic import spherical_k_means, train_critic
from attngan_deploy.generate.critic import Critic
from attngan_deploy.generate.replay import replay, write_replay
from attngan_deploy.score.verify import verify_critic
from tests.makers.commands import t2i
from tests.makers.tiny_training import make_tiny_backbone, make_tiny_shards

CAPTIONS = "a small red bird with black wings\n\nthis bird is blue\n"
ENGINE = ("--backend", "onnxruntime", "--precision", "fp32", "--threads", "1", "--seed", "7")


@pytest.fixture(scope="module")
def models(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models with a tiny critic, which looks at pictures through random weights."""
    place = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny_bundle, place / "tiny")
    data = make_tiny_shards(place / "data", size=140)
    train_critic(data, make_tiny_backbone(place / "backbone"), place / "critic", clusters=3)
    return place


@pytest.fixture(autouse=True)
def folder(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    register("score", "train", "train.critic")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("T2I_MODELS", str(models))
    Path("c.txt").write_text(CAPTIONS)
    return tmp_path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_each_picture_is_the_best_of_its_candidates() -> None:
    assert t2i("generate", "c.txt", "-o", "all", "--model", "tiny", "--n", "6", *ENGINE) == 0
    options = ("--model", "tiny", "--n", "2", "--best-of", "3", *ENGINE)
    assert t2i("generate", "c.txt", "-o", "out", *options) == 0
    critic, differs = Critic.load(), 0
    for line in (1, 3):
        candidates = np.stack([pixels(Path(f"all/0000{line}_0{number}.png")) for number in range(6)])
        scores = critic.rank(candidates)
        for sample in (0, 1):
            best = 3 * sample + int(scores[3 * sample : 3 * sample + 3].argmax())
            differs += best % 3 > 0
            np.testing.assert_array_equal(pixels(Path(f"out/0000{line}_0{sample}.png")), candidates[best])
    assert differs
    records = [json.loads(line) for line in Path("out/manifest.jsonl").read_text().splitlines()]
    assert [record["sample"] for record in records] == [0, 1, 0, 1]
    assert {(record["best_of"], record["critic"]) for record in records} == {(3, critic.bundle.hash)}

    Path("out/00003_01.png").unlink()  # a rerun makes it again, and a batch of another size chooses alike
    before = pixels(Path("out/00003_00.png"))
    assert t2i("generate", "c.txt", "-o", "out", "--batch-size", "2", *options) == 0
    np.testing.assert_array_equal(pixels(Path("out/00003_00.png")), before)
    chosen = 3 + int(critic.rank(np.stack([pixels(Path(f"all/00003_0{each}.png")) for each in (3, 4, 5)])).argmax())
    np.testing.assert_array_equal(pixels(Path("out/00003_01.png")), pixels(Path(f"all/00003_0{chosen}.png")))


def test_shards_and_sheets(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--model", "tiny", "--n", "2", "--best-of", "3", *ENGINE)
    assert t2i("generate", "c.txt", "-o", "out", "--attention", *options) == 0
    assert len(list(Path("out/attention").glob("*.png"))) == 4
    parts = ("--shard", "0/1", "--shard-size", "2", "--format", "png")
    assert t2i("generate", "c.txt", "-o", "parts", *parts, *options) == 0
    for path in Path("out").glob("*.png"):
        np.testing.assert_array_equal(pixels(path), pixels(Path("parts") / path.name))
    capsys.readouterr()
    assert t2i("generate", "c.txt", "-o", "out", "--model", "tiny", "--n", "2", "--best-of", "2", *ENGINE) == 1
    assert "belongs to another run; found best_of 3; expected best_of 2" in capsys.readouterr().err


def test_it_is_made_again_and_refused_where_it_can_not_be(
    models: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert t2i("generate", "c.txt", "-o", "out", "--model", "tiny", "--best-of", "4", *ENGINE) == 0
    made = replay(Path("out/00001_00.png"), request=EngineRequest(threads=1))
    assert made.same and made.worst_level == 0 and made.origin.best_of == 4
    write_replay(made, Path("out/00001_00.png"), Path("again.png"))
    assert replay(Path("again.png"), request=EngineRequest(threads=1)).same
    others = folder / "others"
    shutil.copytree(models / "tiny", others / "tiny")
    monkeypatch.setenv("T2I_MODELS", str(others))
    with pytest.raises(BundleError, match="critic"):
        replay(Path("again.png"))
    train_critic(models / "data", models / "backbone", others / "critic", clusters=2)
    with pytest.raises(BundleError, match="is not the critic that chose these pictures"):
        replay(Path("again.png"))
    with Image.open("again.png") as image:
        told = json.loads(image.info["t2i"]) | {"best_of": 10**9}
    from attngan_deploy.media.images import encode_picture

    Path("wrong.png").write_bytes(encode_picture(pixels(Path("again.png")), "png", told))
    with pytest.raises(DataError, match=r"'best_of' is out of range; found 1000000000; expected 1 to 64"):
        replay(Path("wrong.png"))
    Path("wrong.png").write_bytes(
        encode_picture(pixels(Path("again.png")), "png", told | {"best_of": 4, "sample": 2**63})
    )
    with pytest.raises(DataError, match="'sample' is out of range"):
        replay(Path("wrong.png"))


def test_scores_of_other_choices_are_not_compared(capsys: pytest.CaptureFixture[str]) -> None:
    for count in ("1", "2"):
        assert t2i("generate", "c.txt", "-o", f"of{count}", "--model", "tiny", "--best-of", count, *ENGINE) == 0
        capsys.readouterr()
        assert t2i("score", f"of{count}", "--splits", "1", "--json") == 0
        Path(f"{count}.json").write_text(capsys.readouterr().out)
    assert t2i("score", "of2", "--splits", "1") == 0
    assert "best of 2" in capsys.readouterr().out
    assert t2i("score", "--compare", "1.json", "2.json") == 1
    assert "pictures.best_of 2" in capsys.readouterr().err


def test_a_critic_looks_at_pictures_of_any_size(models: Path) -> None:
    critic = Critic.load()
    assert verify_critic(critic).passed and critic.size == 128
    grey = np.full((2, 64, 64, 3), 128, np.uint8)
    np.testing.assert_allclose(critic.rank(grey), critic.rank(np.full((2, 128, 128, 3), 128, np.uint8)), atol=1e-6)
    with pytest.raises(BundleError):
        Critic(open_bundle("tiny"), critic.engine)


@pytest.mark.parametrize("scores", [(2, 3), (4,), (1,), (0,), (), None, "int64", "nan"])
def test_a_critic_that_gives_something_else_is_an_error(scores: tuple[int, ...] | str | None) -> None:
    made = Critic.load()
    numbers = np.full((2,), np.nan, np.float32) if scores == "nan" else np.ones((2,), np.int64)
    if not isinstance(scores, str):
        numbers = np.ones(scores or (), np.float32)
    run = {"other" if scores is None else "score": numbers}
    critic = Critic(made.bundle, SimpleNamespace(run=lambda inputs: run))  # type: ignore[arg-type]
    with pytest.raises(EngineError, match=r"one number for each picture|not finite"):
        critic.rank(np.zeros((2, critic.size, critic.size, 3), np.uint8))


@pytest.mark.parametrize("size", [0, 1025, 2**40])
def test_a_critic_of_a_size_that_no_picture_has_is_refused(models: Path, folder: Path, size: int) -> None:
    shutil.copytree(models / "critic", folder / "critic")
    manifest = json.loads(Path("critic/bundle.json").read_text())
    manifest["graphs"]["critic"]["inputs"]["pictures"]["shape"] = ["batch", size, size, 3]
    Path("critic/bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="critic"):
        Critic.load(folder / "critic")


def test_a_critic_is_made_of_pictures_in_a_file_that_are_large_enough(models: Path, folder: Path) -> None:
    with pytest.raises(DataError, match=r"too small for a critic; found 72 px; expected 128 px or more"):
        train_critic(make_tiny_shards(folder / "small", size=72), models / "backbone", folder / "made")
    (folder / "pipe").mkdir()
    os.mkfifo(folder / "pipe/train.tar")
    with pytest.raises(DataError, match=r"train\.tar is no file"):
        train_critic(folder / "pipe", models / "backbone", folder / "made")
    assert not (folder / "made").exists()


def test_clusters_are_directions() -> None:
    import torch

    draw = torch.Generator().manual_seed(0)
    kinds = torch.eye(3)[torch.arange(30) % 3] + 0.05 * torch.randn(30, 3, generator=draw)
    centres = spherical_k_means(torch.nn.functional.normalize(kinds), 3, seed=1)
    assert torch.allclose(centres.norm(dim=1), torch.ones(3))
    found = {int(row.argmax()) for row in centres}
    assert found <= {0, 1, 2} and len(found) >= 2


def test_t2i_train_critic(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--data", str(models / "data"), "--backbone", str(models / "backbone"), "--clusters", "2")
    assert t2i("train", "critic", "-o", "made", *asked) == 0
    assert "critic made " in capsys.readouterr().out
    assert "# Critic `made`" in Path("made/README.md").read_text()
    assert t2i("verify", "made") == 0
    shutil.copytree(models / "tiny", "model")
    assert t2i("train", "critic", "-o", "model", *asked) == 1
    assert "a bundle of kind 'text-to-image'" in capsys.readouterr().err
