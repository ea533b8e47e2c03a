"""The OpenVINO engine, on the CPU: what it computes, what it says of itself, and what it refuses."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from attngan_deploy.bundles.bundle import Bundle, open_bundle, write_manifest
from attngan_deploy.engines.load import load_engine
from attngan_deploy.engines.openvino.engine import settings
from attngan_deploy.engines.request import EngineRequest
from attngan_deploy.errors import EngineError, MissingExtraError
from attngan_deploy.export.precision.half import load_plain
from attngan_deploy.export.precision.quantize import Quantizer
from attngan_deploy.generate.pipeline import TextToImage, verify_model
from tests.makers.commands import PATIENCE
from tests.makers.precise_bundle import generator_inputs

openvino = pytest.importorskip("openvino", reason="needs the 'openvino' extra")
CAPTIONS = ["a red bird", "this small bird has a bright yellow belly and a short black bill"]


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


@pytest.fixture
def damaged(tiny_bundle: Path, tmp_path: Path) -> Callable[[bytes], Bundle]:
    """Make a bundle whose generator is these bytes."""

    def damage(data: bytes) -> Bundle:
        folder = Path(shutil.copytree(tiny_bundle, tmp_path / "damaged"))
        (folder / "generator.onnx").write_bytes(data)
        write_manifest(folder, json.loads((folder / "bundle.json").read_text()))
        return open_bundle(folder)

    return damage


def test_fp32_makes_the_golden_pictures(tiny_bundle: Path) -> None:
    """The golden captions differ in length, which OpenVINO's own LSTM leaves out: the text encoder runs elsewhere."""
    model = TextToImage.load(tiny_bundle, backend="openvino", precision="fp32", threads=1, device="cpu")
    assert verify_model(model).passed
    assert (model.facts.backend, model.facts.device, model.facts.precision) == ("openvino", "cpu", "fp32")
    assert model.facts.version == openvino.__version__.split("-")[0]
    assert "on cpu, fp32, 1 thread, text encoder on onnxruntime cpu" in model.description


def test_attention_and_all_stages_agree(bundle: Bundle) -> None:
    engines = [
        load_engine(bundle, "generator", EngineRequest(backend, "cpu", "fp32", 1))
        for backend in ("onnxruntime", "openvino")
    ]
    features = TextToImage.load(bundle.folder, backend="onnxruntime").encode(CAPTIONS)
    noise = np.random.default_rng(0).standard_normal((2, 2, 4), np.float32)
    tensors = {"sentence": features.sentence, "words": features.words, "mask": features.mask}
    expected, made = (engine.run({**tensors, "z": noise[0], "eps": noise[1]}) for engine in engines)
    assert made.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(made[name], expected[name], atol=1e-5)
    transposed = np.asfortranarray(features.words)
    again = engines[1].run({**tensors, "words": transposed, "z": noise[0], "eps": noise[1]})
    np.testing.assert_array_equal(again["image_128"], made["image_128"])


def test_bf16_is_what_it_says(tiny_bundle: Path) -> None:
    core = openvino.Core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(EngineError, match=r"this cpu does not compute in bf16 .*; expected fp32"):
            TextToImage.load(tiny_bundle, backend="openvino", precision="bf16")
        pytest.skip("this CPU has no bf16")
    exact = TextToImage.load(tiny_bundle, backend="openvino", precision="fp32").generate(CAPTIONS)
    model = TextToImage.load(tiny_bundle, backend="openvino", precision="bf16")
    assert model.facts.precision == "bf16"
    difference = np.abs(model.generate(CAPTIONS).astype(int) - exact)
    assert 1 < difference.max() < 60
    assert difference.mean() < 3


@pytest.fixture(scope="module")
def int8_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose generator is stored in int8 as well, hardly calibrated."""
    place, source = tmp_path_factory.mktemp("int8"), open_bundle(tiny_bundle)
    quantizer = Quantizer(load_plain(source.graph_path("generator")), [generator_inputs(source, 16, 9)] * 3, place)
    folder = Path(shutil.copytree(tiny_bundle, place / "bundle"))
    onnx.save(quantizer.quantize(), folder / "generator.int8.onnx")
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["graphs"]["generator"]["precisions"] = {"int8": {"file": "generator.int8.onnx"}}
    write_manifest(folder, manifest)
    return open_bundle(folder)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_int8_is_what_it_says(int8_bundle: Bundle, backend: str) -> None:
    exact = TextToImage.load(int8_bundle.folder, backend=backend, precision="fp32", threads=1, device="cpu")
    model = TextToImage.load(int8_bundle.folder, backend=backend, precision="int8", threads=1, device="cpu")
    assert (model.facts.backend, model.facts.precision) == (backend, "int8")
    difference = np.abs(model.generate(CAPTIONS).astype(int) - exact.generate(CAPTIONS))
    assert difference.max() > 1
    assert difference.mean() < 20


def test_an_int8_graph_that_is_computed_in_fp32(bundle: Bundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle.folder, tmp_path / "false"))
    shutil.copy(folder / "generator.onnx", folder / "generator.int8.onnx")
    document = json.loads((folder / "bundle.json").read_text())
    document["graphs"]["generator"]["precisions"] = {"int8": {"file": "generator.int8.onnx"}}
    write_manifest(folder, document)
    with pytest.raises(EngineError, match=r"OpenVINO on cpu does not compute in int8; found (fp32|bf16)"):
        load_engine(open_bundle(folder), "generator", EngineRequest("openvino", "cpu", "int8"))


def test_results_stay_and_threads_do_not_mix(bundle: Bundle) -> None:
    model = TextToImage.load(bundle.folder, backend="openvino", precision="fp32", threads=1)
    expected = [model.generate(caption) for caption in CAPTIONS * 4]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(model.generate, CAPTIONS * 4))
    for one, other in zip(expected, made, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("device", "precision", "message"),
    [
        ("gpu", "fp16", "OpenVINO finds no gpu here; found cpu. Next: install the GPU's driver, or --device cpu"),
        ("npu", "int8", "OpenVINO finds no npu here"),
        ("cpu", "fp16", r"this cpu does not compute in fp16 \(.*\); expected fp32"),
    ],
)
def test_what_is_not_here(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, device: str, precision: str, message: str
) -> None:
    class Core:
        available_devices = ("CPU",)

        def get_property(self, name: str, what: str) -> Any:
            return ["FP32", "BF16", "INT8"] if what == "OPTIMIZATION_CAPABILITIES" else "A processor"

    monkeypatch.setattr(openvino, "Core", Core)
    with pytest.raises(EngineError, match=message):
        load_engine(bundle, "generator", EngineRequest("openvino", device, precision))
    facts = load_engine(bundle, "generator", EngineRequest("openvino", device, precision, allow_fallback=True)).facts
    assert (facts.backend, facts.precision) == ("onnxruntime", "fp32")
    assert f"instead of openvino on {device} in {precision}" in str(facts)


def test_another_precision_than_the_one_asked_for(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attngan_deploy.engines.openvino.engine.check_device", lambda device, precision: None)
    if "FP16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU computes in fp16")
    with pytest.raises(EngineError, match="OpenVINO on cpu does not compute in fp16; found "):  # though told so
        load_engine(bundle, "generator", EngineRequest("openvino", "cpu", "fp16"))


def test_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T2I_CACHE", str(tmp_path))
    cpu = settings("CPU", "fp32", 2)
    assert cpu["INFERENCE_PRECISION_HINT"] == "f32"  # else it is bf16 where the processor has it
    assert cpu["INFERENCE_NUM_THREADS"] == 2
    assert cpu["ENABLE_CPU_PINNING"] is False  # else all processes of a machine compute on its first cores
    assert "ENABLE_CPU_PINNING" not in settings("CPU", "fp32", None)
    assert "CACHE_DIR" not in cpu
    flags = tmp_path / "cpuinfo"
    monkeypatch.setattr("attngan_deploy.system.processor.CPU_INFO", flags)
    for told, beside in (("flags : avx512f avx512_bf16", "bf16"), ("flags : avx512f", "f32"), ("", "f32")):
        flags.write_text(f"model name : bf16\n{told}\n")
        assert settings("CPU", "int8", None)["INFERENCE_PRECISION_HINT"] == beside
    flags.unlink()
    assert settings("CPU", "int8", None)["INFERENCE_PRECISION_HINT"] == "f32"
    gpu = settings("GPU", "fp16", 2)
    assert gpu == {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f16",
        "CACHE_DIR": str(tmp_path / "openvino"),
    }


def test_not_installed(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        MissingExtraError, match=r"import of openvino halted.*Next: pip install 'attngan-deploy\[openvino\]'"
    ):
        load_engine(bundle, "generator", EngineRequest("openvino"))


@pytest.mark.parametrize("data", [b"", b"not a graph", b"\x08\x08" * 500])
def test_a_graph_that_can_not_be_loaded(
    damaged: Callable[[bytes], Bundle], capfd: pytest.CaptureFixture[str], data: bytes
) -> None:
    with pytest.raises(EngineError, match=r"OpenVINO can't load .*generator.onnx on cpu: \w") as caught:
        load_engine(damaged(data), "generator", EngineRequest("openvino"))
    assert "\n" not in str(caught.value)
    assert "src/" not in str(caught.value)
    told = capfd.readouterr()
    assert told.out + told.err == ""


def test_a_graph_that_was_cut_short(bundle: Bundle, damaged: Callable[[bytes], Bundle]) -> None:
    with pytest.raises(EngineError, match="OpenVINO can't load"):
        load_engine(damaged(bundle.graph_path("generator").read_bytes()[:-300]), "generator", EngineRequest("openvino"))


def test_wrong_tensors(bundle: Bundle) -> None:
    engine = load_engine(bundle, "generator", EngineRequest("openvino", threads=1))
    with pytest.raises(EngineError, match=r"generator.onnx needs the tensor sentence, words, mask, eps; found z"):
        engine.run({"z": np.zeros((1, 4), np.float32)})


def test_ctrl_c_after_the_last_model_is_gone(tiny_bundle: Path) -> None:
    """OpenVINO would leave the signal stack in memory that it has freed: a segmentation fault at the next Ctrl-C."""
    script = f"""
import gc, os, signal
from attngan_deploy import TextToImage
model = TextToImage.load({str(tiny_bundle)!r}, backend="openvino", precision="fp32")
model.generate(["a red bird"])
del model
gc.collect()
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("stopped")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert (done.returncode, done.stdout.strip()) == (0, "stopped"), done.stderr


def test_it_is_imported_without_its_telemetry() -> None:
    script = """
import sys
from attngan_deploy.engines.openvino.package import load_openvino
load_openvino()
print([name for name in sys.modules if name.startswith("openvino_telemetry")])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
