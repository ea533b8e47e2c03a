"""DM-GAN's and DF-GAN's graphs in TensorRT-RTX: real builds, and their golden pictures on the stand-in for a GPU."""

from pathlib import Path
from types import ModuleType

import pytest

from attngan_deploy.bundles.bundle import Bundle
from attngan_deploy.engines.tensorrt.build import ensure_engine
from attngan_deploy.engines.tensorrt.engine import TensorRtEngine
from attngan_deploy.generate.pipeline import TextToImage, verify_model
from tests.engines.test_tensorrt_build import RTX, assert_tensors_read_back
from tests.makers.fake_gpu import use_fake_cuda, use_fake_runtime
from tests.makers.precise_bundle import add_half_generator
from tests.makers.tensorrt_file import READABLE


@pytest.fixture(scope="session")
def precise(family_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The family's bundle with its generator in fp16 and bf16 too."""
    return add_half_generator(family_bundle, tmp_path_factory.mktemp("half") / family_bundle.name, "fp16", "bf16")


@pytest.mark.parametrize(
    ("precision", "device"), [("fp32", "sm89"), ("fp16", "sm89"), ("bf16", "sm89"), ("fp16", "sm75"), ("bf16", "sm120")]
)
def test_build(rtx: ModuleType, precise: Bundle, tmp_path: Path, precision: str, device: str) -> None:
    entry, reason = ensure_engine(precise, "generator", RTX, device, precision, tmp_path)
    assert (reason, entry.key.precision) == ("not in the cache", precision)
    assert_tensors_read_back(rtx, entry.path.read_bytes(), precise, "generator")


def test_a_model_makes_its_golden_pictures(
    rtx: ModuleType, precise: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not rtx.__version__.startswith(READABLE):
        pytest.skip(f"the stand-in for a GPU reads engines of TensorRT-RTX {READABLE} only")
    monkeypatch.setenv("T2I_CACHE", str(tmp_path))
    use_fake_runtime(monkeypatch, rtx, precise)
    use_fake_cuda(monkeypatch)
    engines = [TensorRtEngine(precise, graph, RTX) for graph in ("text_encoder", "generator")]
    assert verify_model(TextToImage(precise, *engines)).passed
