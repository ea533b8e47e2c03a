"""The training step against the published code's plain form, compiled or not."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attngan_deploy.train import compiled
from attngan_deploy.train.config import (
    GeneratorConfig,
    ImageEncoderConfig,
    TextEncoderConfig,
    gan_recipe,
    named_discriminator,
)
from attngan_deploy.train.data.picture_set import TrainingBatch
from attngan_deploy.train.discriminators import build_discriminators
from attngan_deploy.train.image_encoder import BirdMobileNet, ImageEncoder
from attngan_deploy.train.losses import Gammas
from attngan_deploy.train.runs.distributed import Processes
from attngan_deploy.train.runs.gan_step import Encoders, GanTraining, discriminator_names
from attngan_deploy.train.text_encoder import TextEncoder
from benchmarks.speed.published_step import PublishedTraining, plain_words_loss
from tests.makers.published import words_loss
from tests.makers.tiny_training import make_tiny_backbone

FORMS = {
    "glu": lambda norm, x, on: compiled.norm_glu(norm, x, on),
    "add": lambda norm, x, on: compiled.norm_add(norm, x, x.tanh(), on),
    "leaky": lambda norm, x, on: compiled.norm_leaky(norm, x, on),
}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Encoders:
    backbone = BirdMobileNet.load(make_tiny_backbone(tmp_path_factory.mktemp("net") / "backbone.safetensors"))
    text = TextEncoder(TextEncoderConfig(20, 8, 16)).eval().requires_grad_(False)
    image = ImageEncoder(ImageEncoderConfig(features=16, input_size=128), backbone).eval().requires_grad_(False)
    return Encoders(text, image)


def batch(n: int = 4) -> TrainingBatch:
    rng = np.random.default_rng(1)
    lengths = torch.tensor([5, 3, 4, 5])[:n]
    captions = torch.from_numpy(rng.integers(1, 20, (n, 5)))
    captions[torch.arange(5)[None] >= lengths[:, None]] = 0
    pictures = torch.from_numpy(rng.integers(0, 256, (n, 128, 128, 3), np.uint8))
    return TrainingBatch(pictures, captions, lengths, torch.tensor([0, 1, 1, 2])[:n])


def gradients(net: nn.Module) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in net.parameters() if parameter.grad is not None])


def both_steps(
    encoders: Encoders, damsm_weight: float
) -> tuple[GanTraining, PublishedTraining, list[dict[str, float]]]:
    """The same step by recipe `paper` and by the published code."""
    shape = GeneratorConfig("base", 2, 2, 4, 4, 16)
    recipe = replace(gan_recipe("paper", shape), precision="fp32", damsm_weight=damsm_weight)
    recipe = replace(recipe, discriminator=replace(recipe.discriminator, width=2, features=16))
    ours = GanTraining(recipe, encoders, Processes())
    ours.train_mode()
    plain = PublishedTraining(shape, encoders, recipe.seed, recipe.discriminator, damsm_weight)
    plain.generator.load_state_dict(ours.generator.state_dict())
    plain.discriminators.load_state_dict(ours.discriminators.state_dict())
    for optimizer in (ours.discriminator_optimizer, *plain.discriminator_optimizers):
        optimizer.param_groups[0]["lr"] = 0.0  # Adam's first step is a sign, which enlarges rounding
    rng = np.random.default_rng(3)
    rng.integers(2**62)  # the seed of dropout
    noise = torch.from_numpy(rng.standard_normal((4, 8), np.float32))
    return ours, plain, [ours.step(batch(), 0, 0, np.random.default_rng(3)), plain.step(batch(), noise)]


def test_recipe_paper_has_the_published_losses(encoders: Encoders) -> None:
    _, _, (found, expected) = both_steps(encoders, 5.0)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_recipe_paper_has_the_published_gradients(encoders: Encoders) -> None:
    """Without DAMSM: through a tiny random backbone a change of 1e-7 in the weights moves gradients by a hundredth."""
    ours, plain, _ = both_steps(encoders, 0.0)
    difference = (gradients(ours.generator) - gradients(plain.generator)).norm()
    assert difference < 1e-4 * gradients(plain.generator).norm()


def test_words_loss_has_the_gradients_of_the_plain_form() -> None:
    torch.manual_seed(0)
    regions, words = torch.randn(4, 16, 3, 3), torch.randn(4, 16, 5)
    lengths, classes = batch().lengths, batch().classes
    mask = torch.arange(5)[None] < lengths[:, None]
    leaves = [regions.clone().requires_grad_() for _ in range(2)]
    found = sum(words_loss(leaves[0], words, mask, Gammas(), classes))
    expected = plain_words_loss(leaves[1], words, lengths, classes, Gammas())
    torch.testing.assert_close(found, expected)
    found.backward()
    expected.backward()
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad, rtol=1e-3, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of torch's compiler about torch itself
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("name", FORMS)
def test_a_compiled_form_computes_the_same(name: str, request: pytest.FixtureRequest) -> None:
    if (missing := compiled.why_not_compiled()) is not None:
        pytest.skip(missing)
    torch.manual_seed(0)
    x = torch.randn(4, 6, 5, 5)
    results = []
    for on in (False, True):
        norm, leaf = nn.BatchNorm2d(6), x.clone().requires_grad_()
        y = FORMS[name](norm, leaf, on)
        (y * torch.linspace(0, 1, y.numel()).view_as(y)).sum().backward()
        results.append([y, leaf.grad, norm.weight.grad, norm.bias.grad, *norm.buffers()])
    for plain, fast in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)


def test_names_of_weights_are_those_of_older_checkpoints() -> None:
    shape = gan_recipe("paper", GeneratorConfig("base", 2, 2, 4, 4, 16))
    nets = build_discriminators(replace(shape.discriminator, width=2, features=16), (64,))
    compiled.use_compiled(nets)
    assert nets[0].trunk[2][1].compiled
    names = [name for name in nets.state_dict() if not name.endswith("num_batches_tracked")]
    norm = ("weight", "bias", "running_mean", "running_var")
    halves = [f"0.trunk.{i}.{end}" for i in (2, 3, 4) for end in ("0.weight", *(f"1.{part}" for part in norm))]
    joint = ["0.joint.0.weight", *(f"0.joint.1.{part}" for part in norm)]
    heads = [f"0.{head}.{end}" for head in ("conditional", "unconditional") for end in ("weight", "bias")]
    assert names == ["0.trunk.0.weight", *halves, *joint, *heads]


def test_without_a_compiler_one_line_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(os.environ, "CXX", str(tmp_path / "no-compiler"))
    assert "there is no C++ compiler" in str(compiled.why_not_compiled())


def test_each_stage_may_have_a_projected_discriminator_of_its_own(encoders: Encoders) -> None:
    """What one of 64 px looks at depends on the first picture alone; close-ups and a second lens are of the last."""
    recipe = replace(gan_recipe("projected", GeneratorConfig("base", 2, 2, 4, 4, 16)), precision="fp32")
    recipe = replace(recipe, discriminator=replace(recipe.discriminator, projected=4, pooled=4, features=16))
    training = GanTraining(recipe, encoders, Processes())
    names = ["projected, 64 px", "projected, 128 px", "EfficientNet-Lite1, 128 px"]
    assert discriminator_names(recipe) == names and len(training.discriminators) == 3
    assert discriminator_names(replace(recipe, freeze_first_stage=True)) == names[1:]
    images = [torch.rand(2, 3, size, size) * 2 - 1 for size in (64, 128)]
    for changed in (0, 1):
        others = [torch.rand_like(image) if number == changed else image for number, image in enumerate(images)]
        seen = []
        for pictures in (images, others):
            torch.manual_seed(0)
            seen.append(training._views(pictures, 128, close_up=0.5).inputs)
        same = [all(torch.equal(*pair) for pair in zip(*maps, strict=True)) for maps in zip(*seen, strict=True)]
        assert same == [number != changed for number in (0, 1, 1)]
    training.train_mode()
    metrics = training.step(batch(), 1, 0, np.random.default_rng(0))
    assert np.isfinite(list(metrics.values())).all()
    assert all(parameter.grad is not None for parameter in training.generator.parameters())


def test_without_a_projected_discriminator_there_is_no_second_lens() -> None:
    recipe = gan_recipe("projected", GeneratorConfig("base", 2, 2, 4, 4, 16))
    assert recipe.discriminator.second_lens
    for name, expected in (("one_way", False), ("published", False), ("projected", True), ("one_way+projected", True)):
        assert named_discriminator(name, recipe.discriminator)["discriminator"].second_lens is expected
