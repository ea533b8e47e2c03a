"""Writes letters.h: what Python's \\w matches, and what its str.lower() does to single characters."""

import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator

COLUMNS = 116
Change = tuple[int, int, int, int]  # first, last, step, distance


def word_ranges() -> Iterator[tuple[int, int]]:
    """First and last code point of every run of letters, digits and underscores outside ASCII."""
    first = None
    for code in range(0x80, sys.maxunicode + 2):
        inside = code <= sys.maxunicode and chr(code).isalnum()
        if inside and first is None:
            first = code
        if not inside and first is not None:
            yield first, code - 1
            first = None


def lower_changes() -> Iterator[Change]:
    """Runs of code points outside ASCII that lower by the same distance, every one or every second of them."""
    run: Change | None = None
    for code in range(0x80, sys.maxunicode + 1):
        lower = chr(code).lower()
        if len(lower) > 1 or ord(lower) == code:
            continue
        distance = ord(lower) - code
        if run and run[3] == distance and code - run[1] in ((1, 2) if run[0] == run[1] else (run[2],)):
            run = run[0], code, code - run[1], distance
            continue
        if run:
            yield run
        run = code, code, 1, distance
    if run:
        yield run


def table(rows: Iterable[tuple[int, ...]]) -> str:
    """The rows as the inside of a C array."""
    cells = ["{" + ",".join(f"0x{value:x}" if value > 9 else str(value) for value in row) + "}," for row in rows]
    return textwrap.indent(textwrap.fill(" ".join(cells), COLUMNS, break_long_words=False), "    ")


print(f"""\
/* Unicode {unicodedata.unidata_version}, written by letters.py; do not edit. */
#ifndef LETTERS_H
#define LETTERS_H

#include <stdint.h>

/* First and last code point of every run of letters and digits outside ASCII. */
static const uint32_t WORD_RANGES[][2] = {{
{table(word_ranges())}
}};

/* Capitals outside ASCII: first, last, step, and how far the small letter is. */
static const int32_t LOWER_CHANGES[][4] = {{
{table(lower_changes())}
}};

#endif""")
