"""`metadata.jsonl`: pictures with captions, as `datasets.load_dataset("imagefolder", data_dir="out")` reads them."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from attngan_deploy.score.pictures import find_pictures
from tests.makers.commands import PATIENCE, t2i

CAPTIONS = 'a red bird\n\na "blue" bird, très beau\n'
LOAD = """
import json, sys
from datasets import load_dataset
rows = load_dataset("imagefolder", data_dir=sys.argv[1], split="train", cache_dir=sys.argv[2])
print(json.dumps([[row["text"], row["image"].size] for row in rows]))
"""


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
    if find_spec("datasets") is None:
        pytest.skip("the format was tested; datasets is not installed")
    command = [sys.executable, "-c", LOAD, "out", "cache"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[text, [128, 128]] for text in ["a red bird"] * 2 + [last] * 2]


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
