"""Blind sheets: what is shuffled comes back under its own name, and verdicts are counted with their intervals."""

import json
from pathlib import Path

import numpy as np
import pytest
from blind_sheet import QUESTIONS, Tile, draw, interval, rates, read_verdicts

from attngan_deploy.errors import DataError


def some_tiles(count: int) -> list[Tile]:
    rng = np.random.default_rng(0)
    return [
        Tile(("base", "real")[number % 2], f"bird {number}", rng.integers(0, 256, (16, 16, 3), np.uint8))
        for number in range(count)
    ]


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"), [(47, 100, 0.3752, 0.5671), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0)]
)
def test_wilsons_interval(hits: int, count: int, low: float, high: float) -> None:
    assert interval(hits, count) == pytest.approx((low, high), abs=1e-4)


def test_nothing_counted_has_no_interval() -> None:
    with pytest.raises(DataError, match="nothing was counted"):
        interval(0, 0)


def test_sheets_do_not_tell_who_made_what(tmp_path: Path) -> None:
    draw(some_tiles(30), tmp_path / "sheets", tmp_path / "key.json")
    names = sorted(path.name for path in (tmp_path / "sheets").iterdir())
    assert names == ["sheet-01.md", "sheet-01.png", "sheet-02.md", "sheet-02.png", "verdicts.csv"]
    texts = "".join(path.read_text() for path in (tmp_path / "sheets").iterdir() if path.suffix != ".png")
    assert "base" not in texts and "real" not in texts and "30. bird 29" in texts
    assert json.loads((tmp_path / "key.json").read_text())["sources"] == ["base", "real"] * 15


def test_verdicts_are_counted_by_source(tmp_path: Path) -> None:
    form = tmp_path / "verdicts.csv"
    rows = [f"{number},{number % 2},0,1" for number in range(1, 9)]
    form.write_text("\n".join([",".join(("number", *QUESTIONS)), *rows]) + "\n")
    lines = list(rates(["base", "real"] * 4, read_verdicts(form, 8)))
    assert lines[2] == "| base | 4 | 100% (51% to 100%) | 0% (0% to 49%) | 100% (51% to 100%) |"
    assert lines[3].startswith("| real | 4 | 0% (0% to 49%)")


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (["1,1,1,1"], "does not fit the key"),
        (["1,1,1,1", "1,0,0,0"], "there twice"),
        (["1,1,1,"], "no verdict"),
        (["x,1,1,1"], "no verdict"),
    ],
)
def test_a_form_that_is_not_whole_is_refused(tmp_path: Path, rows: list[str], text: str) -> None:
    form = tmp_path / "verdicts.csv"
    form.write_text("\n".join([",".join(("number", *QUESTIONS)), *rows]) + "\n")
    with pytest.raises(DataError, match=text):
        read_verdicts(form, 2)
