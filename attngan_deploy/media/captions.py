"""Reading captions: text, CSV, JSON lines and Parquet files, standard input, and what is wrong with them.

What is read here is held in memory; `caption_streams` reads files of any length in parts.
"""

import csv
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from attngan_deploy.errors import CaptionError
from attngan_deploy.media.caption import (
    DEFAULT_COLUMN,
    IN_PARTS,
    Caption,
    checked_caption,
    choose_column,
    is_empty,
    no_captions,
    opened,
)
from attngan_deploy.media.parquet import read_table
from attngan_deploy.media.tokenizer import Tokenizer, split_words
from attngan_deploy.system.filesystems import is_url, open_binary

STANDARD_INPUT = "-"
MAX_FILE_BYTES = 256 * 2**20
MAX_WORDS = 1000  # memory grows with a batch's longest caption; models are trained on captions of some 18 words
KINDS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}


def read_captions(source: str | Path, column: str | None = None) -> list[Caption]:
    """Read the captions of a `.txt`, `.csv`, `.jsonl` or `.parquet` file, or of standard input ("-", as text).

    Text has one caption a line; empty lines are skipped, and lines keep their numbers.

    Args:
        source: a file, here or at a URL of fsspec (s3://...), or "-".
        column: column of a CSV or Parquet file or field of a JSON lines file; None for "caption", or else the only one.

    Raises:
        CaptionError: missing, a folder, empty, too large, binary, not UTF-8, without the column, or with a bad line.
        MissingExtraError: a Parquet file or a URL without the package that reads it.
    """
    name = "standard input" if source == STANDARD_INPUT else str(source)
    if source != STANDARD_INPUT and kind_of(name) == "parquet":
        return read_table(name, column, MAX_FILE_BYTES)
    text = _decode(name, _read_bytes(source, name))
    kind = "text" if source == STANDARD_INPUT else kind_of(name, column)
    if kind == "csv":
        captions = list(_from_csv(name, text, column))
    elif kind == "jsonl":
        captions = list(_from_json_lines(name, text, column))
    elif column is not None:
        raise CaptionError(f"{name} has no columns", found=f"--column {column}", expected="a .csv or .jsonl file")
    else:
        captions = from_texts(text.split("\n"))
    if not captions:
        raise no_captions(name)
    return captions


def kind_of(name: str, column: str | None = None) -> str:
    """What a captions file is by its name: "text", "csv", "jsonl" or "parquet".

    Raises:
        CaptionError: a kind that is not read, or a column of a text.
    """
    suffix = Path(name).suffix.lower()
    if suffix in (".json", ".tsv"):
        raise CaptionError(f"{name} can't be read", found=f"a {suffix} file", expected=".txt, .csv or .jsonl")
    kind = KINDS.get(suffix, "text")
    if kind == "text" and column is not None:
        raise CaptionError(f"{name} has no columns", found=f"--column {column}", expected="a .csv or .jsonl file")
    return kind


def from_texts(texts: Sequence[str]) -> list[Caption]:
    """Number the lines of a text, or captions from a command line or a program, leaving out empty ones."""
    return [Caption(text.strip(), line) for line, text in enumerate(texts, start=1) if text.strip()]


def _read_bytes(source: str | Path, name: str) -> bytes:
    size = 0
    with opened(name):
        if source == STANDARD_INPUT:
            data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        else:
            with open_binary(source) as stream:
                size = 0 if is_url(source) else os.fstat(stream.fileno()).st_size  # 0 of a pipe
                data = stream.read(MAX_FILE_BYTES + 1) if size <= MAX_FILE_BYTES else b""
    if max(len(data), size) > MAX_FILE_BYTES:
        limit = f"at most {MAX_FILE_BYTES // 2**20} MiB"
        raise CaptionError(
            f"{name} is too large", expected=limit, next_step="" if source == STANDARD_INPUT else IN_PARTS
        )
    if not data.strip():
        raise is_empty(name)
    return data


def _decode(name: str, data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise CaptionError(f"{name} is UTF-16", expected="UTF-8", next_step="save it as UTF-8")
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise CaptionError(f"{name} is not text: a zero byte on line {line}", expected="one caption a line, in UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CaptionError(
            f"{name} is not UTF-8: byte {error.start}, on line {line}",
            found=f"0x{data[error.start]:02x}",
            next_step="save it as UTF-8",
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _from_csv(name: str, text: str, column: str | None) -> Iterator[Caption]:
    reader = csv.reader(io.StringIO(text), strict=True)
    try:
        header = next(reader, [])
        place = csv_place(name, header, column)
        line = reader.line_num + 1
        for row in reader:
            if row:
                yield csv_caption(name, row, line, len(header), place)
            line = reader.line_num + 1
    except csv.Error as error:
        raise CaptionError(f"line {reader.line_num} of {name} is not CSV: {error}") from error


def csv_place(name: str, header: Sequence[str], column: str | None) -> int:
    """Which cell of a row is the caption.

    Raises:
        CaptionError: no such column, or the first line is no header.
    """
    header = [cell.strip() for cell in header]
    if len(header) == 1 and column is None and len(split_words(header[0])) > 2:
        raise CaptionError(
            f"the first line of {name} looks like a caption", expected=f"column names, e.g. {DEFAULT_COLUMN}"
        )
    return header.index(choose_column(f"the first line of {name}", header, column))


def csv_caption(name: str, row: Sequence[str], line: int, cells: int, place: int) -> Caption:
    """The caption of a row that starts on `line`.

    Raises:
        CaptionError: more or fewer cells than the header has, or an empty caption.
    """
    if len(row) != cells:
        raise CaptionError(
            f"line {line} of {name} has {len(row)} cells",
            expected=f"{cells}, with quotes around a caption that has commas",
        )
    return checked_caption(name, row[place], line)


def _from_json_lines(name: str, text: str, field: str | None) -> Iterator[Caption]:
    for line, row in enumerate(text.split("\n"), start=1):
        if row.strip():
            yield json_caption(name, row, line, field)


def json_caption(name: str, row: str, line: int, field: str | None) -> Caption:
    """The caption of a line of JSON.

    Raises:
        CaptionError: not a JSON object with a text of this name.
    """
    where = f"line {line} of {name}"
    try:
        record = json.loads(row)
    except (ValueError, RecursionError) as error:
        raise CaptionError(f"{where} is not JSON: {error}", expected='{"caption": "a red bird"}') from error
    if not isinstance(record, dict):
        raise CaptionError(f"{where} is not a JSON object", expected='{"caption": "a red bird"}')
    caption = record[choose_column(where, list(record), field)]
    if not isinstance(caption, str):
        raise CaptionError(f"the caption on {where} is not a text", found=type(caption).__name__)
    return checked_caption(name, caption, line)


@dataclass(frozen=True)
class Tokenized:
    """Captions as numbers.

    Attributes:
        ids: vocabulary indices of each caption, none empty.
        unknown: each word that was left out, with the first line that it stood on.
    """

    ids: list[list[int]]
    unknown: dict[str, int]


def tokenize(captions: Sequence[Caption], tokenizer: Tokenizer, strict: bool = False) -> Tokenized:
    """Number the words of captions, leaving out unknown ones.

    Raises:
        CaptionError: a caption of no words, of unknown words only, or of more than `MAX_WORDS`;
            with `strict`, any unknown word. It names the line.
    """
    ids: list[list[int]] = []
    unknown: dict[str, int] = {}
    for caption in captions:
        if not caption.text.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in caption.text):
            raise CaptionError(f"the caption on line {caption.line} is not text", found="bytes that are not UTF-8")
        encoded = tokenizer.encode(caption.text)
        if not encoded.ids and not encoded.unknown:
            raise CaptionError(f"the caption on line {caption.line} has no words", found=repr(caption.text[:60]))
        if not encoded.ids or (strict and encoded.unknown):
            what = "has unknown words" if encoded.ids else "has only unknown words"
            shown = [describe_unknown(word, tokenizer) for word in encoded.unknown[:5]]
            raise CaptionError(
                f"the caption on line {caption.line} {what}",
                found=", ".join(shown) + (", ..." if len(encoded.unknown) > 5 else ""),
                expected="words of the model's vocabulary",
            )
        if len(encoded.ids) > MAX_WORDS:
            raise CaptionError(
                f"the caption on line {caption.line} is too long",
                found=f"{len(encoded.ids)} words",
                expected=f"at most {MAX_WORDS}",
            )
        ids.append(encoded.ids)
        for word in encoded.unknown:
            unknown.setdefault(word, caption.line)
    return Tokenized(ids, unknown)


def describe_unknown(word: str, tokenizer: Tokenizer) -> str:
    """An unknown word with the nearest known one, e.g. "'reddsh' (nearest known word: 'reddish')"."""
    shown = f"'{word[:40]}...'" if len(word) > 40 else f"'{word}'"
    nearest = tokenizer.nearest(word)
    return f"{shown} (nearest known word: '{nearest}')" if nearest else f"{shown} (no known word is near)"
