"""Which pictures are for testing: lists, pickles without code, and classes drawn by a seed."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nltk", reason="needs the train extra")

from attngan_deploy.errors import DataError
from attngan_deploy.train.data.split import SplitRule, read_split_names
from tests.makers.data_makers import birds, described, make_cub, run, samples


def published_split(folder: Path, train: Any, test: Any) -> Path:
    for side, names in (("train", train), ("test", test)):
        (folder / side).mkdir(parents=True, exist_ok=True)
        (folder / side / "filenames.pickle").write_bytes(pickle.dumps(names, protocol=2))
    return folder


def test_the_published_split_is_read_from_its_pickles(tmp_path: Path) -> None:
    root = make_cub(tmp_path / "cub")
    test = [f"002.Bird_2/Bird_2_{place}" for place in range(2)]
    folder = published_split(tmp_path / "birds", ["001.Bird_1/Bird_1_0", "001.Bird_1/Bird_1_1"], test)
    report = run(root, tmp_path / "both", split=SplitRule(folder))
    assert list(samples(tmp_path / "both", "test")) == test
    assert list(samples(tmp_path / "both")) == ["001.Bird_1/Bird_1_0", "001.Bird_1/Bird_1_1"]
    assert report["skipped"]["reasons"] == {"not in the split file": 4}
    run(root, tmp_path / "one", split=SplitRule(folder / "test/filenames.pickle"))
    assert list(samples(tmp_path / "one", "test")) == test
    assert len(samples(tmp_path / "one")) == 6
    with pytest.raises(DataError, match="lists training pictures"):
        run(root, tmp_path / "out", split=SplitRule(folder / "train/filenames.pickle"))


def test_a_text_list_of_classes_or_pictures_splits(tmp_path: Path) -> None:
    root = make_cub(tmp_path / "cub")
    (tmp_path / "split.txt").write_text("003.Bird_3\n\n001.Bird_1/Bird_1_0.jpg\nunheard of\n")
    run(root, tmp_path / "out", split=SplitRule(tmp_path / "split.txt"))
    assert list(samples(tmp_path / "out", "test")) == [
        "001.Bird_1/Bird_1_0",
        "003.Bird_3/Bird_3_0",
        "003.Bird_3/Bird_3_1",
    ]
    (tmp_path / "split.txt").write_text("unheard of\n")
    with pytest.raises(DataError, match=r"names nothing of this data; found 'unheard of'"):
        run(root, tmp_path / "none", split=SplitRule(tmp_path / "split.txt"))


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.target), "w")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_with_code_is_refused_unrun(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "names.pickle").write_bytes(pickle.dumps([Hostile(tmp_path / "ran")], protocol=protocol))
    with pytest.raises(DataError, match="not a pickled list of names"):
        read_split_names(tmp_path / "names.pickle")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickled_list_of_names_is_read_in_every_protocol(tmp_path: Path, protocol: int) -> None:
    names = ["a/b", "c/d", "a/b", "Grün"]
    (tmp_path / "names.pkl").write_bytes(pickle.dumps(names, protocol=protocol))
    assert read_split_names(tmp_path / "names.pkl") == names


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        pickle.dumps([1, 2]),
        pickle.dumps([["nested"]]),
        pickle.dumps({"a": 1}),
        pickle.dumps("a/b"),
        b"\x80\x02]r\xff\xff\xff\x7f.",  # asks for a memory table of gigabytes
        pickle.dumps(["a/b"])[:-2],
    ],
)
def test_another_pickle_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "names.pickle").write_bytes(content)
    with pytest.raises(DataError, match="not a pickled list of names"):
        read_split_names(tmp_path / "names.pickle")


def test_a_split_file_that_is_missing_or_binary_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no split file"):
        read_split_names(tmp_path / "none.txt")
    (tmp_path / "names.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match="not UTF-8"):
        read_split_names(tmp_path / "names.txt")


@pytest.mark.parametrize(("test_classes", "expected"), [(None, 2), (3, 3), (0.5, 4), (0.01, 1), (0.99, 7), (0, 0)])
def test_classes_are_drawn_by_number_or_share(tmp_path: Path, test_classes: Any, expected: int) -> None:
    source = birds(tmp_path / "in", classes=8, each=1)
    report = run(source, tmp_path / "out", split=SplitRule(test_classes=test_classes))
    assert (report["test"]["classes"], report["train"]["classes"]) == (expected, 8 - expected)


def test_the_seed_draws_the_classes(tmp_path: Path) -> None:
    source = birds(tmp_path / "in", classes=8, each=1)
    drawn = []
    for place, seed in enumerate((0, 0, 1)):
        run(source, tmp_path / f"out{place}", split=SplitRule(seed=seed, test_classes=3))
        drawn.append(set(samples(tmp_path / f"out{place}", "test")))
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("test_classes", [None, 1, 0.5])
def test_one_class_can_not_be_split(tmp_path: Path, test_classes: Any) -> None:
    described(tmp_path / "in/x/a.jpg")
    with pytest.raises(DataError, match="--test-classes 0 makes no test set"):
        run(tmp_path / "in", tmp_path / "out", split=SplitRule(test_classes=test_classes))
