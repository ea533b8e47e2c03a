"""A caption, and what is said of files and tables that should hold some and do not."""

import errno
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

from attngan_deploy.errors import CaptionError
from attngan_deploy.system.filesystems import explained, is_url

DEFAULT_COLUMN = "caption"
# What other programs call the columns of captions, and of pictures.
CAPTION_COLUMNS = ("captions", "text", "title", "description", "sentence", "comment", "raw", "prompt", "prompts")
PICTURE_COLUMNS = (
    *("image", "image_name", "file", "file_name", "filename", "filepath", "file_path", "image_path", "path", "img"),
    *("filepaths", "file_paths", "filenames", "file_names", "image_paths"),
)
OTHER_COLUMN = "text"  # what `datasets` of Hugging Face calls it
# The captions of a folder of pictures, as `datasets` has them and as `t2i generate` does beside its shards.
FOLDER_FILES = ("metadata.jsonl", "metadata.csv", "metadata.parquet", "manifest.jsonl")
# Of a folder of `t2i data build`: what has captions, and what would be taken for some.
TRAINING_SHARD, LISTS_OF_DATA = "train.tar", ("classes.txt", "vocabulary.txt", "report.json")
SHARD = re.compile(r"pictures-\d{5,}\.jsonl")  # what a run in parts writes of each
HELP = "t2i generate --help"
KINDS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
SUFFIXES = (".txt", *KINDS)
# What spreadsheets, pandas and databases write where there is nothing, in lower case; Excel's errors too.
NO_VALUES = frozenset(
    (
        *("n/a", "#n/a", "#n/a n/a", "na", "<na>", "null", "none", "nan", "-nan", "nil", r"\n"),
        *("#null!", "#ref!", "#value!", "#name?", "#num!", "#div/0!"),
    )
)


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption and where it stood."""

    text: str  # as written, without the white space around it
    line: int  # line of the input on which it starts, from 1; larger behind records with lists of captions
    record: int = field(default=0, compare=False)  # line of its record, where lists made `line` another; else 0

    @property
    def place(self) -> int:
        """The line on which to look for it."""
        return self.record or self.line


def no_captions(name: str, why: str = "has no captions") -> CaptionError:
    """What is said of a file without any."""
    return CaptionError(f"{name} {why}", expected="one caption a line", next_step=HELP)


def no_file(name: str) -> CaptionError:
    """What is said of a file that is not there; where the name reads like a caption, how one is given."""
    typed = Path(name).name if Path(name).is_absolute() else name
    if (suffix := Path(typed).suffix) and " " not in suffix:
        return CaptionError(f"no captions file at {name}", next_step=HELP)
    shown = typed if len(typed) <= 60 else f"{typed[:60]}..."
    return CaptionError(
        f"no captions file at {shown}",
        expected="a file; a caption itself goes behind --caption",
        next_step=f't2i generate --caption "{shown}"',
    )


def saved_as_utf8(name: str) -> str:
    """What to do with a text in another encoding: the line that writes it anew, where its encoding is seen."""
    path = Path(name)
    try:
        with path.open("rb") as stream:
            start = stream.read(4)
    except OSError:
        start = b""
    encoding = wide_encoding(start)
    if not path.is_file() or (start[:2] == b"\0\0" and not encoding):
        return "save it as UTF-8"
    new = path.with_name(f"{path.stem}-utf8{path.suffix}")
    line = f"iconv -f {encoding or 'CP1252'} -t UTF-8 {quote(name)} > {quote(str(new))}"
    return f"save it as UTF-8: {line}" + ("" if encoding else ", if it is of Windows in Western Europe")


def wide_encoding(start: bytes) -> str:
    """UTF-16 or UTF-32 as iconv calls them, by the first four bytes of a text; "" where it is neither."""
    marked = {BOM_UTF32_LE: "UTF-32", BOM_UTF32_BE: "UTF-32", BOM_UTF16_LE: "UTF-16", BOM_UTF16_BE: "UTF-16"}
    if mark := next((mark for mark in marked if start.startswith(mark)), b""):
        return marked[mark]
    zeros = "".join("0" if byte == 0 else "x" for byte in start)
    return {"x000": "UTF-32LE", "000x": "UTF-32BE"}.get(zeros, {"x0": "UTF-16LE", "0x": "UTF-16BE"}.get(zeros[:2], ""))


def split_lines(text: str) -> list[str]:
    r"""Lines as every reader here takes them: \n, \r\n and \r end one, no other sign of Unicode does."""
    return text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")


def saved_first(name: str, suffix: str) -> tuple[str, Path]:
    """What a next step begins with where `name` is no file of this machine, such as a stream; and the file it names."""
    if Path(name).is_file():
        return "", Path(name)
    saved = Path(f"captions{suffix}")
    how = f"download it as {saved}" if is_url(name) else f"save it to a file, by cat > {saved} in the place of t2i"
    return how, saved


@contextmanager
def opened(name: str) -> Iterator[None]:
    """Say in one line why a captions file can't be opened."""
    with explained(name, CaptionError):
        try:
            yield
        except FileNotFoundError as error:
            raise no_file(name) from error
        except IsADirectoryError as error:
            raise CaptionError(
                f"{name} is a folder", expected="a .txt, .csv or .jsonl file", next_step=_file_in(Path(name))
            ) from error
        except PermissionError as error:
            raise CaptionError(
                f"{name} can't be opened: permission denied",
                next_step="let this user read it (chmod u+r), or give a copy",
            ) from error
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            raise no_file(name) from error


def file_of(source: str) -> str:
    """The captions file of a folder of pictures that has one; else the source itself."""
    files = (Path(source, name) for name in FOLDER_FILES if not is_url(source))
    with opened(source):
        return next((str(file) for file in files if file.is_file()), source)


def _file_in(folder: Path) -> str:
    """What to type instead of a folder: a captions file in it, where there is one, or the line that makes one."""
    if (shard := folder / TRAINING_SHARD).is_file():
        return (
            f"write its captions to a file: tar -xOf {quote(str(shard))} --wildcards '*.json' | "
            rf"sed 's/}}{{/}}\n{{/g' > captions.jsonl && t2i generate captions.jsonl --column captions -o out/"
        )
    files = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES
        and path.name not in LISTS_OF_DATA
        and not SHARD.fullmatch(path.name)
        and path.is_file()
    )
    return f"name a file in it, such as {files[0]}" if files else HELP


def choose_column(where: str, columns: list[str], column: str | None) -> str:
    """The column to read: the one asked for, or "caption" or else "text", in whatever case, or the only one.

    Raises:
        CaptionError: none, or it stands twice.
    """
    if column is None and DEFAULT_COLUMN not in columns and len(columns) == 1:
        return columns[0]
    wanted = DEFAULT_COLUMN if column is None else column
    if wanted not in columns and len(alike := [name for name in columns if name.casefold() == wanted.casefold()]) == 1:
        return alike[0]
    if column is None and wanted not in columns and not alike and OTHER_COLUMN in map(str.casefold, columns):
        return choose_column(where, columns, OTHER_COLUMN)
    if wanted not in columns:
        names = ", ".join(columns[:10]) or "no columns"
        likely = next(
            (f", such as --column {quote(name)}" for name in columns if name.casefold() in CAPTION_COLUMNS), ""
        )
        choose = f"choose one with --column{likely}" if columns else 'give each a "caption"'
        raise CaptionError(f"{where} has no column '{wanted}'", found=names, next_step=choose)
    if columns.count(wanted) > 1:
        raise CaptionError(f"{where} has the column '{wanted}' more than once", next_step="rename one of them")
    return wanted


def is_no_value(cell: str) -> bool:
    """Whether a cell is empty, or says that it is."""
    return not (text := cell.strip()) or text.casefold() in NO_VALUES


def checked_caption(name: str, text: str, line: int) -> Caption:
    """A caption of a table; a CaptionError where it is empty."""
    if is_no_value(text):
        raise CaptionError(
            f"the caption on line {line} of {name} is empty",
            found=repr(text) if text.strip() else "",
            next_step="leave such rows out",
        )
    return Caption(text.strip(), line)
