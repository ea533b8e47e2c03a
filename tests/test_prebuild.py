"""Engines that are built before they are needed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from attngan_deploy.bundle import Bundle, open_bundle
from attngan_deploy.engines import load_engine
from attngan_deploy.engines.cache import find_entry, read_entry
from attngan_deploy.engines.openvino import settings
from attngan_deploy.errors import BundleError, EngineError, MissingExtraError
from attngan_deploy.export import engines
from attngan_deploy.export.engines import prebuild
from tests.fake_gpu import FakeCuda, use_fake_cuda
from tests.precise_bundle import add_half_generator, generator_inputs


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return add_half_generator(tiny_bundle, tmp_path_factory.mktemp("half") / "tiny")


def test_rtx(bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the package tensorrt-rtx")
    made = prebuild(bundle, "tensorrt-rtx", tmp_path, ["fp32", "fp16"], ["sm80", "sm120"])
    parts = [("text_encoder", "fp32"), ("generator", "fp32"), ("generator", "fp16")]
    assert [(one.device, one.graph, one.precision) for one in made] == [
        (device, graph, precision) for device in ("sm80", "sm120") for graph, precision in parts
    ]
    assert len({one.path for one in made}) == 6
    for one in made:
        assert (one.backend, one.cached) == ("tensorrt-rtx", False)
        assert one.path.parent == tmp_path
        assert one.bytes == one.path.stat().st_size == read_entry(one.path).bytes
        assert one.seconds > 0
    again = prebuild(bundle, "tensorrt-rtx", tmp_path, ["fp16"], ["sm80"])
    assert [(one.path, one.cached, one.seconds) for one in again] == [
        (one.path, True, one.seconds) for one in (made[0], made[2])
    ]


def test_rtx_for_the_gpu_at_hand_or_for_all(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the package tensorrt-rtx")
    cuda = use_fake_cuda(monkeypatch)
    monkeypatch.setattr(engines, "_tensorrt", lambda bundle, graph, flavour, device, precision, out: (device, graph))
    assert [device for device, graph in prebuild(bundle, "tensorrt-rtx", tmp_path)] == ["sm89", "sm89"]
    cuda.gpus = 0
    found = [device for device, graph in prebuild(bundle, "tensorrt-rtx", tmp_path) if graph == "generator"]
    assert found == ["sm80", "sm86", "sm89", "sm120"]  # sm75 has no fp32 there
    found = [device for device, graph in prebuild(bundle, "tensorrt-rtx", tmp_path, ["fp16"]) if graph == "generator"]
    assert found == ["sm75", "sm80", "sm86", "sm89", "sm120"]


def test_what_can_not_be_built(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the package tensorrt-rtx")
    with pytest.raises(EngineError, match="no engines can be built for 'coreml'; expected tensorrt or tensorrt-rtx or"):
        prebuild(bundle, "coreml", tmp_path)
    with pytest.raises(EngineError, match="tensorrt-rtx can't build for 'sm61'; expected auto or sm75 or"):
        prebuild(bundle, "tensorrt-rtx", tmp_path, devices=["sm61"])
    with pytest.raises(EngineError, match="no matrix products in fp32 for sm75"):
        prebuild(bundle, "tensorrt-rtx", tmp_path, devices=["sm75"])
    with pytest.raises(BundleError, match="no graph 'generator' in bf16"):
        prebuild(bundle, "tensorrt-rtx", tmp_path, ["bf16"], ["sm89"])
    use_fake_cuda(monkeypatch, FakeCuda(gpus=0))
    monkeypatch.setattr(engines, "load_tensorrt", lambda flavour: None)
    with pytest.raises(EngineError, match="no NVIDIA GPU can be used here"):
        prebuild(bundle, "tensorrt", tmp_path)
    with pytest.raises(EngineError, match="tensorrt can't build for 'sm89'; expected auto"):
        prebuild(bundle, "tensorrt", tmp_path, devices=["sm89"])


def test_tensorrt_is_missing(bundle: Bundle, tmp_path: Path) -> None:
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        with pytest.raises(
            MissingExtraError, match=r"tensorrt can't be imported: .*pip install 'attngan-deploy\[gpu\]'"
        ):
            prebuild(bundle, "tensorrt", tmp_path)
    else:
        pytest.skip("tensorrt is installed")


def test_openvino(bundle: Bundle, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="needs the package openvino")
    (made,) = prebuild(bundle, "openvino", tmp_path)
    assert (made.graph, made.device, made.precision, made.cached) == ("generator", "cpu", "fp32", False)
    entry = read_entry(made.path)
    assert find_entry(entry.key, tmp_path) == entry
    assert entry.key.device.startswith("cpu ")
    compiled = openvino.Core().import_model(made.path.read_bytes(), "CPU", settings("CPU", "fp32", None))
    inputs = generator_inputs(bundle, 2, 3)
    found = {name: value for port, value in compiled(inputs).items() for name in port.get_names()}
    expected = load_engine(bundle, "generator", "openvino", "cpu", "fp32").run(inputs)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5)
    assert prebuild(bundle, "openvino", tmp_path) == [replace(made, cached=True)]
    made.path.write_bytes(b"")
    assert not prebuild(bundle, "openvino", tmp_path)[0].cached
    with pytest.raises(EngineError, match="OpenVINO finds no npu here"):
        prebuild(bundle, "openvino", tmp_path, devices=["npu"])


def test_the_shipped_bundle_is_left_alone(bundle: Bundle, tmp_path: Path) -> None:
    """Compiled engines never go into a bundle."""
    before = sorted(path.name for path in bundle.folder.iterdir())
    pytest.importorskip("tensorrt_rtx", reason="needs the package tensorrt-rtx")
    prebuild(bundle, "tensorrt-rtx", tmp_path, ["fp16"], ["sm89"])
    assert sorted(path.name for path in bundle.folder.iterdir()) == before
    open_bundle(bundle.folder)
