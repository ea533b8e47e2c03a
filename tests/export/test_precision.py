"""Half-precision graphs: their types, what stays in fp32, and that rounding is what tells them from the fp32 graph."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.export.deploy import GraphOptions, deploy
from attngan_deploy.export.graphs.network import generator_graph
from attngan_deploy.export.precision.half import convert, emulated, fold_constants, layer_of, layers, load_plain
from attngan_deploy.train.config import VARIANTS, GeneratorConfig
from tests.makers.tiny_bundle import random_generator

FEATURES, NOISE = 8, 4
LOW = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
RELATIVE = {"fp16": 2.0**-11, "bf16": 2.0**-8}


@pytest.fixture(scope="module")
def plain(tiny_bundle: Path) -> ModelProto:
    return load_plain(open_bundle(tiny_bundle).graph_path("generator"))


def feeds(pictures: int = 3, words: int = 5) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {"sentence": (pictures, FEATURES), "words": (pictures, FEATURES, words), "z": (pictures, NOISE)}
    made = {
        name: random.normal(size=shape).astype(np.float32) for name, shape in {**shapes, "eps": shapes["z"]}.items()
    }
    mask = np.arange(words) < random.integers(1, words, (pictures, 1), endpoint=True)
    return {**made, "mask": mask}


def run(model: ModelProto) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds()), strict=True))


def generator_of(variant: str, options: GraphOptions = GraphOptions()) -> ModelProto:  # noqa: B008
    generator = random_generator(GeneratorConfig(variant, 2, 2, NOISE, NOISE, FEATURES))
    return fold_constants(generator_graph(deploy(generator, replace(options, weights="fp16"))))


def error(model: ModelProto, plain: ModelProto) -> float:
    found, wanted = run(model), run(plain)
    return max(float(np.abs(found[name] - wanted[name]).max()) for name in wanted)


def test_folding_leaves_one_float32_weight_each_and_the_same_pictures(plain: ModelProto, tiny_bundle: Path) -> None:
    stored = onnx.load(tiny_bundle / "generator.onnx")
    assert {tensor.data_type for tensor in stored.graph.initializer} >= {TensorProto.FLOAT16}
    types = {tensor.data_type for tensor in plain.graph.initializer}
    assert types == {TensorProto.FLOAT, TensorProto.INT64}
    assert "Cast" not in {node.op_type for node in plain.graph.node}
    for name, made in run(plain).items():
        np.testing.assert_array_equal(made, run(stored)[name], err_msg=name)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_typed_through_and_through(variant: str, precision: str) -> None:
    plain = generator_of(variant)
    model = convert(plain, precision)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    onnx.checker.check_model(inferred, full_check=True)
    ends = [value.type.tensor_type.elem_type for value in [*model.graph.input, *model.graph.output]]
    assert set(ends) == {TensorProto.FLOAT, TensorProto.BOOL}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    large = [
        tensor for tensor in weights.values() if np.prod(tensor.dims) > 4 and tensor.data_type != TensorProto.INT64
    ]
    assert {tensor.data_type for tensor in large} == {LOW[precision]}
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert convolutions and {types[node.output[0]] for node in convolutions} == {LOW[precision]}
    assert model.ByteSize() < 0.75 * plain.ByteSize()  # tiny graphs are mostly names


@pytest.mark.parametrize("options", [GraphOptions(split_glu=False), GraphOptions(transposed_upsampling=True)])
def test_other_rewrites_convert_too(options: GraphOptions) -> None:
    plain = generator_of("att2", options)
    assert 0 < error(convert(plain, "fp16"), plain) < 0.1
    onnx.checker.check_model(convert(plain, "bf16"), full_check=True)


def test_fp16_runs_in_onnx_runtime_and_rounds(plain: ModelProto) -> None:
    assert 1e-6 < error(convert(plain, "fp16"), plain) < 0.05


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_emulation_rounds_every_result(plain: ModelProto, precision: str) -> None:
    rounded = error(emulated(plain, precision), plain)
    assert RELATIVE[precision] / 8 < rounded < RELATIVE[precision] * 64


def test_emulation_is_at_least_as_far_as_the_graph_on_a_cpu(plain: ModelProto) -> None:
    assert error(emulated(plain, "fp16"), plain) >= 0.5 * error(convert(plain, "fp16"), plain)


@pytest.mark.parametrize("make", [convert, emulated])
def test_kept_layers_stay_in_fp32(plain: ModelProto, make: object) -> None:
    every = layers(plain)
    assert {"augmentation", "first.linear", "first.upsample.0", "later.0.attention", "to_image.1"} <= set(every)
    assert error(make(plain, "fp16", every), plain) == 0  # type: ignore[operator]
    model = convert(plain, "fp16", ["to_image.1"])
    weights = {tensor.name: tensor.data_type for tensor in model.graph.initializer if "weight" in tensor.name}
    kept = {name for name, kind in weights.items() if kind == TensorProto.FLOAT}
    assert kept and all(layer_of(name) == "to_image.1" for name in kept)
    assert any(node.op_type == "Conv" and layer_of(node.name) == "to_image.1" for node in model.graph.node)


@pytest.mark.parametrize(
    ("node", "layer"),
    [
        ("later.0.residual.1.gated.conv.gate/Conv", "later.0.residual.1"),
        ("later.0/Concat_2", "later.0"),
        ("first.upsample.3.conv.value.weight/cast", "first.upsample.3"),
        ("first/Reshape", "first"),
        ("augmentation/Mul_2", "augmentation"),
        ("to_image.1/Tanh", "to_image.1"),
        ("image_64/output", "image_64"),
        ("stage2/residual1/gated/sigmoid", "stage2/residual1"),  # of a graph that was built by hand
        ("stage2/concat", "stage2"),
        ("first/upsample3/value/weight/cast", "first/upsample3"),
        ("to_image1/tanh", "to_image1"),
    ],
)
def test_a_layer_is_read_from_a_name(node: str, layer: str) -> None:
    assert layer_of(node) == layer


def test_a_weight_that_overflows_shows_up(plain: ModelProto) -> None:
    model = ModelProto()
    model.CopyFrom(plain)
    weight = next(
        tensor for tensor in model.graph.initializer if tensor.name.startswith("first.upsample.3.conv.value.bias")
    )
    weight.CopyFrom(numpy_helper.from_array(np.full(weight.dims, 1e6, np.float32), weight.name))
    with np.errstate(over="ignore"):
        made = run(emulated(model, "fp16"))["image_128"]
    assert not np.array_equal(made, run(model)["image_128"])
