"""The report: its table, its figures, its curves, and that it is one whole page."""

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attngan_deploy.bundles.manifest import read_run
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.score.passport import Passport
from attngan_deploy.score.report.figures import COLOURS, Figures, draw_figures
from attngan_deploy.score.report.page import draw_curve, markdown, page
from attngan_deploy.score.report.results import ModelFigures, ReportRow, Results, cells, notes, parts


def passport(judge: str = "judge", **scores: Any) -> Passport:
    document = {
        "passport": 2,
        "scores": scores,
        "judge": {"name": judge, "hash": "abcdef0123456789", "classes": 50, "size": 128},
        "pictures": {"used": 30_000},
        "reference": {"used": 2933, "source": "test.tar"},
        "warnings": ["pictures were upscaled <for the judge>"],
    }
    return Passport.from_json(document, "it")


INCEPTION = {"mean": 2.404, "deviation": 0.066, "splits": 10}
FOUND = {"value": 0.123, "candidates": 100, "chance": 0.01}
MODEL = ReportRow(
    "mine",
    [
        passport(inception_score=INCEPTION),
        passport("judge200", frechet_distance={"value": 127.34}, r_precision=FOUND),
        replace(passport(word_fidelity={"accuracy": 0.86}), judge=None, reference=None),
    ],
    "att1",
)
REAL = ReportRow("real, test species", [passport(inception_score=INCEPTION)])
CURVE = [{"pictures": 100, "hours": 0.1, "fid": 200.0}, {"pictures": 200, "hours": 0.3, "fid": 150.5}]


def drawn() -> ModelFigures:
    grey = np.full((4, 6, 3), 128, np.uint8)
    return ModelFigures(
        "mine", "a model & more", Figures(grey, dict.fromkeys(COLOURS, grey), grey), [("64 px, base", CURVE)]
    )


class Tags(HTMLParser):
    """Checks that tags close in order, and counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: dict[str, int] = {}
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] = self.seen.get(tag, 0) + 1
        values = dict(attrs)
        address = values.get("src") or values.get("href") or ""
        if address and not address.startswith("data:"):
            self.outside.append(address)
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] = self.seen.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_table_keeps_the_papers_numbers_in_a_column_of_their_own() -> None:
    assert cells(MODEL) == ("mine", "30,000", "2.40 ± 0.07", "4.59 ± 0.06", "127.3", "12.3%", "86%")
    assert cells(REAL) == ("real, test species", "30,000", "2.40 ± 0.07", "", "", "", "")
    told = "\n".join(notes(Results([MODEL], [REAL], [])))
    assert "says nothing beside a number of the other" in told
    assert "2,933 real pictures of test.tar" in told
    assert "Inception Score: judge abcdef012345, 50 classes" in told
    assert "Fréchet distance, R-precision: judge200" in told
    assert "mine; real, test species: pictures were upscaled <for the judge>" in told


def test_page_is_whole_and_needs_nothing_else() -> None:
    results = Results([MODEL], [REAL], [drawn()])
    text = page(results)
    tags = Tags()
    tags.feed(text)
    assert tags.open == [] and tags.outside == []
    assert tags.seen["img"] == 2 + len(COLOURS)
    assert tags.seen["details"] == 2 and tags.seen["svg"] == 2
    assert "upscaled &lt;for the judge&gt;" in text and "a model &amp; more" in text
    assert page(results) == text


def test_markdown_has_a_row_for_everything_scored() -> None:
    lines = markdown(Results([MODEL], [REAL], [])).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 4 and len({row.count("|") for row in rows}) == 1
    assert "| mine | 30,000 | 2.40 ± 0.07 | 4.59 ± 0.06 | 127.3 | 12.3% | 86% |" in rows


@pytest.mark.filterwarnings("ignore::attngan_deploy.generate.pipeline.UnknownWordWarning")  # the tiny vocabulary
def test_figures_change_the_colour_alone(tiny_bundle: Path) -> None:
    model = TextToImage.load(tiny_bundle, backend="onnxruntime", precision="fp32", threads=1)
    figures = draw_figures(model)
    assert figures.samples.shape == (2 * 130 + 2, 5 * 130 + 2, 3)
    assert list(figures.colours) == list(COLOURS)
    again = draw_figures(model)
    assert np.array_equal(figures.attention, again.attention)
    assert all(np.array_equal(figures.colours[colour], again.colours[colour]) for colour in COLOURS)


def test_curves_of_all_runs_that_led_to_a_model() -> None:
    first = {"generator": {"stages": 1, "variant": "base"}, "curve": CURVE, "started_from": None}
    second = {"generator": {"stages": 2, "variant": "att1"}, "curve": CURVE[:1], "started_from": [first, first]}
    assert parts(read_run(second)) == [("64 px, base", CURVE), ("128 px, att1", CURVE[:1])]
    bundle = {"recipe": {"generator": {"stages": 2, "variant": "att2"}}, "curve": CURVE, "started_from": [first]}
    assert parts(read_run(bundle)) == [("64 px, base", CURVE), ("128 px, att2", CURVE)]
    assert parts(read_run({"curve": [{"pictures": 5}]})) == []
    old = {"started_from": {"generator": {"stages": 1, "variant": "base"}, "curve": CURVE}}
    assert parts(read_run(old)) == [("64 px, base", CURVE)]


@pytest.mark.parametrize("axis", ["pictures", "hours"])
def test_a_curve_falls_where_the_distance_does(axis: str) -> None:
    assert draw_curve([], axis) == ""
    drawing = draw_curve([("64 px", CURVE)], axis)
    heights = [float(part.split('"')[0]) for part in drawing.split('cy="')[1:]]
    assert heights[0] < heights[1]  # pixels count downwards
