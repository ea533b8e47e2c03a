"""A bundle's graphs become networks that can be trained on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from attngan_deploy.bundles.bundle import Bundle, open_bundle
from attngan_deploy.errors import BundleError, CheckpointError
from attngan_deploy.export.bundle_writer import export_bundle
from attngan_deploy.export.deploy import GraphOptions
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.train.config import GeneratorConfig
from attngan_deploy.train.data.picture_set import pad_captions
from attngan_deploy.train.imports.from_bundle import check_same_text_encoder, generator_of, text_encoder_of
from attngan_deploy.train.runs.checkpoint import load_checkpoint
from attngan_deploy.train.runs.damsm import load_damsm, train_damsm
from attngan_deploy.train.runs.distributed import Processes
from attngan_deploy.train.runs.gan import GanRun
from attngan_deploy.train.text_encoder import EncodedText
from tests.makers.tiny_bundle import make_tiny_bundle, make_tiny_checkpoint
from tests.makers.tiny_training import make_tiny_backbone, make_tiny_shards, tiny_damsm_recipe, tiny_gan_recipe

CAPTIONS = [[place % 22 + 1, (7 * place) % 22 + 1, 3] for place in range(40)]


def pass_on(encoded: EncodedText) -> tuple[Tensor, Tensor, Tensor]:
    """In the order in which a generator takes them."""
    return encoded.sentence, encoded.words, encoded.mask


@pytest.mark.parametrize("variant", ["attngan", "base", "att1", "att2"])
@pytest.mark.parametrize("options", [GraphOptions(), GraphOptions(split_glu=False, transposed_upsampling=True)])
def test_the_networks_compute_what_the_bundle_does(tmp_path: Path, variant: str, options: GraphOptions) -> None:
    checkpoint = make_tiny_checkpoint(tmp_path / "checkpoint", variant)  # type: ignore[arg-type]
    folder = export_bundle(checkpoint, tmp_path / "bundle", options, name="tiny")
    text = text_encoder_of(open_bundle(folder))
    generator = generator_of(open_bundle(folder), CAPTIONS)
    model = TextToImage.load(str(folder), backend="onnxruntime", precision="fp32")
    captions = ["a small red bird", "this bird is black"]
    features = model.encode(captions)
    encoded = text(*pad_captions([model.tokenizer.encode(caption).ids for caption in captions]))
    assert np.abs(encoded.words.numpy() - features.words).max() < 1e-5
    z, eps = np.random.default_rng(0).standard_normal((2, 2, 4), np.float32)
    with torch.no_grad():
        made = generator(*pass_on(encoded), torch.from_numpy(z), torch.from_numpy(eps)).images
    for size, image in zip((64, 128), made, strict=True):
        assert np.abs(image.numpy() - model.decode(features, z, eps).images[size]).max() < 1e-4
    before = load_checkpoint(checkpoint).tensors("generator")
    assert generator.first.norm.weight.std() > 0  # not the folded ones, which are all 1
    assert set(generator.state_dict()) == set(before)


@pytest.mark.parametrize("place", ["unfinished/tiny", "built_by_hand"])
def test_bundles_whose_graphs_were_built_by_hand_are_read_too(place: str) -> None:
    """Such as were made before networks were written once: their weights have names that no part of the network has."""
    folder = Path(__file__).parent.parent / "data" / place
    model = TextToImage.load(str(folder), backend="onnxruntime", precision="fp32")
    assert "stage2/fuse/value/bias" in {
        tensor.name for tensor in onnx.load(model.bundle.graph_path("generator")).graph.initializer
    }
    captions = ["this bird is red with a short bill", "a small blue bird"]
    ids = [model.tokenizer.encode(caption).ids for caption in captions]
    features = model.encode(captions)
    encoded = text_encoder_of(model.bundle)(*pad_captions(ids))
    z, eps = np.random.default_rng(0).standard_normal((2, 2, 4), np.float32)
    generator = generator_of(model.bundle, ids)
    with torch.no_grad():
        made = generator(*pass_on(encoded), torch.from_numpy(z), torch.from_numpy(eps)).images
    assert np.abs(made[-1].numpy() - model.decode(features, z, eps).images[128]).max() < 1e-4


def test_a_batch_norm_is_measured_on_what_its_layer_gives(tmp_path: Path) -> None:
    """In training mode the same captions and noise give the same pictures as in eval mode."""
    bundle = open_bundle(make_tiny_bundle(tmp_path / "tiny"))
    generator, text = generator_of(bundle, CAPTIONS), text_encoder_of(bundle)
    rng = np.random.default_rng(0)
    chosen = [CAPTIONS[place] for place in rng.permutation(len(CAPTIONS))]
    noise = torch.from_numpy(rng.standard_normal((len(chosen), 8), np.float32))
    encoded = text(*pad_captions(chosen))
    with torch.no_grad():
        still = generator(*pass_on(encoded), *noise.split(4, dim=1)).images[-1]
        moving = generator.train()(*pass_on(encoded), *noise.split(4, dim=1)).images[-1]
    assert (still - moving).abs().max() < 0.02
    assert still.std() > 0.02


def test_a_foreign_graph_is_refused(tmp_path: Path) -> None:
    folder = make_tiny_bundle(tmp_path / "tiny")
    graph = onnx.load(folder / "generator.onnx")
    del graph.graph.initializer[0]
    bundle = Bundle(folder, open_bundle(folder).manifest)
    onnx.save(graph, folder / "generator.onnx")
    with pytest.raises(BundleError, match="has no weight augmentation"):
        generator_of(bundle, CAPTIONS)
    (folder / "generator.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match="can't be read"):
        generator_of(bundle, CAPTIONS)


def test_a_run_starts_from_a_bundle_with_its_own_text_encoder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """DAMSM with the text side frozen, then a generator that goes on where the bundle's stands."""
    data, backbone = (
        make_tiny_shards(tmp_path / "data", size=140),
        make_tiny_backbone(tmp_path / "backbone.safetensors"),
    )
    train_damsm(tiny_damsm_recipe(epochs=1), data, tmp_path / "damsm", backbone)
    shape = GeneratorConfig("att1", 2, 2, 4, 4, 16)
    recipe = tiny_gan_recipe(pictures=8, generator=shape, crop=128)
    first = GanRun.prepare(
        recipe, data, tmp_path / "damsm", tmp_path / "first", backbone, processes=Processes()
    ).train()
    bundle = export_bundle(first, tmp_path / "bundle", GraphOptions(), name="tiny")
    again = tmp_path / "again"
    train_damsm(tiny_damsm_recipe(epochs=2, seed=7), data, again, backbone, text_bundle=open_bundle(bundle))
    kept, learned = load_checkpoint(again).tensors("text_encoder"), load_checkpoint(again).tensors("image_encoder")
    assert all(value.equal(kept[name]) for name, value in text_encoder_of(open_bundle(bundle)).state_dict().items())
    old = load_checkpoint(tmp_path / "damsm").tensors("image_encoder")
    assert all(not value.equal(old[name]) for name, value in learned.items() if name.endswith("weight"))

    waiting = replace(recipe, head_start=8)
    run = GanRun.prepare(waiting, data, again, tmp_path / "on", backbone, start=(bundle,), processes=Processes())
    told = capsys.readouterr().err.splitlines()
    assert "reading pictures" in told and any(line.startswith(f"starting from {bundle}") for line in told)
    begun = {name: value.clone() for name, value in run.training.generator.state_dict().items()}
    heads = {name: value.clone() for name, value in run.training.discriminators.state_dict().items()}
    run.train()
    moved = [name for name, value in run.training.generator.named_parameters() if not value.equal(begun[name])]
    assert moved == []
    assert any(not value.equal(heads[name]) for name, value in run.training.discriminators.state_dict().items())
    assert run.started_from[0]["bundle"] == {"name": "tiny", "hash": open_bundle(bundle).hash}
    assert run.started_from[0]["pictures"] == 8

    train_damsm(tiny_damsm_recipe(epochs=1, seed=8), data, tmp_path / "other", backbone)
    with pytest.raises(CheckpointError, match=r"another text encoder.*--text-encoder"):
        GanRun.prepare(
            waiting, data, tmp_path / "other", tmp_path / "no", backbone, start=(bundle,), processes=Processes()
        )
    text, _, words, _ = load_damsm(tmp_path / "damsm", backbone)
    check_same_text_encoder(open_bundle(bundle), text, words)
    with pytest.raises(CheckpointError, match=r"vocabulary is not that of the bundle tiny.*copy that file"):
        check_same_text_encoder(open_bundle(bundle), text, [*words, "zebra"])
