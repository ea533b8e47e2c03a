"""Pictures as bytes out of every engine's graph, and how many batches of real captions a GPU replays."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

from attngan_deploy.bundles.bundle import Bundle, open_bundle
from attngan_deploy.engines.facts import can_make_pictures
from attngan_deploy.engines.load import load_engine
from attngan_deploy.engines.onnxruntime.bound import BoundRunner
from attngan_deploy.engines.onnxruntime.engine import OnnxRuntimeEngine
from attngan_deploy.engines.picture_outputs import last_image, read_model
from attngan_deploy.engines.request import EngineRequest
from attngan_deploy.engines.tensorrt.engine import TensorRtEngine
from attngan_deploy.generate import pipeline
from attngan_deploy.generate.pipeline import GPU_BATCH_SIZE, TextToImage
from attngan_deploy.media.images import to_uint8
from tests.makers.fake_gpu import FakeContext, use_fake_cuda, use_fake_runtime
from tests.makers.precise_bundle import generator_inputs
from tests.makers.tensorrt_file import READABLE

ON_CPU = EngineRequest("onnxruntime", "cpu", threads=1)


def example(bundle: Bundle, count: int, words: int) -> dict[str, Any]:
    made = generator_inputs(bundle, count, words)
    return {name: made[name] for name in bundle.graph("generator").inputs}


def test_they_are_the_last_image_in_bytes(family_bundle: Path) -> None:
    """Of every family of networks; the graph with them is a sound one."""
    bundle = open_bundle(family_bundle)
    model, said = read_model(bundle.graph_path("generator"), bundle.graph("generator"))
    graph = onnx.load_from_string(model)
    onnx.checker.check_model(graph, full_check=True)
    assert [output.name for output in graph.graph.output] == list(said.outputs)
    engine = load_engine(bundle, "generator", ON_CPU)
    assert can_make_pictures(engine)
    inputs = example(bundle, 3, 5)
    image = engine.run(inputs)[last_image(said)]
    made = engine.pictures(inputs)
    assert made.keys() == {"pictures", "sums"} and made["pictures"].std() > 1
    np.testing.assert_array_equal(made["pictures"], to_uint8(image))
    np.testing.assert_allclose(made["sums"], image.sum((1, 2, 3)), rtol=1e-3, atol=0.05)
    inputs["z"][1, 0] = np.nan
    assert np.isfinite(engine.pictures(inputs)["sums"]).tolist() == [True, False, True]


def test_a_graph_without_an_image_is_as_it_was(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    path, said = bundle.graph_path("text_encoder"), bundle.graph("text_encoder")
    assert read_model(path, said) == (path.read_bytes(), said)
    assert not can_make_pictures(load_engine(bundle, "text_encoder", ON_CPU))


def test_tensorrt_copies_nothing_else(
    rtx: ModuleType, precise_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Captions of like length have one shape, copies are from and to pinned memory, two batches go side by side."""
    if not rtx.__version__.startswith(READABLE):
        pytest.skip(f"the stand-in for a GPU reads engines of TensorRT-RTX {READABLE} only")
    monkeypatch.setenv("T2I_CACHE", str(tmp_path))
    use_fake_runtime(monkeypatch, rtx, precise_bundle)
    cuda = use_fake_cuda(monkeypatch)
    engine, reference = (
        TensorRtEngine(precise_bundle, "generator", "tensorrt-rtx"),
        load_engine(precise_bundle, "generator", ON_CPU),
    )
    assert can_make_pictures(reference) and can_make_pictures(engine) and engine.streams == 2
    shapes, copied = set(), []
    copy, take = cuda.cudaMemcpyAsync, FakeContext.set_input_shape

    def watched(to: int, source: int, size: int, kind: int, stream: int) -> tuple[int]:
        copied.append((size if kind == 2 else 0, stream))
        assert (source if kind == 1 else to) in cuda.pinned
        return copy(to, source, size, kind, stream)

    def taken(context: FakeContext, name: str, shape: tuple[int, ...]) -> bool:
        if name == "words":
            shapes.add(shape[-1])
        return take(context, name, shape)

    monkeypatch.setattr(cuda, "cudaMemcpyAsync", watched)
    monkeypatch.setattr(FakeContext, "set_input_shape", taken)
    batches = [example(precise_bundle, 3, words) for words in (9, 10, 16, 3, 8)]
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda inputs: engine.pictures(inputs, alone=False), batches))
    for inputs, found in zip(batches, made, strict=True):
        expected = reference.pictures(inputs)
        assert found["pictures"].dtype == np.uint8
        assert np.abs(found["pictures"].astype(int) - expected["pictures"]).max() <= 1
        np.testing.assert_allclose(found["sums"], expected["sums"], rtol=1e-3, atol=0.05)
    assert shapes == {8, 16}
    side = precise_bundle.manifest.sizes.stages[-1]
    assert sum(down for down, _ in copied) == 5 * 3 * (side * side * 3 + 4)
    assert len({stream for _, stream in copied}) <= 2


class Counted:
    """A session on a GPU that computes nothing, and counts."""

    def __init__(self, session: Any) -> None:
        self._session, self.captured, self.plain = session, 0, 0

    def run(self, *_: Any) -> Any:
        self.plain += 1
        return self._session.run(*_)

    def run_with_iobinding(self, *_: Any) -> None:
        self.captured += 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def test_batches_of_many_captions_replay_captured_graphs(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2,933 captions as long as those of the test birds: mean 15 words, 4 to 40."""
    model = TextToImage.load(tiny_bundle, backend="onnxruntime", precision="fp32", threads=1, device="cpu")
    engine = model.generator
    assert isinstance(engine, OnnxRuntimeEngine)
    _, said = read_model(model.bundle.graph_path("generator"), model.bundle.graph("generator"))
    session = Counted(engine._session)
    engine._runner, engine._is_on_gpu = BoundRunner(session, said.inputs, said.outputs, memory="cpu"), True
    engine.facts = replace(engine.facts, device="cuda")
    lengths = np.random.default_rng(0).normal(15, 4.5, 2933).round().clip(4, 40).astype(int)
    captions = [" ".join([model.tokenizer.words[-1]] * length) for length in lengths]
    monkeypatch.setattr(pipeline, "check_finite", lambda *_: None)  # nothing was computed
    batches = list(model.stream(captions, attention=False, in_order=False))
    assert sum(len(batch.pictures) for batch in batches) == 2933
    assert len(batches) == -(-2933 // GPU_BATCH_SIZE)
    assert session.captured >= 0.95 * (session.captured + session.plain)
    assert session.captured + session.plain == len(batches)
