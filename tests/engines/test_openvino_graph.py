"""The rewrites for OpenVINO: exact, complete, and nothing that they do not fit is touched."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.engines.openvino.engine import OpenVinoEngine, settings
from attngan_deploy.engines.openvino.graph import rewrite
from attngan_deploy.errors import EngineError
from attngan_deploy.generate import pipeline
from attngan_deploy.generate.pipeline import TextToImage, verify_model
from attngan_deploy.media.images import to_uint8
from tests.makers.commands import PATIENCE

openvino = pytest.importorskip("openvino", reason="needs the 'openvino' extra")
CAPTIONS = ["a red bird", "this small bird has a bright yellow belly and a short black bill"]
UPSAMPLINGS = 5  # of a generator with two stages: four in the first, one in the second


def kinds(model: Any) -> list[str]:
    return [node.get_type_name() for node in model.get_ordered_ops()]


def computed(model: Any, x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.array(openvino.Core().compile_model(model, "CPU", settings("CPU", "fp32", 1))([x])[0])


def upsampled(mode: str = "nearest", scale: float = 2.0, stride: int = 1, kernel: int = 3) -> Any:
    """A model of Resize and then Conv."""
    weights = np.random.default_rng(1).standard_normal((5, 3, kernel, kernel), np.float32)
    nodes = [
        helper.make_node(
            "Resize", ["x", "", "scales"], ["big"],
            mode=mode, coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        ),
        helper.make_node("Conv", ["big", "w"], ["y"], pads=[kernel // 2] * 4, strides=[stride] * 2),
    ]  # fmt: skip
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 6, 4])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    scales = np.array([1, 1, scale, scale], np.float32)
    constants = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(scales, "scales")]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return openvino.Core().read_model(model.SerializeToString())


def test_upsampling_and_convolution_become_one_that_computes_the_same() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 4), np.float32)
    model = upsampled()
    expected = computed(model, x)
    assert rewrite(model) == 1
    assert "Interpolate" not in kinds(model) and "Convolution" not in kinds(model)
    np.testing.assert_allclose(computed(model, x), expected, atol=1e-5)


@pytest.mark.parametrize("other", [{"mode": "linear"}, {"scale": 3.0}, {"stride": 2}, {"kernel": 5}])
def test_what_does_not_fit_is_left_alone(other: dict[str, Any]) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 4), np.float32)
    model = upsampled(**other)
    expected = computed(model, x)
    assert rewrite(model) == 0
    np.testing.assert_array_equal(computed(model, x), expected)


def test_every_upsampling_of_a_generator(tiny_bundle: Path) -> None:
    model = openvino.Core().read_model(open_bundle(tiny_bundle).graph_path("generator"))
    assert rewrite(model) == 2 * UPSAMPLINGS  # value and gate
    assert "Interpolate" not in kinds(model)
    assert kinds(model).count("ConvolutionBackpropData") == 2 * UPSAMPLINGS


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_pictures_are_those_of_the_whole_graph(tiny_bundle: Path, precision: str) -> None:
    if precision.upper() not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip(f"this CPU has no {precision}")
    model = TextToImage.load(tiny_bundle, backend="openvino", precision=precision, threads=1, device="cpu")
    assert isinstance(model.generator, OpenVinoEngine) and model.generator.makes_pictures
    features = model.encode(CAPTIONS)
    z, eps = np.random.default_rng(0).standard_normal((2, 2, 4), np.float32)
    made = model.decode_pictures(features, z, eps)
    whole = to_uint8(model.decode(features, z, eps).images[128])
    assert made.shape == (2, 128, 128, 3) and made.dtype == np.uint8 and made.std() > 10
    difference = np.abs(made.astype(int) - whole)
    assert difference.max() <= (1 if precision == "fp32" else 20) and difference.mean() < 1
    again = model.decode_pictures(features, -z, eps)
    assert not np.array_equal(again, made)  # and what was given out before is not written over
    np.testing.assert_array_equal(model.decode_pictures(features, z, eps), made)


def test_pictures_that_are_not_finite(tiny_bundle: Path) -> None:
    model = TextToImage.load(tiny_bundle, backend="openvino", precision="fp32", threads=1, device="cpu")
    z = np.zeros((2, 4), np.float32)
    z[1, 2] = np.nan
    with pytest.raises(EngineError, match="the generator of model tiny made values that are not finite"):
        model.decode_pictures(model.encode(CAPTIONS), z, np.zeros((2, 4), np.float32))


def test_streams_make_the_pictures_of_one_batch_at_a_time(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = TextToImage.load(tiny_bundle, backend="openvino", precision="fp32", threads=2, device="cpu")
    engine = model.generator
    assert isinstance(engine, OpenVinoEngine) and engine.streams == 2
    captions = [caption for caption in CAPTIONS for _ in range(10)]
    expected = model.generate(captions, seed=5)
    busy: list[str] = []
    both = threading.Barrier(2, timeout=PATIENCE)
    make = OpenVinoEngine.pictures

    def together(engine: OpenVinoEngine, inputs: Any, alone: bool = True) -> Any:
        assert not alone
        if len(busy) < 2:
            busy.append(threading.current_thread().name)
            both.wait()  # only another stream lets this one go on
        return make(engine, inputs, alone)

    monkeypatch.setattr(pipeline, "STREAMS_FROM", 8)
    monkeypatch.setattr(OpenVinoEngine, "pictures", together)
    batches = list(model.stream(captions, 5, batch_size=3, attention=False))
    assert [place for batch in batches for place in batch.places] == [(place, 0) for place in range(20)]
    made = np.concatenate([batch.pictures for batch in batches])
    assert np.abs(made.astype(int) - expected).max() <= 1
    assert len(set(busy)) == 2
    monkeypatch.undo()
    np.testing.assert_array_equal(model.generate(captions, seed=5), expected)  # the other form is compiled again


def test_a_stream_that_fails_or_is_not_taken_to_its_end(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = TextToImage.load(tiny_bundle, backend="openvino", precision="fp32", threads=2, device="cpu")
    make, calls = OpenVinoEngine.pictures, []
    before = set(threading.enumerate())

    def broken(engine: OpenVinoEngine, inputs: Any, alone: bool = True) -> Any:
        calls.append(alone)
        if len(calls) == 3:
            raise EngineError("the third batch is broken")
        return make(engine, inputs, alone)

    monkeypatch.setattr(pipeline, "STREAMS_FROM", 8)
    monkeypatch.setattr(OpenVinoEngine, "pictures", broken)
    taken: list[Any] = []
    with pytest.raises(EngineError, match="the third batch"):
        taken.extend(model.stream(CAPTIONS * 20, batch_size=2, attention=False))
    assert len(calls) < 10  # of 20
    calls[:] = [False] * 3
    batches = model.stream(CAPTIONS * 20, batch_size=2, attention=False)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert len(calls) < 13
    assert set(threading.enumerate()) <= before


def test_pictures_count_among_the_golden_ones(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = TextToImage.load(tiny_bundle, backend="openvino", precision="fp32", threads=1, device="cpu")
    make = OpenVinoEngine.pictures

    def darker(engine: OpenVinoEngine, inputs: Any, alone: bool = True) -> Any:
        made = make(engine, inputs, alone)
        return made | {"pictures": made["pictures"] // 2}

    assert verify_model(model).passed
    monkeypatch.setattr(OpenVinoEngine, "pictures", darker)
    found = verify_model(model)
    assert not found.passed and found.worst_level is not None and found.worst_level > 50


def test_onnx_files_stay_as_they_are(tiny_bundle: Path) -> None:
    """ONNX Runtime loses by a transposed convolution: the rewrite belongs to the engine, not to the bundle."""
    graph = onnx.load(open_bundle(tiny_bundle).graph_path("generator")).graph
    assert not [node for node in graph.node if node.op_type == "ConvTranspose"]
