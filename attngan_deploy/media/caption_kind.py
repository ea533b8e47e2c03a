"""What a captions file is: by its name, by how it begins, and by the marks of a list in front of its lines."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from shlex import quote
from typing import NoReturn

from attngan_deploy.errors import CaptionError
from attngan_deploy.media.caption import DEFAULT_COLUMN, KINDS
from attngan_deploy.media.tokenizer import split_words

HEAD_BYTES = 65536
TABLE = "put the columns' names on top, such as picture and caption, and call it .csv or .tsv"
PICTURE = r"(jpe?g|png|webp|bmp|gif|tiff?)"
ROW = re.compile(rf"\S+\.{PICTURE}(#\d+)?\s*([\s|;,])", re.IGNORECASE)  # of a table
PICTURE_FILE = re.compile(rf"(\S+|.*[/\\].*)\.{PICTURE}", re.IGNORECASE)  # its path or address alone
JSON_LIST, JSON_OBJECT = re.compile(r'\[\s*(["{\[]|$)'), re.compile(r'\{\s*("|$)')
CODE_LIST = re.compile(r"\[\s*'|[\w.\s]+=\s*\[\s*(['\"]|$)")  # of Python and others
PYTHON_LINES = r"""python -c "import ast, sys; print(*ast.literal_eval(sys.stdin.read()), sep='\n')" """
# What people and chat programs put in front of each line: a number or letter, or a sign that is no word.
MARKS = (
    *(
        rf"\*{{0,2}}\d+\.\*{{0,2}}(\s+|(?!{PICTURE}\b)(?=[^\W\d_]))",
        r"\*{0,2}\d+\)\*{0,2}(\s+|(?=[^\W\d_]))",
        r"\d+\t\s*",
    ),
    *(r"\d+:\s+", r"\d+\s+[-\u2013\u2014]\s+", r"\(\d+\)\s+", r"\[\d+\]\s+", r"#\d+[.:)]?\s+", r"[A-Za-z]\)\s+"),
    r"[-*+>\u2022\u2023\u25aa\u25cf\u25e6\u00b7\u2013\u2014]\s+",
)
NO_CAPTION = r"[0-9]+[.):]?$|#{1,6} .*"  # of a line; an expression of grep too
JUDGED = 1000  # lines by which a list is told from captions of which some begin so


def kind_of(name: str, column: str | None = None) -> str:
    """What a captions file is by its name; a CaptionError for a column of a text."""
    kind = KINDS.get(Path(name).suffix.lower(), "text")
    if kind == "text" and column is not None:
        raise CaptionError(
            f"{name} has no columns",
            found=f"--column {column}",
            expected="a .csv or .jsonl file",
            next_step="leave out --column",
        )
    return kind


def kind_of_text(head: bytes, name: str, has_name: bool) -> str:
    """What a file that is a text by its name is by its first bytes.

    Args:
        has_name: that somebody chose, so that it is to be changed where it is wrong; a stream has none.

    Raises:
        CaptionError: it is no text, and its name is to be changed, or it is of no kind that is read.
    """
    text = head.decode("utf-8", "replace").removeprefix("\ufeff")
    first = next((line.strip() for line in re.split(r"[\r\n]", text) if line.strip()), "")
    cells = [cell.strip(" \"'*").casefold() for cell in re.split(r"[,;\t|]", first)]
    is_flickr = len(cells) > 2 and cells[-1] == "comment" and "image" in cells[0]  # Flickr30k's results.csv
    if head.startswith(b"PAR1"):
        kind, what = "parquet", "begins as Parquet"
    elif CODE_LIST.match(first):
        if not first.startswith("["):
            _refuse(f"{name} begins as a program", first, "leave only the captions, one a line")
        lines = f"{PYTHON_LINES}{_lines_of(name, has_name)}"
        _refuse(f"{name} begins as a list of Python", first, f"one caption a line: {lines}")
    elif JSON_LIST.match(first):
        kind, what = "json", "begins as a list of JSON"
    elif JSON_OBJECT.match(first):
        kind, what = _kind_of_object(first)
    elif row := ROW.match(first):
        cut = f"cut {'' if row[3] == chr(9) else f'-d{quote(row[3])} '}-f2- {_lines_of(name, has_name)}"
        what = f"{name} looks like a table of pictures and captions"
        _refuse(what, first, f"{TABLE}; or keep the captions alone: {cut}")
    elif len(cells) > 2 and first[0] == first[-1] == "|" and DEFAULT_COLUMN in cells:
        rows = f"awk -F'|' 'NR > 2 {{print ${cells.index(DEFAULT_COLUMN) + 1}}}' "
        lines = f"{rows}{_lines_of(name, has_name)}"
        _refuse(f"{name} begins as a table of Markdown", first, f"one caption a line: {lines}")
    elif is_flickr or (DEFAULT_COLUMN in cells and (len(cells) > 1 or text.strip().casefold() != DEFAULT_COLUMN)):
        kind, what = "csv", "begins as a table"
    else:
        return "text"
    if has_name:
        suffix = {"csv": ".csv or .tsv"}.get(kind, f".{kind}")
        _refuse(f"{name} {what}", first, called(name, suffix))
    return kind


def _kind_of_object(first: str) -> tuple[str, str]:
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        return "json", "begins as JSON"
    is_line = any(key.casefold() == DEFAULT_COLUMN for key in value)
    return ("jsonl", "begins as JSON lines") if is_line else ("json", "begins as JSON")


def check_header(name: str, cells: Sequence[str], delimiter: str, column: str | None) -> None:
    """Raise CaptionError where the first line of a table is a row: its caption would be lost, or be a column's name.

    Args:
        column: the one that was asked for; a question may be the name of one, but stands beside no number.
    """
    pictures = [bool(ROW.match(f"{cell}\t")) for cell in cells]
    words = [0 if is_picture else len(split_words(cell)) for cell, is_picture in zip(cells, pictures, strict=True)]
    most = max(words, default=0)
    has_number = any(cell.isdecimal() for cell in cells)
    is_row = len(cells) > 1 and ((most > 2 and column is None) or (most > 1 and has_number))
    if not (any(pictures) or (is_row and DEFAULT_COLUMN not in map(str.casefold, cells))):
        return
    names = [_name_for(cell, place) for place, cell in enumerate(cells, 1)]
    names[words.index(most)] = DEFAULT_COLUMN
    path, on_top = Path(name), delimiter.join(names).replace("\t", r"\t")
    named = quote(str(path.with_name(f"{path.stem}-named{path.suffix}")))
    files = f"{quote(name)} > {named}" if path.is_file() else "FILE > named.csv"
    line = f"put the columns' names on top: awk 'NR == 1 {{print \"{on_top}\"}} 1' {files}"
    raise CaptionError(
        f"the first line of {name} " + ("is no line of column names" if any(pictures) else "looks like a caption"),
        found=", ".join(cells)[:60],
        expected="" if any(pictures) else f"column names, e.g. {DEFAULT_COLUMN}",
        next_step=line if len(cells) > 1 else TABLE,
    )


def _name_for(cell: str, place: int) -> str:
    """What the column of a cell may be called."""
    return "picture" if ROW.match(f"{cell}\t") else "id" if cell.isdecimal() and place == 1 else f"column{place}"


def called(name: str, suffix: str) -> str:
    """How a file gets the name that it should have: a line to type, where it is a file of this machine."""
    path = Path(name)
    line = f": mv {quote(name)} {quote(str(path.with_suffix(suffix.split()[0])))}" if path.is_file() else ""
    return f"call it {suffix}{line}"


def _lines_of(name: str, has_name: bool) -> str:
    """From a file to another one beside it."""
    path = Path(name)
    return (
        f"< {quote(name)} > {quote(str(path.with_name(f'{path.stem}-lines.txt')))}"
        if has_name
        else "< FILE > lines.txt"
    )


def _refuse(what: str, first: str, next_step: str) -> NoReturn:
    raise CaptionError(what, found=repr(first[:60]), expected="one caption a line", next_step=next_step)


class ListMarks:
    """Whether each line of a text begins with the same kind of mark, as it is read from its first line on."""

    def __init__(self) -> None:
        self._pattern, self._other = "", ""  # of the marks; the first line without one
        self._lines = self._marked = self._others = self._pictures = 0
        self._no_caption = ""  # a line that is a number alone, or a heading of Markdown

    @property
    def is_settled(self) -> bool:
        """Whether more lines can't change the answer."""
        return self._lines >= JUDGED and self._marked < self._lines

    @property
    def shared(self) -> str:
        """The pattern of the marks that all lines so far have, or ""."""
        return self._pattern if self._marked == self._lines else ""

    def see(self, line: str) -> None:
        """Take the next line that is not blank, without white space around it."""
        self._lines += 1
        self._pictures += PICTURE_FILE.fullmatch(line) is not None
        if not self._pattern:
            self._pattern = next((mark for mark in MARKS if re.match(mark, line)), "")
        if self._pattern and re.match(self._pattern, line):
            self._marked += 1
        else:
            self._other = self._other or line
        if re.fullmatch(NO_CAPTION, line):
            self._no_caption = self._no_caption or line
            self._others += 1

    def check_captions(self, name: str) -> None:
        """Raise CaptionError where all lines so far are names of pictures."""
        if 0 < self._lines == self._pictures:
            raise CaptionError(
                f"{name} is a list of pictures",
                expected="a caption on each line",
                next_step="name a file of what they show; to score pictures, name their folder",
            )

    def of_all(self, name: str) -> str:
        """The pattern of the marks that all lines have, or "".

        Raises:
            CaptionError: most of the lines have one, so that those without are a heading, or marks that were forgotten.
        """
        if self.shared:
            return self.shared
        if self._no_caption and self._others < self._lines:
            raise CaptionError(
                f"{name} has numbers or headings on lines of their own",
                found=repr(self._no_caption[:60]),
                expected="a caption on each line",
                next_step=f"leave them out: grep -vE '^ *({NO_CAPTION})' {_lines_of(name, Path(name).is_file())}",
            )
        if self._marked > 1 and 2 * self._marked > self._lines:
            raise CaptionError(
                f"{name} is a list with lines that are none of its items",
                found=repr(self._other[:60]),
                expected="a number or sign in front of each caption, or of none",
                next_step="take such lines out, as what they say would be drawn too",
            )
        return ""


def without_marks(lines: Iterable[str]) -> list[str]:
    """Lines without the marks of a list, where each that is not blank has one."""
    texts, marks = [line.strip() for line in lines], ListMarks()
    for text in filter(None, texts):
        marks.see(text)
    return [re.sub(f"^(?:{marks.shared})", "", text) for text in texts] if marks.shared else texts
