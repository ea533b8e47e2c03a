"""Captions that are small as a file and large in memory, or long in work: memory that does not grow, and one line."""

import json
import random
import shutil
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from attngan_deploy.cli import app, register, report_errors
from attngan_deploy.errors import CaptionError, OutputError
from attngan_deploy.generate.generation import Generation, _check_room, generate
from attngan_deploy.generate.pipeline import TextToImage, UnknownWordWarning
from attngan_deploy.generate.run import Run
from attngan_deploy.media import captions
from attngan_deploy.media.caption import Caption
from attngan_deploy.media.captions import CaptionFile, CaptionList, read_captions
from attngan_deploy.media.tokenizer import MAX_LETTERS, MOST_UNKNOWN, PADDING, Tokenizer, encode_caption
from tests.makers.memory import little_memory

register("generate", "score", "report", "bench", "verify", "serve")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def odd_words(count: int) -> Iterator[str]:
    """Words that no vocabulary has, all different."""
    for number in range(count):
        yield "q" + "".join(LETTERS[int(digit)] for digit in str(number)) + "x"


@pytest.fixture
def model(tiny_bundle: Path) -> TextToImage:
    return TextToImage.load(tiny_bundle, backend="onnxruntime", precision="fp32", threads=1)


def test_two_byte_lines_are_counted_and_read_in_flat_memory(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    path.write_bytes(b"a\n" * 4_000_000)
    with little_memory(100 * 2**20, seconds=120):
        file = CaptionFile.measure(str(path))
        assert file.count == 4_000_000
        assert next(file.read(3_999_999)).line == 4_000_000


def test_a_first_line_with_a_cell_beyond_csv(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes(b"0" * 140_000 + b",caption\nx,a red bird\n")
    with pytest.raises(CaptionError, match=r"line 1 of .*c\.csv is not CSV: field larger than field limit"):
        read_captions(tmp_path / "c.csv")
    (tmp_path / "c.csv").write_bytes(b"n," * 70_000 + b"caption\n" + b"x," * 70_000 + b"a red bird\n")
    assert [caption.text for caption in read_captions(tmp_path / "c.csv")] == ["a red bird"]


def test_a_table_whose_texts_are_not_utf8(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "c.parquet"
    ends = pyarrow.array([0, 10, 12], pyarrow.int32()).buffers()[1]
    odd = pyarrow.StringArray.from_buffers(2, ends, pyarrow.py_buffer(b"a red bird\xff\xfe"))
    parquet.write_table(pyarrow.table({"caption": odd}), path)
    with pytest.raises(CaptionError, match=r"row 2 of .*c\.parquet is not UTF-8"):
        read_captions(path)
    parquet.write_table(pyarrow.table({"caption": ["a red bird"]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"caption", b"\xffaption"))
    with pytest.raises(CaptionError, match=r"a name of a column of .*c\.parquet is not UTF-8"):
        read_captions(path)


def test_a_table_with_lists_of_texts_is_refused(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"caption": [["a red bird", "a jay"]]}), tmp_path / "c.parquet")
    with pytest.raises(CaptionError, match=r"'caption' of .*c\.parquet is not text; found list<"):
        read_captions(tmp_path / "c.parquet")


@pytest.mark.parametrize("store_schema", [False, True])
def test_a_text_that_all_rows_of_a_table_share(tmp_path: Path, store_schema: bool) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "c.parquet"
    table = pyarrow.table({"caption": pyarrow.array(["a red bird " * 100_000]).dictionary_encode().take([0] * 400)})
    parquet.write_table(table, path, compression="gzip", store_schema=store_schema)
    with little_memory(100 * 2**20):
        assert sum(1 for _ in CaptionFile.measure(str(path)).read()) == 400


@pytest.mark.parametrize("use_dictionary", [False, True])
def test_a_page_of_a_table_that_is_large_in_memory(tmp_path: Path, use_dictionary: bool) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "c.parquet"
    table = pyarrow.table({"n": range(80), "caption": [f"{number} " + "x" * 2**20 for number in range(80)]})
    large = {"data_page_size": 2**30, "dictionary_pagesize_limit": 2**30}
    parquet.write_table(table, path, compression="gzip", use_dictionary=use_dictionary, **large)
    file = CaptionFile.measure(str(path))
    with (
        little_memory(50 * 2**20),
        pytest.raises(CaptionError, match=r"has a page of 83,\d+,\d+ bytes; expected at most"),
    ):
        list(file.read())
    parquet.write_table(table, path, compression="gzip", use_dictionary=False, data_page_size=2**20, write_batch_size=1)
    assert sum(1 for _ in CaptionFile.measure(str(path)).read()) == 80
    delta = {"use_dictionary": False, "column_encoding": {"caption": "DELTA_BYTE_ARRAY"}}
    same = pyarrow.table({"n": range(400), "caption": ["x" * 2**20] * 400})
    parquet.write_table(same, path, compression="gzip", **delta)
    with little_memory(250 * 2**20):
        assert sum(1 for _ in CaptionFile.measure(str(path)).read()) == 400


def test_more_captions_than_memory_is_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "MOST_CAPTIONS", 1000)
    (tmp_path / "c.txt").write_bytes(b"a\n" * 1001)
    with pytest.raises(CaptionError, match="too many captions to be held in memory; expected at most 1,000"):
        read_captions(tmp_path / "c.txt")


@pytest.mark.parametrize(
    "text",
    [
        '{"images": [' + "[]," * 3_000_000 + '1], "annotations": [{"caption": "a bird"}]}',
        '{"annotations": [{"caption": "a bird"}], "images": [' + "{}," * 3_000_000 + "1]}",
        '{"a": 1' + "".join(f', "k{number}": {{}}' for number in range(700_000)) + ', "caption": "a bird"}',
        " " * 10_000_000 + '[{"caption": "a bird"}]' + "\n" * 10_000_000,
    ],
    ids=["before", "behind", "keys", "white space"],
)
def test_what_stands_around_records_of_json_is_not_held(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with little_memory(60 * 2**20, seconds=60):
        assert [caption.text for caption in read_captions(tmp_path / "c.json")] == ["a bird"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" + "[]," * 1_000_000 + "1]", "caption 1 of .* is not a JSON object"),
        ("[[" + "[]," * 1_000_000, "a value is too long, or has no end"),
        ("[" * 3_000_000, "nested too deeply"),
        ('["' + "a" * 3_000_000, "a value is too long"),
        ('["a bird", "another', "Unterminated string starting at, character 12"),
        ('["a bird" "another"]', "expecting one of , ], character 11"),
        ('["a bird"] 3', "extra data, character 12"),
        ('{"annotations": [], "annotations": []}', "another form"),
        ("[nul]", "Expecting value, character 2"),
        ("", "is empty"),
    ],
)
def test_json_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with little_memory(100 * 2**20, seconds=30), pytest.raises(CaptionError, match=message):
        read_captions(tmp_path / "c.json")


def test_json_is_read_as_python_reads_it(tmp_path: Path) -> None:
    """Values that lie across the ends of chunks, of all kinds."""
    draw = random.Random(0)
    records = [
        {
            "id": draw.choice([1, 1.5e300, -7, None, True]),
            "x": [draw.random()],
            "caption": f"bird {number} é鳥\U0001f426",
        }
        for number in range(30_000)
    ]
    for document in (records, {"info": {"a": [1]}, "annotations": records, "n": 12}):
        for indent in (None, 1):
            (tmp_path / "c.json").write_text(json.dumps(document, ensure_ascii=indent is None, indent=indent))
            found = read_captions(tmp_path / "c.json")
            assert [caption.text for caption in found] == [record["caption"] for record in records]
            assert found[-1].line == len(records)


def test_a_long_caption_is_refused_before_its_words_are_counted() -> None:
    words = Tokenizer([PADDING, "bird"])
    with (
        little_memory(50 * 2**20, seconds=2),
        pytest.raises(CaptionError, match="is too long; found 6,000,004 characters"),
    ):
        encode_caption(Caption("bird" + " qx" * 2_000_000, 1), words)
    text = "bird " + " ".join(odd_words(3000))[: MAX_LETTERS - 10]
    assert len(encode_caption(Caption(text, 1), words).unknown) == MOST_UNKNOWN


def test_nearest_words_are_looked_up_for_the_first_hundred(
    model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[str] = []
    nearest = Tokenizer.nearest
    monkeypatch.setattr(Tokenizer, "nearest", lambda self, word: (looked_up.append(word), nearest(self, word))[1])
    texts = [f"a red bird {word}" for word in odd_words(2000)]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        next(model.stream(texts))
    assert len([one for one in told if one.category is UnknownWordWarning]) == 2000
    assert len(looked_up) == MOST_UNKNOWN
    looked_up.clear()
    said: list[str] = []
    run = Run.of(model.bundle, CaptionList([Caption(text, line) for line, text in enumerate(texts[:130], 1)]))
    generate(run, str(tmp_path / "out"), say=said.append, model=model)
    lines = [line for line in said if "left out" in line]
    assert len(lines) == len(looked_up) == MOST_UNKNOWN and lines[-1].endswith("; more are not told")
    assert lines[0].startswith("line 1: left out 'qax'")


def test_unknown_words_of_a_megabyte_are_passed_over(model: TextToImage, tmp_path: Path) -> None:
    """The check of all captions before the first picture holds a hundred of them and looks none up."""
    words = list(odd_words(120_000))
    (tmp_path / "c.txt").write_text(
        "".join(f"bird {' '.join(words[at : at + 1000])}\n" for at in range(0, 120_000, 1000))
    )
    run = Run.of(model.bundle, CaptionFile.measure(str(tmp_path / "c.txt")))
    told: list[dict[str, int]] = []

    class Stopped(Exception):
        pass

    class Output:
        engine = None

        def settle(self, engine: object) -> object:
            return engine

        def writing(self, part: object) -> object:
            raise Stopped

    from attngan_deploy.generate.plan import Part

    worker = Generation(run, Output(), model)  # type: ignore[arg-type]
    begun = time.process_time()
    with little_memory(30 * 2**20), pytest.raises(Stopped):
        worker.make(Part(0, 120, run.captions, 0, 1, lambda place: True), tell=told.append)
    assert time.process_time() - begun < 10
    assert len(told) == 1 and list(told[0]) == words[:MOST_UNKNOWN]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["generate", "--caption", "a bird", "--threads", "100000000"],
            "--threads 100000000 is more than this machine",
        ),
        (["verify", "tiny", "--threads", "100000000"], "--threads 100000000 is more than this machine can use"),
        (["generate", "--caption", "a bird", "--batch-size", "10000000"], "--batch-size 10000000 needs more memory"),
        (["score", "out", "--batch-size", "10000000"], "--batch-size 10000000 needs more memory"),
        (
            ["score", "--model", "tiny", "--captions", "c.txt", "--n", "10000000000"],
            "--n 10000000000 needs more memory",
        ),
        (["report", "--data", "x", "-o", "y", "--n", "10000000000"], "--n 10000000000 needs more memory"),
        (["bench", "tiny", "--batch", "1,9999"], "--batch 9999 needs more memory"),
        (["serve", "--batch-size", "10000000"], "--batch-size 10000000 needs more memory"),
    ],
)
def test_numbers_beyond_the_machine(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attngan_deploy.cli.options.main_memory", lambda: 8 * 2**30)
    with little_memory(60 * 2**20, seconds=10):
        assert report_errors(lambda: app(arguments, standalone_mode=False)) == 1
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1


def test_more_pictures_than_a_disk_has_room_for(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["generate", "--caption", "a red bird", "--model", str(tiny_bundle), "-o", str(out), "--n", str(10**15)]
    with little_memory(seconds=20):
        assert report_errors(lambda: app(arguments, standalone_mode=False)) == 1
    told = capsys.readouterr().err
    assert "1,000,000,000,000,000 pictures don't fit where" in told and told.count("\n") == 1
    assert not out.exists() or not any(out.iterdir())


def test_room_on_a_small_disk_is_said_in_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "found 0.0 GB free; expected more than 0.0 GB" told nobody anything."""
    monkeypatch.setattr(shutil, "disk_usage", lambda out: SimpleNamespace(free=100_000))
    with pytest.raises(OutputError) as refused:
        _check_room(str(tmp_path), 800)
    assert (refused.value.found, refused.value.expected) == ("100 kB free", "more than 160 kB")
