"""The generator's graph against torch: every variant, number of stages and rewrite."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from attngan_deploy.errors import CheckpointError
from attngan_deploy.export.deploy import GraphOptions, deploy, fold, fold_batch_norms, round_weights
from attngan_deploy.export.graphs.network import generator_graph
from attngan_deploy.train.config import VARIANTS, GeneratorConfig
from attngan_deploy.train.generator import Generator
from tests.makers.tiny_bundle import random_generator

FEATURES, NOISE, CONDITION = 8, 3, 5
TOLERANCE = 1e-5  # tighter than the 1e-4 of an export: these networks are small
REWRITES = [GraphOptions(split, transposed) for split, transposed in product((False, True), repeat=2)]


def small(variant: str, stages: int = 2, width: int = 2) -> Generator:
    return random_generator(GeneratorConfig(variant, stages, width, NOISE, CONDITION, FEATURES))


def inputs_of(lengths: Sequence[int], seed: int = 0) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)
    batch, longest = len(lengths), max(lengths)
    return {
        "sentence": torch.randn(batch, FEATURES, generator=random),
        "words": torch.randn(batch, FEATURES, longest, generator=random),
        "mask": torch.arange(longest) < torch.tensor(lengths)[:, None],
        "z": torch.randn(batch, NOISE, generator=random),
        "eps": torch.randn(batch, CONDITION, generator=random),
    }


def run_graph(model: onnx.ModelProto, *batches: dict[str, Tensor]) -> list[dict[str, np.ndarray]]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    made = (session.run(names, {name: value.numpy() for name, value in batch.items()}) for batch in batches)
    return [dict(zip(names, arrays, strict=True)) for arrays in made]


def run_torch(generator: Generator, batch: dict[str, Tensor]) -> list[np.ndarray]:
    with torch.no_grad():
        made = generator(**batch)
    return [tensor.numpy() for tensor in [*made.images, *made.attention]]


def check(generator: Generator, options: GraphOptions, names: Sequence[str]) -> None:
    exported = deploy(generator, replace(options, weights="fp16"))
    batches = [inputs_of(lengths, seed) for seed, lengths in enumerate([(1,), (18,), (3, 7, 1)])]
    for batch, found in zip(batches, run_graph(generator_graph(exported), *batches), strict=True):
        assert list(found) == list(names)
        for name, wanted in zip(names, run_torch(exported, batch), strict=True):
            np.testing.assert_allclose(found[name], wanted, atol=TOLERANCE, rtol=0, err_msg=name)
            assert wanted.std() > 0.05 or "attention" in name


@pytest.mark.parametrize(
    "options", REWRITES, ids=lambda options: f"{options.split_glu}-{options.transposed_upsampling}"
)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_and_rewrite_equals_torch(variant: str, options: GraphOptions) -> None:
    check(small(variant), options, ["image_64", "image_128", "attention"])


@pytest.mark.parametrize(
    ("stages", "names"),
    [
        (1, ["image_64"]),
        (3, ["image_64", "image_128", "image_256", "attention", "attention_128"]),
    ],
)
def test_other_numbers_of_stages_equal_torch(stages: int, names: list[str]) -> None:
    check(small("attngan", stages), GraphOptions(), names)


def test_squeezing_channel_attention_equals_torch() -> None:
    check(small("att2", width=32), GraphOptions(), ["image_64", "image_128", "attention"])  # 32 channels to 2


@pytest.mark.parametrize("variant", ["base", "att2"])
def test_neighbours_and_padding_change_nothing(variant: str) -> None:
    lengths = (2, 9, 5)
    together = inputs_of(lengths)
    noisy = {**together, "words": together["words"].clone()}
    for row, length in enumerate(lengths):
        noisy["words"][row, :, length:] = 50.0  # what stands behind the end of a caption is no word
    singles = [
        {
            name: value[row : row + 1, ..., :length] if name in ("words", "mask") else value[row : row + 1]
            for name, value in together.items()
        }
        for row, length in enumerate(lengths)
    ]
    model = generator_graph(deploy(small(variant), GraphOptions(weights="fp32")))
    whole, disturbed, *single = run_graph(model, together, noisy, *singles)
    for name in ("image_128", "attention"):
        np.testing.assert_allclose(disturbed[name], whole[name], atol=TOLERANCE, rtol=0)
    for row, (length, made) in enumerate(zip(lengths, single, strict=True)):
        np.testing.assert_allclose(made["image_128"][0], whole["image_128"][row], atol=TOLERANCE, rtol=0)
        np.testing.assert_allclose(made["attention"][0], whole["attention"][row, :length], atol=TOLERANCE, rtol=0)
        assert not whole["attention"][row, length:].any()
    np.testing.assert_allclose(whole["attention"].sum(axis=1), 1.0, atol=1e-5)


def test_folding_changes_nothing_but_rounding_errors() -> None:
    trained = small("att2")
    folded, batch = fold_batch_norms(trained), inputs_of((4, 2))
    for ours, wanted in zip(run_torch(folded, batch), run_torch(trained, batch), strict=True):
        np.testing.assert_allclose(ours, wanted, atol=TOLERANCE, rtol=0)
    assert not [module for module in folded.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]


def test_a_bias_before_the_batch_norm_is_folded_too() -> None:
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        linear, norm, x = nn.Linear(4, 3), nn.BatchNorm1d(3).eval(), torch.randn(5, 4)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
        weight, bias = fold(linear.weight, norm, linear.bias)
        torch.testing.assert_close(x @ weight.T + bias, norm(linear(x)), atol=1e-6, rtol=1e-6)


def test_a_generator_with_its_batch_norms_is_refused() -> None:
    with pytest.raises(ValueError, match="not folded"):
        generator_graph(small("base"))


def test_weights_that_float16_can_not_hold_are_refused() -> None:
    generator = small("base")
    with torch.no_grad():
        generator.to_image[0].conv.weight[0, 0, 0, 0] = 1e5
    with pytest.raises(CheckpointError, match=r"to_image.0.conv.weight.*--weights fp32"):
        round_weights(generator, "fp16")
    assert round_weights(generator, "fp32").to_image[0].conv.weight.max() == 1e5


def test_a_negative_running_variance_is_refused() -> None:
    generator = small("base")
    generator.first.norm.running_var[0] = -1.0
    with pytest.raises(CheckpointError, match=r"first\.linear\.weight"):
        fold_batch_norms(generator)


def test_rewrites_are_in_the_graph() -> None:
    plain, rewritten = (generator_graph(deploy(small("base"), GraphOptions(flag, flag))) for flag in (False, True))
    operators = [[node.op_type for node in model.graph.node] for model in (plain, rewritten)]
    glus, upsamplings = 10, 5  # condition, linear, 5 upsamplings, fuse, 2 residual blocks
    assert operators[0].count("Split") == glus + 1  # and that of mu and log-variance
    assert operators[1].count("Split") == 1
    assert operators[0].count("Sigmoid") == operators[1].count("Sigmoid") == glus
    assert (operators[0].count("Resize"), operators[0].count("ConvTranspose")) == (upsamplings, 0)
    assert (operators[1].count("Resize"), operators[1].count("ConvTranspose")) == (0, 2 * upsamplings)
