"""What every test may use."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from attngan_deploy.bundles.bundle import Bundle
from tests.makers.exported_once import exported_once
from tests.makers.precise_bundle import add_half_generator
from tests.makers.tiny_bundle import make_tiny_bundle

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # importing openvino tells a server
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep engines and choices of the tests out of the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("T2I_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def exports() -> Iterator[None]:
    """Export networks of one structure once."""
    with exported_once():
        yield


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> None:
    """Let Ctrl-C reach the tests and their processes also where the shell runs them in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of fixtures and real birds beside the project; its tests are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs the folder 'shared' beside the project (fixtures and real birds)")
    return SHARED


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small text-to-image bundle with random weights. Shared by all tests: copy it before changing it."""
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def precise_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny bundle with its generator in fp16 and bf16 too. Shared by all tests."""
    return add_half_generator(tiny_bundle, tmp_path_factory.mktemp("half") / "tiny", "fp16", "bf16")


@pytest.fixture(scope="session")
def rtx() -> ModuleType:
    """TensorRT-RTX; its tests are skipped where it is not installed."""
    return pytest.importorskip("tensorrt_rtx", reason="needs the package tensorrt-rtx")
