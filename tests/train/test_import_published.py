"""Published weights to a checkpoint and a bundle that answers as the published networks do."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from attngan_deploy import TextFeatures, TextToImage
from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.cli import app, register
from attngan_deploy.engines.load import load_engine
from attngan_deploy.engines.request import EngineRequest
from attngan_deploy.errors import CheckpointError
from attngan_deploy.export.bundle_writer import load_networks
from attngan_deploy.export.published import import_published
from attngan_deploy.train.config import GeneratorConfig
from attngan_deploy.train.imports.published_files import read_published
from attngan_deploy.train.runs.checkpoint import load_checkpoint
from tests.makers.published import Published
from tests.makers.published_model import PublishedFiles, captions_content, published_state
from tests.makers.tiny_bundle import random_generator

register("import_", "models")  # a lone command would need no name

NETWORKS = ["g_net_branch2_b1mask", "g_net_branch2_b3", "g_net_branch3_b1mask", "g_net_branch3_b3"]
TOLERANCE = 1e-4
EXACT = EngineRequest("onnxruntime", precision="fp32")  # of what "auto" picks, only fp32 is this near


@pytest.fixture
def files(tmp_path: Path) -> PublishedFiles:
    """Published files of two stages."""
    return PublishedFiles(tmp_path)


def run_import(files: PublishedFiles, out: Path, **options: Any) -> Path:
    return import_published(files.generator, files.text_encoder, files.captions, out, **options).bundle


def check(published: Published, name: str, ours: np.ndarray) -> None:
    published.check(name, torch.from_numpy(ours), atol=TOLERANCE, rtol=0)


def inputs_of(published: Published) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in published.inputs.items()}


@pytest.mark.parametrize("network", NETWORKS)
def test_the_bundle_answers_as_the_published_generator(tmp_path: Path, network: str) -> None:
    out = run_import(PublishedFiles(tmp_path, network), tmp_path / "bundle")
    published = Published(network)
    inputs = inputs_of(published)
    features = TextFeatures(inputs["word_embs"], inputs["sent_emb"], ~inputs["mask"])
    stages = TextToImage.load_on(out, EXACT).decode(features, inputs["z_code"], inputs["eps"])
    assert list(stages.images) == [64, 128, 256][: int(network[12])]
    for place, image in enumerate(stages.images.values()):
        check(published, f"fake_imgs.{place}", image)
    check(published, "att_maps.0", stages.attention)
    if 256 in stages.images:
        names = {"sentence": "sent_emb", "words": "word_embs", "z": "z_code", "eps": "eps"}
        tensors = {ours: inputs[name] for ours, name in names.items()} | {"mask": features.mask}
        check(published, "att_maps.1", load_engine(open_bundle(out), "generator").run(tensors)["attention_128"])


def test_the_bundle_answers_as_the_published_text_encoder(files: PublishedFiles) -> None:
    model = TextToImage.load_on(run_import(files, files.folder / "bundle"), EXACT)
    published = Published("rnn_encoder")
    captions = [
        " ".join(f"word{index}" for index in row[:length])
        for row, length in zip(*(published.inputs[name].tolist() for name in ("captions", "cap_lens")), strict=True)
    ]
    features = model.encode(captions)
    check(published, "words_emb", features.words)
    check(published, "sent_emb", features.sentence)
    np.testing.assert_array_equal(features.mask, ~published.outputs["mask"])


def test_the_command_makes_a_checkpoint_and_a_bundle(files: PublishedFiles) -> None:
    out = files.folder / "birds"
    result = CliRunner().invoke(app, ["import", *files.arguments, "-o", str(out), "--licence", "MIT, says X", "--json"])
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    bundle = open_bundle(out)
    assert (facts["hash"], facts["name"], facts["variant"], facts["words"]) == (bundle.hash, "birds", "attngan", 60)
    sizes = {"z": 16, "eps": 12, "features": 32, "width": 4, "stages": [64, 128], "attention": 64}
    assert facts["sizes"] | sizes == facts["sizes"]
    assert bundle.manifest.licence == "MIT, says X"
    assert bundle.manifest.weights_dtype == "float32"
    assert bundle.manifest.told("provenance", "imported", "generator", "file") == "netG_epoch_1.pth"
    assert str(files.folder) not in (out / "bundle.json").read_text() + (out / "README.md").read_text()
    assert (out / "vocabulary.txt").read_text().splitlines() == list(captions_content()[2].values())
    networks = load_networks(load_checkpoint(Path(facts["checkpoint"]), "gan"))
    assert networks.generator.config == GeneratorConfig("attngan", 2, 4, 16, 12, 32, 2)


def test_people_read_the_sizes(files: PublishedFiles) -> None:
    out = files.folder / "birds"
    result = CliRunner().invoke(app, ["import", *files.arguments, "-o", str(out), "--name", "my-birds"])
    assert result.exit_code == 0, result.stderr
    assert "attngan: pictures of 64, 128 px, 60 words, 32 text features" in result.stdout
    assert f"{out}-checkpoint" in result.stdout
    assert open_bundle(out).name == "my-birds"


def test_two_of_three_stages(tmp_path: Path) -> None:
    """A two-stage generator is a three-stage one without its last stage: same images, same attention."""
    files = PublishedFiles(tmp_path, "g_net_branch3_b3")
    out = run_import(files, tmp_path / "bundle", stages=2)
    published = Published("g_net_branch3_b3")
    inputs = inputs_of(published)
    features = TextFeatures(inputs["word_embs"], inputs["sent_emb"], ~inputs["mask"])
    stages = TextToImage.load_on(out, EXACT).decode(features, inputs["z_code"], inputs["eps"])
    assert list(stages.images) == [64, 128]
    check(published, "fake_imgs.1", stages.images[128])


@pytest.mark.parametrize(
    "change",
    [
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {name: value.double() for name, value in state.items()},
        lambda state: state | {"h_net1.fc.1.num_batches_tracked": torch.tensor(7)},
        lambda state: dict(reversed(state.items())),
        lambda state: {"epoch": 3, "G_state_dict": state, "D_state_dict": {"img.weight": torch.ones(2)}},
        lambda state: {"params": {}, "params_ema": state},
        lambda state: {"state_dict": {f"netG.{name}": value for name, value in state.items()}, "netD": {}},
        lambda state: {f"generator.{name}": value for name, value in state.items()} | {"netD.a": torch.ones(1)},
    ],
    ids=[
        "DataParallel",
        "float64",
        "num_batches_tracked",
        "another order",
        "of both",
        "averages",
        "Lightning",
        "of a module",
    ],
)
def test_other_ways_to_save_the_same_weights(files: PublishedFiles, change: Callable[[Any], Any]) -> None:
    before = read_published(files.generator, files.text_encoder, files.captions)
    torch.save(change(torch.load(files.generator, weights_only=True)), files.generator)
    after = read_published(files.generator, files.text_encoder, files.captions)
    assert asdict(after.generator) == asdict(before.generator)
    for name, value in before.tensors["generator"].items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(after.tensors["generator"][name], value, atol=0, rtol=0)


def test_weights_in_safetensors_are_read(files: PublishedFiles) -> None:
    before = read_published(files.generator, files.text_encoder, files.captions)
    for path in (files.generator, files.text_encoder):
        save_file(torch.load(path, weights_only=True), path)
    after = read_published(files.generator, files.text_encoder, files.captions)
    for network, tensors in before.tensors.items():
        for name, value in tensors.items():
            torch.testing.assert_close(after.tensors[network][name], value, atol=0, rtol=0)
    files.generator.write_bytes(files.generator.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="no file of weights that torch saved, or a damaged one"):
        read_published(files.generator, files.text_encoder, files.captions)


@pytest.mark.parametrize("variant", ["base", "att1", "att2"])
@pytest.mark.parametrize("stages", [2, 3])
def test_the_variant_is_seen_in_the_added_blocks(files: PublishedFiles, variant: str, stages: int) -> None:
    config = GeneratorConfig(variant, stages, width=2, noise=5, condition=3, features=32, residual_blocks=1)
    generator = random_generator(config)
    torch.save(published_state(generator), files.generator)
    model = read_published(files.generator, files.text_encoder, files.captions)
    assert model.generator == config
    for name, value in generator.state_dict().items():
        torch.testing.assert_close(model.tensors["generator"][name], value, atol=0, rtol=0)


def test_help_loads_no_torch() -> None:
    code = (
        "import sys; from attngan_deploy.cli import app, register; register('import_', 'models')\n"
        "try: app(['import', '--help'])\n"
        "except SystemExit: print('torch' in sys.modules, 'onnx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False False", done.stderr
