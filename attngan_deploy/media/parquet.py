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
MAX_PAGE_BYTES = 64 * 2**20  # unpacked; writers make some of 1 MB
HEADER_BYTES = 2**16  # of a page, at most


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
        shared = type(table)(stream, metadata=table.metadata, read_dictionary=[chosen])
        schema = table.metadata.schema
        index = [schema.column(number).path for number in range(table.metadata.num_columns)].index(chosen)
        for group in range(table.metadata.num_row_groups):
            size = table.metadata.row_group(group).num_rows
            if row + size <= start:
                row += size
                continue
            chunk = table.metadata.row_group(group).column(index)
            is_delta = any("DELTA" in encoding for encoding in chunk.encodings)  # which can't be read as a dictionary
            rows = _rows_at_once(name, stream, chunk, is_delta)
            for batch in (table if is_delta else shared).iter_batches(
                rows, row_groups=[group], columns=[chosen], use_threads=False
            ):
                skipped = min(max(0, start - row), len(batch))
                row += skipped
                for cell in batch.column(0).slice(skipped, max(0, stop - row)):
                    row += 1
                    yield checked_caption(name, _text(name, cell, row), row)
                if row >= stop:
                    return
    raise CaptionError(
        f"{name} became shorter while it was read",
        found=f"{row} captions",
        next_step="the same command again, when nothing writes the file",
    )


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
        except (pyarrow.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the system's, and not pyarrow's
                raise
            raise CaptionError(
                f"{name} is not a whole Parquet file: {error}", next_step="copy or make the file again"
            ) from error


def _rows_at_once(name: str, stream: IO[bytes], chunk: Any, is_delta: bool) -> int:
    """How many rows of a group may be read at a time: a text is in one page, so that none is longer than the largest.

    Args:
        is_delta: texts are stored as what differs from the one before, so that a page may hold more than its bytes.

    Raises:
        CaptionError: a page that is packed small and is large in memory.
    """
    place, dictionary, size = chunk.data_page_offset, chunk.dictionary_page_offset or 0, stream.seek(0, 2)
    place = max(0, dictionary if 0 < dictionary < place else place)
    end, largest, total = min(size, place + chunk.total_compressed_size), 1, 0
    while place < end:
        stream.seek(place)
        header = stream.read(HEADER_BYTES)
        try:
            sizes, length = _page_header(header)
            unpacked, packed = sizes[2], sizes[3]
        except (IndexError, KeyError):
            if len(header) == HEADER_BYTES:
                raise CaptionError(
                    f"{name} has a page whose header can't be read", next_step="copy or make the file again"
                ) from None
            break  # the file ends here, as its reader says
        if packed < 0 or not 0 <= unpacked <= MAX_PAGE_BYTES:
            raise CaptionError(
                f"{name} has a page of {unpacked:,} bytes",
                expected=f"at most {MAX_PAGE_BYTES // 2**20} MiB",
                next_step="write the table anew with smaller pages",
            )
        largest, total, place = max(largest, unpacked), total + unpacked, place + length + packed
    return ROWS if total <= MAX_PAGE_BYTES and not is_delta else max(1, min(ROWS, MAX_PAGE_BYTES // largest))


def _page_header(data: bytes) -> tuple[dict[int, int], int]:
    """Whole numbers of a page's header by their field, 2 and 3 its size unpacked and packed, and the header's length.

    A struct of Thrift's compact protocol, whose inner structs are passed over; IndexError or KeyError: it is none.
    """
    place, numbers, fields = 0, dict[int, int](), [0]

    def varint() -> int:
        nonlocal place
        number = shift = 0
        while True:
            byte = data[place]
            place += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    while fields:
        step, kind = divmod(data[place], 16)
        place += 1
        if kind == 0:
            fields.pop()
            continue
        if step == 0:
            step = (varint() >> 1) - fields[-1]
        fields[-1] += step
        if kind in (4, 5, 6):
            zigzag = varint()
            if len(fields) == 1:
                numbers[fields[0]] = (zigzag >> 1) ^ -(zigzag & 1)
        elif kind == 12:
            fields.append(0)
        elif kind == 8:
            size = varint()
            place += size
        else:
            place += {1: 0, 2: 0, 3: 1, 7: 8}[kind]
    return numbers, place


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
    kind = kind.value_type if hasattr(kind, "index_type") else kind  # of a dictionary, and not of a list
    if str(kind) not in ("string", "large_string", "string_view"):
        raise CaptionError(
            f"the column '{chosen}' of {name} is not text",
            found=str(kind),
            expected="string",
            next_step="name a column of texts by --column",
        )
    return chosen
