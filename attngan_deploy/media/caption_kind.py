"""What a captions file is: by its name and by how it begins."""

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import NoReturn

from attngan_deploy.errors import CaptionError
from attngan_deploy.media.caption import CAPTION_COLUMNS, DEFAULT_COLUMN, HELP, KINDS, PICTURE_COLUMNS, saved_first
from attngan_deploy.media.tokenizer import PADDING, split_words

HEAD_BYTES = 65536
DELIMITERS = (",", ";", "\t", "|")
# Of columns, by which a line is seen to be their names.
COLUMNS = {
    *(DEFAULT_COLUMN, *CAPTION_COLUMNS, "picture", *PICTURE_COLUMNS, "url", "image_id", "id"),
    *("class", "label", "labels", "split"),
}
FACT = re.compile(r"[\d.,:/-]+|https?://\S+|true|false", re.IGNORECASE)  # a cell that no caption is
PIVOTED = re.compile(r"(count|sum|average|max|min) of \S", re.IGNORECASE)  # a column of numbers in a pivot table
LONGEST_NAME = 100  # letters of a column's, which may be a question
TABLE = "put the columns' names on top, such as picture and caption, and call it .csv or .tsv"
PICTURE = r"(jpe?g|png|webp|bmp|gif|tiff?)"
RULE = re.compile(r"[-+|:\s]*-{3,}[-+|:\s]*")  # of a table of Markdown, or as database programs print one
PRINTED = r"awk -F'|' '!/^[-+|:[:space:]]*$/ && !/^(\([0-9]+ rows?\)|[0-9]+ rows? in set)/ && n++ {print $PLACE}'"
ROW = re.compile(rf"\S+\.({PICTURE[1:-1]}|txt)(#\d+)?\s*([\s|;,:])", re.IGNORECASE)  # of a table
PICTURE_FILE = re.compile(rf"(\S+|[^/\\\n]*[/\\].*)\.{PICTURE}", re.IGNORECASE)  # its path or address alone
JSON_LIST, JSON_OBJECT = re.compile(r'\[\s*(["{\[]|$)'), re.compile(r'\{\s*("|$)')
CODE_LIST = re.compile(r"\[\s*'|[\w.\s]+=\s*\[\s*(['\"]|$)")  # of Python and others
PYTHON_LINES = r"""python -c "import ast, sys; print(*ast.literal_eval(sys.stdin.read()), sep='\n')" """
# What other programs put around captions or into them, each with a line that takes it out.
JSON_OUT = (
    r"""python -c "import json, re, sys; text = sys.stdin.read(); """
    r"""print(json.dumps(json.JSONDecoder().raw_decode(text, re.search(r'[\[{]', text).start())[0]))" """
)
FENCED_JSON = re.compile(r"(^```\w*|:)[ \t]*(\r?\n)+[ \t]*[\[{][ \t]*([\"\[{]|\r?$)", re.MULTILINE)
LETTER_OPTIONS = "ar|aspect|v|niji|s|stylize|c|chaos|q|iw"  # of Midjourney, which have a number
PROMPT = re.compile(
    r"^Negative prompt:.*|^Steps: \d+, .*|<(lora|lyco|hypernet):[^<>]*>|\([^():]*[^\W\d_]:[012]?\.\d+\)"
    rf"| --({LETTER_OPTIONS}) \d[\d:.]*",
    re.MULTILINE,
)
PROMPT_OUT = (
    r"sed -E -e '/^(Negative prompt:|Steps: [0-9])/d' -e 's/,? *<(lora|lyco|hypernet):[^<>]*>//g' "
    rf"-e 's/\(([^():]*):[0-9.]+\)/\1/g' -e 's/ --({LETTER_OPTIONS}) [0-9][0-9:.]*//g'"
)
TAGS, TAGS_OUT = re.compile(r"\s*<([A-Za-z][\w-]*)[^<>]*>.*</\1\s*>", re.DOTALL), "sed 's/<[^>]*>//g'"
YAML_TEXT = re.compile(rf"^[ \t-]*({'|'.join((DEFAULT_COLUMN, *CAPTION_COLUMNS))}):[ \t]+\S", re.MULTILINE)
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
    if first == PADDING:
        _refuse(f"{name} is a vocabulary, and no captions", f"{first}, which is its first word", HELP)
    if column is None:
        _check_foreign(name, text)
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
    elif place := _place_in_printed(text, wanted):
        rows = PRINTED.replace("PLACE", str(place))
        what = f"{name} is a table of Markdown, or as a database program prints one"
        _refuse(what, first, made_anew(name, "one caption a line", rows))
    elif is_flickr or is_named or _is_table(text if len(head) < HEAD_BYTES else text.rpartition("\n")[0]):
        kind, what = "csv", "begins as a table"
    else:
        return "text"
    if has_name:
        suffix = {"csv": ".csv or .tsv"}.get(kind, f".{kind}")
        _refuse(f"{name} {what}", first, called(name, suffix))
    return kind


def _check_foreign(name: str, text: str) -> None:
    """Raise CaptionError where a text has what other programs put around captions or into them."""
    if found := FENCED_JSON.search(text):
        line = made_anew(name, "leave only the JSON", JSON_OUT, made="-only.json")
        _refuse(f"{name} has JSON inside of other text", found[0].strip(), line)
    if found := TAGS.match(text):
        _refuse(f"{name} has tags, as a web page", found[0].strip(), made_anew(name, "take them out", TAGS_OUT))
    if found := PROMPT.search(text):
        line = made_anew(name, "leave only what is to be seen", PROMPT_OUT)
        _refuse(f"{name} has what image programs take beside words", found[0].strip(), line)
    if name.lower().endswith((".yaml", ".yml")) and (found := YAML_TEXT.search(text)):
        texts = rf"sed -nE 's/^[[:space:]-]*{found[1]}:[[:space:]]+//p'"
        _refuse(f"{name} is YAML with several fields", found[0].strip(), made_anew(name, "one caption a line", texts))


def _place_in_printed(text: str, column: str) -> int:
    """Which cell between vertical lines is the column, from 1, where a text begins as a printed table; else 0."""
    top = [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()][:3]
    header = next((line for line in top if not RULE.fullmatch(line)), "")
    cells = [cell.strip(" \"'*").casefold() for cell in header.split("|")]
    is_ruled = any(RULE.fullmatch(line) for line in top) or (len(cells) > 2 and header[0] == header[-1] == "|")
    return cells.index(column) + 1 if is_ruled and column in cells else 0


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


def check_top(name: str, top: Sequence[str], column: str | None) -> None:
    """Raise CaptionError where the column names of a table stand below a title, a date or a remark.

    Args:
        top: its first lines.
        column: the one that was asked for, by which names are known.
    """
    rows = [[cell.strip(' \ufeff"').casefold() for cell in re.split(r"[,;\t|]", line)] for line in top]
    says = next((place for place, row in enumerate(rows) if any(row)), 0)
    wanted = (column or DEFAULT_COLUMN).casefold()
    below = next((place for place, row in enumerate(rows) if wanted in row), 0)
    has_names = len(list(filter(None, rows[says]))) > 1 and not COLUMNS.isdisjoint(rows[says]) if rows else True
    if below > says and not has_names and not top[says].lower().startswith("sep="):
        suffix = Path(name).suffix or ".csv"
        raise CaptionError(
            f"{name} has something above its column names, which are on line {below + 1}",
            found=top[says].strip()[:60],
            next_step=made_anew(name, "take it out", f"sed 1,{below}d", suffix, f"-untitled{suffix}"),
        )


def check_header(name: str, cells: Sequence[str], delimiter: str, column: str | None) -> None:
    """Raise CaptionError where the first line of a table is a row: its caption would be lost, or be a column's name.

    Args:
        column: the one that was asked for; a question may be the name of one, but stands beside no number.
    """
    pictures = [bool(ROW.match(f"{cell}\t")) for cell in cells]
    words = [0 if named else len(split_words(cell)) for cell, named in zip(cells, pictures, strict=True)]
    words = [0 if PIVOTED.match(cell) else count for cell, count in zip(cells, words, strict=True)]
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


def made_anew(name: str, what: str, command: str, suffix: str = ".txt", made: str = "-lines.txt") -> str:
    """The line that makes another file of a file: what it is for, and a command that reads standard input.

    Args:
        suffix: of the file that a stream is saved to first.
        made: what the other file's name ends in.
    """
    first, path = saved_first(name, suffix)
    new = path.with_name(f"{path.stem}{made}")
    return f"{first and f'{first}; then '}{what}: {command.strip()} < {quote(str(path))} > {quote(str(new))}"


def _refuse(what: str, first: str, next_step: str) -> NoReturn:
    raise CaptionError(what, found=repr(first[:60]), expected="one caption a line", next_step=next_step)
