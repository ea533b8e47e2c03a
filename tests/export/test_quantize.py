"""The int8 graph: what is quantized, what is kept, and that ranges are measured once."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto

from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.engines.facts import Tensors
from attngan_deploy.export.precision import quantize
from attngan_deploy.export.precision.half import layer_of, load_plain
from attngan_deploy.export.precision.quantize import Quantizer, quantizable, result_bytes
from attngan_deploy.export.precision.sample_inputs import sample_batches, sample_captions
from tests.makers.tiny_bundle import make_tiny_bundle


@pytest.fixture(scope="module")
def plain(tiny_bundle: Path) -> ModelProto:
    return load_plain(open_bundle(tiny_bundle).graph_path("generator"))


@pytest.fixture(scope="module")
def batches(tiny_bundle: Path) -> list[Tensors]:
    bundle = open_bundle(tiny_bundle)
    return sample_batches(bundle, sample_captions(bundle), (4, 4), seed=0)


def run(model: ModelProto, batch: Tensors) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return np.asarray(session.run(["image_128"], batch)[0])


def test_weights_are_int8_by_channel_and_activations_uint8(
    plain: ModelProto, batches: list[Tensors], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = Quantizer(plain, batches, tmp_path).quantize()
    assert capfd.readouterr() == ("", "")  # the quantizer talks, and the user need not hear it
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    weight = stored["first.upsample.0.conv.value.weight/cast_quantized"]
    assert weight.data_type == TensorProto.INT8
    assert list(stored["first.upsample.0.conv.value.weight/cast_scale"].dims) == [weight.dims[0]]
    zeros = [stored[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert zeros and {tensor.data_type for tensor in zeros} == {TensorProto.UINT8}
    found, wanted = run(model, batches[0]), run(plain, batches[0])
    error = float(np.sqrt(np.mean((found - wanted) ** 2)))
    assert 1e-4 < error < 0.1
    ends = [value.type.tensor_type.elem_type for value in model.graph.output]
    assert set(ends) == {TensorProto.FLOAT}


def test_kept_layers_are_untouched(plain: ModelProto, batches: list[Tensors], tmp_path: Path) -> None:
    layers = quantizable(plain)
    assert "to_image.1" in layers and "later.0.attention" not in layers
    quantizer = Quantizer(plain, batches, tmp_path)
    untouched = run(quantizer.quantize(layers), batches[0])
    np.testing.assert_allclose(untouched, run(plain, batches[0]), atol=1e-5, rtol=0)
    names = [tensor.name for tensor in quantizer.quantize(["to_image.1"]).graph.initializer]
    assert not [name for name in names if layer_of(name) == "to_image.1" and "quantized" in name]
    assert [name for name in names if layer_of(name) == "to_image.0" and "quantized" in name]


def test_ranges_are_measured_once(
    plain: ModelProto, batches: list[Tensors], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantizer = Quantizer(plain, batches, tmp_path)
    first = quantizer.quantize()

    class NoMore(quantize._Reader):
        def get_next(self) -> None:
            raise AssertionError("calibrated again")

    monkeypatch.setattr(quantize, "_Reader", NoMore)
    assert quantizer.quantize().SerializeToString() == first.SerializeToString()


def test_ranges_of_a_large_network_are_taken_a_part_at_a_time(
    plain: ModelProto, batches: list[Tensors], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 256 px the results of all batches at once would take more memory than a laptop has."""
    pictures = list[int]()

    class Counted(quantize._Reader):
        def get_next(self) -> Tensors | None:
            if (batch := super().get_next()) is not None:
                pictures.append(len(batch["z"]))
            return batch

    monkeypatch.setattr(quantize, "_Reader", Counted)
    monkeypatch.setattr(quantize, "LARGEST", 3 * result_bytes(plain))
    (tmp_path / "whole").mkdir()
    parts = Quantizer(plain, batches, tmp_path).quantize()
    assert pictures == [3, 1, 3, 1]
    monkeypatch.undo()
    whole = Quantizer(plain, batches, tmp_path / "whole").quantize()
    assert 0 < np.abs(run(parts, batches[0]) - run(plain, batches[0])).mean() < 0.05
    assert np.abs(run(parts, batches[0]) - run(whole, batches[0])).mean() < 0.02


def test_batches_may_have_captions_of_other_lengths(tmp_path: Path) -> None:
    """DM-GAN's words go through convolutions, whose results have as many places as there are words."""
    folder = make_tiny_bundle(tmp_path / "dmgan", "dmgan")
    bundle, plain = open_bundle(folder), load_plain(open_bundle(folder).graph_path("generator"))
    batches = sample_batches(bundle, [[1, 2, 3], [1], [2, 3], [1, 2, 3, 4, 5]], (2, 2), seed=0)
    assert [batch["words"].shape[-1] for batch in batches] == [3, 5]
    found, wanted = run(Quantizer(plain, batches, tmp_path).quantize(), batches[0]), run(plain, batches[0])
    assert 0 < np.abs(found - wanted).mean() < 0.05
