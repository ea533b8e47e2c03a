"""Engines that are built before they are needed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from attngan_deploy.bundles.bundle import Bundle, open_bundle
from attngan_deploy.engines.cache import find_engine, read_engine
from attngan_deploy.engines.load import load_engine
from attngan_deploy.engines.openvino.engine import settings
from attngan_deploy.engines.request import EngineRequest
from attngan_deploy.errors import BundleError, EngineError, MissingExtraError
from attngan_deploy.export.targets import engines
from attngan_deploy.export.targets.engines import prebuild
from tests.makers.fake_gpu import FakeCuda, use_fake_cuda
from tests.makers.precise_bundle import add_half_generator, generator_inputs


def test_rtx(precise_bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the package tensorrt-rtx")
    made = prebuild(precise_bundle, "tensorrt-rtx", tmp_path, ["fp32", "fp16"], ["sm80", "sm120"])
    parts = [("text_encoder", "fp32"), ("generator", "fp32"), ("generator", "fp16")]
    assert [(one.device, one.graph, one.precision) for one in made] == [
        (device, graph, precision) for device in ("sm80", "sm120") for graph, precision in parts
    ]
    assert len({one.path for one in made}) == 6
    for one in made:
        assert (one.backend, one.cached) == ("tensorrt-rtx", False)
        assert one.path.parent == tmp_path
        assert one.bytes == one.path.stat().st_size == read_engine(one.path).bytes
        assert one.seconds > 0
    again = prebuild(precise_bundle, "tensorrt-rtx", tmp_path, ["fp16"], ["sm80"])
    assert [(one.path, one.cached, one.seconds) for one in again] == [
        (one.path, True, one.seconds) for one in (made[0], made[2])
    ]


def test_rtx_for_the_gpu_at_hand_or_for_all(
    precise_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the package tensorrt-rtx")
    cuda = use_fake_cuda(monkeypatch)
    monkeypatch.setattr(engines, "_tensorrt", lambda bundle, graph, flavour, device, precision, out: (device, graph))
    assert [device for device, graph in prebuild(precise_bundle, "tensorrt-rtx", tmp_path)] == ["sm89", "sm89"]
    cuda.gpus = 0
    found = [device for device, graph in prebuild(precise_bundle, "tensorrt-rtx", tmp_path) if graph == "generator"]
    assert found == ["sm80", "sm86", "sm89", "sm120"]  # sm75 has no fp32 there
    found = [
        device for device, graph in prebuild(precise_bundle, "tensorrt-rtx", tmp_path, ["fp16"]) if graph == "generator"
    ]
    assert found == ["sm75", "sm80", "sm86", "sm89", "sm120"]


def test_what_can_not_be_built(
    tiny_bundle: Path, precise_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the package tensorrt-rtx")
    with pytest.raises(EngineError, match="no engines can be built for 'coreml'; expected tensorrt or tensorrt-rtx or"):
        prebuild(precise_bundle, "coreml", tmp_path)
    with pytest.raises(EngineError, match="tensorrt-rtx can't build for 'sm61'; expected auto or sm75 or"):
        prebuild(precise_bundle, "tensorrt-rtx", tmp_path, devices=["sm61"])
    with pytest.raises(BundleError, match="no graph 'generator' in bf16"):
        prebuild(add_half_generator(tiny_bundle, tmp_path / "half"), "tensorrt-rtx", tmp_path, ["fp16", "bf16"])
    use_fake_cuda(monkeypatch, FakeCuda(gpus=0))
    monkeypatch.setattr(engines, "load_tensorrt", lambda flavour: None)
    with pytest.raises(EngineError, match="no NVIDIA GPU can be used here"):
        prebuild(precise_bundle, "tensorrt", tmp_path)
    with pytest.raises(EngineError, match="tensorrt can't build for 'sm89'; expected auto"):
        prebuild(precise_bundle, "tensorrt", tmp_path, devices=["sm89"])


@pytest.mark.parametrize(
    ("target", "precisions", "devices", "message"),
    [
        (
            "tensorrt-rtx",
            ["fp32"],
            ["sm86", "sm75"],
            "graphs in fp32 for sm75; expected fp16",
        ),
        ("tensorrt-rtx", ["fp16", "bf16"], ["sm86", "sm75"], "graphs in bf16 for sm75; expected fp16"),
        ("tensorrt-rtx", ["fp32"], ["sm86", "sm61"], "can't build for 'sm61'"),
        ("tensorrt-rtx", ["int8"], ["auto"], "does not compute a bundle's graphs in int8"),
        (
            "openvino",
            ["fp32"],
            ["cpu", "sm86"],
            "no device sm86, a compute capability for t2i export --target tensorrt-rtx; expected cpu",
        ),
        ("openvino", ["fp32"], ["cpu", "tpu"], "OpenVINO has no device tpu; expected cpu or gpu or npu"),
    ],
)
def test_nothing_is_built_before_all_is_checked(
    precise_bundle: Bundle, tmp_path: Path, target: str, precisions: list[str], devices: list[str], message: str
) -> None:
    pytest.importorskip(target.replace("-", "_"), reason=f"needs the package {target}")
    with pytest.raises(EngineError, match=message):
        prebuild(precise_bundle, target, tmp_path, precisions, devices)
    assert not list(tmp_path.iterdir())


def test_tensorrt_is_missing(precise_bundle: Bundle, tmp_path: Path) -> None:
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        with pytest.raises(
            MissingExtraError, match=r"tensorrt can't be imported: .*pip install 'attngan-deploy\[tensorrt\]'"
        ):
            prebuild(precise_bundle, "tensorrt", tmp_path)
    else:
        pytest.skip("tensorrt is installed")


def test_openvino(precise_bundle: Bundle, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="needs the package openvino")
    (made,) = prebuild(precise_bundle, "openvino", tmp_path)
    assert (made.graph, made.device, made.precision, made.cached) == ("generator", "cpu", "fp32", False)
    entry = read_engine(made.path)
    assert find_engine(entry.key, tmp_path) == entry
    assert entry.key.device.startswith("cpu ")
    compiled = openvino.Core().import_model(made.path.read_bytes(), "CPU", settings("CPU", "fp32", None))
    inputs = generator_inputs(precise_bundle, 2, 3)
    found = {name: value for port, value in compiled(inputs).items() for name in port.get_names()}
    expected = load_engine(precise_bundle, "generator", EngineRequest("openvino", "cpu", "fp32")).run(inputs)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5)
    assert prebuild(precise_bundle, "openvino", tmp_path) == [replace(made, cached=True)]
    made.path.write_bytes(b"")
    assert not prebuild(precise_bundle, "openvino", tmp_path)[0].cached
    with pytest.raises(EngineError, match="OpenVINO finds no npu here"):
        prebuild(precise_bundle, "openvino", tmp_path, devices=["npu"])


def test_the_shipped_bundle_is_left_alone(precise_bundle: Bundle, tmp_path: Path) -> None:
    """Compiled engines never go into a bundle."""
    before = sorted(path.name for path in precise_bundle.folder.iterdir())
    pytest.importorskip("tensorrt_rtx", reason="needs the package tensorrt-rtx")
    prebuild(precise_bundle, "tensorrt-rtx", tmp_path, ["fp16"], ["sm89"])
    assert sorted(path.name for path in precise_bundle.folder.iterdir()) == before
    open_bundle(precise_bundle.folder)
