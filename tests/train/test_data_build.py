"""`data.build`: shards that are whole or not there, the same bytes each time, and a report."""

import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nltk", reason="needs the train extra")

from attngan_deploy.errors import DataError, OutputError
from attngan_deploy.media.tokenizer import Tokenizer
from attngan_deploy.train.data import build as data_build
from attngan_deploy.train.data.build import BuildOptions, build
from attngan_deploy.train.data.split import SplitRule
from tests.makers.data_makers import EVERYTHING, birds, described, picture, pixels, run, samples


def test_a_folder_becomes_shards_with_classes_captions_and_vocabulary(tmp_path: Path) -> None:
    report = run(birds(tmp_path / "in"), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(data_build.OUTPUT_FILES)
    train, test = samples(tmp_path / "out"), samples(tmp_path / "out", "test")
    assert (len(train), len(test)) == (6, 2)
    assert not {sample.class_id for sample in train.values()} & {sample.class_id for sample in test.values()}
    assert (tmp_path / "out/classes.txt").read_text().splitlines() == ["kind0", "kind1", "kind2", "kind3"]
    every = train | test
    assert every["kind2/bird1"].class_id == 2
    assert every["kind2/bird1"].captions == ["bird number 2", "seen 1 times"]
    assert pixels(every["kind2/bird1"].picture).shape == (16, 16, 3)
    assert Tokenizer.load(tmp_path / "out/vocabulary.txt").encode("bird seen 3 times").unknown == []
    assert json.loads((tmp_path / "out/report.json").read_text()) == report
    assert report["train"] == {"pictures": 6, "classes": 3, "captions": 12}
    assert report["skipped"] == {"count": 0, "reasons": {}, "list": []}


def test_nothing_usable_is_an_error_that_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    picture(tmp_path / "in/x/a.jpg")
    described(tmp_path / "broken/x/a.jpg").write_bytes(b"")
    for source, reason in (("in", r"no captions \(1\)"), ("broken", r"broken picture \(1\)")):
        with pytest.raises(DataError, match=f"no usable picture.*{reason}"):
            run(tmp_path / source, tmp_path / "out", split=EVERYTHING)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no usable picture"):
        run(tmp_path / "empty", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "empty", "in"]


def test_a_test_side_whose_pictures_are_all_broken_is_an_error(tmp_path: Path) -> None:
    described(tmp_path / "in/x/a.jpg")
    described(tmp_path / "in/y/a.jpg").write_bytes(b"")
    (tmp_path / "split.txt").write_text("y\n")
    with pytest.raises(DataError, match="one side of the split"):
        run(tmp_path / "in", tmp_path / "out", split=SplitRule(tmp_path / "split.txt"))


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    source = birds(tmp_path / "in")
    run(source, tmp_path / "a")
    shutil.copytree(source, tmp_path / "copy", copy_function=shutil.copyfile)  # other times
    os.utime(tmp_path / "copy/kind0/bird0.jpg", (1, 1))
    run(tmp_path / "copy", tmp_path / "b")
    for name in data_build.OUTPUT_FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    with tarfile.open(tmp_path / "a/train.tar") as tar:
        assert {(member.mtime, member.uid, member.gid, member.uname, member.mode) for member in tar} == {
            (0, 0, 0, "", 0o644)
        }


def test_an_output_in_use_is_replaced_only_by_force(tmp_path: Path) -> None:
    source = birds(tmp_path / "in")
    (tmp_path / "out").mkdir()
    run(source, tmp_path / "out")
    before = (tmp_path / "out/train.tar").read_bytes()
    described(source / "kind0/new.jpg")
    with pytest.raises(OutputError, match="not empty"):
        run(source, tmp_path / "out")
    assert (tmp_path / "out/train.tar").read_bytes() == before
    run(source, tmp_path / "out", force=True)
    assert (tmp_path / "out/train.tar").read_bytes() != before


def test_force_never_removes_what_it_did_not_make(tmp_path: Path) -> None:
    source = birds(tmp_path / "in")
    run(source, tmp_path / "out")
    (tmp_path / "out/thesis.doc").write_text("years of work")
    with pytest.raises(OutputError, match=r"did not make.*found thesis\.doc"):
        run(source, tmp_path / "out", force=True)
    with pytest.raises(OutputError):
        run(source, source, force=True)
    assert (tmp_path / "out/thesis.doc").read_text() == "years of work"
    assert (source / "kind0/bird0.jpg").exists()


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_build_that_stops_keeps_the_old_and_leaves_nothing_half_written(tmp_path: Path, failure: Any) -> None:
    source = birds(tmp_path / "in")
    run(source, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def stop(done: int, total: int) -> None:
        assert total == 8
        if done == 5:
            raise failure

    with pytest.raises((KeyboardInterrupt, OSError)):
        build(BuildOptions(source, tmp_path / "out", force=True), stop)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    with pytest.raises((KeyboardInterrupt, OSError)):
        build(BuildOptions(source, tmp_path / "new"), stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_a_vocabulary_without_words_is_an_error(tmp_path: Path) -> None:
    described(tmp_path / "in/x/a.jpg", "red bird")
    with pytest.raises(DataError, match="no word is found 2 times"):
        run(tmp_path / "in", tmp_path / "out", split=EVERYTHING, min_count=2)
    assert not (tmp_path / "out").exists()


def test_an_output_inside_its_source_is_refused(tmp_path: Path) -> None:
    source = birds(tmp_path / "in")
    with pytest.raises(OutputError, match=r"is inside .*Next: another -o"):
        run(source, source / "out")
