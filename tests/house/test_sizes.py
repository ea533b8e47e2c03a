"""What is promised about sizes: bundles, and an install for the CPU."""

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from attngan_deploy.bundles.bundle import open_bundle

ROOT = Path(__file__).resolve().parents[2]
GRAPHS_BYTES = 13e6  # of text encoder and generator, a variant
INSTALL_BYTES = 260 * 2**20
VARIANTS = ("base", "att1", "att2")


@pytest.mark.parametrize("variant", VARIANTS)
def test_graphs_of_a_variant(variant: str) -> None:
    bundle = open_bundle(ROOT / "models" / variant)
    size = sum(bundle.graph_path(graph).stat().st_size for graph in ("text_encoder", "generator"))
    assert 1e6 < size < GRAPHS_BYTES


def needed(name: str, found: set[str]) -> set[str]:
    """A package and all that it needs without extras, where it is installed."""
    name = re.sub(r"[-_.]+", "-", name).lower()
    if name in found:
        return found
    try:
        requirements = distribution(name).requires or []
    except PackageNotFoundError:  # of another system or Python
        return found
    found.add(name)
    for requirement in requirements:
        if "extra ==" not in requirement and (match := re.match(r"[\w.-]+", requirement)):
            needed(match[0], found)
    return found


def test_an_install_with_the_extra_cpu() -> None:
    packages = needed("attngan-deploy", needed("onnxruntime", set()))
    assert {"numpy", "onnxruntime", "pillow", "rich", "typer"} <= packages
    assert not {"torch", "onnx", "openvino", "scipy"} & packages
    files = {
        Path(str(file.locate())).resolve()
        for name in packages - {"attngan-deploy"}
        for file in distribution(name).files or []
        if not str(file).endswith(".pyc")  # made where it is first run
    }
    ours = [path for folder in ("attngan_deploy", "train", "export", "models") for path in (ROOT / folder).rglob("*")]
    size = sum(path.stat().st_size for path in [*files, *ours] if path.is_file() and path.suffix != ".pyc")
    assert 100 * 2**20 < size < INSTALL_BYTES
