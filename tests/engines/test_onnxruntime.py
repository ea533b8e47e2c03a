"""ONNX Runtime's other devices: what can be tested without them, and on a GPU where there is one."""

from collections.abc import Iterator
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
        if self.refuses_graphs and providers[0] == (CUDA, {"enable_cuda_graph": "1"}):
            raise RuntimeError("this session cannot use the graph capture feature")
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
        assert engine._session.asked[0][1]["trt_engine_cache_path"] == str(tmp_path / "onnxruntime")  # type: ignore[attr-defined]


@pytest.mark.usefixtures("a_gpu")
@pytest.mark.parametrize("refuses", [False, True])
def test_cuda_graphs_where_the_session_can(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, refuses: bool) -> None:
    monkeypatch.setattr(Session, "refuses_graphs", refuses)
    engine = load_engine(bundle, "generator", EngineRequest("onnxruntime", "cuda"))
    assert ("no CUDA graphs" in engine.facts.notes) == refuses
    assert engine._session.asked[0] == (CUDA, {"enable_cuda_graph": str(int(not refuses))})  # type: ignore[attr-defined]
    encoder = load_engine(bundle, "text_encoder", EngineRequest("onnxruntime", "cuda"))
    assert encoder._session.asked[0] == (CUDA, {"enable_cuda_graph": "0"})  # type: ignore[attr-defined]


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
