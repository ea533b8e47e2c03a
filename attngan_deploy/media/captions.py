"""Captions of files of any length: text, CSV, JSON lines and Parquet, here, at a URL or on standard input.

A text, CSV or JSON lines file is looked through once from start to end: captions are counted, its hash is taken, and
where every thousandth caption starts is noted (32 bytes each). Any part is then read from its own start, so that memory
stays flat. What is wrong with a caption is said when its part is read.
"""

import os
import re
import stat
import sys
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import IO

from attngan_deploy.errors import CaptionError
from attngan_deploy.media.caption import Caption, file_of, no_captions, opened
from attngan_deploy.media.caption_json import CHUNK, MAX_FILE_BYTES
from attngan_deploy.media.caption_kind import HEAD_BYTES, kind_of, kind_of_text
from attngan_deploy.media.caption_lines import HashedStream, rows_of
from attngan_deploy.media.list_marks import ListMarks
from attngan_deploy.media.parquet import measure_table, read_rows
from attngan_deploy.media.tokenizer import normalised, split_words
from attngan_deploy.system.filesystems import is_url, open_binary

STANDARD_INPUT = "-"
NOTED_EVERY = 1000  # captions
MOST_CAPTIONS = 1_000_000  # that are held in memory


@dataclass(frozen=True)
class CaptionList:
    """Captions that are in memory, in order."""

    captions: Sequence[Caption]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.captions)

    @property
    def last_line(self) -> int:
        """Line of the last one."""
        return self.captions[-1].line

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[Caption]:
        """Yield the captions at places `start` to `stop` - 1; None for all from `start` on."""
        return iter(self.captions[start:stop])


@dataclass(frozen=True)
class CaptionFile:
    """A captions file that was looked through; `CaptionFile.measure` makes one."""

    source: str  # a file, here or at a URL of fsspec
    column: str | None  # column of a table or field of JSON lines; None for "caption", or else the only one
    name: str  # what errors call it
    kind: str  # "text", "csv", "jsonl", "json" or "parquet"
    count: int  # how many captions it has
    last_line: int  # line of the last one
    digest: str  # SHA-256 of the file; of a Parquet file, of its size and footer
    # byte at which caption 0, 1000, 2000, ... starts; none for Parquet
    offsets: "array[int]" = field(default_factory=lambda: array("q"), repr=False)
    lines: "array[int]" = field(default_factory=lambda: array("q"), repr=False)  # line on which each of those stands
    # captions of lists before its line, by which its number is larger than that
    further: "array[int]" = field(default_factory=lambda: array("q"), repr=False)
    # its place among the captions of that line, of which JSON and a table's cell may have a list
    inside: "array[int]" = field(default_factory=lambda: array("q"), repr=False)
    marks: str = ""  # pattern of the marks of a list, which all captions have

    @classmethod
    def measure(cls, source: str, column: str | None = None, name: str = "", is_spool: bool = False) -> "CaptionFile":
        """Look through a file once.

        Args:
            source: a file, or a folder of pictures with one.
            name: what errors call it, where that is not its path; the kind of file is seen by it.
            is_spool: of a stream, whose kind is seen by how it begins where its name says none.

        Raises:
            CaptionError: standard input, or a file that is missing, empty, of another kind, binary, or no CSV.
            MissingExtraError: a Parquet file or a URL without the package that reads it.
        """
        source = file_of(source)
        name = name or source
        if source == STANDARD_INPUT:
            raise CaptionError(
                "standard input can't be read in parts",
                expected="a file, or a URL such as s3://...",
                next_step="save it as a file first",
            )
        kind = kind_of(name)
        if kind == "text":
            with opened(name), open_binary(source) as stream:
                kind = kind_of_text(stream.read(HEAD_BYTES), name, not is_spool, column)
        if kind == "text":
            kind_of(name, column)
        if kind == "parquet":
            rows, digest = measure_table(source, column)
            return cls(source, column, name, kind, rows, rows, digest)
        with opened(name), open_binary(source) as stream:
            hashed, marks = HashedStream(stream), ListMarks()
            count = last = 0
            offsets, numbers, further, inside = array("q"), array("q"), array("q"), array("q")
            before, place, others = -1, 0, 0
            try:
                for last, offset, caption in rows_of(hashed, name, kind, column):
                    is_further = offset == before
                    before, place, others = offset, place + 1 if is_further else 0, others + is_further
                    if count % NOTED_EVERY == 0:
                        offsets.append(offset)
                        numbers.append(last - others)
                        further.append(others - place)
                        inside.append(place)
                    count += 1
                    if not marks.is_settled:
                        with suppress(CaptionError):  # it is said when its part is read
                            marks.see(caption().text, last)
            except CaptionError:
                if hashed.has_text:
                    raise
        if not count:
            raise no_captions(name, "has no captions" if hashed.has_text else "is empty")
        marks.check_captions(name)
        pattern = marks.of_all(name) if kind == "text" else marks.shared
        digest = hashed.hash.hexdigest()
        return cls(source, column, name, kind, count, last, digest, offsets, numbers, further, inside, pattern)

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[Caption]:
        """Yield the captions at places `start` to `stop` - 1; None for all from `start` on.

        Raises:
            CaptionError: a caption that can't be read, or the file is shorter than it was.
        """
        stop = self.count if stop is None else stop
        if start >= stop:
            return
        if self.kind == "parquet":
            yield from read_rows(self.source, self.column, start, stop)
            return
        found = start
        with opened(self.name), open_binary(self.source) as stream:
            note = start // NOTED_EVERY
            inside = self.inside[note]
            starts = self.offsets[note], self.lines[note], self.further[note]
            rows = rows_of(stream, self.name, self.kind, self.column, *starts)
            first = inside + start % NOTED_EVERY
            for _, _, caption in islice(rows, first, first + stop - start):
                read = caption()
                yield replace(read, text=re.sub(f"^(?:{self.marks})", "", read.text)) if self.marks else read
                found += 1
        if found < stop:
            raise CaptionError(
                f"{self.name} became shorter while it was read",
                found=f"{found} captions",
                next_step="the same command again, when nothing writes the file",
            )


Captions = CaptionFile | CaptionList


@contextmanager
def open_captions(source: str | Path, column: str | None = None) -> Iterator[CaptionFile]:
    """Yield the captions of a file; standard input ("-", as text) and pipes are spooled to a temporary file.

    Arguments and errors are those of `CaptionFile.measure`; a pipe with too much is a CaptionError too.
    """
    source = str(source)
    name = "standard input" if source == STANDARD_INPUT else source
    if source != STANDARD_INPUT and not _is_stream(source):
        yield CaptionFile.measure(source, column)
        return
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix="t2i-") as folder:
        spool = Path(folder) / "captions"
        with opened(name), spool.open("wb") as copy:
            if source == STANDARD_INPUT:
                _copy(name, sys.stdin.buffer, copy)
            else:
                with open_binary(source) as stream:
                    _copy(name, stream, copy)
        yield CaptionFile.measure(str(spool), column, name, is_spool=True)


def read_captions(source: str | Path, column: str | None = None) -> list[Caption]:
    """All captions of a file, or of standard input, in memory; arguments and errors are those of `open_captions`.

    Raises:
        CaptionError: also where a caption is bad, or the file is too large or has more than `MOST_CAPTIONS`.
    """
    if source != STANDARD_INPUT and not is_url(source) and Path(source).is_file():
        _check_size(str(source), Path(source).stat().st_size)
    with open_captions(source, column) as file:
        captions, size = [], 0
        for caption in file.read():
            size += len(caption.text)
            _check_size(file.name, size)
            captions.append(caption)
            if len(captions) > MOST_CAPTIONS:
                what = f"{file.name} has too many captions to be held in memory"
                raise CaptionError(what, expected=f"at most {MOST_CAPTIONS:,}")
    return captions


def from_texts(texts: Sequence[str]) -> list[Caption]:
    """Number captions from a command line, leaving out those of nothing that can be seen, as lines of a file.

    Raises:
        CaptionError: none is left, or one is not UTF-8 or has no words.
    """
    texts = [_as_typed(text) for text in texts]
    captions = [Caption(text.strip(), line) for line, text in enumerate(texts, start=1) if normalised(text).strip()]
    if not captions:
        raise CaptionError("no captions were given", expected="--caption TEXT with a text")
    for caption in captions:
        if not split_words(caption.text):
            raise CaptionError(
                f"--caption {caption.text[:60]!r} has no words",
                expected='a description, as in --caption "a red bird"',
                next_step='words, e.g. --caption "a red bird"',
            )
    return captions


def _as_typed(text: str) -> str:
    """What was typed, where it is UTF-8 in a process whose locale is not; else Python holds its bytes as surrogates."""
    if text.isprintable():
        return text
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeError:
        raise CaptionError(
            f"--caption {text[:60]!r} is not text",
            found="bytes that are not UTF-8",
            next_step="type it anew, in a terminal that writes UTF-8",
        ) from None


def _is_stream(source: str) -> bool:
    """Whether a path is a pipe or a device, which can be read once only."""
    try:
        return not is_url(source) and stat.S_IFMT(Path(source).stat().st_mode) not in (stat.S_IFREG, stat.S_IFDIR)
    except OSError:
        return False


def _copy(name: str, stream: IO[bytes], copy: IO[bytes]) -> None:
    size = 0
    while data := stream.read(CHUNK):
        size += len(data)
        _check_size(name, size)
        copy.write(data)


def _check_size(name: str, size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise CaptionError(
            f"{name} is too large", expected=f"at most {MAX_FILE_BYTES // 2**20} MiB", next_step="part the file"
        )
