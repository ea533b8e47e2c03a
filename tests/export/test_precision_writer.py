"""Precisions of a finished bundle: what is stored, what is refused, and that nothing is left of a failure."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from attngan_deploy import TextToImage
from attngan_deploy.bundles.bundle import open_bundle, write_manifest
from attngan_deploy.engines.load import load_engine
from attngan_deploy.engines.request import EngineRequest
from attngan_deploy.errors import BundleError, ParityError, T2IError
from attngan_deploy.export.precision import writer as precision_writer
from attngan_deploy.export.precision.writer import PRECISIONS, check_precisions, extend_bundle
from tests.makers.tiny_judge import make_tiny_judge


@pytest.fixture(scope="module")
def extended(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extend_bundle(str(tiny_bundle), PRECISIONS, tmp_path_factory.mktemp("extended") / "tiny")


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle that a test may change."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure with few pictures, where their number is not what matters."""
    monkeypatch.setattr(precision_writer, "SIZES", (8, 1))


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rewrite(folder: Path, weight: str, value: float) -> None:
    """Set a weight of the generator's graph, in a bundle whose hashes agree."""
    model = onnx.load(folder / "generator.onnx")
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name.startswith(weight))
    array = numpy_helper.to_array(tensor).copy()
    array[:] = value
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(model, folder / "generator.onnx")
    write_manifest(folder, json.loads((folder / "bundle.json").read_text()))


def test_each_precision_is_a_graph_with_its_parity(extended: Path, tiny_bundle: Path) -> None:
    bundle = open_bundle(extended)
    assert bundle.precisions("generator") == ("fp32", "fp16", "bf16", "int8")
    assert bundle.precisions("text_encoder") == ("fp32",)
    assert bundle.hash == open_bundle(tiny_bundle).hash
    assert bundle.manifest.floors == {"fp16": 40.0, "bf16": 35.0, "int8": 30.0}
    stored = bundle.manifest.told("graphs", "generator", "precisions")
    assert list(stored) == list(bundle.graph("generator").precisions)
    for precision, entry in stored.items():
        parity = entry["parity"]
        assert bundle.graph_path("generator", precision).name == f"generator.{precision}.onnx"
        assert bundle.manifest.floors[precision] <= parity["psnr_db"] < 100
        assert (parity["pictures"], parity["batches"]) == (256, [1, 8, 33])
        assert set(parity["outputs"]) == {"image_64", "image_128"}
        assert isinstance(entry["kept"], list)
    measured = {name: entry.parity.measured for name, entry in bundle.graph("generator").precisions.items()}
    assert "rounded to bf16" in measured["bf16"] and "rounded" not in measured["int8"]


def test_the_card_tells(extended: Path, tiny_bundle: Path) -> None:
    card = (extended / "README.md").read_text()
    assert "## Other precisions of the generator" in card and "| int8 |" in card
    assert card.startswith((tiny_bundle / "README.md").read_text().partition("## Licence")[0])


def test_int8_makes_nearly_the_same_pictures(extended: Path) -> None:
    captions = ["a red bird", "a large blue bird with long wings"]
    exact, close = (
        TextToImage(
            open_bundle(extended),
            load_engine(open_bundle(extended), "text_encoder"),
            load_engine(open_bundle(extended), "generator", EngineRequest("onnxruntime", "cpu", precision)),
        ).generate(captions)
        for precision in ("fp32", "int8")
    )
    difference = np.abs(exact.astype(int) - close)
    assert 0 < difference.mean() < 8


@pytest.mark.usefixtures("few")
def test_a_precision_can_be_added_where_the_bundle_is(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert extend_bundle(str(copy), ["fp32", "fp16"]) == copy
    assert open_bundle(copy).precisions("generator") == ("fp32", "fp16")
    assert "fp16" in capsys.readouterr().err
    before = files_of(copy)
    assert extend_bundle(str(copy), ["fp16"], anew=False) == copy
    assert files_of(copy) == before and capsys.readouterr().err == ""
    assert [path.name for path in copy.parent.iterdir()] == ["tiny"]


@pytest.mark.usefixtures("few")
def test_below_the_floor_nothing_is_left(copy: Path, tmp_path: Path) -> None:
    manifest = json.loads((copy / "bundle.json").read_text())
    write_manifest(copy, manifest | {"floors": {"fp16": 150}})
    before = files_of(copy)
    with pytest.raises(
        ParityError, match=r"fp16 changes the pictures too much.*; found \d.* dB.*expected at least 150 dB"
    ):
        extend_bundle(str(copy), ["fp16"], tmp_path / "out")
    with pytest.raises(ParityError):
        extend_bundle(str(copy), ["fp16"])
    assert files_of(copy) == before
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.usefixtures("few")
def test_layers_are_kept_where_the_floor_asks_for_it(copy: Path) -> None:
    plain = open_bundle(extend_bundle(str(copy), ["bf16"])).graph("generator").precisions["bf16"]
    manifest = json.loads((copy / "bundle.json").read_text())
    write_manifest(copy, manifest | {"floors": {"bf16": plain.parity.psnr_db - 2}})
    again = open_bundle(extend_bundle(str(copy), ["bf16"])).graph("generator").precisions["bf16"]
    assert plain.kept == () and again.kept
    assert again.parity.psnr_db > plain.parity.psnr_db


def test_weights_that_are_no_numbers_are_refused(copy: Path) -> None:
    rewrite(copy, "to_image.1.conv.weight", float("nan"))
    before = files_of(copy)
    with pytest.raises(ParityError, match="image_128 of the generator in fp32 has values that are not finite"):
        extend_bundle(str(copy), ["int8"])
    assert files_of(copy) == before


def test_a_judge_has_no_precisions(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a text-to-image bundle; found kind 'judge'"):
        extend_bundle(str(make_tiny_judge(tmp_path / "judge")), ["fp16"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["auto"], "--precision auto means nothing in an export: .*expected fp32, fp16, bf16, int8"),
        (["fp32", "fp8"], "--precision fp8 can't be made; expected fp32, fp16, bf16, int8"),
    ],
)
def test_unknown_precisions(names: list[str], message: str) -> None:
    with pytest.raises(T2IError, match=message):
        check_precisions(names)


def test_no_torch_is_needed(tiny_bundle: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from attngan_deploy.cli import main, register\n"
        f"sys.argv = ['t2i', 'export', '--bundle', {str(tiny_bundle)!r}, '-o', {str(tmp_path / 'out')!r},"
        " '--precision', 'fp16']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert open_bundle(tmp_path / "out").precisions("generator") == ("fp32", "fp16")


def test_what_the_entry_says_is_what_a_program_may_read(extended: Path) -> None:
    entry: dict[str, Any] = json.loads((extended / "bundle.json").read_text())["graphs"]["generator"]["precisions"]
    assert entry["int8"]["calibration"] == {"pictures": 48, "percentile": precision_writer.PERCENTILE}
    assert set(entry["fp16"]["parity"]["outputs"]["image_128"]["by_batch"]) == {"1", "8", "33"}
