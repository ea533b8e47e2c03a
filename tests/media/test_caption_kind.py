"""What a text turns out to be: lists of other programs, and lists of people, whose marks are no part of a caption."""

import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from threading import Thread

import pytest

from attngan_deploy.errors import CaptionError
from attngan_deploy.media import captions
from attngan_deploy.media.captions import CaptionFile, read_captions
from attngan_deploy.media.shards import read_facts

TWO = ["a small red bird", "a blue bird"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.txt", json.dumps(TWO)),
        ("c", json.dumps(TWO, indent=2)),
        ("a list.txt", "\n" + json.dumps([{"caption": text} for text in TWO])),
        ("c.txt", json.dumps({"images": [], "annotations": [{"caption": text} for text in TWO]})),
        ("c.data", json.dumps({"annotations": [{"caption": text} for text in TWO]}, indent=4)),
        ("c.txt", "".join(json.dumps({"caption": text}) + "\n" for text in TWO)),
        ("c.json", "".join(json.dumps({"caption": text}) + "\n" for text in TWO)),
        ("c.jsonl", "".join(json.dumps({"caption": text}, indent=2) + "\n" for text in TWO)),
        ("c.jsonl", json.dumps(TWO, indent=1)),
        ("c.txt", "id;caption\n1;a small red bird\n2;a blue bird\n"),
        ("c.csv.txt", "caption\na small red bird\na blue bird\n"),
        ("c.csv", "a small red bird\na blue bird\n"),
        ("c.csv", "1,a small red bird\n2,a blue bird\n"),
        ("c.csv", "b;a small red bird;7\nc;a blue bird;8\n"),
        ("c.tsv", "1.jpg\ta small red bird\n2.jpg\ta blue bird\n"),
        ("c.txt", str(TWO)),
        ("c.txt", "1.jpg a small red bird\n2.jpg a blue bird\n"),
        ("c.token", "1.jpg#0\ta small red bird\n2.jpg#0\ta blue bird\n"),
        ("c.txt", "1\na small red bird\n\n2\na blue bird\n"),
        ("c.md", "## Birds\n\na small red bird\na blue bird\n"),
        ("c.json", json.dumps({"1.jpg": TWO[0], "2.jpg": TWO[1]})),
        ("c.md", "| # | Caption |\n|---|:--|\n| 1 | a small red bird |\n| 2 | a blue bird |\n"),
    ],
)
def test_the_next_step_leads_to_the_captions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(text)
    with pytest.raises(CaptionError) as refused:
        read_captions(name)
    line = re.search(r"(mv|python|awk|grep|cut) -?\S.*?(?=$|, if each)", str(refused.value))
    assert line is not None and shutil.which(line[1]), refused.value
    before = set(Path().iterdir())
    subprocess.run(line[0], shell=True, check=True)
    (new,) = set(Path().iterdir()) - before
    assert [caption.text for caption in read_captions(new)] == TWO


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(TWO, indent=2),
        "".join(json.dumps({"caption": text}) + "\n" for text in TWO),
        json.dumps({"annotations": [{"caption": text} for text in TWO]}),
        "id\tcaption\n1\ta small red bird\n2\ta blue bird\n",
        "\n".join(TWO),
    ],
)
def test_streams_are_what_they_begin_as(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert [caption.text for caption in read_captions("-")] == TWO
    os.mkfifo(tmp_path / "63")
    writer = Thread(target=(tmp_path / "63").write_text, args=(text,))
    writer.start()
    assert [caption.text for caption in read_captions(tmp_path / "63")] == TWO
    writer.join()


def test_a_column_of_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"caption": "x", "text": "a bird"}\n')))
    assert [caption.text for caption in read_captions("-", "text")] == ["a bird"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a bird\n")))
    with pytest.raises(CaptionError, match="standard input has no columns"):
        read_captions("-", "text")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("1. ", "2. "),
        ("1.", "2."),
        ("1) ", "10) "),
        ("(1) ", "(2) "),
        ("[1] ", "[2] "),
        ("1: ", "2: "),
        ("1 - ", "2 \u2013 "),
        ("1\t", "2\t"),
        ("#1 ", "#2 "),
        ("**1.** ", "**2.** "),
        ("a) ", "b) "),
        ("- ", "- "),
        ("* ", "* "),
        ("\u2022 ", "\u2022\t"),
        ("> ", "> "),
    ],
)
def test_marks_of_a_list_are_no_part_of_its_captions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, second: str
) -> None:
    monkeypatch.setattr(captions, "NOTED_EVERY", 1)
    path = tmp_path / "c.txt"
    path.write_text(f"{first}{TWO[0]}\n\n  {second}{TWO[1]}\n", encoding="utf-8")
    assert [(caption.text, caption.line) for caption in read_captions(path)] == [(TWO[0], 1), (TWO[1], 3)]
    assert [caption.text for caption in CaptionFile.measure(str(path)).read(1)] == TWO[1:]
    (tmp_path / "c.json").write_text(json.dumps([first + TWO[0], second + TWO[1]]))
    assert [caption.text for caption in read_captions(tmp_path / "c.json")] == TWO
    path.write_text("a bird\n" + path.read_text(encoding="utf-8") + "a jay\n", encoding="utf-8")
    assert read_captions(path)[1].text == f"{first}{TWO[0]}".strip()


@pytest.mark.parametrize(
    "texts",
    [
        ["2 birds on a branch", "3 birds"],
        ["1.5 inch bird", "2.5 inch bird"],
        ["a bird", "a jay"],
        ["[a red bird]", "[a blue bird]"],
        ["{a red bird}", "a, b"],
        ["-a bird", "-a jay"],
        ["A. a bird", "St. Helena's plover"],
    ],
)
def test_captions_that_begin_with_a_number_or_sign_stay(tmp_path: Path, texts: list[str]) -> None:
    (tmp_path / "c.txt").write_text("\n".join(texts))
    assert [caption.text for caption in read_captions(tmp_path / "c.txt")] == texts


def test_a_few_lines_of_many_that_look_like_items_are_captions(tmp_path: Path) -> None:
    texts = [f"{number}. bird" if number % 3 else "a bird" for number in range(1, 1000)] + ["a bird"] * 1000
    (tmp_path / "c.txt").write_text("\n".join(texts[::-1]))
    assert len(read_captions(tmp_path / "c.txt")) == len(texts)


def test_a_caption_is_no_column(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("1,a red bird\n2,a blue bird\n")
    with pytest.raises(CaptionError, match="looks like a caption"):
        read_captions(tmp_path / "c.csv", "a red bird")
    (tmp_path / "c.csv").write_text("who,Describe the bird\nme,a red bird\n")
    assert [caption.text for caption in read_captions(tmp_path / "c.csv", "Describe the bird")] == ["a red bird"]


@pytest.mark.parametrize("asked", ["Describe your bird, in one sentence", "What does the bird look like?"])
def test_a_question_of_a_form_may_be_a_column(tmp_path: Path, asked: str) -> None:
    (tmp_path / "c.csv").write_text(f'Timestamp,"{asked}"\n2026/11/02,a red bird\n')
    with pytest.raises(CaptionError, match=rf"Next: if that names a column, add --column '{re.escape(asked)}' or call"):
        read_captions(tmp_path / "c.csv")
    assert [caption.text for caption in read_captions(tmp_path / "c.csv", asked)] == ["a red bird"]
    (tmp_path / "c.csv").write_text("1,a small red bird\n2,a blue bird\n")
    with pytest.raises(CaptionError, match=r"Next: put the columns' names on top: awk"):
        read_captions(tmp_path / "c.csv")


@pytest.mark.parametrize("above", ["", "|---|:--|\n", "\r\n"])
def test_a_table_of_markdown_keeps_its_first_row(tmp_path: Path, above: str) -> None:
    (tmp_path / "c.txt").write_bytes(f"| id | caption |\n{above}| 1 | a red bird |\n".encode())
    with pytest.raises(CaptionError, match=r"is a table of Markdown.*{print \$3}") as refused:
        read_captions(tmp_path / "c.txt")
    subprocess.run(refused.value.next_step.partition(": ")[2], shell=True, check=True)
    assert [caption.text for caption in read_captions(tmp_path / "c-lines.txt")] == ["a red bird"]


@pytest.mark.parametrize(("roles", "place"), [("system user assistant", 2), ("system user", 1), ("system human", 1)])
def test_of_a_chat_the_answer_or_what_was_asked_is_named(tmp_path: Path, roles: str, place: int) -> None:
    turns = [{"role": role, "content": "you draw a great many birds"} for role in roles.split()]
    (tmp_path / "c.jsonl").write_text(json.dumps({"messages": turns}))
    with pytest.raises(CaptionError, match=rf"--column messages\.{place}\.content$"):
        read_captions(tmp_path / "c.jsonl")


@pytest.mark.parametrize("cell", ["N/A", "#N/A", "NULL", "None", "nan", " <NA> ", "#VALUE!"])
def test_cells_that_say_nothing_are_no_captions(tmp_path: Path, cell: str) -> None:
    for name, text in (("c.csv", f"caption\na jay\n{cell}\n"), ("c.json", json.dumps(["a jay", cell]))):
        (tmp_path / name).write_text(text)
        with pytest.raises(CaptionError, match=r"is empty; found '.*Next: leave such rows out"):
            read_captions(tmp_path / name)
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"caption": ["a jay", cell]}), tmp_path / "c.parquet")
    with pytest.raises(CaptionError, match=r"line 2 of .* is empty"):
        read_captions(tmp_path / "c.parquet")
    assert read_facts(json.dumps({"captions": ["a jay", cell]}).encode(), "1.json")[1] == ["a jay"]


@pytest.mark.parametrize("indent", [None, 2])
def test_objects_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indent: int | None) -> None:
    text = "".join(json.dumps({"id": 1, "text": text}, indent=indent) + "\n" for text in TWO)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert [caption.text for caption in read_captions("-", "text")] == TWO
    if indent:
        (tmp_path / "c.json").write_text(text)
        assert [caption.text for caption in read_captions(tmp_path / "c.json", "text")] == TWO


@pytest.mark.parametrize("column", [None, "data"])
@pytest.mark.parametrize("name", ["c.json", "c.jsonl"])
def test_a_nested_field_is_named_and_read(tmp_path: Path, name: str, column: str | None) -> None:
    records = [json.dumps({"id": 1, "data": {"lang": "en", "text": text}}) for text in TWO]
    path = tmp_path / name
    path.write_text("\n".join(records) if name == "c.jsonl" else f"[{','.join(records)}]")
    with pytest.raises(CaptionError, match=r"Next: choose the text with --column data\.text$"):
        read_captions(path, column)
    assert [caption.text for caption in read_captions(path, "data.text")] == TWO


@pytest.mark.parametrize("text", ["../real/x.webp\n/my birds/y.JPG\n", '["x.png", "y.png"]', "image\nx.jpg\ny.jpg\n"])
def test_names_of_pictures_are_no_captions(tmp_path: Path, text: str) -> None:
    path = tmp_path / {".": "c.txt", "[": "c.json", "i": "c.csv"}[text[0]]
    path.write_text(text)
    with pytest.raises(CaptionError, match="is a list of pictures"):
        read_captions(path)


@pytest.mark.parametrize("key", ["captions", "data", "sentences"])
def test_lists_by_other_names(tmp_path: Path, key: str) -> None:
    (tmp_path / "c.json").write_text(json.dumps({"version": 1, key: TWO}))
    assert [caption.text for caption in read_captions(tmp_path / "c.json")] == TWO


def test_a_list_of_windows_is_written_anew_by_its_next_step(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes("caption\na café\n".encode("cp1252"))
    with pytest.raises(CaptionError, match="save it as UTF-8: iconv -f CP1252") as refused:
        read_captions(tmp_path / "c.csv")
    if not shutil.which("iconv"):
        pytest.skip("needs iconv")
    line = str(refused.value).rpartition("as UTF-8: ")[2].partition(", if it")[0]
    subprocess.run(line, shell=True, check=True)
    assert [caption.text for caption in read_captions(tmp_path / "c-utf8.csv")] == ["a café"]
