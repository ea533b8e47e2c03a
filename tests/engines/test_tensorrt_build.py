"""Building with TensorRT-RTX, which needs no GPU: real engines, and what they say about themselves in their files."""

import os
import signal
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from attngan_deploy.bundles.bundle import Bundle, open_bundle
from attngan_deploy.bundles.manifest import Graph, TensorSpec
from attngan_deploy.engines.picture_outputs import with_pictures
from attngan_deploy.engines.tensorrt import build as tensorrt_build
from attngan_deploy.engines.tensorrt.build import (
    DEFAULT_PROFILE,
    Profile,
    build_engine,
    check_tensors,
    ensure_engine,
    load_tensorrt,
    tensorrt_log,
)
from attngan_deploy.errors import BundleError, EngineError, MissingExtraError
from tests.makers.precise_bundle import add_half_generator
from tests.makers.tensorrt_file import READABLE, read_profile, read_tensors

RTX = "tensorrt-rtx"


def assert_tensors_read_back(rtx: ModuleType, data: bytes, precise_bundle: Bundle, graph: str) -> None:
    """Names, directions, dtypes, shapes and profile in the file are those of the manifest."""
    if not rtx.__version__.startswith(READABLE):
        pytest.skip(f"engines of TensorRT-RTX {rtx.__version__} can't be read without a GPU, only {READABLE}")
    found, said = read_tensors(data), precise_bundle.graph(graph)
    said = with_pictures(said) if graph == "generator" else said
    numbers: dict[str, int] = {}
    for output, tensors in ((False, said.inputs), (True, said.outputs)):
        for name, wanted in tensors.items():
            assert (found[name].output, found[name].dtype) == (output, wanted.dtype)
            assert len(found[name].shape) == len(wanted.shape)
            for have, want in zip(found[name].shape, wanted.shape, strict=True):
                assert have < 0 if isinstance(want, str) else have == want
                if isinstance(want, str):  # the same size wherever it stands
                    assert numbers.setdefault(want, have) == have
    assert set(found) == {*said.inputs, *said.outputs}
    assert len(set(numbers.values())) == len(numbers)
    assert read_profile(data) == [
        [tuple(DEFAULT_PROFILE.shape(wanted.shape, which)) for which in range(3)] for wanted in said.inputs.values()
    ]


@pytest.mark.parametrize(
    ("graph", "precision", "device"),
    [
        (graph, precision, device)
        for device in ("sm75", "sm80", "sm86", "sm89", "sm120")
        for graph, precisions in (("text_encoder", ("fp32",)), ("generator", ("fp32", "fp16", "bf16")))
        for precision in precisions
        # TensorRT-RTX computes in fp16 alone for sm75; another test sees that this is said.
        if (device, graph) != ("sm75", "generator") or precision == "fp16"
    ],
)
def test_build(
    rtx: ModuleType, precise_bundle: Bundle, tmp_path: Path, graph: str, precision: str, device: str
) -> None:
    entry, reason = ensure_engine(precise_bundle, graph, RTX, device, precision, tmp_path)
    assert reason == "not in the cache"
    assert (entry.key.backend, entry.key.version, entry.key.device) == (RTX, rtx.__version__, device)
    assert entry.key.precision == ("fp16" if device == "sm75" else precision)
    assert entry.facts == {"bundle": "tiny", "graph": graph, "checked": False}
    data = entry.path.read_bytes()
    assert len(data) == entry.bytes > 10_000
    assert_tensors_read_back(rtx, data, precise_bundle, graph)
    assert ensure_engine(precise_bundle, graph, RTX, device, precision, tmp_path) == (entry, "")


def test_the_text_encoder_is_fp32_whatever_is_asked_for(
    rtx: ModuleType, precise_bundle: Bundle, tmp_path: Path
) -> None:
    entry, _ = ensure_engine(precise_bundle, "text_encoder", RTX, "sm89", "fp16", tmp_path)
    assert entry.key.precision == "fp32"


def test_half_precision_halves_the_weights(rtx: ModuleType, tmp_path: Path) -> None:
    """The shipped model: real sizes build too, and fp16 is in the engine, not only in its name."""
    precise_bundle = add_half_generator(open_bundle("base").folder, tmp_path / "base")
    sizes = {}
    for graph, precision in (("text_encoder", "fp32"), ("generator", "fp32"), ("generator", "fp16")):
        entry, _ = ensure_engine(precise_bundle, graph, RTX, "sm89", precision, tmp_path / "cache")
        assert_tensors_read_back(rtx, entry.path.read_bytes(), precise_bundle, graph)
        sizes[graph, precision] = entry.bytes
    assert sizes["generator", "fp16"] < 0.6 * sizes["generator", "fp32"]


@pytest.mark.parametrize(("device", "has"), [("sm75 Tesla T4", False), ("sm80 NVIDIA A100", True), ("sm120", True)])
def test_bf16_from_ampere_on(device: str, has: bool) -> None:
    assert ("bf16" in tensorrt_build.precisions_for("tensorrt", device)) is has


def test_other_sizes(rtx: ModuleType, precise_bundle: Bundle) -> None:
    profile = Profile(batch=(2, 17, 61), words=(3, 19, 59))
    assert str(profile) == "batch 2-17-61, words 3-19-59"
    data = build_engine(
        RTX, precise_bundle.graph_path("text_encoder"), precise_bundle.graph("text_encoder"), "sm89", profile
    )
    if rtx.__version__.startswith(READABLE):
        assert read_profile(data) == [[(2, 3), (17, 19), (61, 59)], [(2,), (17,), (61,)]]


def test_progress_grows_to_the_end(rtx: ModuleType, precise_bundle: Bundle) -> None:
    told: list[tuple[int, int]] = []
    path, said = precise_bundle.graph_path("generator"), precise_bundle.graph("generator")
    build_engine(RTX, path, said, "sm89", progress=lambda done, total: told.append((done, total)))
    done = [one for one, _ in told]
    assert len(done) > 5
    assert done == sorted(set(done))
    assert {total for _, total in told} == {1000}
    assert done[-1] == 1000
    assert done[-2] > 500


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("out of the progress bar")])
def test_an_exception_ends_the_build_and_is_raised(
    rtx: ModuleType, precise_bundle: Bundle, error: BaseException
) -> None:
    def stop(done: int, total: int) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        build_engine(
            RTX, precise_bundle.graph_path("generator"), precise_bundle.graph("generator"), "sm89", progress=stop
        )
    assert caught.value is error


def test_ctrl_c_in_the_monitor_ends_the_build(
    rtx: ModuleType, precise_bundle: Bundle, capfd: pytest.CaptureFixture[str]
) -> None:
    told = []

    def stop(done: int, total: int) -> None:
        told.append(done)
        os.kill(os.getpid(), signal.SIGINT)  # Python acts upon it at its next step, wherever that is

    path, said = precise_bundle.graph_path("generator"), precise_bundle.graph("generator")
    with pytest.raises(KeyboardInterrupt):
        build_engine(RTX, path, said, "sm89", progress=stop)
    assert len(told) == 1
    assert capfd.readouterr() == ("", "")


def test_ctrl_c_in_the_log_is_not_lost(
    rtx: ModuleType, precise_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    log = type(tensorrt_log(RTX))
    plain = log.log

    def interrupted(self: object, severity: object, message: str) -> None:
        monkeypatch.setattr(log, "log", plain)
        os.kill(os.getpid(), signal.SIGINT)
        plain(self, severity, message)

    monkeypatch.setattr(log, "log", interrupted)
    steps: list[int] = []
    plain_monitor = tensorrt_build.make_monitor

    def counted(*arguments: Any) -> Any:
        monitor = plain_monitor(*arguments)
        step_complete = type(monitor).step_complete

        def count(self: object, phase: str, step: int) -> bool:
            steps.append(step)
            return step_complete(self, phase, step)

        type(monitor).step_complete = count
        return monitor

    monkeypatch.setattr(tensorrt_build, "make_monitor", counted)
    path, said = precise_bundle.graph_path("generator"), precise_bundle.graph("generator")
    with pytest.raises(KeyboardInterrupt):
        build_engine(RTX, path, said, "sm89", progress=lambda done, total: None)
    assert len(steps) == 1  # the build ends at its first step, which may be too small for progress to be told
    assert capfd.readouterr() == ("", "")


def test_a_damaged_engine_is_built_again(rtx: ModuleType, precise_bundle: Bundle, tmp_path: Path) -> None:
    entry, _ = ensure_engine(precise_bundle, "text_encoder", RTX, "sm89", "fp32", tmp_path)
    whole = entry.path.read_bytes()
    entry.path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 255]))
    again, reason = ensure_engine(precise_bundle, "text_encoder", RTX, "sm89", "fp32", tmp_path)
    assert "is damaged: its hash is" in reason
    assert len(again.path.read_bytes()) == len(whole)
    assert ensure_engine(precise_bundle, "text_encoder", RTX, "sm89", "fp32", tmp_path)[1] == ""


def test_an_engine_of_another_version_is_not_used(
    rtx: ModuleType, precise_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, _ = ensure_engine(precise_bundle, "text_encoder", RTX, "sm89", "fp32", tmp_path)
    monkeypatch.setattr(rtx, "__version__", "99.0")
    new, reason = ensure_engine(precise_bundle, "text_encoder", RTX, "sm89", "fp32", tmp_path)
    assert reason == "not in the cache"
    assert new.path != old.path
    assert new.key.version == "99.0"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_turing_computes_in_fp16_alone(rtx: ModuleType, precise_bundle: Bundle, tmp_path: Path, precision: str) -> None:
    message = f"does not compute a bundle's graphs in {precision} for sm75; expected fp16. Next: --precision fp16"
    with pytest.raises(EngineError, match=message):
        ensure_engine(precise_bundle, "generator", RTX, "sm75", precision, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_gpu_that_this_version_does_not_know(rtx: ModuleType, precise_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"knows no GPU \(sm12\); expected sm75, ") as caught:
        ensure_engine(precise_bundle, "text_encoder", RTX, "sm12", "fp32", tmp_path)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_a_precision_that_the_bundle_does_not_have(rtx: ModuleType, tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no graph 'generator' in bf16; found fp32"):
        ensure_engine(open_bundle(tiny_bundle), "generator", RTX, "sm89", "bf16", tmp_path)


def test_the_int8_graph_is_for_cpus(rtx: ModuleType, precise_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="does not compute a bundle's graphs in int8 for sm89; expected fp32 or fp16"):
        ensure_engine(precise_bundle, "generator", RTX, "sm89", "int8", tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"tensorrt-rtx can't read .*generator\.onnx: ."),
        (b"not a graph", r"tensorrt-rtx can't read .*generator\.onnx: ."),
        (None, r"tensorrt-rtx can't read .*generator\.onnx: ."),
    ],
)
def test_a_graph_that_can_not_be_read(
    rtx: ModuleType,
    precise_bundle: Bundle,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    data: bytes | None,
    message: str,
) -> None:
    path = tmp_path / "generator.onnx"
    path.write_bytes(precise_bundle.graph_path("generator").read_bytes()[:-5000] if data is None else data)
    with pytest.raises(EngineError, match=message) as caught:
        build_engine(RTX, path, precise_bundle.graph("generator"), "sm89")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_an_operator_that_it_does_not_know(rtx: ModuleType, tmp_path: Path) -> None:
    node = helper.make_node("StringNormalizer", ["x"], ["y"], name="normalize")
    value = [helper.make_tensor_value_info(name, onnx.TensorProto.STRING, ["batch"]) for name in "xy"]
    model = helper.make_model(helper.make_graph([node], "text", value[:1], value[1:]))
    onnx.save(model, tmp_path / "text.onnx")
    with pytest.raises(EngineError, match=r"can't read .*text\.onnx: .") as caught:
        build_engine(RTX, tmp_path / "text.onnx", Graph("text.onnx", {}, {}, {}), "sm89")
    assert "\n" not in str(caught.value)


def test_the_graph_of_another_manifest(rtx: ModuleType, precise_bundle: Bundle) -> None:
    with pytest.raises(EngineError, match="other tensors than the manifest says: attention, captions"):
        build_engine(RTX, precise_bundle.graph_path("generator"), precise_bundle.graph("text_encoder"), "sm89")


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_weights_that_are_no_numbers(rtx: ModuleType, precise_bundle: Bundle, tmp_path: Path, dtype: type) -> None:
    model = onnx.load(precise_bundle.graph_path("generator"))
    tensor = max(
        (one for one in model.graph.initializer if numpy_helper.to_array(one).dtype == dtype),
        key=lambda one: numpy_helper.to_array(one).size,
    )
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, tmp_path / "generator.onnx")
    with pytest.raises(EngineError, match=r"generator\.onnx has weights that are not numbers, in ") as caught:
        build_engine(RTX, tmp_path / "generator.onnx", precise_bundle.graph("generator"), "sm89")
    assert "\n" not in str(caught.value)


def test_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ImportError(f"libnvinfer.so.10 of {name} is gone")

    load_tensorrt.cache_clear()
    monkeypatch.setattr(tensorrt_build.importlib, "import_module", refuse)
    for flavour, extra in (("tensorrt", "tensorrt"), ("tensorrt-rtx", "rtx")):
        with pytest.raises(MissingExtraError, match=rf"can't be imported: libnvinfer.*pip install .*\[{extra}\]"):
            load_tensorrt(flavour)
    with pytest.raises(EngineError, match="no TensorRT called 'x'; expected tensorrt or tensorrt-rtx"):
        load_tensorrt("x")


def test_check_tensors_names_what_differs() -> None:
    said = Graph("x.onnx", {"x": TensorSpec("float32", ("batch", 3))}, {}, {})
    check_tensors("graph", {"x": ("float32", [-1, 3])}, said)
    with pytest.raises(
        EngineError, match=r"says: x, y; found float32 \[-1, 4\], bool \[1\]; expected .*\[-1, 3\], none"
    ):
        check_tensors("graph", {"x": ("float32", [-1, 4]), "y": ("bool", [1])}, said)


def test_an_unknown_size() -> None:
    with pytest.raises(EngineError, match="a tensor has the size height; expected words, or a number"):
        DEFAULT_PROFILE.shape(["batch", "height"], 0)


def test_the_judge(rtx: ModuleType, tmp_path: Path) -> None:
    entry, _ = ensure_engine(open_bundle("judge", "judge"), "judge", RTX, "sm89", "fp32", tmp_path)
    if rtx.__version__.startswith(READABLE):
        assert [shape[0] for shape in read_profile(entry.path.read_bytes())[0]] == [1, 16, 64]
