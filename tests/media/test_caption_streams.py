"""Captions read in parts: the same captions, places and errors as when they are read whole, in flat memory."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attngan_deploy.errors import CaptionError
from attngan_deploy.media import caption_lines, captions
from attngan_deploy.media.caption import Caption
from attngan_deploy.media.captions import CaptionFile, read_captions

TEXT = b"\xef\xbb\xbfa red bird\r\n\r\n  a blue bird \r\xe2\x80\x83\n\x1f\nlast\xe2\x80\xa8one\r\r\n\xc3\xa9t\xc3\xa9"
CSV = b'id,caption\r\n1,"a red bird, and\nblack"\n\n2,"a ""blue"" bird"\r3, x \n'
JSON = b'{"caption": "a bird", "id": 1}\n\n \r\n{"caption": "b\\nc"}\r{"caption": "\xc3\xa9"}'
FILES = {"c.txt": TEXT, "c.csv": CSV, "c.jsonl": JSON, "noted.txt": b"".join(b"bird %d\n\n" % n for n in range(50))}


@pytest.mark.parametrize("chunk", [1, 2, 7, 2**20])
@pytest.mark.parametrize("name", FILES)
def test_parts_are_what_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, chunk: int) -> None:
    monkeypatch.setattr(caption_lines, "CHUNK", chunk)
    monkeypatch.setattr(captions, "NOTED_EVERY", 2)
    path = tmp_path / name
    path.write_bytes(FILES[name])
    whole = read_captions(path)
    file = CaptionFile.measure(str(path))
    assert (file.count, file.last_line) == (len(whole), whole[-1].line)
    for start in range(len(whole) + 1):
        for stop in range(start, len(whole) + 1):
            assert list(file.read(start, stop)) == whole[start:stop]


def test_the_digest_is_of_the_file_and_columns_can_be_chosen(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_bytes(CSV)
    file = CaptionFile.measure(str(path), "id")
    assert [caption.text for caption in file.read(0, 3)] == ["1", "2", "3"]
    path.write_bytes(CSV + b" ")
    assert CaptionFile.measure(str(path), "id").digest != file.digest


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("c.txt", b""),
        ("c.txt", b" \n\r\n\t"),
        ("c.txt", b"\xef\xbb\xbf\n"),
        ("c.txt", b"a bird\nan\0other"),
        ("c.txt", b"a bird\nan \xe9gret\n"),
        ("c.txt", "a bird".encode("utf-16")),
        ("c.csv", b""),
        ("c.csv", b"\n"),
        ("c.csv", b"id,words\n1,a bird\n"),
        ("c.csv", b"caption\na bird, red\n"),
        ("c.csv", b"a small red bird\na blue bird\n"),
        ("c.csv", b'caption\n"a bird\n'),
        ("c.csv", b'id,caption\n1,""\n'),
        ("c.csv", b"caption\n"),
        ("c.jsonl", b'{"caption": "a"}\n{"caption": \n'),
        ("c.jsonl", b"[1]\n"),
        ("c.jsonl", b'{"caption": 3}\n'),
        ("c.jsonl", b'{"a": "x", "b": "y"}\n'),
        ("c.json", b"{}"),
    ],
)
def test_errors_are_those_of_reading_whole(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(CaptionError) as whole:
        read_captions(path)
    with pytest.raises(CaptionError) as parts:
        list(CaptionFile.measure(str(path)).read())
    assert str(parts.value) == str(whole.value)


def test_what_can_not_be_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CaptionError, match="standard input can't be read in parts"):
        CaptionFile.measure("-")
    with pytest.raises(CaptionError, match="no captions file"):
        CaptionFile.measure(str(tmp_path / "none.txt"))
    path = tmp_path / "c.txt"
    path.write_text("a bird\n" + "x" * 300)
    with pytest.raises(CaptionError, match="has no columns"):
        CaptionFile.measure(str(path), "caption")
    file = CaptionFile.measure(str(path))
    path.write_text("a bird\n")
    with pytest.raises(CaptionError, match="became shorter while it was read"):
        list(file.read(0, 2))
    monkeypatch.setattr(caption_lines, "CHUNK", 100)
    monkeypatch.setattr(caption_lines, "MAX_LINE_BYTES", 200)
    path.write_text("a bird\n" + "x" * 300)
    with pytest.raises(CaptionError, match=r"line 2 of .* is too long"):
        CaptionFile.measure(str(path))


def test_random_bytes_end_in_captions_or_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption_lines, "CHUNK", 5)
    monkeypatch.setattr(captions, "NOTED_EVERY", 1)
    pieces = [
        b"\r",
        b"\n",
        b'"',
        b",",
        b"a",
        b"caption",
        b" ",
        b"\xc3\xa9",
        b"\xe9",
        b"\0",
        b"{",
        b"}",
        b'{"caption": "x"}',
    ]
    chance = random.Random(0)
    for number in range(400):
        name = ("c.txt", "c.csv", "c.jsonl")[number % 3]
        start = {"c.csv": b"caption,a\n", "c.txt": b"", "c.jsonl": b""}[name]
        path = tmp_path / name
        path.write_bytes(
            start + b"".join(chance.choices(pieces, weights=[3, 6, 1, 3, 5, 5, 3, 2, 0.1, 0.1, 1, 1, 4], k=12))
        )
        try:
            whole: list[Caption] | None = read_captions(path)
        except CaptionError:
            whole = None
        try:
            file = CaptionFile.measure(str(path))
            parts: list[Caption] | None = [
                caption for place in range(file.count) for caption in file.read(place, place + 1)
            ]
        except CaptionError:
            parts = None
        assert parts == whole, path.read_bytes()


PEAK = """
import resource, sys
from attngan_deploy.media.captions import CaptionFile
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
file = CaptionFile.measure(sys.argv[1])
half = file.count // 2
assert sum(1 for _ in file.read(half)) == file.count - half
print(peak() - before, file.count)
"""


@pytest.mark.parametrize("name", ["c.jsonl", "c.csv"])
def test_memory_stays_flat(tmp_path: Path, name: str) -> None:
    """A file of 30 to 40 MB is counted and half of it read in a few MB."""
    path = tmp_path / name
    with path.open("w") as stream:
        stream.write("caption\n" * (name == "c.csv"))
        for number in range(400_000):
            text = f"a small red bird with black wings and a long yellow bill, number {number}"
            stream.write(f'{{"caption": "{text}"}}\n' if name == "c.jsonl" else f'"{text}"\n')
    assert path.stat().st_size > 25e6
    done = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    grown, captions = map(int, done.stdout.split())
    assert captions == 400_000
    assert grown < 12e6


@pytest.mark.parametrize(
    ("name", "text", "count"),
    [
        ("x.jsonl", '{"caption": [' + '"a bird", ' * 100_000 + '"a jay"]}', 100_001),
        ("x.json", '[{"caption": [' + '"a bird", ' * 100_000 + '"a jay"]}]', 100_001),
        ("x.txt", "Sure" + ":" * 300_000 + "a\na bird\na jay\n", 3),
        ("y.jsonl", '{"caption": "' + "a/" * 300_000 + 'b"}', 1),
        ("y.txt", "\n" * 60_000 + "a bird\n", 1),
    ],
)
def test_time_grows_with_the_length_alone(tmp_path: Path, name: str, text: str, count: int) -> None:
    path = tmp_path / name
    path.write_text(text)
    start = time.process_time()
    file = CaptionFile.measure(str(path))
    assert sum(1 for _ in file.read()) == file.count == count
    assert time.process_time() - start < 10  # each took minutes to hours, and takes less than a second


def test_what_stands_beside_captions_in_json_is_not_held(tmp_path: Path) -> None:
    lists = "[" + "[], " * 200_000 + "[]]"
    path = tmp_path / "x.json"
    path.write_text('{"info": {' + ", ".join(f'"{n}": {lists}' for n in range(25)) + '}, "caption": "a red bird"}')
    done = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
    grown, captions = map(int, done.stdout.split())
    assert captions == 1
    assert grown < 150e6  # all of it is 400 MB
