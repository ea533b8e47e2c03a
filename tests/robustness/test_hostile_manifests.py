"""Manifests that take far more memory than their bytes: refused as they come."""

from pathlib import Path

import pytest
from PIL import Image

from attngan_deploy.errors import DataError, OutputError, ScoreError
from attngan_deploy.generate.replay import replay
from attngan_deploy.score.pictures import find_pictures
from tests.makers.memory import little_memory

SIZE = 2**23  # bytes of a manifest
ONE_LINE = b"[" + b"[]," * (SIZE // 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.webp")
    return tmp_path


@pytest.mark.parametrize(
    ("line", "told"), [(b"[]\n", "not a manifest"), (b"{}\n", "not a manifest"), (ONE_LINE, "a line has more than")]
)
def test_what_is_no_picture(folder: Path, line: bytes, told: str) -> None:
    (folder / "manifest.jsonl").write_bytes(line * (SIZE // len(line)))
    for read in (lambda: find_pictures(folder, "manifest"), lambda: replay(folder / "a.webp")):
        with little_memory(60 * 2**20), pytest.raises(OutputError, match=told):
            read()


def test_pictures_that_are_not_there(folder: Path) -> None:
    line = b'{"file": "b.webp", "x": [[], [], [], [], [], [], [], [], []]}\n'
    (folder / "manifest.jsonl").write_bytes(line * (SIZE // len(line)))
    with little_memory(60 * 2**20), pytest.raises(ScoreError, match="has no pictures"):
        find_pictures(folder, "manifest")
    with little_memory(60 * 2**20), pytest.raises(DataError, match="does not say what it was made from"):
        replay(folder / "a.webp")
