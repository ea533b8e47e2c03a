"""Edge programs and graphs that name other files for their weights, of which no hash is told."""

import shutil
from pathlib import Path

import pytest

from tests.examples.test_examples_c import SANITIZED, build, check_refused, run
from tests.examples.test_examples_c import pytestmark as needs_compiler
from tests.robustness.test_hostile_bundles import with_manifest, with_weights_beside

pytestmark = needs_compiler


@pytest.mark.parametrize("graph", ["generator.onnx", "text_encoder.onnx"])
def test_the_c_program_refuses_them(tiny_bundle: Path, tmp_path: Path, graph: str) -> None:
    program = build(tmp_path / "checked", "onnxruntime", f"CFLAGS={SANITIZED}")
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))
    assert run(program, folder, "red", tmp_path / "bird.ppm").returncode == 0
    (tmp_path / "bird.ppm").unlink()
    with_weights_beside(folder / graph, "weights.bin")
    with_manifest(folder)
    check_refused(program, folder, tmp_path / "bird.ppm", f"{graph} is refused: it names other files for its weights")
    assert not (tmp_path / "bird.ppm").exists()
