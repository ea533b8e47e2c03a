"""The report as one HTML page with training curves, and its table as Markdown."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.media.html import document, paragraph, picture_tag, row, wide
from attngan_deploy.score.report.figures import CAPTION_1, CAPTION_2
from attngan_deploy.score.report.results import ModelFigures, ReportRow, Results, cells, headings, notes

TITLE = "Base, att1 and att2: scores and pictures"
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 320, 56, 44, 36  # of a curve
LETTER, LINE = 6.5, 14.0  # how wide and how high a label is, about


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
            *(
                _figure(drawn, sheet, "attention of each word")
                for drawn in results.drawn
                if (sheet := drawn.figures.attention) is not None
            ),
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


def draw_curve(curves: Sequence[tuple[str, Sequence[Mapping[str, float]]]], axis: str = "pictures") -> str:
    """Curves by "pictures" or "hours" as SVG; "" where there is nothing to draw."""
    points = [point for _, curve in curves for point in curve]
    if not points:
        return ""
    right, top = max(float(point[axis]) for point in points), max(float(point["fid"]) for point in points)

    def place(point: Mapping[str, float]) -> tuple[float, float]:
        x = LEFT + float(point[axis]) / (right or 1.0) * (WIDTH - LEFT - 150)
        return round(x, 1), round(TOP + (1 - float(point["fid"]) / (top or 1.0)) * (HEIGHT - TOP - BOTTOM), 1)

    shown = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="Fréchet distance against {axis}">',
        _line((LEFT, TOP), (LEFT, HEIGHT - BOTTOM)),
        _line((LEFT, HEIGHT - BOTTOM), (WIDTH - 150, HEIGHT - BOTTOM)),
        _text(LEFT - 6, TOP + 10, f"{top:.0f}", "end"),
        _text(LEFT - 6, HEIGHT - BOTTOM, "0", "end"),
        _text(WIDTH - 150, HEIGHT - BOTTOM + 18, f"{right:,.3g}" if axis == "hours" else f"{right:,.0f}", "end"),
        _text(LEFT, HEIGHT - BOTTOM + 18, "0", "middle"),
        _text((LEFT + WIDTH - 150) / 2, HEIGHT - 8, f"{axis} of training, of each run", "middle"),
        _text(LEFT - 40, 14, "Fréchet distance (lower is better); at each run's end, its size, variant and last value"),
    ]
    labels: list[tuple[float, float, float]] = []  # left, right and height of those that are there
    for name, curve in curves:
        places = [place(point) for point in curve]
        shown += [_line(*ends) for ends in pairwise(places)]
        shown += [f'<circle cx="{x}" cy="{y}" r="3" fill="currentColor"/>' for x, y in places]
        label, (x, y) = f"{name}: {float(curve[-1]['fid']):.1f}", (places[-1][0] + 8, places[-1][1] + 4)
        end = x + LETTER * len(label)
        while any(x < right and left < end and abs(y - other) < LINE for left, right, other in labels):
            y += LINE / 2
        labels.append((x, end, y))
        shown.append(_text(x, y, label))
    return "\n".join([*shown, "</svg>"])


def _line(start: tuple[float, float], end: tuple[float, float]) -> str:
    return f'<line x1="{start[0]}" y1="{start[1]}" x2="{end[0]}" y2="{end[1]}" stroke="currentColor"/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
