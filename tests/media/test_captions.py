"""Reading captions, and every way in which a captions file can be wrong."""

import io
import json
import os
from pathlib import Path
from threading import Thread

import pytest

from attngan_deploy.errors import CaptionError
from attngan_deploy.media.caption import Caption
from attngan_deploy.media.captions import CaptionFile, from_texts, open_captions, read_captions
from attngan_deploy.media.tokenizer import MAX_WORDS, Tokenizer, tokenize

TOKENIZER = Tokenizer(["<end>", "a", "red", "bird", "reddish"])


def test_text_keeps_the_lines_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    path.write_bytes(b"\xef\xbb\xbfa red bird\r\n\r\n  a blue bird \r\nlast\xe2\x80\xa8one")
    assert read_captions(path) == [Caption("a red bird", 1), Caption("a blue bird", 3), Caption("last\u2028one", 4)]


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a bird\nb\n")))
    assert read_captions("-") == [Caption("a bird", 1), Caption("b", 2)]


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text('id,caption\n1,"a red bird, and\nblack"\n\n2,a bird\n')
    assert read_captions(path) == [Caption("a red bird, and\nblack", 2), Caption("a bird", 5)]
    assert [caption.text for caption in read_captions(path, column="id")] == ["1", "2"]
    path.write_text("text\na bird\n")
    assert read_captions(path) == [Caption("a bird", 2)]


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"caption": "a bird", "id": 1}\n\n{"text": "b"}\n')
    assert read_captions(path) == [Caption("a bird", 1), Caption("b", 3)]
    path.write_text('{"caption": "a bird", "other": "b"}\n')
    assert read_captions(path, column="other") == [Caption("b", 1)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.csv", "id;caption\n1;a red, small bird\n;\n2;a bird\n"),
        ("c.csv", "\n ;\n\nid;caption\n1;a red, small bird\n2;a bird\n"),
        ("c.csv", "ID;Caption\n1;a red, small bird\n2;a bird\n"),
        ("c.jsonl", '{"CAPTION": "a red, small bird", "a": 1}\n{"Caption": "a bird", "a": 2}\n'),
        ("c.csv", "id\tcaption\n1\ta red, small bird\n2\ta bird\n"),
        ("c.csv", 'id|"caption"\n1|"a red, small bird"\n2|a bird\n'),
        ("c.csv", "sep=;\nid;caption\n1;a red, small bird\n2;a bird\n"),
        ("c.csv", '\ufeff"sep=^"\r\ncaption^id\r\na red, small bird^1\r\na bird^2\r\n'),
        ("c.csv", 'id,caption\n,\n1,"a red, small bird"\n , \n2,a bird\n,\n,\n'),
        ("c.tsv", "caption\tid, as in the book\na red, small bird\t1\na bird\t2\n"),
        ("c.TSV", "caption\na red, small bird\na bird\n"),
        ("c.json", '{"images": [], "annotations": [{"caption": "a red, small bird", "id": 1}, {"caption": "a bird"}]}'),
        ("c.json", '[{"caption": "a red, small bird"}, {"caption": "a bird", "key": "1"}]'),
        ("c.json", '["a red, small bird", "a bird"]'),
        (
            "dataset_flickr8k.json",
            '{"images": [{"sentences": [{"raw": "a red, small bird ", "tokens": ["a"]}], "split": "train"},'
            ' {"sentences": []}, {"sentences": [{"raw": "a bird", "imgid": 1}]}], "dataset": "flickr8k"}',
        ),
        ("c.jsonl", '{"url": "u", "caption": "a red, small bird", "key": "0"}\n{"caption": "a bird", "width": 1}\n'),
    ],
)
def test_tables_as_other_programs_write_them(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    assert [caption.text for caption in read_captions(path)] == ["a red, small bird", "a bird"]
    file = CaptionFile.measure(str(path))
    assert [caption.text for caption in file.read(1)] == ["a bird"]


def test_a_long_table_of_another_delimiter_is_read_from_its_middle(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("sep=;\nid;caption\n" + "".join(f"{n};bird, {n}\n;\n" for n in range(2500)))
    (tmp_path / "c.json").write_text(json.dumps([{"caption": f"bird, {n}"} for n in range(2500)]))
    for name in ("c.csv", "c.json"):
        file = CaptionFile.measure(str(tmp_path / name))
        assert [caption.text for caption in file.read(2100, 2102)] == ["bird, 2100", "bird, 2101"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "c.csv",
            b"id^caption\n1^a bird\n",
            "is one column; found 'id.caption'; expected columns between .* Next: put one of those between",
        ),
        (
            "c.jsonl",
            b'[{"caption": "a bird"},\n{"caption": "b"}]',
            "is not JSON.* Next: .* one JSON array is called .json",
        ),
        ("c.ndjson", b'[\n{"caption": "a bird"}\n]', "is not JSON: .* one JSON array is called .json, which"),
        ("c.json", b'{"caption": "a bird"}\n{"caption": "b"}\n', "is not JSON: .* Next: call it .jsonl"),
        ("c.json", b'{"images": [{"sentences": [{"tokens": []}]}]}', "caption 1 of .* not a text; found list"),
        ("c.json", b'{"images": [{"file_name": "a.jpg"}]}', "found a .json file of another form"),
        ("c.csv", b"id:caption\n1:a bird\n", "is one column"),
        ("c.csv", b"id;words\n1;a bird\n", "no column 'caption'; found id, words"),
        (
            "c.json",
            b'{"annotations": [{"text": "a bird"}, {"a": "b", "c": "d"}]}',
            "caption 2 of .* no column 'caption'",
        ),
        (
            "c.json",
            b'{"annotations": 3}',
            "found a .json file of another form; expected .* as in COCO",
        ),
        ("c.json", b"[3]", "caption 1 of .* is not a JSON object"),
        ("c.json", b'{"caption": ', "is not JSON"),
        ("c.json", b"[]", "has no captions"),
        ("c.txt", b"", "is empty"),
        ("c.txt", b" \n\r\n\t", "is empty"),
        ("c.txt", b"\xef\xbb\xbf\n", "has no captions"),
        ("c.txt", b"a bird\nan\0other", "zero byte on line 2"),
        ("c.txt", b"a bird\nan \xe9gret\n", "byte 10, on line 2; found 0xe9"),
        ("c.txt", "a bird".encode("utf-16"), "is UTF-16"),
        ("c.txt", b"\xff\xfe\0\0" + "a bird".encode("utf-32-le"), "is UTF-32; .* iconv -f UTF-32 -t UTF-8"),
        ("c.txt", b"\0\0\xfe\xff" + "a bird".encode("utf-32-be"), "is UTF-32; .* iconv -f UTF-32 -t UTF-8"),
        ("c.txt", "a bird".encode("utf-32-le"), "if it is text in UTF-32, .* iconv -f UTF-32LE -t UTF-8"),
        ("c.txt", "a bird".encode("utf-32-be"), "if it is text in UTF-32, .* iconv -f UTF-32BE -t UTF-8"),
        ("c.txt", "a bird".encode("utf-16-be"), "if it is text in UTF-16, .* iconv -f UTF-16BE -t UTF-8"),
        ("c.txt", b"<end>\nthe\nbird\n", "is a vocabulary, and no captions"),
        ("c.csv", b"Row Labels,Count of id\na small red bird,2\n", "no column 'caption'; .* choose one with --column$"),
        ("c.csv", b"Row Labels,Sum of seen\na jay,2\n", "no column 'caption'; .* choose one with --column$"),
        (
            "c.txt",
            "a bird".encode("utf-16-le"),
            "zero byte on line 1; .* save it as UTF-8",
        ),
        ("c.txt", b"\x1f\x8b\x08\0", "packed by gzip; expected text. Next: unpack it: gunzip"),
        ("flickr.token", b"100.jpg#0\ta small red bird\n", "looks like a table .* found '100.jpg#0"),
        ("c.txt", b"a.PNG | a small red bird\n", "looks like a table"),
        ("c.txt", b"image,caption\na.jpg,a bird\n", "begins as a table; .* Next: call it .csv or .tsv"),
        ("c.txt", b"image_name| comment_number| comment\n1.jpg| 0| A bird .\n", "begins as a table; .* call it .csv"),
        ("c.txt", b'"Caption"\timage\na bird\ta.jpg\n', "begins as a table"),
        ("c.txt", b'{"caption": "a bird"}\n', "begins as JSON lines; .* Next: call it .jsonl"),
        ("c.txt", b'{"annotations": [{"caption": "a bird"}]}\n', "begins as JSON; .* Next: call it .json"),
        ("c.txt", b'\n[\n  "a small red bird",\n  "a blue bird"\n]\n', "begins as a list of JSON; .*call it .json: mv"),
        ("c.txt", b"caps = [\n 'a small red bird',\n]\n", "begins as a program; .* Next: leave only the captions"),
        ("c.txt", b"PAR1....PAR1", "begins as Parquet; .* Next: call it .parquet"),
        (
            "c.md",
            b"Here are 3:\n1. a red bird\n2. a jay\n3. a tern\n",
            "lines that are none of its items; found 'Here are",
        ),
        ("c.md", b"# Birds\n\n- a red bird\n- a jay\n", "headings on lines of their own; found '# Birds'"),
        ("c.tsv", b"a.jpg\ta bird\nb.jpg\ta jay\n", "no line of column names; found a.jpg, a bird. Next: put the col"),
        ("c.csv", b"caption,Caption,CAPTION \n", "has no captions"),
        ("c.csv", b"id,Caption,CAPTION\n1,a,b\n", "no column 'caption'; found id, Caption, CAPTION"),
        ("c.xlsx", b"PK\x03\x04\x14\0\6", "is a packed file, or a document of an office program; .* Next: save its"),
        ("c.pdf", b"%PDF-1.7\n", "is a PDF"),
        ("c.txt", b"{\\rtf1\\ansi a bird}", "is a document in RTF"),
        ("c.txt", b"\xef\xbb\xbf<!DOCTYPE html>\n<p>a bird</p>", "is a web page"),
        ("c.txt", b"\x89PNG\r\n\x1a\n\0\0", "is a picture"),
        ("c.jsonl", b'{"captions": ["a", 2]}\n', "not a text; found list; expected .*a red bird"),
        ("c.csv", b"id,words\n1,a bird\n", "no column 'caption'; found id, words. Next: choose one with --column"),
        ("c.csv", b"caption\na bird, red\n", "line 2 of .* has 2 cells"),
        ("c.csv", b"a small red bird\na blue bird\n", "looks like a caption"),
        ("c.csv", b'caption\n"a bird\n', "is not CSV"),
        ("c.csv", b'id,caption\n1,""\n', "line 2 .* is empty"),
        ("c.csv", b"caption\n", "has no captions"),
        ("c.jsonl", b'{"caption": "a"}\n{"caption": \n', "line 2 .* is not JSON"),
        ("c.jsonl", b"[1]\n", "line 1 .* is not a JSON object"),
        ("c.jsonl", b'{"caption": 3}\n', "line 1 .* is not a text; found int"),
        ("c.jsonl", b'{"a": "x", "b": "y"}\n', "no column 'caption'; found a, b"),
        ("c.jsonl", b"[" * 100_000, "line 1 .* is not JSON"),
        ("c.json", b"{}", "found a .json file"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(CaptionError, match=message) as caught:
        read_captions(path)
    assert "\n" not in str(caught.value)


def test_missing_folder_and_column_of_a_text(tmp_path: Path) -> None:
    with pytest.raises(CaptionError, match="no captions file"):
        read_captions(tmp_path / "none.txt")
    with pytest.raises(CaptionError, match=r"is a folder; .* Next: t2i generate --help"):
        read_captions(tmp_path)
    for name in ("b.TXT", "notes.md", "c.csv"):
        (tmp_path / name).touch()
    with pytest.raises(CaptionError, match=r"is a folder; expected .* Next: name a file in it, such as .*b\.TXT$"):
        read_captions(tmp_path)
    for name in ("classes.txt", "train.tar"):
        (tmp_path / name).touch()
    with pytest.raises(CaptionError, match=r"Next: write its captions to a file: tar -xOf .*train\.tar --wildcards"):
        read_captions(tmp_path)
    (tmp_path / "c.txt").write_text("a bird")
    with pytest.raises(CaptionError, match="has no columns"):
        read_captions(tmp_path / "c.txt", column="caption")


def test_tokenize_lists_unknown_words_once() -> None:
    tokenized = tokenize([Caption("a reddsh bird", 4), Caption("reddsh red qqq", 9)], TOKENIZER)
    assert tokenized.ids == [[1, 3], [2]]
    assert tokenized.unknown == {"reddsh": 4, "qqq": 9}


@pytest.mark.parametrize(
    ("text", "strict", "message"),
    [
        ("quick fox", False, "line 7 has only unknown words; found 'quick'"),
        ("?! ...", False, "line 7 has no words"),
        ("a reddsh bird", True, "line 7 has unknown words; found 'reddsh' .nearest known word: 'reddish'."),
        ("red " * (MAX_WORDS + 1), False, f"line 7 is too long; found {MAX_WORDS + 1} words"),
    ],
)
def test_bad_captions_are_named_by_line(text: str, strict: bool, message: str) -> None:
    with pytest.raises(CaptionError, match=message):
        tokenize([Caption("a red bird", 1), Caption(text, 7)], TOKENIZER, strict)


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    path.write_text("caption,caption\na red bird,a blue bird\n")
    with pytest.raises(CaptionError, match="'caption' more than once"):
        read_captions(path)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(CaptionError, match="is not text; found bytes that are not UTF-8"):
        tokenize(from_texts(["a red bird \udcff"]), Tokenizer(["<end>", "red"]))


def test_a_pipe_can_be_read_more_than_once(tmp_path: Path) -> None:
    """As after `t2i generate <(command)`; a run reads its captions several times."""
    pipe = tmp_path / "c.csv"
    os.mkfifo(pipe)
    writer = Thread(target=pipe.write_text, args=("caption\na red bird\na blue bird\n",))
    writer.start()
    with open_captions(pipe) as captions:
        writer.join()
        for _ in range(2):
            assert [caption.text for caption in captions.read()] == ["a red bird", "a blue bird"]
        spool = Path(captions.source)
    assert not spool.exists()


def test_typed_captions_are_refused_in_terms_of_their_option() -> None:
    assert from_texts(["", " a bird\u200b", "\u200b\u00ad", "a jay"]) == [
        Caption("a bird\u200b", 2),
        Caption("a jay", 4),
    ]
    for texts in ([], [" ", "\u200b\u00ad"], ["\ufe0f\u3164"]):
        with pytest.raises(CaptionError, match="no captions were given; expected --caption TEXT"):
            from_texts(texts)
    for text in ("?! ...", "\u200b-\u200b"):
        with pytest.raises(CaptionError, match=r"^--caption '.*' has no words; expected a description"):
            from_texts(["a bird", text])
