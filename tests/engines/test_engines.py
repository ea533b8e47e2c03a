"""Engines: what they run, and what they refuse."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from attngan_deploy.bundles.bundle import open_bundle, write_manifest
from attngan_deploy.engines.load import load_engine
from attngan_deploy.engines.request import BACKENDS, EngineRequest
from attngan_deploy.errors import BundleError, EngineError
from attngan_deploy.score.judge import Judge
from tests.makers.tiny_judge import make_tiny_judge

INPUTS = {"captions": np.array([[1, 2, 0]], np.int64), "lengths": np.array([2], np.int64)}


def test_run(tiny_bundle: Path) -> None:
    engine = load_engine(open_bundle(tiny_bundle), "text_encoder", EngineRequest(threads=1))
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
        ({"backend": "torch"}, "no backend 'torch'; expected auto, onnxruntime, openvino, tensorrt or tensorrt-rtx"),
        ({"device": "tpu"}, "no device 'tpu'; expected auto, cpu, cuda, .* or npu"),
        (
            {"backend": "openvino", "device": "sm86"},
            "openvino has no device sm86, a compute capability for t2i export --target tensorrt-rtx; expected cpu, gpu",
        ),
        ({"precision": "fp8"}, "no precision 'fp8'; expected auto, fp32, fp16, bf16 or int8"),
        ({"threads": 0}, "threads is out of range; found 0"),
        ({"backend": "openvino", "device": "cuda"}, "openvino has no device cuda; expected cpu, gpu or npu"),
        ({"backend": "tensorrt", "device": "cpu"}, "tensorrt has no device cpu; expected cuda"),
        (
            {"backend": "onnxruntime", "device": "cpu", "precision": "fp16"},
            "onnxruntime does not compute in fp16 on cpu; expected fp32 or int8. "
            "Next: for fp16, --device cuda, tensorrt or tensorrt-rtx, or --backend openvino, tensorrt or tensorrt-rtx",
        ),
        (
            {"device": "gpu", "precision": "bf16"},
            "no backend computes in bf16 on gpu; expected fp32, fp16 or int8. "
            "Next: for bf16, --backend openvino, tensorrt or tensorrt-rtx",
        ),
    ],
)
def test_what_can_not_be_had_is_an_error(tiny_bundle: Path, options: dict[str, object], message: str) -> None:
    for fallback in (False, True):  # what no machine can do is a mistake, with a fallback too
        with pytest.raises(EngineError, match=message):
            load_engine(open_bundle(tiny_bundle), "generator", EngineRequest(allow_fallback=fallback, **options))  # type: ignore[arg-type]


def test_auto_is_the_first_that_fits() -> None:
    assert EngineRequest().candidates()[0] == EngineRequest("onnxruntime", "cpu", "fp32")
    assert EngineRequest(device="gpu").candidates()[0] == EngineRequest("openvino", "gpu", "fp32")
    assert [(each.backend, each.device) for each in EngineRequest(precision="bf16").candidates()] == [
        ("openvino", "cpu"),
        ("tensorrt", "cuda"),
        ("tensorrt-rtx", "cuda"),
    ]
    assert {each.backend for each in EngineRequest().candidates()} == set(BACKENDS)


def test_no_precision_that_the_bundle_lacks(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"has no graph 'generator' in int8; found fp32. Next: t2i export "):
        load_engine(
            open_bundle(tiny_bundle), "generator", EngineRequest("onnxruntime", precision="int8", allow_fallback=True)
        )


def test_the_text_encoder_is_always_fp32(tiny_bundle: Path) -> None:
    engine = load_engine(open_bundle(tiny_bundle), "text_encoder", EngineRequest("onnxruntime", precision="int8"))
    assert engine.facts.precision == "fp32"


def test_scores_do_not_depend_on_what_is_fastest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attngan_deploy.engines.choice.choose", None)
    facts = Judge.load(make_tiny_judge(tmp_path / "judge")).engine.facts
    assert (facts.backend, facts.device, facts.precision) == ("onnxruntime", "cpu", "fp32")


def test_no_silent_fallback_to_the_cpu(tiny_bundle: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    bundle = open_bundle(tiny_bundle)
    with pytest.raises(
        EngineError, match=r"has no cuda; found .* Next: pip uninstall -y onnxruntime onnxruntime-gpu && pip install "
    ):
        load_engine(bundle, "generator", EngineRequest("onnxruntime", "cuda"))
    facts = load_engine(bundle, "generator", EngineRequest("onnxruntime", "cuda", allow_fallback=True)).facts
    assert (facts.backend, facts.device) == ("onnxruntime", "cpu")
    assert "instead of onnxruntime on cuda in fp32 (this ONNX Runtime has no cuda)" in str(facts)


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
        (
            {**INPUTS, "lengths": np.array([[2]], np.int64)},
            r"lengths of .* wrong shape; found \[1, 1\]; expected \[batch\]",
        ),
        (
            {**INPUTS, "lengths": np.array([2, 2], np.int64)},
            r"found \[2\]; expected \[batch\], with batch 1 as in captions",
        ),
        ({**INPUTS, "captions": np.zeros((1, 0), np.int64)}, r"captions of .* wrong shape; found \[1, 0\]"),
        (
            {**INPUTS, "lengths": np.array([4], np.int64)},
            "lengths of text_encoder.onnx has numbers out of range; found 4; expected 1 to 3",
        ),
        ({**INPUTS, "lengths": np.array([0], np.int64)}, "lengths of .* out of range; found 0; expected 1 to 3"),
        ({**INPUTS, "captions": np.array([[1, -1]], np.int64)}, "captions of .* range; found -1; expected 0 or more"),
        ({**INPUTS, "captions": np.array([[1, 999]], np.int64)}, "ONNX Runtime failed in text_encoder.onnx"),
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
