"""What every test may use."""

import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from attngan_deploy.bundles.bundle import Bundle
from attngan_deploy.score.outputs import softmax
from tests import DATA
from tests.makers.exported_once import exported_once
from tests.makers.precise_bundle import add_half_generator
from tests.makers.tiny_bundle import make_tiny_bundle

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # importing openvino tells a server
BIRDS = Path(__file__).resolve().parents[2] / "shared" / "data" / "cub152"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Begin every test, and the fixtures that it is the first to use, with the same random numbers."""
    if "slow" in item.keywords and not os.environ.get("CI") and "slow" not in item.config.option.markexpr:
        pytest.skip("slow: set CI, or pytest -m slow")
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


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
def real_birds() -> Path:
    """Shards of CUB-200-2011, which is not ours to give; its tests are skipped where they are absent."""
    if not BIRDS.is_dir():
        pytest.skip("needs the real birds: train.tar, test.tar and vocabulary.txt in ../shared/data/cub152")
    return BIRDS


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    """Scores by other libraries, and the numbers that they are of: drawn again, as the file keeps a row in fifty."""
    with np.load(DATA / "metric_golden.npz") as archive:
        golden = {name: archive[name] for name in archive.files}
    drawers = [np.random.RandomState(seed) for seed in range(5)]
    logits = drawers[0].randn(1000, 50) * 2
    drawn = {
        "is_logits": logits,
        "is_probs": softmax(logits),
        "feat_a": drawers[1].randn(500, 64),
        "feat_b": drawers[2].randn(500, 64) + 0.5,
        "feat_c": drawers[4].randn(500, 64) @ (drawers[3].randn(64, 64) / 8) + 0.25,
    }
    for name, rows in drawn.items():
        np.testing.assert_allclose(rows[::50], golden[name], rtol=1e-9, atol=1e-12)
    return golden | drawn


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small text-to-image bundle with random weights. Shared by all tests: copy it before changing it."""
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session", params=["dmgan", "dfgan"])
def family(request: pytest.FixtureRequest) -> str:
    """A family of generators beside AttnGAN's."""
    return str(request.param)


@pytest.fixture(scope="session")
def family_bundle(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tiny_bundle`, of a DM-GAN and of a DF-GAN in turn; it is called as its family."""
    return make_tiny_bundle(tmp_path_factory.mktemp("families") / family, family, family)


@pytest.fixture(scope="session")
def precise_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny bundle with its generator in fp16 and bf16 too. Shared by all tests."""
    return add_half_generator(tiny_bundle, tmp_path_factory.mktemp("half") / "tiny", "fp16", "bf16")


@pytest.fixture(scope="session")
def rtx() -> ModuleType:
    """TensorRT-RTX; its tests are skipped where it is not installed."""
    return pytest.importorskip("tensorrt_rtx", reason="needs the package tensorrt-rtx")
