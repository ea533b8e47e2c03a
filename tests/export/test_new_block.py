"""A new attention block is a module and a line in the configuration: it trains, and export needs to know nothing of it.

The block has what an exporter could stumble over: shapes read from its input, a masked softmax, a layer with BatchNorm
and GLU behind it, one with a bias and a BatchNorm, and a weight of no layer.
"""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.engines.onnxruntime.engine import OnnxRuntimeEngine
from attngan_deploy.export.bundle_writer import export_bundle, load_networks
from attngan_deploy.export.deploy import deployed
from attngan_deploy.export.parity.parity import run_torch
from attngan_deploy.train import attention, config
from attngan_deploy.train.config import GeneratorConfig, VariantDescription
from attngan_deploy.train.imports.from_bundle import generator_of
from attngan_deploy.train.runs.checkpoint import load_checkpoint
from attngan_deploy.train.runs.damsm import train_damsm
from attngan_deploy.train.runs.distributed import Processes
from attngan_deploy.train.runs.gan import GanRun
from tests.makers.tiny_training import (
    FEATURES,
    make_tiny_backbone,
    make_tiny_shards,
    tiny_damsm_recipe,
    tiny_gan_recipe,
)

SIZES = ((1, 1), (3, 7), (4, 2))  # pictures, and words of the longest caption
NOISE = 4


class PairedWords(nn.Module):
    """Words plus a gated mean of all words of the caption, taken apart for each pair of features."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.mix = nn.Conv1d(features, 2 * features, 1, bias=False)
        self.mix_norm = nn.BatchNorm1d(2 * features)
        self.glu = nn.GLU(dim=1)
        self.ask = nn.Conv1d(features, features // 2, 1)
        self.ask_norm = nn.BatchNorm1d(features // 2)
        self.strength = nn.Parameter(torch.ones(features // 2, 2, 1))

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """Words [N, D, T] and mask bool [N, T] to words [N, D, T]."""
        n, d, t = words.shape
        pairs = self.glu(self.mix_norm(self.mix(words))).view(n, d // 2, 2, t)
        asked = self.ask_norm(self.ask(words)).view(n, d // 2, 1, t)
        weights = asked.masked_fill(~mask[:, None, None, :], float("-inf")).softmax(-1)
        mean = (pairs * weights).sum(-1, keepdim=True)
        return (words.view(n, d // 2, 2, t) + self.strength * mean).reshape(n, d, t)


@pytest.fixture
def variant(monkeypatch: pytest.MonkeyPatch) -> str:
    """What someone writes who adds a block."""
    monkeypatch.setitem(attention.WORD_BLOCKS, "paired_words", PairedWords)
    told = VariantDescription(("fuse", "paired_words", "cbam"), "`base`, with words that look at each other in pairs")
    monkeypatch.setitem(config.DESCRIPTIONS, "paired", told)
    return "paired"


def test_a_new_block_trains_and_is_exported(variant: str, tmp_path: Path) -> None:
    data, backbone = make_tiny_shards(tmp_path / "data", size=140), make_tiny_backbone(tmp_path / "backbone")
    train_damsm(tiny_damsm_recipe(epochs=1), data, tmp_path / "damsm", backbone)
    shape = GeneratorConfig(variant, 2, 2, NOISE, NOISE, FEATURES)
    recipe = tiny_gan_recipe(pictures=8, generator=shape, crop=128)
    run = GanRun.prepare(recipe, data, tmp_path / "damsm", tmp_path / "run", backbone, processes=Processes())
    begun = {name: value.clone() for name, value in run.training.generator.named_parameters()}
    checkpoint = load_checkpoint(run.train(), "gan")
    assert run.step == 2
    moved = {name for name, value in run.training.generator.named_parameters() if not value.equal(begun[name])}
    assert {f"later.0.paired_words.{name}" for name in ("mix.weight", "ask_norm.weight", "strength")} <= moved

    bundle = open_bundle(export_bundle(tmp_path / "run", tmp_path / "bundle"))
    assert bundle.name == variant and "look at each other in pairs" in (bundle.folder / "README.md").read_text()
    graph = onnx.load(bundle.graph_path("generator")).graph
    operators = {node.op_type for node in graph.node}
    assert not operators & {"Shape", "BatchNormalization"}
    stored = {tensor.name.partition("/")[0] for tensor in graph.initializer}
    assert {f"later.0.paired_words.mix.{half}.weight" for half in ("value", "gate")} <= stored

    networks = deployed(load_networks(checkpoint, variant))
    engine = OnnxRuntimeEngine(bundle.graph_path("generator"))
    random = np.random.default_rng(0)
    for pictures, longest in SIZES:
        lengths = random.integers(1, longest, pictures, endpoint=True)
        lengths[0] = longest
        captions = random.integers(1, 13, (pictures, longest)) * (np.arange(longest) < lengths[:, None])
        z, eps = random.standard_normal((2, pictures, NOISE), np.float32)
        wanted = run_torch(networks, {"captions": captions, "lengths": lengths, "z": z, "eps": eps})
        made = engine.run({"z": z, "eps": eps} | {name: wanted[name] for name in ("sentence", "words", "mask")})
        for name, value in made.items():
            np.testing.assert_allclose(value, wanted[name], atol=1e-5, rtol=0, err_msg=name)
    again = generator_of(bundle, [[1, 2, 3], [4], [5, 6]] * 4)  # and training goes on from its bundle
    with torch.no_grad():
        text = [torch.from_numpy(wanted[name]) for name in ("sentence", "words", "mask")]
        images = again(*text, torch.from_numpy(z), torch.from_numpy(eps)).images
    np.testing.assert_allclose(images[-1].numpy(), wanted["image_128"], atol=1e-4, rtol=0)
