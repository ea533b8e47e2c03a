"""Engines: what they run, and what they refuse."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from attngan_deploy.bundle import open_bundle, write_manifest
from attngan_deploy.engines import load_engine
from attngan_deploy.errors import BundleError, EngineError

INPUTS = {"captions": np.array([[1, 2, 0]], np.int64), "lengths": np.array([2], np.int64)}


def test_run(tiny_bundle: Path) -> None:
    engine = load_engine(open_bundle(tiny_bundle), "text_encoder", threads=1)
    outputs = engine.run(INPUTS)
    assert set(outputs) == {"words", "sentence", "mask"}
    assert outputs["mask"].tolist() == [[True, True, False]]
    assert outputs["words"].shape == (1, 8, 3)
    forward, backward = outputs["words"][:, :4, 1], outputs["words"][:, 4:, 0]  # the last word of each direction
    np.testing.assert_allclose(outputs["sentence"], np.concatenate([forward, backward], axis=1), rtol=1e-5)
    assert "onnxruntime" in str(engine.facts)
    assert "1 thread" in str(engine.facts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "tensorrt"}, "no backend 'tensorrt'; expected auto or onnxruntime"),
        ({"precision": "int8"}, "no precision 'int8' .* expected auto or fp32"),
        ({"device": "tpu"}, "no device 'tpu'; expected auto or cpu or cuda"),
        ({"threads": 0}, "threads is out of range; found 0"),
    ],
)
def test_what_can_not_be_had_is_an_error(tiny_bundle: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        load_engine(open_bundle(tiny_bundle), "generator", **options)  # type: ignore[arg-type]


def test_no_silent_fallback_to_the_cpu(tiny_bundle: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(EngineError, match="has no cuda; found "):
        load_engine(open_bundle(tiny_bundle), "generator", device="cuda")


def test_unknown_graph(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match="no graph 'judge'"):
        load_engine(open_bundle(tiny_bundle), "judge")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"captions": INPUTS["captions"]}, "needs the tensor lengths; found captions"),
        ({**INPUTS, "z": INPUTS["lengths"]}, "takes no tensor z; expected captions, lengths"),
        ({**INPUTS, "lengths": np.array([2], np.int32)}, "lengths of .* wrong type; found int32; expected int64"),
        ({**INPUTS, "lengths": [2]}, "lengths of .* wrong type; found list"),
        ({**INPUTS, "lengths": np.array([[2]], np.int64)}, r"lengths of .* wrong shape; found \[1, 1\]"),
        ({**INPUTS, "captions": np.array([[999]], np.int64)}, "ONNX Runtime failed in text_encoder.onnx"),
    ],
)
def test_bad_tensors(tiny_bundle: Path, inputs: dict[str, np.ndarray], message: str) -> None:
    engine = load_engine(open_bundle(tiny_bundle), "text_encoder")
    with pytest.raises(EngineError, match=message) as caught:
        engine.run(inputs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"not a graph", None])
def test_a_graph_that_can_not_be_loaded(
    tiny_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], data: bytes | None
) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))
    graph = folder / "generator.onnx"
    graph.write_bytes(graph.read_bytes()[:-5000] if data is None else data)
    write_manifest(folder, json.loads((folder / "bundle.json").read_text()))
    with pytest.raises(EngineError, match="can't load") as caught:
        load_engine(open_bundle(folder), "generator")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""
