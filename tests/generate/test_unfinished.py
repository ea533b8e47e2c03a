"""Output folders that earlier code left half-finished go on: `tests/data/unfinished`, of 30 November 2026.

`loose` was killed after six of fourteen pictures, and its manifest is cut; `shards` after two of five shards. Their
bundle is there too, as weights that today's exporter makes would be another model.
"""

import json
import os
import shutil
from pathlib import Path

import pytest

from attngan_deploy.generate.manifest import read_manifest
from attngan_deploy.media.images import decode_picture
from attngan_deploy.media.shards import iter_samples
from tests.makers.commands import t2i

DATA = Path(__file__).resolve().parents[1] / "data" / "unfinished"
ENGINE = ("--backend", "onnxruntime", "--precision", "fp32", "--threads", "1")
PLACES = [(index, sample) for index in range(7) for sample in range(2)]


def go_on(ground: Path, name: str, *options: str) -> Path:
    """Copy a folder, and run the command that made it again."""
    out = Path(shutil.copytree(DATA / name, ground / name))
    os.utime(out / "run.json", (0, 0))  # git does not keep the order in which files were written
    captions, model = str(DATA / "captions.txt"), str(DATA / "tiny")
    assert t2i("generate", captions, "--model", model, "--n", "2", "-o", str(out), *ENGINE, *options) == 0
    return out


def places(folder: Path) -> list[tuple[int, int]]:
    return [(record["index"], record["sample"]) for record in read_manifest(folder)]


def test_a_folder_of_pictures_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in (DATA / "loose").glob("*.png")}
    out = go_on(tmp_path, "loose")
    assert "made 8 pictures" in (said := capsys.readouterr().out) and "skipped 6 that were there" in said
    assert {name: (out / name).read_bytes() for name in before} == before
    assert places(out) == PLACES
    assert {record["backend"] for record in read_manifest(out)} == {"onnxruntime"}
    assert all(decode_picture(path.read_bytes()).shape == (128, 128, 3) for path in out.glob("*.png"))
    assert (out / "run.json").read_bytes() == (DATA / "loose" / "run.json").read_bytes()


def test_a_folder_of_shards_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in (DATA / "shards").iterdir()}
    out = go_on(tmp_path, "shards", "--shard", "0/1", "--shard-size", "3")
    assert "made 8 pictures" in (said := capsys.readouterr().out) and "skipped 6 that were there" in said
    assert {name: (out / name).read_bytes() for name in before} == before
    assert places(out) == PLACES
    samples = [sample.name for path in sorted(out.glob("*.tar")) for sample in iter_samples(path)]
    assert len(samples) == len(PLACES)
    assert json.loads((out / "run.json").read_text())["layout"] == "shards"


def test_a_rerun_goes_on_with_the_engine_that_began(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.chdir(tmp_path)

    def generate(count: int, *options: str) -> int:
        return t2i("generate", "--caption", "a red bird", "--model", str(tiny_bundle), "--n", str(count), *options)

    assert generate(1, "--backend", "openvino", "--precision", "fp32") == 0
    assert ", openvino " in capsys.readouterr().err
    for options in ((), ("--precision", "fp32"), ("--backend", "tensorrt", "--allow-fallback")):
        assert generate(2, *options) == 0
    told = capsys.readouterr().err
    assert told.count(", openvino ") == 1 and "onnxruntime 1" not in told.replace("text encoder on onnxruntime", "")
    for count in (2, 3):  # also where nothing is left to make
        assert generate(count, "--backend", "onnxruntime") == 1
        assert capsys.readouterr().err.endswith("or start another with -o out-onnxruntime\n")
    assert {record["backend"] for record in read_manifest(tmp_path / "out")} == {"openvino"}
