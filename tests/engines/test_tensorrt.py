"""Running TensorRT engines: on a GPU where there is one, and on a stand-in for it everywhere."""

import gc
import json
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from attngan_deploy.bundles.bundle import Bundle
from attngan_deploy.engines.load import load_engine
from attngan_deploy.engines.request import EngineRequest
from attngan_deploy.engines.tensorrt import cuda as cuda_module
from attngan_deploy.engines.tensorrt.build import load_tensorrt, tensorrt_log
from attngan_deploy.engines.tensorrt.cuda import Buffer, Stream, find_gpu
from attngan_deploy.engines.tensorrt.engine import TensorRtEngine
from attngan_deploy.errors import EngineError, MissingExtraError
from attngan_deploy.export.targets.engines import find_places
from attngan_deploy.generate import doctor
from attngan_deploy.generate.pipeline import TextToImage, verify_model
from attngan_deploy.system.machine import Nvidia
from tests.makers.fake_gpu import (
    FakeContext,
    FakeCuda,
    FakeEngine,
    files,
    plain_tensorrt,
    use_fake_cuda,
    use_fake_runtime,
)
from tests.makers.precise_bundle import add_half_generator, generator_inputs
from tests.makers.tensorrt_file import READABLE

RTX = "tensorrt-rtx"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("T2I_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def cuda(rtx: ModuleType, precise_bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """A fake GPU, with engines that are deserialised for it, and an empty cache."""
    if not rtx.__version__.startswith(READABLE):
        pytest.skip(f"the stand-in for a GPU reads engines of TensorRT-RTX {READABLE} only")
    use_fake_runtime(monkeypatch, rtx, precise_bundle)
    return use_fake_cuda(monkeypatch)


@pytest.fixture(scope="module")
def engines_at_hand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that tests share, for those that ask nothing of it."""
    return tmp_path_factory.mktemp("engines")


@pytest.fixture
def generator(
    cuda: FakeCuda, precise_bundle: Bundle, engines_at_hand: Path, monkeypatch: pytest.MonkeyPatch
) -> TensorRtEngine:
    """The generator on the fake GPU."""
    monkeypatch.setenv("T2I_CACHE", str(engines_at_hand))
    return TensorRtEngine(precise_bundle, "generator", RTX)


def test_a_model_makes_its_golden_pictures(cuda: FakeCuda, precise_bundle: Bundle, cache: Path) -> None:
    engines = [TensorRtEngine(precise_bundle, graph, RTX) for graph in ("text_encoder", "generator")]
    result = verify_model(TextToImage(precise_bundle, *engines))
    assert result.passed
    facts = engines[1].facts
    assert (facts.backend, facts.device, facts.precision) == (RTX, "cuda:0", "fp32")
    assert re.search(
        r"on cuda:0, fp32, Fake GeForce, without TF32, engine built in \d.*: not in the cache$", str(facts)
    )
    assert len(files(cache, ".engine")) == 2
    again = TensorRtEngine(precise_bundle, "generator", RTX)
    assert again.facts.notes == ("Fake GeForce", "without TF32", "engine from the cache")


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_load_engine_hands_over(cuda: FakeCuda, precise_bundle: Bundle, precision: str) -> None:
    engine = load_engine(precise_bundle, "generator", EngineRequest(backend=RTX, precision=precision))
    assert isinstance(engine, TensorRtEngine)
    assert engine.facts.precision == precision


@pytest.mark.parametrize("count", [1, 64, 65])
def test_batches_of_any_size(generator: TensorRtEngine, precise_bundle: Bundle, count: int) -> None:
    inputs = generator_inputs(precise_bundle, count, 3)
    expected = load_engine(precise_bundle, "generator", EngineRequest("onnxruntime", "cpu", "fp32")).run(inputs)
    found = generator.run(inputs)
    assert list(found) == list(expected)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-6)


def test_shapes_may_change_and_memory_is_given_back(cuda: FakeCuda, precise_bundle: Bundle) -> None:
    reference = load_engine(precise_bundle, "generator", EngineRequest("onnxruntime", "cpu", "fp32"))
    engine = TensorRtEngine(precise_bundle, "generator", RTX)
    for count, words in ((2, 5), (1, 1), (7, 64), (2, 5)):
        inputs = generator_inputs(precise_bundle, count, words)
        inputs["words"] = np.asfortranarray(inputs["words"])  # not contiguous: must not be copied as it lies
        for name, value in engine.run(inputs).items():
            np.testing.assert_allclose(value, reference.run(inputs)[name], atol=1e-6)
        assert len(cuda.held) == 10  # five inputs, three outputs and two of pictures
        assert len(cuda.pinned) == 10
    del engine
    assert not cuda.held and not cuda.pinned
    assert not cuda.streams


def test_a_new_engine_must_make_the_golden_pictures(
    cuda: FakeCuda, precise_bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeEngine, "error", 0.05)
    for _ in range(2):  # and it is not trusted the second time
        with pytest.raises(EngineError, match=r"does not make the golden pictures with generator: .* FAILED") as caught:
            TensorRtEngine(precise_bundle, "generator", RTX)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(FakeEngine, "error", 0.0)
    TensorRtEngine(precise_bundle, "generator", RTX)  # the engine that is there now passes, and is never checked again
    monkeypatch.setattr(FakeEngine, "error", 0.05)
    TensorRtEngine(precise_bundle, "generator", RTX)


def test_values_that_are_no_numbers(cuda: FakeCuda, precise_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeEngine, "error", np.nan)
    with pytest.raises(EngineError, match="not finite"):
        TensorRtEngine(precise_bundle, "generator", RTX)


def test_an_engine_that_is_refused_is_built_again(
    cuda: FakeCuda, rtx: ModuleType, precise_bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    TensorRtEngine(precise_bundle, "generator", RTX)
    (old,) = files(cache, ".engine")
    old_data, given = old.read_bytes(), []

    def deserialise(data: bytes) -> FakeEngine | None:
        given.append(data)
        if len(given) == 1:
            tensorrt_log(RTX).log(rtx.ILogger.ERROR, "engine of another driver")
            return None
        return FakeEngine(rtx, data, precise_bundle)

    monkeypatch.setattr(rtx, "Runtime", lambda log: SimpleNamespace(deserialize_cuda_engine=deserialise))
    engine = TensorRtEngine(precise_bundle, "generator", RTX)
    assert re.search(r"built in .*: TensorRT refused it \(engine of another driver\)", str(engine.facts))
    assert given[0] == old_data
    monkeypatch.setattr(rtx, "Runtime", lambda log: SimpleNamespace(deserialize_cuda_engine=lambda data: None))
    with pytest.raises(EngineError, match=r"can't load .*: it does not say why"):
        TensorRtEngine(precise_bundle, "generator", RTX)


def test_a_damaged_engine_is_built_again(cuda: FakeCuda, precise_bundle: Bundle, cache: Path) -> None:
    TensorRtEngine(precise_bundle, "text_encoder", RTX)
    (path,) = files(cache, ".engine")
    path.write_bytes(path.read_bytes()[:-10])
    assert "is damaged: it has" in str(TensorRtEngine(precise_bundle, "text_encoder", RTX).facts)


def test_another_gpu_gets_its_own_engine(cuda: FakeCuda, precise_bundle: Bundle, cache: Path) -> None:
    TensorRtEngine(precise_bundle, "text_encoder", RTX)
    cuda.capability, cuda.name = (12, 0), b"Fake Blackwell"
    assert "not in the cache" in str(TensorRtEngine(precise_bundle, "text_encoder", RTX).facts)
    assert [path.name.split("-")[2] for path in files(cache, ".engine")] == ["sm120", "sm89"]


def test_a_gpu_that_tensorrt_rtx_does_not_know_is_refused_by_name(
    cuda: FakeCuda, precise_bundle: Bundle, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cuda.capability, cuda.name = (9, 0), b"NVIDIA H200"
    told = r"tensorrt-rtx 1\.[\d.]+ knows no NVIDIA H200 \(sm90\); expected sm75, .*sm120.*--device cuda"
    with pytest.raises(EngineError, match=told):
        TensorRtEngine(precise_bundle, "generator", RTX)
    with pytest.raises(EngineError, match=told):
        find_places(RTX)
    assert not cache.exists()
    doctor.try_backend(RTX)
    answer = json.loads(capsys.readouterr().out.strip().removeprefix(doctor.ANSWER))
    assert "knows no NVIDIA H200" in answer["error"] and "refused" in answer


def test_a_second_gpu_is_used_by_every_thread(cuda: FakeCuda, precise_bundle: Bundle) -> None:
    """The stand-in refuses streams and memory of another GPU than the thread's, which is the first at its start."""
    with pytest.raises(EngineError, match=r"no GPU 1; found 1; expected 0 to 0"):
        TensorRtEngine(precise_bundle, "generator", RTX, "cuda:1")
    cuda.gpus = 2
    engine = TensorRtEngine(precise_bundle, "generator", RTX, "cuda:1")
    assert engine.facts.device == "cuda:1"
    batches = [generator_inputs(precise_bundle, size, 3) for size in (1, 70, 2, 65)]
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(engine.run, batches))
    for inputs, outputs in zip(batches, made, strict=True):
        expected = engine.run(inputs)
        for name, value in outputs.items():
            np.testing.assert_array_equal(value, expected[name])
    assert set(cuda.devices.values()) == {1}


def test_turing_computes_products_in_fp16_and_says_so(cuda: FakeCuda, precise_bundle: Bundle) -> None:
    cuda.capability = (7, 5)
    engine = TensorRtEngine(precise_bundle, "text_encoder", RTX)
    assert engine.facts.precision == "fp16"
    assert "matrix products in fp16, as sm75 has no others" in str(engine.facts)


def test_compiled_kernels_are_kept(cuda: FakeCuda, precise_bundle: Bundle, cache: Path) -> None:
    TensorRtEngine(precise_bundle, "text_encoder", RTX)
    (kernels,) = files(cache, ".kernels")
    assert kernels.read_bytes() == b"kernels"
    kernels.write_bytes(b"damaged")  # refused by TensorRT itself, which compiles again
    TensorRtEngine(precise_bundle, "text_encoder", RTX)
    assert kernels.read_bytes() == b"kernels"


def test_kernels_that_were_compiled_later_are_kept_too(cuda: FakeCuda, precise_bundle: Bundle, cache: Path) -> None:
    engine = TensorRtEngine(precise_bundle, "text_encoder", RTX)
    (kernels,) = files(cache, ".kernels")
    for count in range(9, 24):
        engine.run({"captions": np.ones((count, 3), np.int64), "lengths": np.full(count, 3)})
    everything = b"kernels " + b" ".join(b"%d" % count for count in range(9, 24))
    assert kernels.read_bytes().startswith(b"kernels 9 10 ")
    assert kernels.read_bytes() != everything  # not after every run
    del engine
    gc.collect()
    assert kernels.read_bytes() == everything


@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_the_same_path_serves_tensorrt(
    cuda: FakeCuda, rtx: ModuleType, precise_bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = plain_tensorrt(rtx)
    monkeypatch.setitem(sys.modules, "tensorrt", plain)
    use_fake_runtime(monkeypatch, plain, precise_bundle)
    load_tensorrt.cache_clear()
    tensorrt_log.cache_clear()
    try:
        engine = TensorRtEngine(precise_bundle, "generator", "tensorrt", precision="fp16")
        assert (engine.facts.backend, engine.facts.version, engine.facts.precision) == ("tensorrt", "10.99", "fp16")
        (timing,) = files(cache, ".timing")
        assert timing.name == "tensorrt-10.99-sm89-Fake-GeForce.timing"
        timing.write_bytes(b"damaged")
        assert TensorRtEngine(precise_bundle, "text_encoder", "tensorrt").facts.precision == "fp32"
        assert [path.name.split("-sm")[0] for path in files(cache, ".engine")] == ["tensorrt", "tensorrt"]
    finally:
        load_tensorrt.cache_clear()
        tensorrt_log.cache_clear()


def test_a_caption_that_is_too_long(generator: TensorRtEngine, precise_bundle: Bundle) -> None:
    with pytest.raises(EngineError, match=r"caption is too long .*; found 65 words; expected at most 64"):
        generator.run(generator_inputs(precise_bundle, 1, 65))


def test_wrong_tensors(generator: TensorRtEngine, precise_bundle: Bundle) -> None:
    inputs = generator_inputs(precise_bundle, 2, 3)
    with pytest.raises(EngineError, match="needs the tensor z"):
        generator.run({name: value for name, value in inputs.items() if name != "z"})
    with pytest.raises(EngineError, match=r"tensor z of .* has the wrong type; found float64"):
        generator.run({**inputs, "z": inputs["z"].astype(np.float64)})
    with pytest.raises(EngineError, match=r"tensor z of .* has the wrong shape"):
        generator.run({**inputs, "z": inputs["z"][:1]})


def test_failures_on_the_gpu(
    cuda: FakeCuda, rtx: ModuleType, generator: TensorRtEngine, precise_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda.memory = 0
    with pytest.raises(EngineError, match=r"cudaMalloc failed: out of memory \(CUDA error 2\)"):
        generator.run(generator_inputs(precise_bundle, 30, 3))
    cuda.memory = 1 << 30
    generator.run(generator_inputs(precise_bundle, 30, 3))  # the next batch finds the engine whole
    monkeypatch.setattr(FakeEngine, "works", False)
    log = tensorrt_log(RTX)
    log.log(rtx.ILogger.ERROR, "of an earlier failure")
    with pytest.raises(EngineError, match="tensorrt-rtx can't run in generator of tiny: it does not say why"):
        generator.run(generator_inputs(precise_bundle, 1, 3))

    def failing(self: FakeContext, stream: int) -> bool:
        log.log(rtx.ILogger.ERROR, "the cause")
        log.log(rtx.ILogger.ERROR, "what follows of it")
        return False

    monkeypatch.setattr(FakeContext, "execute_async_v3", failing)
    with pytest.raises(EngineError, match=r"can't run in generator of tiny: the cause$"):
        generator.run(generator_inputs(precise_bundle, 1, 3))


def test_no_gpu(rtx: ModuleType, precise_bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_fake_cuda(monkeypatch, FakeCuda(gpus=0))
    with pytest.raises(
        EngineError, match=r"no NVIDIA GPU can be used here: .*no CUDA-capable device .*error 100"
    ) as caught:
        TensorRtEngine(precise_bundle, "generator", RTX)
    assert "\n" not in str(caught.value)
    assert not cache.exists()


@pytest.mark.parametrize(
    ("driver", "told"),
    [
        (Nvidia(("NVIDIA L4 (8.9)",), "12.4", "550.54"), r"cuda-bindings 13\.1 .* driver 580 or newer; found .*550"),
        (Nvidia(why="no NVIDIA driver (libcuda.so.1)"), r"no NVIDIA driver \(libcuda.so.1\)"),
        (Nvidia(("NVIDIA L4 (8.9)",), "13.0", "580.1"), r".* insufficient .* \(CUDA error 35\)"),
    ],
)
def test_an_old_driver_is_told_by_its_number(monkeypatch: pytest.MonkeyPatch, driver: Nvidia, told: str) -> None:
    use_fake_cuda(monkeypatch, FakeCuda(gpus=0)).no_gpu = 35
    monkeypatch.setattr(cuda_module, "nvidia", lambda: driver)
    monkeypatch.setattr(cuda_module, "versions", lambda: {"cuda-bindings": "13.1"})
    with pytest.raises(EngineError, match=rf"no NVIDIA GPU can be used here: {told}"):
        find_gpu()


def test_no_cuda_python(rtx: ModuleType, precise_bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(
        MissingExtraError, match=r"cuda-python can't be imported: .*pip install 'attngan-deploy\[tensorrt\]'"
    ):
        TensorRtEngine(precise_bundle, "generator", RTX)


def test_a_device_that_it_does_not_have(rtx: ModuleType, precise_bundle: Bundle) -> None:
    with pytest.raises(EngineError, match="no device 'npu' in tensorrt-rtx; expected auto or cuda"):
        TensorRtEngine(precise_bundle, "generator", RTX, "npu")


def test_memory_grows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = use_fake_cuda(monkeypatch)
    buffer, stream = Buffer(), Stream()
    for size, held in ((10, 10), (5, 10), (100, 100)):
        buffer.reserve(size)
        assert [len(block) for block in cuda.held.values()] == [held]
    sent, got = np.arange(25, dtype=np.float32), np.zeros(25, np.float32)
    stream.upload(sent, buffer)
    stream.download(buffer, got)
    stream.wait()
    assert np.array_equal(sent, got)
    del buffer, stream
    assert not cuda.held
    assert not cuda.streams


# On a real GPU


@pytest.fixture(scope="module")
def gpu() -> Iterator[str]:
    """The flavour of TensorRT that can run here."""
    try:
        find_gpu()
    except (EngineError, MissingExtraError) as error:
        pytest.skip(str(error))
    for flavour in ("tensorrt", RTX):
        try:
            load_tensorrt(flavour)
        except MissingExtraError:
            continue
        yield flavour
        return
    pytest.skip("needs the package tensorrt or tensorrt-rtx")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["tiny", "base"])
def test_on_a_gpu(gpu: str, precise_bundle: Bundle, tmp_path: Path, cache: Path, precision: str, name: str) -> None:
    """Golden pictures, and any batch and caption length against ONNX Runtime."""
    from attngan_deploy.bundles.bundle import open_bundle

    precise_bundle = precise_bundle if name == "tiny" else add_half_generator(open_bundle(name).folder, tmp_path / name)
    engines = [TensorRtEngine(precise_bundle, graph, gpu, "cuda", precision) for graph in ("text_encoder", "generator")]
    assert verify_model(TextToImage(precise_bundle, *engines)).passed
    reference = load_engine(precise_bundle, "generator", EngineRequest("onnxruntime", "cpu", "fp32"))
    worst = {"fp32": 5e-3, "fp16": 0.2}[precision]
    for count, words in ((1, 1), (8, 18), (33, 64), (65, 5)):
        inputs = generator_inputs(precise_bundle, count, words)
        expected = reference.run(inputs)
        for tensor, value in engines[1].run(inputs).items():
            assert value.shape == expected[tensor].shape
            np.testing.assert_allclose(value, expected[tensor], atol=worst)
    assert (
        TensorRtEngine(precise_bundle, "generator", gpu, "cuda", precision).facts.notes[-1] == "engine from the cache"
    )
