"""The C program and files of a bundle that are none, or graphs that name others for weights without a hash."""

import os
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


def test_the_c_program_waits_for_no_pipe_or_device(tiny_bundle: Path, tmp_path: Path) -> None:
    """It reads each file as a whole, which never ends where it is none."""
    program = build(tmp_path / "c", "onnxruntime")
    for file in ("bundle.json", "generator.onnx", "vocabulary.txt"):
        for is_pipe in (True, False):
            folder = Path(shutil.copytree(tiny_bundle, tmp_path / f"{file} {is_pipe}"))
            (folder / file).unlink()
            if is_pipe:
                os.mkfifo(folder / file)
            else:
                (folder / file).symlink_to("/dev/zero")
            check_refused(program, folder, tmp_path / "bird.ppm", f"{file} is no file")
