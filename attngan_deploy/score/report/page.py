"""The report as one HTML page, and its table as Markdown."""

import json
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.media.html import document, paragraph, picture_tag, row, wide
from attngan_deploy.score.report.curve import draw_curve
from attngan_deploy.score.report.figures import CAPTION_1, CAPTION_2
from attngan_deploy.score.report.results import ModelFigures, ReportRow, Results, cells, headings, notes

TITLE = "Base, att1 and att2: scores and pictures"


def page(results: Results) -> str:
    """The whole page: table, figures, attention, curves and every passport."""
    return document(
        TITLE,
        [
            f"<h1>{TITLE}</h1>",
            wide([row(headings(), "th"), *(row(cells(scored)) for scored in [*results.models, *results.real])]),
            *(f"<p><small>{escape(note)}</small></p>" for note in notes(results)),
            "<h2>Figure 6: ten pictures of one caption</h2>",
            paragraph(f"“{CAPTION_1}”"),
            *(_figure(drawn, drawn.figures.samples, "ten pictures of caption 1") for drawn in results.drawn),
            "<h2>Figures 7 to 9: one caption in four colours</h2>",
            paragraph(f"“{CAPTION_2.format(colour='…')}” Pictures in a column have the same noise."),
            *(_colours(drawn) for drawn in results.drawn),
            "<h2>What each word looked at</h2>",
            paragraph("The first picture of Figure 6; a word's share is that of the attention of all places."),
            *(_figure(drawn, drawn.figures.attention, "attention of each word") for drawn in results.drawn),
            _curves(results.drawn),
            "<h2>Passports</h2>",
            *(_passport(scored) for scored in [*results.models, *results.real]),
        ],
    )


def markdown(results: Results) -> str:
    """The table and its notes."""
    top = headings()
    rows = [top, ("---", *["---:"] * (len(top) - 1))]
    rows += [cells(scored) for scored in [*results.models, *results.real]]
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in each)} |" for each in rows]
    return "\n".join([f"# {TITLE}", "", *lines, "", *(f"- {note}" for note in notes(results)), ""])


def _figure(drawn: ModelFigures, picture: NDArray[np.uint8], what: str) -> str:
    return f"<h3>{escape(drawn.name)}</h3>\n<p><small>{escape(drawn.about)}</small></p>\n" + picture_tag(
        picture,
        f"{what} by {drawn.name}",
    )


def _colours(drawn: ModelFigures) -> str:
    rows = []
    for colour, picture in drawn.figures.colours.items():
        tag = picture_tag(picture, f"caption 2 with {colour}, by {drawn.name}")
        rows.append(f"<tr><td>{escape(colour)}</td><td>{tag}</td></tr>")
    return f"<h3>{escape(drawn.name)}</h3>\n{wide(rows)}"


def _curves(models: Sequence[ModelFigures]) -> str:
    drawn = []
    for model in models:
        for axis in ("pictures", "hours"):
            if curve := draw_curve(model.curves, axis):
                drawn.append(f"<h3>{escape(model.name)}, by {axis}</h3>\n{curve}")
    return "\n".join(["<h2>Training</h2>", *drawn]) if drawn else ""


def _passport(scored: ReportRow) -> str:
    text = escape(json.dumps([passport.to_json() for passport in scored.passports], indent=1, ensure_ascii=False))
    return f"<details><summary>{escape(scored.name)}</summary><pre>{text}</pre></details>"
