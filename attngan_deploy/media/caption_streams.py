"""Captions of files of any length: counted once, then read in parts, so that memory stays flat.

A text, CSV or JSON lines file is looked through once from start to end: captions are counted, its hash is taken, and
where every thousandth caption starts is noted (16 bytes each). Any part is then read from its own start. What is wrong
with a caption is said when its part is read; apart from that, captions and errors are those of `read_captions`.
"""

import csv
import hashlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import IO

from attngan_deploy.errors import CaptionError
from attngan_deploy.media.caption import Caption, is_empty, no_captions, opened
from attngan_deploy.media.captions import STANDARD_INPUT, csv_caption, csv_place, json_caption, kind_of
from attngan_deploy.media.parquet import measure_table, read_rows
from attngan_deploy.system.filesystems import open_binary

NOTED_EVERY = 1000  # captions
CHUNK = 2**20  # bytes
MAX_LINE_BYTES = 2**20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
Line = tuple[int, int, bytes]  # number from 1, offset of its first byte, bytes without the line's end


@dataclass(frozen=True)
class Extent:
    """What looking through a captions file found.

    Attributes:
        captions: how many there are.
        last_line: line of the last one.
        digest: SHA-256 of the file; of a Parquet file, of its size and footer.
        offsets: byte at which caption 0, 1000, 2000, ... starts; none for Parquet.
        lines: line on which each of those stands.
    """

    captions: int
    last_line: int
    digest: str
    offsets: "array[int]" = field(default_factory=lambda: array("q"), repr=False)
    lines: "array[int]" = field(default_factory=lambda: array("q"), repr=False)


@dataclass(frozen=True)
class CaptionFile:
    """A captions file that is read in parts.

    Attributes:
        source: a file, here or at a URL of fsspec.
        column: column of a table; None for "caption", or else the only one.
    """

    source: str
    column: str | None = None

    def measure(self) -> Extent:
        """Look through the file once.

        Raises:
            CaptionError: standard input, or a file that is missing, empty, of another kind, binary, or no CSV.
            MissingExtraError: a Parquet file or a URL without the package that reads it.
        """
        name = self.source
        if name == STANDARD_INPUT:
            raise CaptionError("standard input can't be read in parts", expected="a file, or a URL such as s3://...")
        kind = kind_of(name, self.column)
        if kind == "parquet":
            rows, digest = measure_table(name, self.column)
            return Extent(rows, rows, digest)
        with opened(name), open_binary(name) as stream:
            hashed = _Hashed(stream)
            lines = _lines(hashed, name)
            starts = _csv_starts(name, lines, self.column) if kind == "csv" else _text_starts(lines)
            count = last = 0
            offsets, numbers = array("q"), array("q")
            try:
                for last, offset in starts:
                    if count % NOTED_EVERY == 0:
                        offsets.append(offset)
                        numbers.append(last)
                    count += 1
            except CaptionError:
                if hashed.has_text:
                    raise
        if not hashed.has_text:
            raise is_empty(name)
        if not count:
            raise no_captions(name)
        return Extent(count, last, hashed.hash.hexdigest(), offsets, numbers)

    def read(self, extent: Extent, start: int, stop: int) -> Iterator[Caption]:
        """Yield the captions at places `start` to `stop` - 1 of the file.

        Raises:
            CaptionError: a caption that can't be read, or the file is shorter than it was.
        """
        if start >= stop:
            return
        if kind_of(self.source, self.column) == "parquet":
            yield from read_rows(self.source, self.column, start, stop)
            return
        found = start
        with opened(self.source), open_binary(self.source) as stream:
            note = start // NOTED_EVERY
            captions = self._from(stream, extent.offsets[note], extent.lines[note])
            for caption in islice(captions, start % NOTED_EVERY, start % NOTED_EVERY + stop - start):
                yield caption
                found += 1
        if found < stop:
            raise CaptionError(f"{self.source} became shorter while it was read", found=f"{found} captions")

    def _from(self, stream: IO[bytes], offset: int, number: int) -> Iterator[Caption]:
        name, kind = self.source, kind_of(self.source, self.column)
        if kind == "csv":
            rows = _Rows(name, _lines(stream, name))
            header = rows.header()
            place = csv_place(name, header, self.column)
            rows = _Rows(name, _lines(stream, name, offset, number))
            for line, _, row in rows:
                yield csv_caption(name, row, line, len(header), place)
            return
        for line, start, data in _lines(stream, name, offset, number):
            text = _decoded(name, line, start, data)
            if text.strip():
                yield json_caption(name, text, line, self.column) if kind == "jsonl" else Caption(text.strip(), line)


class _Hashed:
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


def _lines(stream: "IO[bytes] | _Hashed", name: str, offset: int = 0, number: int = 1) -> Iterator[Line]:
    r"""Lines from `offset` on, where line `number` starts; \n, \r\n and \r end one."""
    stream.seek(offset)
    chunk, rest = stream.read(max(CHUNK, len(BYTE_ORDER_MARK) + 1)), b""
    if offset == 0 and chunk.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise CaptionError(f"{name} is UTF-16", expected="UTF-8", next_step="save it as UTF-8")
    if offset == 0 and chunk.startswith(BYTE_ORDER_MARK):
        chunk, offset = chunk[len(BYTE_ORDER_MARK) :], len(BYTE_ORDER_MARK)
    while True:
        pieces = (rest + chunk).splitlines(keepends=True)
        # The last piece may go on in the next chunk, as may a \r that a \n follows.
        rest = pieces.pop() if chunk and pieces and not pieces[-1].endswith(b"\n") else b""
        if b"\0" in chunk:
            number += next((place for place, piece in enumerate([*pieces, rest]) if b"\0" in piece), 0)
            raise CaptionError(
                f"{name} is not text: a zero byte on line {number}", expected="one caption a line, in UTF-8"
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
            )
        if not chunk:
            return
        chunk = stream.read(CHUNK)


def _text_starts(lines: Iterator[Line]) -> Iterator[tuple[int, int]]:
    """Line and offset of each line that is not empty."""
    for number, offset, data in lines:
        if _is_text(data):
            yield number, offset


def _is_text(data: bytes) -> bool:
    """Whether a line has anything but white space, that of Unicode included."""
    data = data.strip()
    if not data or 0x20 < data[0] < 0x7F:
        return bool(data)
    return bool(data.decode("utf-8", "replace").strip())


def _csv_starts(name: str, lines: Iterator[Line], column: str | None) -> Iterator[tuple[int, int]]:
    """Line and offset of each row of a CSV file that is not empty."""
    rows = _Rows(name, lines)
    csv_place(name, rows.header(), column)
    for number, offset, _ in rows:
        yield number, offset


class _Rows:
    """Rows of a CSV file that are not empty, each with its line and offset."""

    def __init__(self, name: str, lines: Iterator[Line]) -> None:
        self._name, self._lines = name, lines
        self._number, self._first = 0, (0, 0)  # the last line that was read; line and offset of the row's first one
        self._is_first = True
        self._reader = csv.reader(self._texts(), strict=True)

    def header(self) -> list[str]:
        """The first row; empty where there is none."""
        return self._next() or []

    def __iter__(self) -> Iterator[tuple[int, int, list[str]]]:
        while (row := self._next()) is not None:
            if row:
                yield *self._first, row

    def _next(self) -> list[str] | None:
        self._is_first = True
        try:
            return next(self._reader, None)
        except csv.Error as error:
            raise CaptionError(f"line {self._number} of {self._name} is not CSV: {error}") from error

    def _texts(self) -> Iterator[str]:
        for number, offset, data in self._lines:
            self._number = number
            if self._is_first:
                self._is_first, self._first = False, (number, offset)
            yield _decoded(self._name, number, offset, data) + "\n"


def _decoded(name: str, number: int, offset: int, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise CaptionError(
            f"{name} is not UTF-8: byte {offset + error.start}, on line {number}",
            found=f"0x{data[error.start]:02x}",
            next_step="save it as UTF-8",
        ) from error
