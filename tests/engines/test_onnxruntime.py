"""ONNX Runtime's other devices: what can be tested without them, and on a GPU where there is one."""

import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from attngan_deploy.bundles.bundle import Bundle, open_bundle
from attngan_deploy.engines.facts import Engine
from attngan_deploy.engines.load import load_engine
from attngan_deploy.engines.onnxruntime import engine as module
from attngan_deploy.engines.onnxruntime.bound import MAX_SHAPES, BoundRunner
from attngan_deploy.engines.onnxruntime.engine import PROVIDERS, OnnxRuntimeEngine, placed_elsewhere
from attngan_deploy.engines.request import EngineRequest
from attngan_deploy.errors import EngineError
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.system.files import sha256_of
from tests.makers.precise_bundle import add_half_generator

CPU, CUDA = PROVIDERS["cpu"], PROVIDERS["cuda"]


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


def inputs(bundle: Bundle, pictures: int, words: int, seed: int = 0) -> dict[str, Any]:
    """Random inputs of the generator."""
    rng, sizes = np.random.default_rng(seed), {"batch": pictures, "words": words}
    made = {}
    for name, said in bundle.graph("generator").inputs.items():
        shape = [sizes.get(size, size) for size in said.shape]
        made[name] = rng.standard_normal(shape, np.float32) if said.dtype == "float32" else np.ones(shape, np.bool_)
    return made


class Session:
    """Stands for a session on a GPU that is not here; runs on the CPU."""

    refuses_graphs = False

    def __init__(self, path: str, options: Any, providers: list[Any], enable_fallback: int) -> None:
        self.asked = providers
        assert enable_fallback == 0
        if self.refuses_graphs and providers[0][0] == CUDA and providers[0][1]["enable_cuda_graph"] == "1":
            raise RuntimeError("this session cannot use the graph capture feature")
        self.spins = options.get_session_config_entry("session.intra_op.allow_spinning")
        self._session = REAL(path, options, providers=[CPU])

    def get_providers(self) -> list[str]:
        return [each if isinstance(each, str) else each[0] for each in self.asked]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        nodes = {CUDA: 40, CPU: 2, "MemcpyProvider": 1}
        return [
            SimpleNamespace(ep_name=name, get_nodes=lambda count=count: [0] * count) for name, count in nodes.items()
        ]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


REAL = onnxruntime.InferenceSession


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make ONNX Runtime say that it has every provider."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(PROVIDERS.values()))
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "set_default_logger_severity", lambda severity: None)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("no libcudart.so"), raising=False)
    yield


@pytest.mark.usefixtures("a_gpu")
def test_providers_and_nodes_are_read_back(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    facts = load_engine(bundle, "generator", EngineRequest("onnxruntime", "cuda")).facts
    assert facts.providers == (CUDA, CPU)
    assert facts.elsewhere == {CPU: 2, "MemcpyProvider": 1}
    assert f"on cuda, fp32, 2 nodes on {CPU}, 1 nodes on MemcpyProvider" in str(facts)
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("a_gpu")
@pytest.mark.parametrize(
    ("device", "providers"),
    [
        ("tensorrt", [PROVIDERS["tensorrt"], CUDA, CPU]),
        ("tensorrt-rtx", ["NvTensorRTRTXExecutionProvider", CPU]),
    ],
)
def test_providers_of_tensorrt(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, providers: list[str]
) -> None:
    monkeypatch.setenv("T2I_CACHE", str(tmp_path))
    engine = load_engine(bundle, "generator", EngineRequest("onnxruntime", device))
    assert list(engine.facts.providers) == providers
    if device == "tensorrt":
        options = engine._session.asked[0][1]  # type: ignore[attr-defined]
        folder = Path(options["trt_engine_cache_path"])
        assert folder.parent == tmp_path / "onnxruntime"
        assert folder.name.endswith(f"-{sha256_of(bundle.graph_path('generator'))[:16]}")  # of one model, and
        assert folder.name.startswith(onnxruntime.__version__.replace(".", "-"))  # of one version
        assert options["trt_profile_min_shapes"].startswith("sentence:1x8,words:1x8x1,")
        assert options["trt_profile_opt_shapes"].startswith("sentence:16x8,words:16x8x18,")
        assert options["trt_profile_max_shapes"].startswith("sentence:64x8,words:64x8x64,")


@pytest.mark.usefixtures("a_gpu")
def test_tensorrt_is_loaded_before_its_provider(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime finds libnvinfer among the libraries of the process, or in the system's own folders."""
    loaded: list[str] = []
    monkeypatch.setattr(module.importlib, "import_module", loaded.append)
    load_engine(bundle, "generator", EngineRequest("onnxruntime", "tensorrt"))
    assert loaded == ["tensorrt"]

    def missing(name: str) -> None:
        raise ImportError(f"No module named '{name}'")

    monkeypatch.setattr(module.importlib, "import_module", missing)
    load_engine(bundle, "generator", EngineRequest("onnxruntime", "tensorrt"))  # the system may have it
    monkeypatch.setattr(Session, "get_providers", lambda session: [CUDA, CPU])
    with pytest.raises(
        EngineError, match=r"did not start on tensorrt: the package tensorrt can't be imported \(No mod"
    ):
        load_engine(bundle, "generator", EngineRequest("onnxruntime", "tensorrt"))


@pytest.mark.usefixtures("a_gpu")
def test_fp32_means_fp32_and_no_kernel_is_searched_for(bundle: Bundle) -> None:
    engine = load_engine(bundle, "generator", EngineRequest("onnxruntime", "cuda", "fp32"))
    options = engine._session.asked[0][1]  # type: ignore[attr-defined]
    assert (options["use_tf32"], options["cudnn_conv_algo_search"]) == ("0", "HEURISTIC")
    assert str(engine.facts).endswith("without TF32")


@pytest.mark.usefixtures("a_gpu")
def test_cpu_threads_of_a_gpu_engine_do_not_spin(bundle: Bundle) -> None:
    spins = [load_engine(bundle, "generator", EngineRequest("onnxruntime", device)) for device in ("cuda", "cpu")]
    assert [engine._session.spins for engine in spins] == ["0", "1"]  # type: ignore[attr-defined]


@pytest.mark.usefixtures("a_gpu")
@pytest.mark.parametrize("device", ["cuda", "tensorrt", "tensorrt-rtx"])
def test_another_gpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    bound: list[int] = []
    monkeypatch.setattr(module, "BoundRunner", lambda *_, number: bound.append(number))
    engine = load_engine(bundle, "generator", EngineRequest("onnxruntime", f"{device}:3"))
    assert engine.facts.device == f"{device}:3"
    told = [options["device_id"] for _, options in (each for each in engine._session.asked if each != CPU)]  # type: ignore[attr-defined]
    assert set(told) == {"3"}
    assert bound == ([3] if device == "cuda" else [])


@pytest.mark.usefixtures("a_gpu")
@pytest.mark.parametrize("refuses", [False, True])
def test_cuda_graphs_where_the_session_can(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, refuses: bool) -> None:
    monkeypatch.setattr(Session, "refuses_graphs", refuses)
    engine = load_engine(bundle, "generator", EngineRequest("onnxruntime", "cuda"))
    assert ("no CUDA graphs" in engine.facts.notes) == refuses
    assert engine._session.asked[0][1]["enable_cuda_graph"] == str(int(not refuses))  # type: ignore[attr-defined]
    encoder = load_engine(bundle, "text_encoder", EngineRequest("onnxruntime", "cuda"))
    assert encoder._session.asked[0][1]["enable_cuda_graph"] == "0"  # type: ignore[attr-defined]


def test_a_precision_without_its_device(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    half = add_half_generator(tiny_bundle, tmp_path / "half")
    with pytest.raises(
        EngineError, match=r"has no cuda, and on the CPU it does not do fp16; .*, or --backend openvino"
    ):
        TextToImage.load(half.folder, backend="onnxruntime", precision="fp16")
    with pytest.raises(EngineError, match=r"has no cuda; found .*\[cuda,cudnn\]'$"):
        load_engine(half, "generator", EngineRequest("onnxruntime", "cuda"))


@pytest.mark.usefixtures("a_gpu")
def test_a_provider_that_does_not_start(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "get_providers", lambda session: [CPU])
    with pytest.raises(EngineError, match=f"did not start on cuda: no libcudart.so; found {CPU}; expected {CUDA}"):
        load_engine(bundle, "generator", EngineRequest("onnxruntime", "cuda"))
    assert (
        load_engine(bundle, "generator", EngineRequest("onnxruntime", "cuda", allow_fallback=True)).facts.device
        == "cpu"
    )


def test_nodes_of_a_real_session(bundle: Bundle) -> None:
    session = load_engine(bundle, "generator", EngineRequest("onnxruntime", "cpu"))._session  # type: ignore[attr-defined]
    if not hasattr(session, "get_provider_graph_assignment_info"):
        pytest.skip("this ONNX Runtime does not tell where nodes run")
    assert placed_elsewhere(session, CPU) == {}
    assert (placed_elsewhere(session, CUDA) or {})[CPU] > 20
    assert placed_elsewhere(object(), CUDA) is None


def test_bound_tensors_give_the_same(bundle: Bundle) -> None:
    graph, engine = (
        bundle.graph("generator"),
        load_engine(bundle, "generator", EngineRequest("onnxruntime", "cpu", threads=1)),
    )
    runner = BoundRunner(engine._session, graph.inputs, graph.outputs, memory="cpu")  # type: ignore[attr-defined]
    shapes = [(1, 3), (1, 3), (2, 3), (1, 3), *[(1, words) for words in range(1, 9)] * 2, (1, 3)]
    for seed, shape in enumerate(shapes):
        tensors = inputs(bundle, *shape, seed=seed)
        made, expected = runner.run(tensors), engine.run(tensors)
        assert made.keys() == expected.keys()
        for name in expected:
            np.testing.assert_array_equal(made[name], expected[name])
    assert len(runner._bound) == MAX_SHAPES
    first, second = runner.run(inputs(bundle, 1, 3, seed=1)), runner.run(inputs(bundle, 1, 3, seed=2))
    assert not np.array_equal(first["image_64"], second["image_64"])  # what was returned does not change later


def test_nothing_runs_beside_a_capture(bundle: Bundle) -> None:
    """Neither plain runs of the same session nor those of another one."""
    graph = bundle.graph("generator")
    session = load_engine(bundle, "generator", EngineRequest("onnxruntime", "cpu", threads=1))._session  # type: ignore[attr-defined]
    running, seen = [0], []

    class Watched:
        def run(self, *arguments: Any) -> Any:
            running[0] += 1
            time.sleep(0.02)
            seen.append(capturing[0])
            running[0] -= 1
            return session.run(*arguments)

        def run_with_iobinding(self, *arguments: Any) -> None:
            capturing[0] = True
            seen.append(running[0] > 0)
            time.sleep(0.05)
            seen.append(running[0] > 0)
            session.run_with_iobinding(*arguments)
            capturing[0] = False

        def __getattr__(self, name: str) -> Any:
            return getattr(session, name)

    capturing = [False]
    runners = [BoundRunner(Watched(), graph.inputs, graph.outputs, memory="cpu") for _ in range(2)]
    stop = threading.Event()

    def run_plainly(runner: BoundRunner) -> None:
        for words in count(4):
            if stop.is_set():
                return
            runner.run(inputs(bundle, 1, words))  # always another shape

    threads = [threading.Thread(target=run_plainly, args=(runner,)) for runner in runners]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            runners[0].run(inputs(bundle, 1, 3))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert len(seen) > 3 and not any(seen)


def test_a_capture_that_fails_is_tried_again(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = bundle.graph("generator")
    session = load_engine(bundle, "generator", EngineRequest("onnxruntime", "cpu", threads=1))._session  # type: ignore[attr-defined]
    runner = BoundRunner(session, graph.inputs, graph.outputs, memory="cpu")
    tensors = inputs(bundle, 1, 3)
    runner.run(tensors)
    with monkeypatch.context() as patch:
        patch.setattr(runner, "_replay", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            runner.run(tensors)
    assert runner._bound == {}
    assert runner.run(tensors).keys() == graph.outputs.keys()
    assert len(runner._bound) == 1


def test_a_graph_without_a_manifest(bundle: Bundle) -> None:
    engine: Engine = OnnxRuntimeEngine(bundle.graph_path("generator"))
    with pytest.raises(EngineError, match=r"tensor z of generator.onnx has the wrong shape; found \[1, 9\]"):
        engine.run({**inputs(bundle, 1, 3), "z": np.zeros((1, 9), np.float32)})
    assert engine.facts.device == "cpu"
    assert module.DTYPES["tensor(bool)"] == "bool"


@pytest.mark.gpu
def test_cuda(bundle: Bundle) -> None:
    if CUDA not in onnxruntime.get_available_providers():
        pytest.skip("needs onnxruntime-gpu and an NVIDIA GPU")
    try:
        engine = load_engine(bundle, "generator", EngineRequest("onnxruntime", "cuda"))
    except EngineError as error:
        pytest.skip(f"CUDA can't be used here: {error}")
    cpu = load_engine(bundle, "generator", EngineRequest("onnxruntime", "cpu"))
    for seed in range(4):  # plainly, captured, and replayed twice
        tensors = inputs(bundle, 2, 5, seed=seed)
        made, expected = engine.run(tensors), cpu.run(tensors)
        for name in expected:
            np.testing.assert_allclose(made[name], expected[name], atol=5e-3)
