"""Captions that a folder belongs to, told from those that were brought."""

import json
import tracemalloc
from pathlib import Path

import pytest

from attngan_deploy.generate.other_captions import compare_captions
from attngan_deploy.generate.target import MANIFEST, Target, open_target
from attngan_deploy.media.caption import Caption
from attngan_deploy.media.captions import CaptionFile, CaptionList

TEXTS = ["a red bird", "a blue bird", "a black bird", "a jay"]
HERE = CaptionList([Caption(text, line) for line, text in enumerate(TEXTS, 1)])


def line(place: int, text: str, number: int | None = None) -> bytes:
    return json.dumps({"index": place, "line": number or place + 1, "caption": text}).encode() + b"\n"


@pytest.mark.parametrize(
    ("lines", "total", "told"),
    [
        (
            [line(0, TEXTS[0]), line(0, TEXTS[0]), line(1, TEXTS[1])],
            None,
            ("fewer", "pictures of 2 captions", '4: those and more, from "a black bird" on line 3 on'),
        ),
        ([line(0, TEXTS[0])], 2, ("fewer", "2 captions", '4: those and more, from "a blue bird" on line 2 on')),
        ([line(3, TEXTS[3]), line(0, TEXTS[0])], 9, ("more", "9 captions", "4, the first of those")),
        ([line(3, TEXTS[3]), line(1, TEXTS[0])], None, ("other", '"a red bird" as cap', '"a blue bird" as caption 2')),
        ([line(0, TEXTS[0], 2)], None, ("other", '"a red bird" on line 2 as', '"a red bird" on line 1 as caption 1')),
        ([line(0, TEXTS[0]), line(4, "a tern")], None, ("more", '"a tern" after those here', "4 captions")),
        ([line(0, TEXTS[0])], 4, ("another captions file", "begins alike", "here now")),
        ([], 4, ("other", "no manifest tells", "captions of that run")),
        ([b"{", line(0, TEXTS[1])], None, ("other", "no manifest tells", "captions of that run")),
        ([line(0, TEXTS[0]), b"[" * 9999, line(1, "x")], None, ("fewer", "pictures of 1 caption", '"a blue bird"')),
        ([line(-1, TEXTS[0])], None, ("other", "no manifest tells", "captions of that run")),
    ],
)
def test_the_first_caption_that_differs_is_told(
    tmp_path: Path, lines: list[bytes], total: int | None, told: tuple[str, str, str]
) -> None:
    (tmp_path / MANIFEST).write_bytes(b"".join(lines))
    found = compare_captions(Target(tmp_path), HERE, total)
    assert [part in text for part, text in zip(told, found, strict=True)] == [True] * 3, found


@pytest.mark.parametrize(
    ("there", "here", "told"),
    [
        ("a red bird, " * 6 + "big", "a red bird, " * 6 + "small", ('"...d bird, a red bird, big"', 'd bird, small"')),
        ("a red bird", "a red  bird", ('"a_red_bird"', '"a_red__bird"')),
        ("a red bird", "a red\u00a0bird", ('"a_red_bird"', '"a_red\\xa0bird"')),
    ],
)
def test_the_part_that_differs_is_shown(tmp_path: Path, there: str, here: str, told: tuple[str, str]) -> None:
    (tmp_path / MANIFEST).write_bytes(line(0, there))
    _, first, second = compare_captions(Target(tmp_path), CaptionList([Caption(here, 1)]))
    assert told[0] in first and told[1] in second, (first, second)


@pytest.mark.parametrize("where", ["{}", "file://{}"])
def test_shards_are_read_up_to_the_first_difference_in_flat_memory(tmp_path: Path, where: str) -> None:
    if "://" in where:
        pytest.importorskip("fsspec", reason="needs the s3 extra")
    count = 20_000
    (tmp_path / "c.txt").write_text("".join(f"bird {place}\n" for place in range(count)))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/pictures-00000.jsonl").write_bytes(b"".join(line(n, f"bird {n}") for n in range(count - 10)))
    (tmp_path / "out/pictures-00001.jsonl").write_bytes(line(count - 10, "a wren") + b"\xff" * 9)
    captions = CaptionFile.measure(str(tmp_path / "c.txt"))
    target = open_target(where.format(tmp_path / "out"))
    tracemalloc.start()
    _, there, here = compare_captions(target, captions, count)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (there, here) == (f'"a wren" as caption {count - 9}', f'"bird {count - 10}" as caption {count - 9}')
    assert most < 8 * 2**20
