"""What every test may use."""

from pathlib import Path

import pytest

from tests.tiny_bundle import make_tiny_bundle

SHARED = Path(__file__).resolve().parents[2] / "shared"


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
