"""HTML pages that need nothing else: their style and their pictures are inside."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

QUALITY = 90
STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #8886; padding: 0.3rem 0.7rem; text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; white-space: nowrap; }
tr.first td { border-top: 2px solid #888; }
img { display: block; image-rendering: pixelated; max-width: 100%; height: auto; }
pre { font-size: 0.8rem; overflow-x: auto; }
.captions { font-size: 0.85rem; max-width: 16rem; }
small { opacity: 0.75; }
svg { display: block; max-width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: currentColor; }
"""


def document(title: str, sections: Iterable[str]) -> str:
    """A whole page of these sections of HTML; empty ones are left out."""
    body = "\n".join(section for section in sections if section)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def row(texts: Sequence[str], tag: str = "td", text_columns: int = 1, attributes: str = "") -> str:
    """A row of plain texts, the first `text_columns` to the left and numbers after them to the right."""
    numbers = ["" if place < text_columns else ' class="number"' for place in range(len(texts))]
    inside = "".join(f"<{tag}{how}>{escape(text)}</{tag}>" for how, text in zip(numbers, texts, strict=True))
    return f"<tr{attributes}>{inside}</tr>"


def wide(rows: Iterable[str]) -> str:
    """A table of rows; where it is too wide for the page, it scrolls by itself."""
    return '<div class="wide"><table>\n' + "\n".join(rows) + "\n</table></div>"


def picture_tag(picture: NDArray[np.uint8], text: str) -> str:
    """A picture uint8 [H, W, 3] for the eye, compressed with loss, and what stands for it where it can't be seen."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "WEBP", quality=QUALITY, method=6)
    data = base64.b64encode(stream.getvalue()).decode()
    height, width = picture.shape[:2]
    return f'<img src="data:image/webp;base64,{data}" width="{width}" height="{height}" alt="{escape(text)}">'
