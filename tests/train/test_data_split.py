"""Which pictures are for testing: lists, pickles without code, and classes drawn by a seed."""

import pickle
import shutil
import subprocess
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


def test_a_split_of_two_texts_is_read_from_their_folder(tmp_path: Path) -> None:
    root, folder = make_cub(tmp_path / "cub"), tmp_path / "birds"
    folder.mkdir()
    with pytest.raises(DataError, match="no split in the folder"):
        run(root, tmp_path / "out", split=SplitRule(folder))
    (folder / "train.txt").write_text("001.Bird_1/Bird_1_0.jpg\n1 002.Bird_2\n")
    (folder / "test.txt").write_text("./003.Bird_3/\n")
    report = run(root, tmp_path / "out", split=SplitRule(folder))
    assert list(samples(tmp_path / "out", "test")) == ["003.Bird_3/Bird_3_0", "003.Bird_3/Bird_3_1"]
    assert (report["train"]["pictures"], report["skipped"]["reasons"]) == (3, {"not in the split file": 3})
    with pytest.raises(DataError, match=r"lists training pictures; .*birds \(the folder of both lists"):
        run(root, tmp_path / "none", split=SplitRule(folder / "train.txt"))
    side = published_split(tmp_path / "both", ["001.Bird_1/Bird_1_0"], ["002.Bird_2/Bird_2_0"]) / "test"
    run(root, tmp_path / "side", split=SplitRule(side))
    assert list(samples(tmp_path / "side", "test")) == ["002.Bird_2/Bird_2_0"]


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


@pytest.mark.parametrize(
    ("listed", "there"),
    [
        ("black-footed albatross", "001.Black_footed_Albatross"),
        ("001.Black_footed_Albatros", "001.Black_footed_Albatross"),
        ("Black_footed_Albatross", "001.Black_footed_Albatross"),
        ("Colibri\u0301s", "Colibri"),
        ("001.black_footed_albatross/a.jpg", "001.Black_footed_Albatross"),
        ("002.Bird_2", ""),
        ("Gannet", ""),
        ("001.Black_footed_Albatross\\zzz.jpg", ""),
    ],
)
def test_a_class_that_the_data_spells_otherwise_never_stays_in_training(
    tmp_path: Path, listed: str, there: str
) -> None:
    for name in ("001.Black_footed_Albatross", "Colibri", "Bird_1", "Tern"):
        described(tmp_path / "in" / name / "a.jpg")
    (tmp_path / "split.txt").write_text(f"Tern\r\n{listed}\r\n", encoding="utf-8", newline="")
    if there:
        with pytest.raises(DataError, match=f"spells 1 of the classes otherwise.* for '{there}'"):
            run(tmp_path / "in", tmp_path / "out", split=SplitRule(tmp_path / "split.txt"))
        return
    report = run(tmp_path / "in", tmp_path / "out", split=SplitRule(tmp_path / "split.txt"))
    assert report["skipped"]["reasons"] == {"in the split file, but no usable picture": 1}
    assert report["skipped"]["list"][0]["name"] == listed.replace("\\", "/")


@pytest.mark.parametrize(
    ("name", "is_for_training"),
    [
        ("trainvalclasses.txt", True),
        ("TrainClasses1.txt", True),
        ("seen_classes.txt", True),
        ("cub_train_filenames.pickle", True),
        ("train/classes.txt", True),
        ("testclasses.txt", False),
        ("unseen.txt", False),
        ("valclasses.txt", False),
        ("train_or_test.txt", False),
        ("chicken_strains.txt", False),
        ("train/heldout.txt", False),
    ],
)
def test_the_name_of_a_list_says_what_it_is_for(tmp_path: Path, name: str, is_for_training: bool) -> None:
    root, listed = birds(tmp_path / "in"), ["kind0", "kind1", "kind2"]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(pickle.dumps(listed) if name.endswith("pickle") else "\n".join(listed).encode())
    report = run(root, tmp_path / "out", split=SplitRule(tmp_path / name))
    classes = (report["train"]["classes"], report["test"]["classes"])
    assert classes == ((3, 1) if is_for_training else (1, 3))
    assert ("whose names are for training" in report["split"]) == is_for_training


@pytest.mark.parametrize("name", ["allclasses.txt", "trainvalclasses.txt"])
def test_a_list_of_all_classes_is_no_split(tmp_path: Path, name: str) -> None:
    root = birds(tmp_path / "in", classes=2)
    (tmp_path / name).write_text("kind0\nkind1\n")
    with pytest.raises(DataError, match=r"names all of this data; expected some left for .* leave only the names of"):
        run(root, tmp_path / "out", split=SplitRule(tmp_path / name))
    (tmp_path / "testclasses.txt").write_text("kind1\n")
    with pytest.raises(DataError, match=r"--split-file (.*testclasses\.txt)$") as refused:
        run(root, tmp_path / "out", split=SplitRule(tmp_path / name))
    typed = Path(str(refused.value).rpartition("--split-file ")[2])
    assert run(root, tmp_path / "out", split=SplitRule(typed))["test"]["classes"] == 1


def test_a_list_in_another_encoding_is_written_anew_by_its_next_step(tmp_path: Path) -> None:
    root, file = birds(tmp_path / "in"), tmp_path / "test classes.txt"
    file.write_text("kind1\n", encoding="utf-16")
    with pytest.raises(DataError, match=r"is not UTF-8.* Next: save it as UTF-8: iconv") as refused:
        run(root, tmp_path / "out", split=SplitRule(file))
    if not shutil.which("iconv"):
        pytest.skip("needs iconv")
    subprocess.run(str(refused.value).rpartition("UTF-8: ")[2], shell=True, check=True)
    report = run(root, tmp_path / "out", split=SplitRule(tmp_path / "test classes-utf8.txt"))
    assert report["test"]["classes"] == 1


def test_names_of_other_systems_are_found_in_the_split(tmp_path: Path) -> None:
    described(tmp_path / "in/cafe\u0301/a.b.jpg")
    described(tmp_path / "in/x/a.jpg")
    described(tmp_path / "in/y/a.jpg")
    for number, listed in enumerate(("caf\u00e9", "cafe\u0301", "cafe\u0301\\a_b.jpg")):
        (tmp_path / "split.txt").write_text(f"{listed}\n", encoding="utf-8")
        report = run(tmp_path / "in", tmp_path / f"out{number}", split=SplitRule(tmp_path / "split.txt"))
        assert list(samples(tmp_path / f"out{number}", "test")) == ["caf\u00e9/a_b"]
        assert report["skipped"]["count"] == 0


@pytest.mark.parametrize(
    ("lines", "test"),
    [
        ("A/\n./B\n", "AB"),
        (".\\A\\\nimages/B/\n", "AB"),
        ("1 A\n2 B\n", "AB"),
        ("1 A\n", "A"),
        ("\"A\"\n'images/B'\n", "AB"),
        ("17 A/1.jpg\n18 ./B/1\n", "AB"),
        ("3 C", ""),
        ("0 A\n1 B\n", "'0 A' for 'A', '1 B' for 'B'"),
        ("1 A\n1 B\n", "'1 A' for 'A'"),
        ("A 0\n", "'A 0' for 'A'"),
        ("A/1.jpg,test\n", "'A/1.jpg,test' for 'A/1.jpg'"),
        ('A\n"B",\n', "'\"B\",' for 'B'"),
    ],
)
def test_names_as_other_lists_have_them_are_understood_or_named(tmp_path: Path, lines: str, test: str) -> None:
    for name in ("A", "B", "Grey A"):
        described(tmp_path / "in" / name / "1.jpg")
    (tmp_path / "split.txt").write_text(lines)

    def build() -> dict[str, Any]:
        return run(tmp_path / "in", tmp_path / "out", split=SplitRule(tmp_path / "split.txt"))

    if not test or "for" in test:
        wrong = f"has more than a name on .* of its lines; found {test}" if test else "names nothing .* found '3 C'"
        with pytest.raises(DataError, match=wrong):
            build()
        return
    report = build()
    assert list(samples(tmp_path / "out", "test")) == [f"{name}/1" for name in test]
    assert report["skipped"]["count"] == 0


def test_a_name_of_several_words_is_a_name(tmp_path: Path) -> None:
    for name in ("Tern", "1 Jay", "Jay"):
        described(tmp_path / "in" / name / "1.jpg")
    (tmp_path / "split.txt").write_text("Arctic Tern\n1 Jay\n")
    report = run(tmp_path / "in", tmp_path / "out", split=SplitRule(tmp_path / "split.txt"))
    assert list(samples(tmp_path / "out", "test")) == ["1 Jay/1"]
    assert [skip["name"] for skip in report["skipped"]["list"]] == ["Arctic Tern"]


def test_the_official_split_of_cub(tmp_path: Path) -> None:
    root = make_cub(tmp_path / "cub")
    sides = "".join(f"{number} {int(number % 3 > 0)}\n" for number in range(1, 9))
    (root / "train_test_split.txt").write_text(sides + "99 0\n")
    report = run(root, tmp_path / "out", split=SplitRule(root / "train_test_split.txt"))
    assert list(samples(tmp_path / "out", "test")) == ["002.Bird_2/Bird_2_0", "003.Bird_3/Bird_3_1"]
    assert report["train"]["pictures"] == 6
    assert [skip["name"] for skip in report["skipped"]["list"]] == ["picture 99"]
    (tmp_path / "train_test_split.txt").write_text(sides)
    with pytest.raises(DataError, match=r"lists numbers; expected the names of them in .*images\.txt"):
        run(root, tmp_path / "none", split=SplitRule(tmp_path / "train_test_split.txt"))


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


def test_a_list_for_training_alone_leaves_the_rest_for_testing(tmp_path: Path) -> None:
    root = make_cub(tmp_path / "cub")
    (tmp_path / "train.txt").write_text("001.Bird_1\n003.Bird_3\n")
    report = run(root, tmp_path / "out", split=SplitRule(tmp_path / "train.txt"))
    assert report["split"] == "by train.txt, whose names are for training"
    assert all(name.startswith(("002", "004")) for name in samples(tmp_path / "out", "test"))
    assert all(name.startswith(("001", "003")) for name in samples(tmp_path / "out"))
