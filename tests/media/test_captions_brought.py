"""Captions as spreadsheets, pandas and chat programs leave them: read, or refused with a next step that works."""

import csv
import io
import json
import re
import subprocess
from pathlib import Path

import pytest

from attngan_deploy.errors import CaptionError
from attngan_deploy.media.captions import open_captions, read_captions
from attngan_deploy.media.tokenizer import Tokenizer, tokenize

TWO = ["a small red bird", "a blue bird with long wings"]
THREE = [*TWO, "a yellow bird on a branch"]
FILES = ["1.jpg", "2.jpg"]
LINES = "".join(json.dumps({"id": 1, "sentence": text}) + "\n" for text in TWO)


def texts(name: str | Path, column: str | None = None) -> list[str]:
    return [caption.text for caption in read_captions(name, column)]


def pipe(monkeypatch: pytest.MonkeyPatch, text: str, column: str | None = None) -> list[str]:
    """What is read of a text on standard input."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    return texts("-", column)


@pytest.mark.parametrize(
    ("document", "column"),
    [
        ({"image": {"0": "1.jpg", "1": "2.jpg"}, "caption": dict(enumerate(TWO))}, None),
        ({"caption": dict(zip(FILES, TWO, strict=True))}, None),
        ({"image": FILES, "Caption": TWO}, None),
        ({"image": dict(enumerate(FILES)), "text": dict(enumerate(TWO))}, "text"),
        ({"image": FILES, "text": TWO}, "text"),
        ({str(row): {"image": FILES[row], "caption": TWO[row]} for row in range(2)}, None),
        ({FILES[row]: {"caption": TWO[row], "width": 3} for row in range(2)}, None),
        ({"info": {"year": 3}, "images": [{"file": FILES[row], "caption": TWO[row]} for row in range(2)]}, None),
    ],
)
def test_json_of_columns_and_of_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, document: object, column: str | None
) -> None:
    for indent in (None, 2):
        (tmp_path / "c.json").write_text(text := json.dumps(document, indent=indent))
        assert texts(tmp_path / "c.json", column) == pipe(monkeypatch, text, column) == TWO


def test_a_row_of_a_column_is_no_column(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps({"image": dict(enumerate(FILES)), "caption": dict(enumerate(TWO))}))
    with pytest.raises(CaptionError, match=r"no column 'caption\.1'; found image, caption\. Next: choose one with"):
        texts(tmp_path / "c.json", "caption.1")


@pytest.mark.parametrize(
    "text",
    [
        LINES,
        LINES.splitlines()[0],
        json.dumps({"image": FILES, "sentence": TWO}),
        json.dumps({"sentence": dict(enumerate(TWO))}),
        f"id,sentence\n1,{TWO[0]}\n2,{TWO[1]}\n",
        f"\tid\tsentence\n0\t1\t{TWO[0]}\n1\t2\t{TWO[1]}\n",
    ],
)
def test_a_stream_with_other_columns_is_read_by_its_next_step(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    with pytest.raises(CaptionError, match=r"Next: choose one with --column, such as --column sentence$"):
        pipe(monkeypatch, text)
    assert pipe(monkeypatch, text, "sentence") == TWO[: text.count("a ")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    "rows",
    [
        ["id", "phrase", "1", TWO[0], "2", TWO[1]],
        ["Nr", "Beschreibung", "1", TWO[0], "2", TWO[1]],
        ["Bild", "Satz", "1.jpg", TWO[0], "2.jpg", TWO[1]],
        ["Vogel", "Beschreibung", "Meise", TWO[0], "Star", TWO[1]],
    ],
)
def test_a_table_called_txt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delimiter: str, rows: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    text = "".join(delimiter.join(rows[place : place + 2]) + "\n" for place in range(0, 6, 2))
    Path("c.txt").write_text(text)
    for column in (None, rows[1]):
        with pytest.raises(CaptionError, match=r"begins as a table; .* or \.tsv: mv c\.txt c\.csv$"):
            texts("c.txt", column)
    assert pipe(monkeypatch, text, rows[1]) == TWO
    Path("c.txt").rename("c.csv")
    with pytest.raises(CaptionError, match="Next: choose one with --column"):
        texts("c.csv")
    assert texts("c.csv", rows[1]) == TWO


@pytest.mark.parametrize(
    "captions",
    [
        ["a small bird, red and white, with a bill", "a big bird, blue and white, with a tail"],
        ["red bird, flying", "blue bird, sitting", "white bird, with a very long tail"],
        ["bird,red", "bird,blue"],
        ["bird; red wings", "bird; it has quite long blue wings", "jay; it has quite long blue wings"],
        ["a bird", "a wing, 2", "a tail, 3"],
        ["here is a bird", "let the bird sing", "below the sky a bird: it sings"],
        ["a bird", "- a jay", "- a tern", *["a tit"] * 20, "- a wren"],
    ],
)
def test_captions_with_what_parts_cells_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, captions: list[str]
) -> None:
    (tmp_path / "c.txt").write_text(text := "\n".join(captions))
    assert texts(tmp_path / "c.txt") == pipe(monkeypatch, text) == captions


NUMBERED = "".join(f"{number}. {text}\n" for number, text in enumerate(THREE, 1))
PLAIN, BULLETS = "\n".join(THREE) + "\n", "".join(f"- {text}\n" for text in THREE)


@pytest.mark.parametrize(
    "text",
    [
        f"Here are some captions:\n\n{NUMBERED}\nLet me know if you want more!\n",
        f"Sure! I can do that.\n\nHere are some:\n{BULLETS}\nThey are short.\nLet me know if you want more!\n",
        f"Sure! I can do that.\nHere are some captions:\n\n{PLAIN}\nWould you like others?\n",
        f"Certainly! Here you go:\n{PLAIN}",
        f"```text\n{PLAIN}```\n",
        f"{PLAIN}\n---\n",
        "".join(f"{number}.jpg\n{text}\n" for number, text in enumerate(THREE)),
        "".join(f"{number}.jpg: {text}\n" for number, text in enumerate(THREE)),
    ],
)
def test_what_a_chat_program_says_is_taken_out_by_its_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.txt").write_text(text)
    with pytest.raises(CaptionError) as refused:
        texts("c.txt")
    line = re.search(r": ((sed|grep|cut) .*)$", str(refused.value))
    assert line is not None
    subprocess.run(line[1], shell=True, check=True)
    assert texts("c-lines.txt") == THREE
    with pytest.raises(CaptionError, match=r"save it to a file, by cat > captions\.txt in the place of t2i; then "):
        pipe(monkeypatch, text)


def test_marks_with_a_word(tmp_path: Path) -> None:
    for mark in ("{},", "caption: ", "- caption: ", "Caption {}: ", "**Prompt {}:** ", "Image #{} - "):
        (tmp_path / "c.txt").write_text("\n\n".join(mark.format(place) + text for place, text in enumerate(THREE, 1)))
        assert texts(tmp_path / "c.txt") == THREE


def test_pictures_with_lists_of_captions_are_lines_by_their_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.json").write_text(text := json.dumps({"a.jpg": TWO, "b.jpg": THREE[2:]}))
    with pytest.raises(CaptionError, match=r"lists no captions; .* one a line: python -c") as refused:
        texts("c.json")
    subprocess.run(str(refused.value).rpartition("a line: ")[2], shell=True, check=True)
    assert texts("c-lines.txt") == THREE
    with pytest.raises(CaptionError, match=r"< captions\.json > captions-lines\.txt$"):
        pipe(monkeypatch, text)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.csv", "id,caption\n1,\n", r"line 2 of .* is empty\. Next: leave such rows out"),
        ("c.csv", "caption\na bird, red\n", r"has 2 cells; .* Next: put quotes .*; or, .* a caption: tail -n \+2 < "),
        ("c.csv", "id,caption\n1\n", "has 1 cells; .* Next: fill in what is missing"),
        ("c.jsonl", '{"caption": null}\n', r"not a text; found null; .* Next: leave such rows out"),
        ("c.json", "[[1]]", r"is not a JSON object; found list; .* Next: write each caption"),
    ],
)
def test_every_refusal_says_what_next(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CaptionError, match=message):
        texts(tmp_path / name)


def test_a_labelling_tool(tmp_path: Path) -> None:
    tasks = [{"id": 1, "annotations": [{"result": [{"value": {"text": [text]}}]}]} for text in TWO]
    (tmp_path / "c.json").write_text(json.dumps(tasks))
    with pytest.raises(CaptionError, match=r"Next: choose the text with --column annotations") as refused:
        texts(tmp_path / "c.json")
    assert texts(tmp_path / "c.json", str(refused.value).rpartition(" ")[2]) == TWO


def test_lists_of_captions_are_all_read_with_numbers_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text(
        "".join(json.dumps({"image": 1, "caption": each}) + "\n" for each in (TWO, TWO[0]))
    )
    (tmp_path / "c.json").write_text(json.dumps([{"caption": TWO}, {"caption": TWO[0]}]))
    (tmp_path / "c.csv").write_text(f'image,caption\n1.jpg,"{TWO}"\n2.jpg,{TWO[0]}\n')
    for name, first in (("c.jsonl", 1), ("c.json", 1), ("c.csv", 2)):
        read = [(caption.line, caption.text) for caption in read_captions(tmp_path / name)]
        assert read == list(enumerate([*TWO, TWO[0]], first)), name


def test_a_part_may_begin_inside_a_list(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text(
        "".join(json.dumps({"captions": [f"a bird {row} {k}" for k in "abc"]}) + "\n" for row in range(900))
    )
    with open_captions(tmp_path / "c.jsonl") as file:
        whole = list(file.read())
        assert file.count == len({caption.line for caption in whole}) == 2700
        assert [list(file.read(start, start + 2)) for start in (999, 1000, 2001)] == [
            whole[start : start + 2] for start in (999, 1000, 2001)
        ]


@pytest.mark.parametrize(("name", "first"), [("c.jsonl", 1), ("c.csv", 2)])
def test_errors_behind_lists_name_the_line_of_the_record(tmp_path: Path, name: str, first: int) -> None:
    rows: list[list[str] | str] = [[f"a bird {row} {k}" for k in "abc"] for row in range(900)]
    with (tmp_path / name).open("w", newline="") as file:
        if name == "c.csv":
            csv.writer(file).writerows([["id", "caption"], *enumerate([*rows, TWO[0], "nan"])])
        else:
            file.writelines(json.dumps({"caption": row}) + "\n" for row in [*rows, TWO[0], "nan"])
    with open_captions(tmp_path / name) as captions:
        last = list(captions.read(2690, 2701))[-1]
        assert (last.line, last.place, last.text) == (2700 + first, 900 + first, TWO[0])
        with pytest.raises(CaptionError, match=f"the caption on line {901 + first} of .* is empty"):
            list(captions.read(2701))
    with pytest.raises(CaptionError, match=f"the caption on line {900 + first} has only unknown words"):
        tokenize([last], Tokenizer(["<end>", "jay"]))


def test_the_answer_of_a_chat_is_named(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "describe this picture in many words"}, {"from": "gpt", "value": TWO[0]}]
    (tmp_path / "c.json").write_text(json.dumps([{"conversations": turns}]))
    with pytest.raises(CaptionError, match=r"--column conversations\.1\.value$"):
        texts(tmp_path / "c.json")
    assert texts(tmp_path / "c.json", "conversations.1.value") == [TWO[0]]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.srt", "\ufeff1\r\n00:01,000 --> 00:02,000\r\n<i>{0}</i>\r\n\r\n2\r\n00:02,000 --> 00:03,000\r\n"
         "a blue bird\r\nwith long wings\r\n", "times of subtitles"),
        ("c.vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\n{0}\n\n00:02.000 --> 00:03.000\n{1}\n", "times of subtitles"),
        ("c.ass", "[Script Info]\nTitle: x\n\nDialogue: 0,1,2,D,,0,0,0,,{{\\i1}}{0}\nDialogue: 0,1,2,D,,0,0,0,,{1}\n",
         "times of subtitles"),
        ("android.txt", "12/05/2024, 10:31 - Messages and calls are end-to-end encrypted. Tap to learn more.\n"
         "12/05/2024, 10:31 - Anna: {0}\n12/05/2024, 10:32 - Anna: <Media omitted>\n"
         "12/05/2024, 10:33 - Ben added Cy\n12/05/2024, 10:33 - Ben: {1}\n", "WhatsApp exported; found line 2 '12/05"),
        ("us.txt", "5/12/24, 10:31\u202fAM - Anna: {0} <This message was edited>\n"
         "5/12/24, 10:31\u202fPM - Anna: IMG-1.jpg (file attached)\n5/12/24, 10:33\u202fPM - +49 170 1: {1}\n",
         "found line 1 .* and 1 more"),
        ("ios.txt", "\ufeff[12.05.24, 10:31:20] Birds: \u200eMessages and calls are end-to-end encrypted.\r\n"
         "[12.05.24, 10:31:22] Anna: {0}\r\n\u200e[12.05.24, 10:31:23] Anna: \u200eimage omitted\r\n"
         "[12.05.24, 10:31:24] ~ Ben: {1}\r\n", "WhatsApp exported"),
        ("c2.txt", "2024/5/12 \u4e0b\u534810:31 - \u5b89\u5a1c: {0}\n2024/5/12 \u4e0b\u534810:32 - A: {1}\n",
         "WhatsApp exported"),
        ("us2.txt", "[5/12/24, 10:31:22\u202fPM] A: {0}\n[5/12/24, 10:31:23\u202fPM] A: {1}\n", "WhatsApp"),
        ("two.txt", "2024-05-12, 10:31 - Anna: {0}\n{1}\n2024-05-12, 10:32 - Anna: a jay: it sings\n",
         "WhatsApp exported"),
        ("c.txt", "- {0}\n- [x] {1}\n1. {0}\n", "marks of several kinds"),
        ("c.csv", "Captions of 2024,,\n,,\nid,caption,by\n1,{0},x\n2,{1},y\n", "column names, which are on line 3"),
        ("c2.csv", "# exported today\nid,caption\n1,{0}\n2,{1}\n", "column names, which are on line 2"),
        ("c.json", '{{"a1": {{"name": "a.jpg", "size": 3, "file": {{"caption": "{0}"}}}}, '
         '"b": {{"file": {{"caption": "{1}"}}}}}}',
         "lists no captions"),
    ],
)  # fmt: skip
def test_what_is_refused_is_read_after_the_next_step(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_bytes(text.format(*TWO).encode())
    with pytest.raises(CaptionError, match=message) as caught:
        texts(tmp_path / name)
    line = re.search(r": ((awk|sed|python) .*)", caught.value.next_step)
    assert line
    subprocess.run(line[1], shell=True, check=True)
    assert texts(line[1].rpartition(" > ")[2])[:2] == TWO
