"""Captions of a Parquet file, read a few rows at a time (extra `parquet`)."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import IO, Any

from attngan_deploy.errors import CaptionError, MissingExtraError, install_line
from attngan_deploy.media.caption import Caption, checked_caption, choose_column, no_captions, opened
from attngan_deploy.system.filesystems import open_binary

ROWS = 1024  # that are read at a time
TAIL = 8  # bytes at the end: length of the footer, and a mark
MAX_FOOTER_BYTES = 256 * 2**20


def measure_table(name: str, column: str | None) -> tuple[int, str]:
    """Number of rows, and a SHA-256 of the file's size and footer; the rows themselves are not read.

    Raises:
        CaptionError: not a Parquet file, no column of texts of that name, or no row.
        MissingExtraError: pyarrow is not installed.
    """
    with _table(name) as (stream, table):
        rows = int(table.metadata.num_rows)
        if not rows:
            raise no_captions(name)
        _column(name, table, column)
        size = stream.seek(0, 2)
        stream.seek(max(0, size - TAIL))
        footer = int.from_bytes(stream.read(TAIL)[:4], "little")
        stream.seek(max(0, size - TAIL - min(footer, MAX_FOOTER_BYTES)))
        return rows, hashlib.sha256(f"{size} ".encode() + stream.read()).hexdigest()


def read_rows(name: str, column: str | None, start: int, stop: int) -> Iterator[Caption]:
    """Yield the captions of rows `start` to `stop` - 1; a caption's line is its row, from 1.

    Raises:
        CaptionError: as `measure_table`, an empty caption, or the file is shorter than it was.
        MissingExtraError: pyarrow is not installed.
    """
    row = 0
    with _table(name) as (stream, table):
        chosen = _column(name, table, column)
        # A text that many rows share, a few bytes in the file, is held once: as the dictionary that it is there.
        table = type(table)(stream, metadata=table.metadata, read_dictionary=[chosen])
        for group in range(table.metadata.num_row_groups):
            size = table.metadata.row_group(group).num_rows
            if row + size <= start:
                row += size
                continue
            for batch in table.iter_batches(ROWS, row_groups=[group], columns=[chosen], use_threads=False):
                skipped = min(max(0, start - row), len(batch))
                row += skipped
                for cell in batch.column(0).slice(skipped, max(0, stop - row)):
                    row += 1
                    yield checked_caption(name, _text(name, cell, row), row)
                if row >= stop:
                    return
    raise CaptionError(f"{name} became shorter while it was read", found=f"{row} captions")


@contextmanager
def _table(name: str) -> Iterator[tuple[IO[bytes], Any]]:
    try:
        pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingExtraError(
            f"{name} needs a package that is not installed: {error}", next_step=install_line("parquet")
        ) from error
    with opened(name):
        try:
            with open_binary(name) as stream:
                yield stream, parquet.ParquetFile(stream)
        except UnicodeDecodeError as error:
            raise _not_utf8(f"a name of a column of {name}") from error
        except pyarrow.ArrowException as error:
            raise CaptionError(f"{name} is not a whole Parquet file: {error}") from error


def _text(name: str, cell: Any, row: int) -> str:
    try:
        return cell.as_py() or ""
    except UnicodeDecodeError as error:
        raise _not_utf8(f"row {row} of {name}") from error


def _not_utf8(what: str) -> CaptionError:
    return CaptionError(f"{what} is not UTF-8", expected="a column of texts", next_step="write the table anew as UTF-8")


def _column(name: str, table: Any, column: str | None) -> str:
    schema = table.schema_arrow
    chosen = choose_column(name, list(schema.names), column)
    kind = schema.field(chosen).type
    kind = getattr(kind, "value_type", kind)  # of a dictionary
    if str(kind) not in ("string", "large_string", "string_view"):
        raise CaptionError(f"the column '{chosen}' of {name} is not text", found=str(kind), expected="string")
    return chosen
