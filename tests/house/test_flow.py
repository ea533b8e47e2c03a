"""The whole flow at a tiny size: shards -> DAMSM -> first stage -> second stage -> bundle -> pictures -> score."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from attngan_deploy import TextToImage
from attngan_deploy.cli import app, register
from attngan_deploy.export.bundle_writer import load_networks
from attngan_deploy.export.deploy import GraphOptions, deployed
from attngan_deploy.generate.noise import noise_batch
from attngan_deploy.media.images import to_uint8
from attngan_deploy.score.pictures import find_pictures
from attngan_deploy.train.config import GeneratorConfig
from attngan_deploy.train.data.picture_set import pad_captions
from attngan_deploy.train.runs.checkpoint import load_checkpoint
from attngan_deploy.train.runs.damsm import train_damsm
from attngan_deploy.train.runs.distributed import Processes
from attngan_deploy.train.runs.gan import GanRun
from tests.makers.alike import alike
from tests.makers.tiny_judge import make_tiny_judge
from tests.makers.tiny_training import make_tiny_backbone, make_tiny_shards, tiny_damsm_recipe, tiny_gan_recipe

register("export", "generate", "score")
CAPTIONS = ["a red bird", "this small bird is blue with a short bill", "a black bird with a yellow bill"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two stages, the first of them trained alone before."""
    place = tmp_path_factory.mktemp("flow")
    data, backbone = make_tiny_shards(place / "data", size=140), make_tiny_backbone(place / "backbone.safetensors")
    train_damsm(tiny_damsm_recipe(epochs=1), data, place / "damsm", backbone)
    stages = [tiny_gan_recipe(pictures=8, generator=GeneratorConfig("att1", count, 2, 4, 4, 16)) for count in (1, 2)]
    first = GanRun.prepare(stages[0], data, place / "damsm", place / "first", backbone, processes=Processes()).train()
    second = GanRun.prepare(
        stages[1], data, place / "damsm", place / "run", backbone, start=(first,), processes=Processes()
    )
    return second.train()


def test_from_pictures_to_a_score(run: Path, tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("\n".join(CAPTIONS) + "\n")
    judge, bundle, out = make_tiny_judge(tmp_path / "judge"), tmp_path / "bundle", tmp_path / "out"
    for command in (
        ["export", "--variant", "att1", "--checkpoint", run, "-o", bundle],
        ["generate", tmp_path / "captions.txt", "-o", out, "--model", bundle, "--n", "2"],
        ["score", out, "--judge", judge, "--splits", "2", "--json"],
    ):
        result = CliRunner().invoke(app, list(map(str, command)))
        assert result.exit_code == 0, result.output
    passport = json.loads(result.stdout)
    assert passport["pictures"]["used"] == 6
    assert 1 <= passport["scores"]["inception_score"]["mean"] <= 3
    facts = json.loads((bundle / "bundle.json").read_text())
    assert facts["provenance"]["pictures"] == 8
    card = (bundle / "README.md").read_text()
    assert "| started from | a run of 1 stage(s) that saw 8 pictures |" in card
    assert find_pictures(out).count() == 6


def test_torch_and_the_bundle_make_the_same_pictures(run: Path, tmp_path: Path) -> None:
    """Same captions and seed: at most one level apart, whatever the batch size."""
    CliRunner().invoke(app, ["export", "--variant", "att1", "--checkpoint", str(run), "-o", str(tmp_path / "bundle")])
    model = TextToImage.load(tmp_path / "bundle", backend="onnxruntime", precision="fp32")
    networks = deployed(load_networks(load_checkpoint(run, "gan"), "att1"), GraphOptions())
    z, eps = noise_batch(5, [(place, 0) for place in range(3)], 4, 4)
    captions, lengths = pad_captions([model.tokenizer.encode(caption).ids for caption in CAPTIONS])
    with torch.inference_mode():
        text = networks.text_encoder(captions, lengths)
        noise = torch.from_numpy(z), torch.from_numpy(eps)
        made = networks.generator(text.sentence, text.words, text.mask, *noise)
    expected = to_uint8(made.images[-1].numpy())
    assert expected.std() > 1
    for batch_size in (1, 2, 3):
        assert alike(model.generate(CAPTIONS, seed=5, batch_size=batch_size), expected)
    assert not np.array_equal(model.generate(CAPTIONS, seed=6), expected)
