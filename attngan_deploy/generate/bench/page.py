"""A report of engines side by side as one HTML page."""

from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.engines.request import by_reason
from attngan_deploy.generate.bench.rounds import BenchReport, Row
from attngan_deploy.generate.bench.tables import HEADINGS, TEXT_COLUMNS, cells, notes
from attngan_deploy.media.html import document, paragraph, picture_tag, row, wide


def page(report: BenchReport) -> str:
    """The whole page."""
    title = f"{report.bundle.name}: engines side by side"
    packages = ", ".join(f"{name} {number}" for name, number in report.machine.packages.items())
    return document(
        title,
        [
            f"<h1>{escape(title)}</h1>",
            paragraph(f"Model {report.bundle.name}, hash {report.bundle.hash[:12]}. {report.machine}."),
            _table(report.rows),
            *(f"<p><small>{escape(note)}</small></p>" for note in notes(report)),
            _refused(report),
            _pictures(report.rows),
            "<h2>Packages</h2>",
            paragraph(packages),
        ],
    )


def _table(rows: Sequence[Row]) -> str:
    lines, before = [row(HEADINGS, "th", TEXT_COLUMNS)], None
    for each in rows:
        lines.append(row(cells(each), "td", TEXT_COLUMNS, "" if each.batch == before else ' class="first"'))
        before = each.batch
    return wide(lines)


def _refused(report: BenchReport) -> str:
    if not report.refused:
        return ""
    lines = [row((what, why), text_columns=2) for what, why in by_reason(report.refused)]
    return "<h2>What can't run here, and why</h2>\n" + wide(lines)


def _pictures(rows: Sequence[Row]) -> str:
    """A row of pictures for each engine: the same captions and noise."""
    engines = {each.request: each.loaded for each in rows}
    if not engines:
        return ""
    captions = next(iter(engines.values())).captions
    lines = ["<tr><th></th>" + "".join(f'<th class="captions">{escape(text)}</th>' for text in captions) + "</tr>"]
    for loaded in engines.values():
        name = f"{escape(loaded.facts.short)}<br><small>{escape(str(loaded.verification))}</small>"
        shown = "".join(_picture(*each) for each in zip(loaded.pictures, captions, strict=True))
        lines.append(f"<tr><td>{name}</td>{shown}</tr>")
    return "<h2>What each engine made of the same captions and noise</h2>\n" + wide(lines)


def _picture(picture: NDArray[np.uint8], caption: str) -> str:
    return f"<td>{picture_tag(picture, caption)}</td>"
