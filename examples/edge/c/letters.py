"""Writes letters.h: what Python's \\w matches, what its str.lower() does to single characters, and what makes NFC."""

import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator

from attngan_deploy.media.tokenizer import INVISIBLE

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


def decompositions() -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Letters and marks with the two, or the one and 0, that are equal to each: those that NFC composes, and others.

    Not the syllables of Korean, which are calculated, nor the Chinese characters for compatibility, which are many.
    """
    composed, apart = [], []
    for code in [*range(0xC0, 0xAC00), *range(0xFB1D, 0x2F800)]:
        parts = unicodedata.decomposition(chr(code))
        if (chr(code).isalnum() or 0x300 <= code < 0x370) and parts and not parts.startswith("<"):
            row = (code, *(int(part, 16) for part in parts.split()), 0)[:3]
            (composed if unicodedata.normalize("NFC", chr(code)) == chr(code) else apart).append(row)
    return composed, apart


def mark_classes(letters: Iterable[tuple[int, ...]]) -> Iterator[tuple[int, int, int]]:
    """First, last and combining class of every run of marks with the same class: Latin ones, and those of letters."""
    run = (0, 0, 0)
    marks = {*range(0x300, 0x370), *(row[2] for row in letters)}
    for code in range(sys.maxunicode + 2):
        kind = unicodedata.combining(chr(code)) if code in marks else 0
        if kind != run[2]:
            if run[2]:
                yield run
            run = code, code, kind
        run = run[0], code, kind


def table(rows: Iterable[tuple[int, ...]]) -> str:
    """The rows as the inside of a C array."""
    cells = ["{" + ",".join(min(f"0x{value:x}", str(value), key=len) for value in row) + "}," for row in rows]
    return textwrap.indent(textwrap.fill(" ".join(cells), COLUMNS, break_long_words=False), "    ")


composed, apart = decompositions()
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

/* First and last code point of every run of characters that nobody sees. */
static const uint32_t INVISIBLE[][2] = {{
{table(INVISIBLE)}
}};

/* A code point, and the two that NFC composes it of. */
static const uint32_t COMPOSED[][3] = {{
{table(composed)}
}};

/* A code point, and the two, or the one and 0, that NFC makes of it. */
static const uint32_t APART[][3] = {{
{table(apart)}
}};

/* First and last code point of every run of marks, and their combining class. */
static const uint32_t MARK_CLASSES[][3] = {{
{table(mark_classes(composed + apart))}
}};

#endif""")
