"""Pictures with captions as other programs read them: `metadata.jsonl` for `imagefolder`, shards for WebDataset."""

import json
import os
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from attngan_deploy.generate.manifest import read_manifest
from attngan_deploy.score.pictures import find_pictures
from tests.makers.commands import PATIENCE, t2i

CAPTIONS = 'a red bird\n\na "blue" bird, très beau\n'
LOAD = """
import json, sys
from datasets import load_dataset
rows = load_dataset("imagefolder", data_dir=sys.argv[1], split="train", cache_dir=sys.argv[2])
print(json.dumps([[row["text"], row["image"].size] for row in rows]))
"""
LOAD_SHARDS = """
import json, sys
from datasets import load_dataset
rows = load_dataset("webdataset", data_files="out/*.tar", split="train", cache_dir=sys.argv[1])
print(json.dumps([[row["json"]["caption"], row["png"].size] for row in rows]))
"""
READ_SHARDS = """
import json
from pathlib import Path
from webdataset import WebDataset
shards = sorted(map(str, Path("out").glob("*.tar")))
samples = WebDataset(shards, shardshuffle=False).decode("rgb8").to_tuple("png", "json")
print(json.dumps([[told["caption"], picture.shape[:2]] for picture, told in samples]))
"""


def rows_by(package: str, script: str, *arguments: str) -> list[list[object]]:
    """What a script prints that reads pictures with another package."""
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    command = [sys.executable, "-c", script, *arguments]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE, env=environment)
    assert done.returncode == 0, done.stderr
    rows: list[list[object]] = json.loads(done.stdout)
    return rows


@pytest.fixture
def arguments(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    Path("c.txt").write_text(CAPTIONS, encoding="utf-8")
    return ["generate", "c.txt", "--model", str(tiny_bundle), "--backend", "onnxruntime"]


def lines() -> list[dict[str, str]]:
    return [json.loads(line) for line in Path("out/metadata.jsonl").read_text().splitlines()]


def test_each_picture_has_its_caption(arguments: list[str]) -> None:
    assert t2i(*arguments, "--grid", "--attention") == 0
    first, last = {"file_name": "00001_00.png", "text": "a red bird"}, CAPTIONS.splitlines()[2]
    assert lines() == [first, {"file_name": "00003_00.png", "text": last}]
    Path("out/00003_00.png").unlink()
    Path("out/metadata.jsonl").unlink()
    assert t2i(*arguments, "--n", "2") == 0
    names = ["00001_00.png", "00001_01.png", "00003_00.png", "00003_01.png"]
    assert [line["file_name"] for line in lines()] == names
    assert len(find_pictures(Path("out")).loose) == 4
    assert rows_by("datasets", LOAD, "out", "cache") == [[text, [128, 128]] for text in ["a red bird"] * 2 + [last] * 2]


def test_pictures_that_are_gone_have_no_line(arguments: list[str]) -> None:
    assert t2i(*arguments) == 0
    whole = lines()
    for picture in Path("out").glob("*.png"):
        picture.unlink()
    Path("c.txt").write_text("a zebra\n")  # a run that is refused changes nothing
    assert t2i(*arguments, "--strict") == 1
    assert lines() == whole
    Path("c.txt").write_text(CAPTIONS, encoding="utf-8")
    assert t2i(*arguments) == 0
    assert lines() == whole


def test_a_file_of_somebody_else_stays(arguments: list[str]) -> None:
    assert t2i(*arguments) == 0
    mine = '{"file_name": "00001_00.png", "text": "mine", "rating": 5}\n'
    Path("out/metadata.jsonl").write_text(mine)
    assert t2i(*arguments, "--n", "2") == 0
    assert Path("out/metadata.jsonl").read_text() == mine


def test_shards_have_none(arguments: list[str]) -> None:
    assert t2i(*arguments, "--format", "tar") == 0
    assert not Path("out/metadata.jsonl").exists()


@pytest.mark.parametrize(
    ("package", "script"), [("datasets", LOAD_SHARDS), ("webdataset", READ_SHARDS)], ids=["datasets", "webdataset"]
)
def test_shards_open_in_other_programs(arguments: list[str], package: str, script: str) -> None:
    assert t2i(*arguments, "--shard", "0/1", "--shard-size", "1") == 0
    rows = [[text, [128, 128]] for text in ("a red bird", CAPTIONS.splitlines()[2])]
    assert rows_by(package, script, "cache") == rows


def test_a_folder_of_pictures_is_captions(arguments: list[str]) -> None:
    """Of others, as `imagefolder` has it, and of `t2i generate` itself."""

    def made(source: str, out: str) -> list[str]:
        assert t2i("generate", source, *arguments[2:], "-o", out) == 0
        return [record["caption"] for record in read_manifest(Path(out))]

    texts = [text for text in CAPTIONS.splitlines() if text]
    assert t2i(*arguments) == 0
    assert t2i(*arguments, "--format", "tar", "-o", "shards") == 0
    assert made("out", "of-pictures") == made("shards", "of-shards") == made("out/metadata.jsonl", "of-file") == texts
    Path("theirs").mkdir()
    Path("theirs/metadata.csv").write_text("file_name,text\n1.jpg,a blue bird\n")
    assert made("theirs", "of-theirs") == ["a blue bird"]
    parquet = pytest.importorskip("pyarrow.parquet")
    table = {"image": [{"bytes": b"", "path": "1.jpg"}], "text": ["a black bird"]}  # as datasets writes it
    parquet.write_table(import_module("pyarrow").table(table), "theirs.parquet")
    assert made("theirs.parquet", "of-parquet") == ["a black bird"]
