"""Pictures are held once, in memory that the processes of a machine share."""

import hashlib
import json
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("torch", reason="needs the train extra")

from attngan_deploy.train.data.picture_set import PictureSet, read_pictures
from attngan_deploy.train.runs.distributed import Processes
from tests.makers.memory import little_memory
from tests.makers.odd_pictures import encoded
from tests.makers.tiny_training import _add, make_tiny_shards

OTHER = """
import hashlib, pickle, sys
from attngan_deploy.train.data.picture_set import PictureSet
told = pickle.load(sys.stdin.buffer)
data = PictureSet.shared(**told)
print(hashlib.sha256(data.pictures).hexdigest(), len(data), data.names[-1], flush=True)
sys.stdin.buffer.read()
"""


def test_pictures_are_not_held_twice(tmp_path: Path) -> None:
    """120 MB of pictures are written to their place one by one; neither a list nor its stack is ever there."""
    side, count = 400, 250
    data = encoded(Image.new("RGB", (side, side), (1, 2, 3)))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number in range(count):
            _add(tar, f"{number}.png", data)
            _add(tar, f"{number}.json", json.dumps({"captions": ["a bird"], "class": number}).encode())
    with little_memory(100 * 2**20):
        found = read_pictures([tmp_path / "a.tar"])
    assert found.pictures.shape == (count, side, side, 3) and (found.pictures[::50] == (1, 2, 3)).all()
    assert found.classes.tolist() == list(range(count))
    assert found.pictures.base is not None and not found.pictures.flags.owndata


def test_another_process_sees_the_same_pictures(tmp_path: Path) -> None:
    found = read_pictures([make_tiny_shards(tmp_path) / "train.tar"])
    told = found.share()
    if told is None:
        pytest.skip("this system has no place for memory without a name")
    other = subprocess.run(
        [sys.executable, "-c", OTHER], input=pickle.dumps(told), capture_output=True, check=True
    ).stdout.split()
    assert other == [hashlib.sha256(found.pictures).hexdigest().encode(), b"12", b"011"]
    here = PictureSet.shared(**told)
    assert here.captions == found.captions
    found.pictures[3, 0, 0] = (9, 8, 7)
    assert here.pictures[3, 0, 0].tolist() == [9, 8, 7]  # the same pages


def test_links_are_followed_inside_a_shard_and_told_outside(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        _add(tar, "a.png", encoded(Image.new("RGB", (8, 8), (1, 2, 3))))
        _add(tar, "a.json", json.dumps({"captions": ["a bird"], "class": 1}).encode())
        for name, target in (("b.png", "a.png"), ("b.json", "a.json"), ("c.png", "../c.png")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.LNKTYPE, target
            tar.addfile(link)
    found = read_pictures([tmp_path / "a.tar"])
    assert (found.names, found.captions, found.classes.tolist()) == (["a", "b"], [["a bird"], ["a bird"]], [1, 1])
    assert found.remarks == ["skipped c.png is a link to ../c.png, which the tar does not hold"]


def test_a_process_alone_asks_nobody(tmp_path: Path) -> None:
    found = read_pictures([make_tiny_shards(tmp_path) / "train.tar"])
    assert Processes().from_first_here(found) is found
    found.memory = None
    assert found.share() is None
