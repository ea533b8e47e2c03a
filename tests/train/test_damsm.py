"""Training of DAMSM on tiny shards."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from attngan_deploy.errors import CheckpointError, DataError, OutputError
from attngan_deploy.train.config import TextEncoderConfig
from attngan_deploy.train.runs.damsm import load_damsm, r_precision, train_damsm
from attngan_deploy.train.text_encoder import TextEncoder
from tests.makers.tiny_training import make_tiny_backbone, make_tiny_shards, tiny_damsm_recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_shards(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_backbone(tmp_path_factory.mktemp("backbone") / "net.safetensors")


def test_a_resumed_run_equals_an_uninterrupted_one(data: Path, backbone: Path, tmp_path: Path) -> None:
    recipe = tiny_damsm_recipe(epochs=3)
    train_damsm(recipe, data, tmp_path / "whole", backbone)
    train_damsm(tiny_damsm_recipe(epochs=1), data, tmp_path / "parts", backbone)
    facts = tmp_path / "parts/recipe.json"
    facts.write_text(facts.read_text().replace('"epochs": 1', '"epochs": 3'))  # the run was meant to be longer
    train_damsm(recipe, data, tmp_path / "parts", backbone, resume=True)
    for name in ("text_encoder", "image_encoder", "optimizer"):
        whole, parts = (
            (tmp_path / run / f"checkpoints/step-00000003/{name}.safetensors").read_bytes()
            for run in ("whole", "parts")
        )
        assert whole == parts


def test_training_lowers_the_loss_and_logs_every_epoch(
    data: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("attngan_deploy.system.progress.SECONDS_BETWEEN_LINES", 0.0)
    train_damsm(tiny_damsm_recipe(epochs=6), data, tmp_path / "run", backbone)
    assert re.search(r"computing features\nfeatures: (\d+)/\d+, .* img/s, \d+ s left\n", capsys.readouterr().err)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["loss/sentence"] < rows[0]["loss/sentence"]
    assert all(0 <= row["r_precision"] <= 1 for row in rows)


def test_a_run_is_not_overwritten_or_resumed_with_another_recipe(data: Path, backbone: Path, tmp_path: Path) -> None:
    train_damsm(tiny_damsm_recipe(epochs=1), data, tmp_path / "run", backbone)
    with pytest.raises(OutputError, match="--resume"):
        train_damsm(tiny_damsm_recipe(epochs=1), data, tmp_path / "run", backbone)
    with pytest.raises(CheckpointError, match="batch_size 4"):
        train_damsm(tiny_damsm_recipe(epochs=1, batch_size=6), data, tmp_path / "run", backbone, resume=True)


def test_loading_checks_the_vocabulary(data: Path, backbone: Path, tmp_path: Path) -> None:
    train_damsm(tiny_damsm_recipe(epochs=1), data, tmp_path / "run", backbone)
    text, image, words, _ = load_damsm(tmp_path / "run", backbone)
    assert len(words) == text.config.words == 13
    assert not any(parameter.requires_grad for parameter in [*text.parameters(), *image.parameters()])
    vocabulary = next((tmp_path / "run/checkpoints").iterdir()) / "vocabulary.txt"
    vocabulary.write_text("<end>\nred\n")
    with pytest.raises(CheckpointError, match="vocabulary does not fit"):
        load_damsm(tmp_path / "run", backbone)


def test_a_missing_or_foreign_backbone_is_named(data: Path, backbone: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="--backbone"):
        train_damsm(tiny_damsm_recipe(), data, tmp_path / "run", None)
    (tmp_path / "cut.safetensors").write_bytes(backbone.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors"):
        train_damsm(tiny_damsm_recipe(), data, tmp_path / "run", tmp_path / "cut.safetensors")


def test_unseen_species_are_needed_and_a_failed_start_leaves_nothing(
    data: Path, backbone: Path, tmp_path: Path
) -> None:
    alone = make_tiny_shards(tmp_path / "alone", pictures=1)
    shutil.copy(data / "train.tar", alone / "train.tar")
    with pytest.raises(DataError, match=r"one class.*--test-classes"):
        train_damsm(tiny_damsm_recipe(), alone, tmp_path / "run", backbone)
    (alone / "test.tar").unlink()
    with pytest.raises(DataError, match=r"unseen species.*no shard at .*test\.tar"):
        train_damsm(tiny_damsm_recipe(), alone, tmp_path / "run", backbone)
    assert not (tmp_path / "run").exists()


def test_r_precision_is_one_for_perfect_codes_and_near_chance_for_random_ones() -> None:
    torch.manual_seed(0)
    text = TextEncoder(TextEncoderConfig(words=400, embedding=8, features=16)).eval()
    captions = [[[1 + number, 2 + number], [1 + number, 2 + number]] for number in range(300)]
    classes = np.arange(300)
    with torch.inference_mode():
        own = text(torch.tensor([options[0] for options in captions]), torch.full((300,), 2)).sentence
    assert r_precision(own, classes, captions, text) == 1.0
    assert r_precision(torch.randn(300, 16), classes, captions, text) < 0.05
