"""Lines of a captions file with their places, and the captions of its rows: text, CSV, JSON lines and JSON."""

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from shlex import quote
from typing import IO, Any

from attngan_deploy.errors import CaptionError
from attngan_deploy.media.caption import (
    DEFAULT_COLUMN,
    SHARD,
    Caption,
    checked_caption,
    choose_column,
    saved_as_utf8,
    wide_encoding,
)
from attngan_deploy.media.caption_json import CHUNK, RECORD, json_records
from attngan_deploy.media.caption_kind import DELIMITERS, called, check_header, check_top, made_anew, untitled
from attngan_deploy.media.nested_texts import is_texts, path_of, texts_in, texts_of, value_at
from attngan_deploy.media.packed import packer_of, unpacking_line
from attngan_deploy.media.tokenizer import normalised, split_words

BLANK = b" ,;\t|"  # of a row that a spreadsheet leaves
MAX_LINE_BYTES = 4 * 2**20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
OTHER_FILES = (  # the first bytes, in lower case, of what people take for a text
    (b"pk\x03\x04", "a packed file, or a document of an office program"),
    (b"%pdf", "a PDF"),
    (b"{\\rtf", "a document in RTF"),
    (b"<!doctype", "a web page"),
    (b"<html", "a web page"),
    (b"<?xml", "XML"),
    (b"\xd0\xcf\x11\xe0", "a document of an office program"),
    (b"sqlite format 3", "a database of SQLite"),
    (b"\x93numpy", "an array of NumPy"),
    (b"arrow1", "a table of Arrow"),
    (b"\x89hdf", "a file of HDF5"),
    (b"gif8", "a picture"),
    (b"\x89png", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
)
TAR = "a tar"
TOTALS = ("total", "grand total", "subtotal")  # of spreadsheets
TOP = 8  # lines in which a table's columns are named
Line = tuple[int, int, bytes]  # number from 1, offset of its first byte, bytes without the line's end


class HashedStream:
    """A stream whose hash is taken while it is read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.hash, self.has_text = stream, hashlib.sha256(), False

    def seek(self, offset: int) -> int:
        return self.stream.seek(offset)

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.hash.update(data)
        self.has_text = self.has_text or bool(data.strip())
        return data


def rows_of(
    stream: "IO[bytes] | HashedStream",
    name: str,
    kind: str,
    column: str | None,
    offset: int = 0,
    number: int = 1,
    further: int = 0,
) -> Iterator[tuple[int, int, Callable[[], Caption]]]:
    """Line, offset and what gives the caption of each row that is not empty, from `offset` on.

    A row with a list has several, which count as lines of their own.

    Args:
        kind: "text", "csv", "jsonl" or "json", whose rows have their number as offset.
        column: column of a table or field of JSON lines.
        offset: where a row starts.
        number: the line on which it stands.
        further: captions of lists before it, by which those from there on have larger numbers than their lines.

    Raises:
        CaptionError: what is no text or no CSV, or has no such column; the last also where a caption is asked for.
    """
    if kind == "csv":
        rows = csv_rows(stream, name, offset, number, column)
        _, _, header = next(rows)
        place = _csv_place(name, header, column)
        for line, start, row in rows:
            each = _each(row, place, texts_of(row[place])) if place < len(row) else [row]
            made = [partial(_csv_caption, name, one, line, len(header), place) for one in each]
            yield from _numbered(line, further, start, made)
            further += len(made) - 1
        return
    if kind == "json":
        stream.seek(0)
        records = json_records(stream, name, column or DEFAULT_COLUMN)
        for start, record in islice(enumerate(records), offset, None):
            where = f"caption {start + 1} of {name}"
            made = [partial(checked_caption, name, text, start + 1) for text in texts_in(record, column)]
            made = made or [partial(_record_caption, name, where, record, start + 1, column)]
            yield from _numbered(number + start - offset, further, start, made)
            further += len(made) - 1
        return
    for line, start, data in _lines(stream, name, offset, number):
        if _is_text(data):
            if kind == "jsonl":
                # A line is parsed once for all its captions, of which it may have a million.
                made = [partial(checked_caption, name, text, line) for text in _texts_of_line(data, column)]
                made = made or [partial(_json_caption, name, data, line, start, column)]
                yield from _numbered(line, further, start, made)
                further += len(made) - 1
            else:
                yield line, start, partial(_text_caption, name, data, line, start)


def _numbered(
    record: int, further: int, start: int, captions: Sequence[Callable[[], Caption]]
) -> Iterator[tuple[int, int, Callable[[], Caption]]]:
    """The captions of one row, each with a number of its own, as pictures are called by it."""
    for line, caption in enumerate(captions, record + further):
        yield line, start, partial(_with_line, caption, line, record)


def _with_line(caption: Callable[[], Caption], line: int, record: int) -> Caption:
    return replace(caption(), line=line, record=record * (line != record))


def _lines(stream: "IO[bytes] | HashedStream", name: str, offset: int = 0, number: int = 1) -> Iterator[Line]:
    r"""Lines from `offset` on, where line `number` starts; \n, \r\n and \r end one."""
    stream.seek(offset)
    chunk, rest = stream.read(max(CHUNK, len(BYTE_ORDER_MARK) + 1)), b""
    if offset == 0 and (encoding := wide_encoding(chunk[:4])) in ("UTF-16", "UTF-32"):
        raise CaptionError(f"{name} is {encoding}", expected="UTF-8", next_step=saved_as_utf8(name))
    if offset == 0 and (packer := packer_of(chunk)):
        raise CaptionError(f"{name} is packed by {packer}", expected="text", next_step=unpacking_line(name, packer))
    head = chunk[:16].removeprefix(BYTE_ORDER_MARK).lower()
    kind = next((kind for start, kind in OTHER_FILES if head.startswith(start)), "")
    if offset == 0 and (kind := kind or TAR * (chunk[257:262] == b"ustar")):
        raise CaptionError(
            f"{name} is {kind}",
            expected="a .txt, .csv or .jsonl file",
            next_step="save its captions as text, one a line",
        )
    if offset == 0 and chunk.startswith(BYTE_ORDER_MARK):
        chunk, offset = chunk[len(BYTE_ORDER_MARK) :], len(BYTE_ORDER_MARK)
    while True:
        pieces = (rest + chunk).splitlines(keepends=True)
        # The last piece may go on in the next chunk, as may a \r that a \n follows.
        rest = pieces.pop() if chunk and pieces and not pieces[-1].endswith(b"\n") else b""
        if b"\0" in chunk:
            number += next((place for place, piece in enumerate([*pieces, rest]) if b"\0" in piece), 0)
            wide = wide_encoding(chunk[:4])[:6] or "UTF-16"
            raise CaptionError(
                f"{name} is not text: a zero byte on line {number}",
                expected="one caption a line, in UTF-8",
                next_step=f"if it is text in {wide}, {saved_as_utf8(name)}".partition(", if it is of")[0],
            )
        for piece in pieces:
            yield number, offset, piece.rstrip(b"\r\n")
            number += 1
            offset += len(piece)
        if len(rest) > MAX_LINE_BYTES:
            raise CaptionError(
                f"line {number} of {name} is too long",
                found=f"more than {MAX_LINE_BYTES // 2**20} MiB",
                expected="one caption a line",
                next_step="part it into captions, one a line",
            )
        if not chunk:
            return
        chunk = stream.read(CHUNK)


def _is_text(data: bytes) -> bool:
    """Whether a line has anything but white space, that of Unicode included."""
    data = data.strip()
    if not data or 0x20 < data[0] < 0x7F:
        return bool(data)
    return bool(normalised(data.decode("utf-8", "replace")).strip())


def csv_rows(
    stream: "IO[bytes] | HashedStream", name: str, offset: int = 0, number: int = 1, column: str | None = None
) -> Iterator[tuple[int, int, list[str]]]:
    """The header of a CSV file, then the rows that are not blank from `offset` on, each with its line and offset.

    The delimiter is what Excel's line `sep=;` says; else a tab in a .tsv, and what parts the header into most cells.

    Args:
        column: the one that was asked for, by which a line is rather taken for column names.

    Raises:
        CaptionError: what is no text or no CSV, or begins with a row instead of column names.
    """
    lines = _lines(stream, name)
    top = list(islice(lines, TOP))
    check_top(name, [data.decode("utf-8", "replace") for _, _, data in top], column)
    lines = chain(top, lines)
    first = next((line for line in lines if line[2].strip(BLANK)), (1, 0, b""))
    text = _decoded(name, *first).strip('"')
    if text[:4].lower() == "sep=" and text[4:]:
        delimiter, first = text[4], next(lines, (2, 0, b""))
    elif name.lower().endswith(".tsv"):
        delimiter = "\t"
    else:
        delimiter = max(DELIMITERS, key=partial(_cells, text))
    rows = _csv_rows(name, chain([first], lines), delimiter)
    line, start, cells = next(rows, (0, 0, []))
    header = line, start, [cell.replace("\ufeff", "") for cell in cells]  # of files that were put together
    check_header(name, [cell.strip() for cell in header[2]], delimiter, column)
    yield header
    if offset:
        rows = _csv_rows(name, _lines(stream, name, offset, number), delimiter)
    yield from ((line, start, row) for line, start, row in rows if any(cell.strip() for cell in row))


def _cells(line: str, delimiter: str) -> int:
    """Into how many cells a delimiter parts a line; 0 where one is longer than a cell of CSV may be."""
    try:
        return len(next(csv.reader([line], delimiter=delimiter), []))
    except csv.Error:
        return 0


def _csv_rows(name: str, lines: Iterator[Line], delimiter: str) -> Iterator[tuple[int, int, list[str]]]:
    """Rows of a CSV file, the empty ones too, each with its line and offset: those of its first line."""
    number = 0
    start: tuple[int, int] | None = None

    def texts() -> Iterator[str]:
        nonlocal number, start
        for number, offset, data in lines:
            start = start or (number, offset)
            yield _decoded(name, number, offset, data) + "\n"

    reader = csv.reader(texts(), delimiter=delimiter, strict=True)
    try:
        while (row := next(reader, None)) is not None:
            yield *(start or (0, 0)), row
            start = None
    except csv.Error as error:
        raise CaptionError(
            f"line {number} of {name} is not CSV: {error}",
            next_step="close the quotes around that caption, and write those inside of it twice",
        ) from error


def _decoded(name: str, number: int, offset: int, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise CaptionError(
            f"{name} is not UTF-8: byte {offset + error.start}, on line {number}",
            found=f"0x{data[error.start]:02x}",
            next_step=saved_as_utf8(name),
        ) from error


def _csv_place(name: str, header: Sequence[str], column: str | None) -> int:
    """Which cell of a row is the caption."""
    header = [cell.strip() for cell in header]
    if len(header) == 1 and column is None and len(split_words(header[0])) > 2:
        raise CaptionError(
            f"the first line of {name} looks like a caption",
            expected=f"column names, e.g. {DEFAULT_COLUMN}",
            next_step=f"if that names a column, add --column {quote(header[0])}; "
            f"if each line is a caption, {called(name, '.txt')}",
        )
    if len(header) == 1 and column is None and re.search(r"[^\w\s.-]", header[0]):
        raise CaptionError(
            f"the first line of {name} is one column",
            found=repr(header[0][:60]),
            expected="columns between , ; | or tabs",
            next_step=f"if it is a remark above the table, take it out: {untitled(name)}"
            if header[0].startswith("#")
            else "put one of those between the columns, and quotes around captions that have it; or call it .txt, "
            "if each line is a caption",
        )
    return header.index(choose_column(f"the first line of {name}", header, column))


def _csv_caption(name: str, row: Sequence[str], line: int, cells: int, place: int) -> Caption:
    """The caption of a row that starts on `line`."""
    if len(row) != cells:
        mend = 'put quotes around that caption, as in "a small bird, red"'
        if cells == 1:
            mend += f"; or, {made_anew(name, 'if each line is a caption', 'tail -n +2')}"
        raise CaptionError(
            f"line {line} of {name} has {len(row)} cells",
            expected=f"{cells}, with quotes around a caption that has what parts the cells",
            next_step=mend if len(row) > cells else "fill in what is missing, or leave such rows out",
        )
    others = [cell for number, cell in enumerate(row) if number != place and cell.strip()]
    if row[place].strip().casefold() in TOTALS and others and all(re.fullmatch(r"[\d\s.,%]+", cell) for cell in others):
        suffix = Path(name).suffix or ".csv"
        raise CaptionError(
            f"line {line} of {name} is a total, and no caption",
            found=", ".join(row)[:60],
            next_step=made_anew(name, "take it out", f"sed {line}d", suffix, f"-lines{suffix}"),
        )
    return checked_caption(name, row[place], line)


def _text_caption(name: str, data: bytes, line: int, offset: int) -> Caption:
    return Caption(_decoded(name, line, offset, data).strip(), line)


def _each(row: list[str], place: int, texts: Sequence[str]) -> list[list[str]]:
    """A row for each text, which stands at `place`."""
    return [[*row[:place], text, *row[place + 1 :]] for text in texts]


def _texts_of_line(data: bytes, field: str | None) -> list[str]:
    """The captions of a line of JSON that has a list of texts; else none."""
    try:
        return texts_in(json.loads(data.decode()), field) if b"[" in data else []
    except (ValueError, RecursionError):
        return []


def _json_caption(name: str, data: bytes, line: int, offset: int, field: str | None) -> Caption:
    """The caption of a line of JSON."""
    where = f"line {line} of {name}"
    try:
        record = _parsed(where, _decoded(name, line, offset, data))
        return _record_caption(name, where, record, line, field)
    except CaptionError as error:
        if line > 1 or not (data.lstrip().startswith(b"[") or data.strip() == b"{"):
            raise
        what = "one JSON array" if data.lstrip().startswith(b"[") else "JSON over several lines"
        whole = f"a file that is {what} is called .json, which is read as a whole; {called(name, '.json')}"
        raise CaptionError(error.what, found=error.found, expected=error.expected, next_step=whole) from error


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CaptionError(
            f"{where} is not JSON: {error}", expected=RECORD, next_step="mend that line, or leave it out"
        ) from error


def _record_caption(name: str, where: str, record: Any, line: int, field: str | None) -> Caption:
    """The caption of a JSON object, the first where it has a list, or a text that stands for itself."""
    if isinstance(record, str) and field is None:
        return checked_caption(name, record, line)
    if not isinstance(record, dict):
        raise CaptionError(
            f"{where} is not a JSON object",
            found=_kind_of_value(record),
            expected=f'{RECORD}, or "a red bird" alone',
            next_step=path_of(record) or "write each caption as such an object, or one a line into a .txt",
        )
    if SHARD.fullmatch(Path(name).name) and {"file", "sample", "model_hash"} <= record.keys():
        raise CaptionError(
            f"{name} is the record of one shard of a run",
            found="pictures that were made, some captions several times, others not at all",
            expected="the captions of the run",
            next_step="name the captions file that the run was made of",
        )
    nested = value_at(record, field) if field is not None and field not in record else None
    try:
        caption = nested if is_texts(nested) or isinstance(nested, str) else None
        if caption is None:
            caption = record[choose_column(where, list(record), field)]
    except CaptionError as error:
        if any(isinstance(value, str) and " " in value for value in record.values()):
            raise
        raise CaptionError(error.what, found=error.found, next_step=path_of(record) or error.next_step) from error
    if is_texts(caption):
        caption = caption[0]
    if not isinstance(caption, str):
        raise CaptionError(
            f"the caption on {where} is not a text",
            found=_kind_of_value(caption),
            expected=RECORD,
            next_step=path_of(record) or "leave such rows out, or choose another column with --column",
        )
    return checked_caption(name, caption, line)


def _kind_of_value(value: Any) -> str:
    """What a value is to a reader of JSON."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return {"dict": "an object", "str": "a text"}.get(kind := type(value).__name__, kind)
