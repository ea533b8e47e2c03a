"""A report as one HTML page that needs nothing else: its style and its pictures are inside."""

import base64
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.bench.rounds import Report, Row
from attngan_deploy.bench.tables import HEADINGS, TEXT_COLUMNS, cells, notes
from attngan_deploy.contenders import by_reason
from attngan_deploy.images import encode_picture

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1, h2 { line-height: 1.2; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #8886; padding: 0.3rem 0.7rem; text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; white-space: nowrap; }
tr.first td { border-top: 2px solid #888; }
img { display: block; image-rendering: pixelated; }
.captions { font-size: 0.85rem; max-width: 16rem; }
small { opacity: 0.75; }
"""


def page(report: Report) -> str:
    """The whole page."""
    title = f"{report.bundle.name}: engines side by side"
    sections = [
        f"<h1>{escape(title)}</h1>",
        f"<p>Model {escape(report.bundle.name)}, hash {report.bundle.hash[:12]}. {escape(str(report.machine))}.</p>",
        _table(report.rows),
        *(f"<p><small>{escape(note)}</small></p>" for note in notes(report)),
        _refused(report),
        _pictures(report.rows),
        "<h2>Packages</h2>",
        f"<p>{escape(', '.join(f'{name} {number}' for name, number in report.machine.packages.items()))}</p>",
    ]
    body = "\n".join(section for section in sections if section)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _table(rows: Sequence[Row]) -> str:
    lines, before = [_row(HEADINGS, "th")], None
    for row in rows:
        lines.append(_row(cells(row), "td", "" if row.batch == before else ' class="first"'))
        before = row.batch
    return _wide("\n".join(lines))


def _row(texts: Sequence[str], tag: str, attributes: str = "") -> str:
    numbers = ["" if place < TEXT_COLUMNS else ' class="number"' for place in range(len(texts))]
    inside = "".join(f"<{tag}{how}>{escape(text)}</{tag}>" for how, text in zip(numbers, texts, strict=True))
    return f"<tr{attributes}>{inside}</tr>"


def _wide(rows: str) -> str:
    return f'<div class="wide"><table>\n{rows}\n</table></div>'


def _refused(report: Report) -> str:
    if not report.refused:
        return ""
    lines = [f"<tr><td>{escape(what)}</td><td>{escape(why)}</td></tr>" for what, why in by_reason(report.refused)]
    return "<h2>What can't run here, and why</h2>\n" + _wide("\n".join(lines))


def _pictures(rows: Sequence[Row]) -> str:
    """A row of pictures for each engine: the same captions and noise."""
    engines = {row.contender: row.loaded for row in rows}
    if not engines:
        return ""
    captions = next(iter(engines.values())).captions
    lines = ["<tr><th></th>" + "".join(f'<th class="captions">{escape(text)}</th>' for text in captions) + "</tr>"]
    for loaded in engines.values():
        name = f"{escape(loaded.facts.short)}<br><small>{escape(str(loaded.verification))}</small>"
        shown = "".join(_picture(*each) for each in zip(loaded.pictures, captions, strict=True))
        lines.append(f"<tr><td>{name}</td>{shown}</tr>")
    return "<h2>What each engine made of the same captions and noise</h2>\n" + _wide("\n".join(lines))


def _picture(picture: NDArray[np.uint8], caption: str) -> str:
    data = base64.b64encode(encode_picture(picture)).decode()
    return f'<td><img src="data:image/png;base64,{data}" alt="{escape(caption)}"></td>'
