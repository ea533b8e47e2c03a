"""Captions as task lists, spreadsheets, databases, image programs and chat programs write them out."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from attngan_deploy.errors import CaptionError
from attngan_deploy.media.captions import read_captions

TWO = ["a small red bird", "a blue bird, with long wings"]
LIST = json.dumps(TWO, indent=2)


def texts(name: str | Path, column: str | None = None) -> list[str]:
    return [caption.text for caption in read_captions(name, column)]


@pytest.mark.parametrize(
    "marks",
    ["[ ] [x] ", "- [x] - [ ] ", "[][X]", "\u2610 \u2611 ", "- \u2610 - \u2611 ", "\u2713 \u2717 ", "\u2705 \u274c ",
     "1\ufe0f\u20e3 2\ufe0f\u20e3 ", "-> => ", "\u2192 \u25a0 ", "\u2605 \u2606 "],
)  # fmt: skip
def test_boxes_ticks_and_signs_are_marks(tmp_path: Path, marks: str) -> None:
    first, second = marks[: len(marks) // 2], marks[len(marks) // 2 :]
    (tmp_path / "c.txt").write_text(f"{first}{TWO[0]}\n{second}{TWO[1]}\n", encoding="utf-8")
    assert texts(tmp_path / "c.txt") == TWO


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.txt", "// of 2024\n{0}\n// more\n{1}\n", "on lines of their own"),
        ("c.txt", "==> a.txt <==\n{0}\n\n==> b.txt <==\n{1}\n", "on lines of their own"),
        ("c.txt", "a.txt:{0}\nb.txt:{1}\n", "looks like a table"),
        ("c.yaml", "captions:\n  - {0}\n  - {1}\n", "none of its items; found 'captions:'"),
        ("c.yml", "---\n- image: 1.jpg\n  caption: {0}\n- image: 2.jpg\n  caption: {1}\n", "is YAML"),
        ("c.txt", "  caption  \n-----------\n {0}\n {1}\n(2 rows)\n\n", "as a database program prints"),
        ("c.txt", " id | caption | x\n----+---------+---\n  1 | {0} | y\n  2 | {1} | y\n(2 rows)\n", "as a database"),
        ("c.txt", "+----+---------+\n| id | caption |\n+----+---------+\n|  1 | {0} |\n|  2 | {1} |\n+----+---------+\n"
         "2 rows in set (0.00 sec)\n", "as a database"),
        ("c.csv", "Birds of 2024\n\nid;caption\n1;{0}\n2;{1}\n", "above its column names, which are on line 3"),
        ("c.tsv", "Captions\nid\tcaption\n1\t{0}\n2\t{1}\n", "on line 2"),
        ("c.csv", "Birds,,\nDate: 2024-01-01,,\nid,caption,by\n1,{0},x\n2,\"{1}\",y\n", "on line 3"),
        ("c.csv", "caption;count\n{0};3\n{1};2\nGrand Total;5\n", "line 4 of .* is a total"),
        ("c.txt", "{0} <lora:bird:0.8>\n({1}:1.2)\nNegative prompt: blurry\nSteps: 20, Seed: 1\n", "image programs"),
        ("c.txt", "{0} --ar 16:9 --v 6\n{1} --ar 1:1\n", "image programs"),
        ("c.html", "<ul>\n<li>{0}</li>\n<li>{1}</li>\n</ul>\n", "has tags"),
        ("c.txt", "<captions>\n<c>{0}</c>\n<c>{1}</c>\n</captions>\n", "has tags"),
        ("c.txt", "Here you are:\n\n```json\nLIST\n```\nAnything else?\n", "has JSON inside"),
        ("c.txt", "My captions:\nLIST\n", "has JSON inside"),
        ("c.json", "```json\nLIST\n```\n", "is not JSON"),
        ("c.json", "// of 2024\nLIST\n", "is not JSON"),
    ],
)  # fmt: skip
def test_what_is_refused_is_read_after_the_next_step(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text.format(*TWO).replace("LIST", LIST))
    with pytest.raises(CaptionError, match=message) as refused:
        texts(tmp_path / name)
    line = re.search(r"(awk|sed|python|grep|cut) -?\S.*", refused.value.next_step)
    assert line
    subprocess.run(line[0], shell=True, check=True)
    assert texts(line[0].rpartition(" > ")[2]) == TWO


@pytest.mark.parametrize(
    "captions",
    [
        ["a bird // a tree", "a bird: it is // red"],
        ["\u2642 a red bird", "\u2640 a brown bird"],
        ["a bird (ratio 1:2.5)", "a bird (at 10:30)", "a red bird -- its wings are blue", "a bird --about 5 inches"],
        ["a <red> bird", "a bird < 5 inches > a wren"],
        ["total eclipse of a bird", "total"],
        ["red", "bird", "blue"],
        ["1 bird", "2 birds"],
        ["a bird:", "[red]"],
        ["a caption", "---a bird"],
        ["a | b", "a bird | a wren"],
        ["red_bird on a branch", "blue_bird"],
        ["riff raff bird", "arrow bird"],
        ["a negative prompt: bird", "three steps: 1, 2, 3"],
    ],
)
def test_captions_that_are_alike_stay(tmp_path: Path, captions: list[str]) -> None:
    (tmp_path / "c.txt").write_text("\n".join(captions), encoding="utf-8")
    assert texts(tmp_path / "c.txt") == captions


def test_a_total_is_one_in_a_row_of_numbers_alone(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("caption,by\nTotal,me\na jay,you\n")
    assert texts(tmp_path / "c.csv") == ["Total", "a jay"]


def test_rows_below_named_columns_are_no_title(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("text,id\na jay,1\ncaption,2\n")
    assert texts(tmp_path / "c.csv", "text") == ["a jay", "caption"]


@pytest.mark.parametrize("asked", ["Describe the bird", "What do you see?"])
def test_a_question_above_one_column(tmp_path: Path, asked: str) -> None:
    (tmp_path / "c.csv").write_text(f"{asked}\n{TWO[0]}\na jay\n")
    with pytest.raises(CaptionError, match=re.escape(f"if that names a column, add --column '{asked}'; if each line")):
        texts(tmp_path / "c.csv")
    assert texts(tmp_path / "c.csv", asked) == [TWO[0], "a jay"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("1 001.Black_footed_Albatross\n2 017.Cardinal\n", "names, as of classes"),
        ("001.Black_footed_Albatross\n002.Laysan_Albatross\n", "names, as of classes"),
        ("1 has_bill_shape::curved_(up_or_down)\n2 has_bill_shape::dagger\n", "names, as of classes"),
        ("1 001.Black_footed_Albatross/a_1.jpg\n2 002.Laysan_Albatross/b_2.jpg\n", "pictures"),
        ("1 1\n2 1\n", "numbers"),
        ("1 60.0 27.0 325.0 304.0\n2 14.0 112.0 388.0 186.0\n", "numbers"),
    ],
)
def test_lists_of_cub_are_no_captions(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(CaptionError, match=f"is a list of {what}; found .* Next: "):
        texts(tmp_path / "classes.txt")


def test_the_record_of_a_shard_is_no_captions_file(tmp_path: Path) -> None:
    record = {"caption": "a red bird", "line": 1, "sample": 0, "file": "pictures-00001.tar/1.png", "model_hash": "1"}
    for name in ("pictures-00001.jsonl", "manifest.jsonl"):
        (tmp_path / name).write_text(json.dumps(record) + "\n")
    with pytest.raises(CaptionError, match=r"the record of one shard of a run; .* Next: name the captions file"):
        texts(tmp_path / "pictures-00001.jsonl")
    assert texts(tmp_path / "manifest.jsonl") == ["a red bird"]
    (tmp_path / "manifest.jsonl").unlink()
    with pytest.raises(CaptionError, match=r"is a folder; .* Next: t2i generate --help"):
        texts(tmp_path)


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a document of an office program"),
        (b"PK\x03\x04", "an office program"),
        (b"SQLite format 3\0", "a database of SQLite"),
        (b"\x93NUMPY\x01", "an array of NumPy"),
        (b"ARROW1\0\0", "a table of Arrow"),
    ],
)
def test_documents_are_named(tmp_path: Path, start: bytes, what: str) -> None:
    (tmp_path / "c.txt").write_bytes(start + bytes(90))
    with pytest.raises(CaptionError, match=f"{what}; expected .* Next: save its captions as text"):
        texts(tmp_path / "c.txt")


def test_byte_order_marks_inside_of_column_names(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("\ufeffid,\ufeffcaption\n1,a jay\n", encoding="utf-8")
    assert texts(tmp_path / "c.csv") == ["a jay"]
