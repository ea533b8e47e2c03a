"""What a captions file is: by its name, by how it begins, and by the marks of a list in front of its lines."""

import csv
import json
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import NoReturn

from attngan_deploy.errors import CaptionError
from attngan_deploy.media.caption import CAPTION_COLUMNS, DEFAULT_COLUMN, KINDS, PICTURE_COLUMNS, saved_first
from attngan_deploy.media.tokenizer import split_words

HEAD_BYTES = 65536
DELIMITERS = (",", ";", "\t", "|")
# Of columns, by which a line is seen to be their names.
COLUMNS = {
    *(DEFAULT_COLUMN, *CAPTION_COLUMNS, "picture", *PICTURE_COLUMNS, "url", "image_id", "id"),
    *("class", "label", "labels", "split"),
}
FACT = re.compile(r"[\d.,:/-]+|https?://\S+|true|false", re.IGNORECASE)  # a cell that no caption is
LONGEST_NAME = 100  # letters of a column's, which may be a question
TABLE = "put the columns' names on top, such as picture and caption, and call it .csv or .tsv"
PICTURE = r"(jpe?g|png|webp|bmp|gif|tiff?)"
ABOVE_ROWS = re.compile(r"\s*.*\n?([ \t\r|:]*-[ \t\r|:-]*\n)?")  # of a table of Markdown, whose rule some leave out
ROW = re.compile(rf"\S+\.{PICTURE}(#\d+)?\s*([\s|;,:])", re.IGNORECASE)  # of a table
PICTURE_FILE = re.compile(rf"(\S+|[^/\\\n]*[/\\].*)\.{PICTURE}", re.IGNORECASE)  # its path or address alone
JSON_LIST, JSON_OBJECT = re.compile(r'\[\s*(["{\[]|$)'), re.compile(r'\{\s*("|$)')
CODE_LIST = re.compile(r"\[\s*'|[\w.\s]+=\s*\[\s*(['\"]|$)")  # of Python and others
PYTHON_LINES = r"""python -c "import ast, sys; print(*ast.literal_eval(sys.stdin.read()), sep='\n')" """
# What people and chat programs put in front of each line: a number or letter, or a sign that is no word.
MARKS = (
    *(
        rf"\*{{0,2}}\d+\.\*{{0,2}}(\s+|(?!{PICTURE}\b)(?=[^\W\d_]))",
        r"\*{0,2}\d+\)\*{0,2}(\s+|(?=[^\W\d_]))",
        r"\d+\t\s*",
        r"\d+[,;|]\s*(?=[^\W\d_])",
    ),
    *(r"\d+:\s+", r"\d+\s+[-\u2013\u2014]\s+", r"\(\d+\)\s+", r"\[\d+\]\s+", r"#\d+[.:)]?\s+", r"[A-Za-z]\)\s+"),
    r"(?i:\*{0,2}(caption|prompt|description|image|picture)\s*#?\d+\s*[:.)\-\u2013\u2014]\s*\*{0,2}\s+)",
    r"(?i:([-*]\s+)?\*{0,2}(caption|prompt|description)\s*:\*{0,2}\s+)",
    r"[-*+]\s+\[[ xX]\]\s+",
    r"[-*+>\u2022\u2023\u25aa\u25cf\u25e6\u00b7\u2013\u2014]\s+",
)
# The times of subtitles, and lines that make texts of them: of SubRip and WebVTT a line for each time, of SSA a line.
TIMES = re.compile(r"^[^\S\n]*[\d:.,]+ +--> +[\d:.,]+", re.MULTILINE)
SPOKEN = (
    r"""awk '{sub(/\r$/, ""); gsub(/<[^>]*>/, "")} !NF {if (t) print t; t = s = ""; next} """
    r"""s {t = t (t ? " " : "") $0} /-->/ {s = 1} END {if (t) print t}'"""
)
DIALOGUE = r"sed -n -e 's/{[^}]*}//g' -e 's/^Dialogue:\([^,]*,\)\{9\}//p'"
# What WhatsApp's exports have in front of each line, in Python and in sed: a date, a time, and "-", or brackets around.
STAMP = (
    r"[^0-9A-Za-z]{0,9}[0-9]{1,4}[./-][0-9]{1,2}[./-][0-9]{2,4},? [^0-9]{0,8}[0-9]{1,2}[:.][0-9]{2}[^]-]{0,16}"
    r"(\]| -) "
)
SAID = re.compile(f"{STAMP}[^:]+: ")
# The messages alone; what the program itself says has no name, or a mark that is not seen (U+200E), or is of pictures.
MESSAGES = (
    rf"""sed -E -e 's~^{STAMP}[^:]+: ~~' -e '\~^{STAMP}~d' -e "/^$(printf '\342\200\216')/d" """
    r"""-e '/end-to-end encrypted|^<[^>]*>.?$|^(image|video|audio|sticker|GIF|document) omitted/d' """
    rf"""-e '/^[^ ]+\.{PICTURE} \(.*\)/d' -e 's/ [^A-Za-z0-9 ]{{0,3}}<[^>]*edited>//'"""
)
# Of a line: a number, a picture's name, a heading or a rule of Markdown, or a fence of code; an expression of grep too.
NO_CAPTION = r"[0-9]+[.):]?$|[^ ]+\.(jpe?g|png|webp)$|#{1,6} .*|```.*|-{3,}$|\*{3,}$|_{3,}$"
# What may stand around them: a byte order mark, and the end that lines of Windows have.
NO_CAPTION_OUT = f"grep -vE '^[^!-~]*({NO_CAPTION.replace('$', '[[:space:]]*$')})'"
# What chat programs say in front of captions and behind them.
GREETING = re.compile(
    r"\W*((sure|certainly|of course|absolutely)[!,.].*|(sure|okay|ok|great|here|below)\b.*:[^\w:]*)", re.IGNORECASE
)
FAREWELL = re.compile(
    r"(let me know|feel free|i hope|hope th(is|ese)|would you like|do you want|want me to)\b.*", re.IGNORECASE
)
TOP = 3  # lines of a text in which it greets
MOST_AROUND = 8  # lines of a text around a list, which are not taken for captions that have no mark
MARKS_OUT = r"sed -E 's/^[[:space:]]*([-*+]|[0-9]+[.)])[[:space:]]+(\[[ xX]\][[:space:]]+)?//'"  # the usual ones
JUDGED = 1000  # lines by which a list is told from captions of which some begin so


def kind_of(name: str, column: str | None = None) -> str:
    """What a captions file is by its name; a CaptionError for a column of a text."""
    kind = KINDS.get(Path(name).suffix.lower(), "text")
    if kind == "text" and column is not None:
        raise CaptionError(
            f"{name} has no columns",
            found=f"--column {column}",
            expected="a .csv or .jsonl file, or a first line with that name",
            next_step="leave out --column",
        )
    return kind


def kind_of_text(head: bytes, name: str, has_name: bool, column: str | None = None) -> str:
    """What a file that is a text by its name is by its first bytes.

    Args:
        column: the one that was asked for, by which a line is seen to be column names.
        has_name: that somebody chose, so that it is to be changed where it is wrong; a stream has none.

    Raises:
        CaptionError: it is no text, and its name is to be changed, or it is of no kind that is read.
    """
    text = head.decode("utf-8", "replace").removeprefix("\ufeff")
    first = next((line.strip() for line in re.split(r"[\r\n]", text) if line.strip()), "")
    cells = [cell.strip(" \"'*").casefold() for cell in re.split(r"[,;\t|]", first)]
    is_flickr = len(cells) > 2 and cells[-1] == "comment" and "image" in cells[0]  # Flickr30k's results.csv
    wanted = (column or DEFAULT_COLUMN).casefold()
    is_named = wanted in cells and (len(cells) > 1 or text.strip().casefold() != wanted)
    if column is None and (TIMES.search(text) or first == "[Script Info]"):
        line = made_anew(name, "one caption a line", DIALOGUE if first == "[Script Info]" else SPOKEN)
        _refuse(f"{name} has the times of subtitles", first, line)
    lines = enumerate(re.split(r"\r?\n", text), 1)
    said = [f"line {number} {line[:60]!r}" for number, line in lines if SAID.match(line)]
    if column is None and said:
        raise CaptionError(
            f"{name} is a chat that WhatsApp exported",
            found=", ".join(said[:2]) + f" and {len(said) - 2} more" * (len(said) > 2),
            expected="one caption a line",
            next_step=made_anew(name, "keep what was said alone, one caption a line", MESSAGES),
        )
    if head.startswith(b"PAR1"):
        kind, what = "parquet", "begins as Parquet"
    elif CODE_LIST.match(first):
        if not first.startswith("["):
            _refuse(f"{name} begins as a program", first, "leave only the captions, one a line")
        line = made_anew(name, "one caption a line", PYTHON_LINES)
        _refuse(f"{name} begins as a list of Python", first, line)
    elif JSON_LIST.match(first):
        kind, what = "json", "begins as a list of JSON"
    elif JSON_OBJECT.match(first):
        kind, what = _kind_of_object(first)
    elif row := ROW.match(first):
        cut = f"cut {'' if row[3] == chr(9) else f'-d{quote(row[3])} '}-f2- "
        what = f"{name} looks like a table of pictures and captions"
        _refuse(what, first, f"{TABLE}; or {made_anew(name, 'keep the captions alone', cut)}")
    elif len(cells) > 2 and first[0] == first[-1] == "|" and DEFAULT_COLUMN in cells:
        headers = above[0].count("\n") if (above := ABOVE_ROWS.match(text)) else 0
        rows = f"awk -F'|' 'NR > {headers} {{print ${cells.index(DEFAULT_COLUMN) + 1}}}' "
        _refuse(f"{name} begins as a table of Markdown", first, made_anew(name, "one caption a line", rows))
    elif is_flickr or is_named or _is_table(text if len(head) < HEAD_BYTES else text.rpartition("\n")[0]):
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
    is_line = any(key.casefold() == DEFAULT_COLUMN and isinstance(value[key], str) for key in value)
    return ("jsonl", "begins as JSON lines") if is_line else ("json", "begins as JSON")


def _is_table(text: str) -> bool:
    """Whether a text is evidently a table: lines of as many cells, under short ones that name what is in them.

    Captions have commas too, so that cells alone do not tell: a usual name of a column does, or a column of numbers,
    pictures or addresses, or cells without a space between them of which some are captions.
    """
    lines = [line for line in re.split(r"[\r\n]+", text) if line.strip(" ,;\t|")]
    if lines and re.fullmatch(r"sep=[,;\t|]", lines[0], re.IGNORECASE):  # of Excel
        return True
    for delimiter in DELIMITERS:
        try:
            header, *rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)]
        except (csv.Error, ValueError):
            continue
        names = [cell.casefold() for cell in header if cell]
        if len(header) < 2 or not all(name[0].isalpha() and len(split_words(name)) < 3 for name in names):
            continue
        known = [name in COLUMNS for name in names]
        if all(known) and (rows or len(names) > 2):
            return True
        if not rows or any(len(row) != len(header) for row in rows):
            continue
        if delimiter == "\t" or any(known) or any(all(map(_is_fact, column)) for column in zip(*rows, strict=True)):
            return True
        is_prose = any(f"{delimiter} " in line for line in lines) or any(" " in name for name in names)
        if len(rows) > 1 and not is_prose and all(len(split_words(max(row, key=len))) > 3 for row in rows):
            return True
    return False


def _is_fact(cell: str) -> bool:
    return bool(FACT.fullmatch(cell) or PICTURE_FILE.fullmatch(cell))


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
    if len(cells) > 1 and sum(map(bool, cells)) == 1 and not any(pictures):
        raise CaptionError(
            f"the first line of {name} is a title, and no line of column names",
            found=", ".join(cells)[:60],
            next_step=f"take it out: {untitled(name)}",
        )
    names = [_name_for(cell, place) for place, cell in enumerate(cells, 1)]
    names[words.index(most)] = DEFAULT_COLUMN
    (first, path), on_top = saved_first(name, ".csv"), delimiter.join(names).replace("\t", r"\t")
    files = f"{quote(str(path))} > {quote(str(path.with_name(f'{path.stem}-named{path.suffix}')))}"
    longest = cells[words.index(most)]
    is_name = column is None and not (has_number or any(pictures)) and len(longest) <= LONGEST_NAME
    choose = f"if that names a column, add --column {quote(longest)} or call it {DEFAULT_COLUMN}; if not, " * is_name
    choose += f"{first}; then " if first else ""
    line = f"{choose}put the columns' names on top: awk 'NR == 1 {{print \"{on_top}\"}} 1' {files}"
    raise CaptionError(
        f"the first line of {name} " + ("is no line of column names" if any(pictures) else "looks like a caption"),
        found=", ".join(cells)[:60],
        expected="" if any(pictures) else f"column names, e.g. {DEFAULT_COLUMN}",
        next_step=line if len(cells) > 1 else TABLE,
    )


def untitled(name: str) -> str:
    """The line that makes a table without the first line of another that says something."""
    first, path = saved_first(name, ".csv")
    files = f"{quote(str(path))} > {quote(str(path.with_name(f'{path.stem}-untitled{path.suffix}')))}"
    return f"{first and f'{first}; then '}awk 's; /[^[:space:],;|]/ {{s = 1}}' {files}"


def _name_for(cell: str, place: int) -> str:
    """What the column of a cell may be called."""
    return "picture" if ROW.match(f"{cell}\t") else "id" if cell.isdecimal() and place == 1 else f"column{place}"


def called(name: str, suffix: str) -> str:
    """How a file gets the name that it should have: a line to type, or what is done with a stream."""
    first, path = saved_first(name, suffix.split()[0])
    new = path.with_suffix(suffix.split()[0])
    return f"{first}, and name that" if first else f"call it {suffix}: mv {quote(name)} {quote(str(new))}"


def made_anew(name: str, what: str, command: str, suffix: str = ".txt") -> str:
    """The line that makes another file of a file: what it is for, and a command that reads standard input."""
    first, path = saved_first(name, suffix)
    new = path.with_name(f"{path.stem}-lines.txt")
    return f"{first and f'{first}; then '}{what}: {command.strip()} < {quote(str(path))} > {quote(str(new))}"


def _refuse(what: str, first: str, next_step: str) -> NoReturn:
    raise CaptionError(what, found=repr(first[:60]), expected="one caption a line", next_step=next_step)


class ListMarks:
    """Whether each line of a text begins with the same kind of mark, as it is read from its first line on."""

    def __init__(self) -> None:
        self._pattern = ""  # of the marks
        self._lines = self._marked = self._others = self._pictures = 0
        self._no_caption = ""  # a line that is a number alone, or a heading of Markdown
        self._around: dict[int, str] = {}  # lines without a mark, by their numbers
        self._top: list[tuple[int, str]] = []  # the first lines and their numbers
        self._last = (0, "")
        self._parts = 0  # runs of lines with a mark
        self._is_inside = False

    @property
    def is_settled(self) -> bool:
        """Whether more lines can't change the answer."""
        return self._lines >= JUDGED and self._marked < self._lines

    @property
    def shared(self) -> str:
        """The pattern of the marks that all lines so far have, or ""."""
        return self._pattern if self._marked == self._lines else ""

    def see(self, line: str, number: int = 0) -> None:
        """Take the next line that is not blank, without white space around it, and its number in the file."""
        self._last = number, line
        if len(self._top) < TOP:
            self._top.append(self._last)
        self._lines += 1
        self._pictures += PICTURE_FILE.fullmatch(line) is not None
        if not self._pattern:
            self._pattern = next((mark for mark in MARKS if re.match(mark, line)), "")
        is_inside = bool(self._pattern and re.match(self._pattern, line))
        self._parts += is_inside and not self._is_inside
        self._is_inside = is_inside
        if is_inside:
            self._marked += 1
        else:
            if len(self._around) <= MOST_AROUND:
                self._around[number] = line
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
            CaptionError: lines without one are a heading, what a chat program says round a list, or items whose marks
                were forgotten.
        """
        if self.shared:
            return self.shared
        if self._no_caption and self._others < self._lines:
            raise CaptionError(
                f"{name} has names, rules, numbers or headings on lines of their own",
                found=repr(self._no_caption[:60]),
                expected="a caption on each line",
                next_step=made_anew(name, "leave them out", NO_CAPTION_OUT),
            )
        is_whole = self._lines < JUDGED and len(self._around) <= MOST_AROUND
        is_around = is_whole and self._parts == 1 and self._marked > 2
        if (self._marked > 1 and 2 * self._marked > self._lines) or is_around:
            if any(re.match(mark, line) for line in self._around.values() for mark in MARKS):
                raise CaptionError(
                    f"{name} is a list with marks of several kinds",
                    found=_shown(self._around.values()),
                    expected="the same kind of number or sign in front of each caption, or none",
                    next_step=made_anew(name, "take the marks out", MARKS_OUT),
                )
            out = "take such lines out, as what they say would be drawn too"
            raise CaptionError(
                f"{name} is a list with lines that are none of its items",
                found=_shown(self._around.values()),
                expected="a number or sign in front of each caption, or of none",
                next_step=_without(name, out, self._around) if is_whole else out,
            )
        greetings = [place for place, (_, line) in enumerate(self._top, 1) if GREETING.fullmatch(line)]
        ends = self._top[: max(greetings, default=0)]
        ends += [self._last] * bool(self._lines < JUDGED and FAREWELL.fullmatch(self._last[1]))
        if ends and self._lines > len(ends):
            raise CaptionError(
                f"{name} has what a chat program says around captions",
                found=_shown(line for _, line in ends),
                expected="a caption on each line",
                next_step=_without(name, "take such lines out", [number for number, _ in ends]),
            )
        return ""


def _shown(lines: Iterable[str]) -> str:
    """The first of some lines."""
    return ", ".join(repr(line[:60]) for line in islice(lines, 3))


def _without(name: str, why: str, numbers: Iterable[int]) -> str:
    """The line that makes a file without some lines of another."""
    return made_anew(name, why, f"sed '{';'.join(f'{number}d' for number in numbers)}'")


def without_marks(lines: Iterable[str]) -> list[str]:
    """Lines without the marks of a list, where each that is not blank has one."""
    texts, marks = [line.strip() for line in lines], ListMarks()
    for text in filter(None, texts):
        marks.see(text)
    return [re.sub(f"^(?:{marks.shared})", "", text) for text in texts] if marks.shared else texts


def has_other_lines(lines: Iterable[str]) -> bool:
    """Whether some lines are what stands around a list, such as what a chat program says, rather than captions."""
    marks = ListMarks()
    for text in filter(None, (line.strip() for line in lines)):
        marks.see(text)
    try:
        marks.of_all("")
    except CaptionError:
        return True
    return False
