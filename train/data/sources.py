"""Readers of what people have: CUB-200-2011, a folder of pictures with captions beside them, or a CSV.

A reader opens captions and lists, never pictures. Each picture it can't use becomes a `Skip` with the reason.
"""

import csv
import io
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from attngan_deploy.errors import DataError
from attngan_deploy.media.tokenizer import split_words
from attngan_deploy.train.data.pictures import PICTURE_SUFFIXES, Box

KINDS = ("cub", "folder", "csv")
CUB_FILES = ("images.txt", "image_class_labels.txt", "bounding_boxes.txt", "classes.txt")
MAX_CAPTIONS_BYTES = 2**20  # of one picture
MAX_LIST_BYTES = 2**30  # of a CSV or of one of CUB's lists
HELP = "t2i data build --help"


@dataclass(frozen=True)
class Entry:
    """One picture to be built."""

    name: str  # its name in the shard, e.g. "002.Laysan_Albatross/Laysan_Albatross_0002_1027".
    picture: Path  # the file
    captions: tuple[str, ...]  # at least one, each with at least one word
    class_name: str | None = None  # None makes the picture a class of its own
    box: Box | None = None  # bounding box, where the source has one
    split: str | None = None  # "train" or "test", where the source says so


@dataclass(frozen=True)
class Skip:
    """A picture, or a line of a list, that is left out: its name, a reason that can be counted, and details."""

    name: str
    reason: str
    detail: str = ""


@dataclass
class Source:
    """What a reader found."""

    kind: str  # "cub", "folder" or "csv"
    entries: list[Entry] = field(default_factory=list)  # usable pictures, in the order of the source
    skipped: list[Skip] = field(default_factory=list)  # what was left out
    classes: list[str] = field(default_factory=list)  # class names where the source has an order of its own; else empty
    notes: Counter[str] = field(default_factory=Counter)  # what was done to captions and pictures, counted
    _names: set[str] = field(default_factory=set)

    def add(self, entry: Entry) -> None:
        """Take an entry with its captions cleaned, unless its name is taken or unwritable, or no caption is left."""
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in entry.name + (entry.class_name or "")):
            self.skip(entry.name, "name that is not UTF-8 or has control characters")
        elif entry.name in self._names:
            self.skip(entry.name, "duplicate name", entry.picture.name)
        elif not (captions := self._clean(entry.captions)):
            self.skip(entry.name, "all captions empty")
        else:
            self._names.add(entry.name)
            self.entries.append(replace(entry, captions=captions))

    def skip(self, name: str, reason: str, detail: str = "") -> None:
        """Leave a picture out."""
        self.skipped.append(Skip(name, reason, detail))

    def _clean(self, lines: Iterable[str]) -> tuple[str, ...]:
        """Captions with their white space made single; one without a word is dropped, and noted unless it is blank."""
        captions = [" ".join(line.split()) for line in lines]
        kept = tuple(caption for caption in captions if split_words(caption))
        self.notes["caption without a word dropped"] += sum(map(bool, captions)) - len(kept)
        return kept


def detect_kind(path: Path) -> str:
    """Tell "cub", "folder" or "csv" from what is there.

    Raises:
        DataError: nothing there, or a file that is not a CSV.
    """
    if path.is_dir():
        return "cub" if all((path / name).is_file() for name in CUB_FILES) else "folder"
    if path.is_file() and path.suffix.lower() == ".csv":
        return "csv"
    found = "another kind of file" if path.exists() else "nothing"
    raise DataError(
        f"no pictures at {path}", found=found, expected="a CUB-200-2011 folder, a folder or a .csv", next_step=HELP
    )


def read_cub(root: Path, captions: Path | None) -> Source:
    """Read CUB-200-2011 with the caption files published with AttnGAN (`text/<class>/<name>.txt`, a caption a line).

    Pictures come in the order of `images.txt`; class numbers start at 0, in the order of `classes.txt`.

    Args:
        root: folder of `images.txt`, `image_class_labels.txt`, `bounding_boxes.txt`, `classes.txt` and `images/`.
        captions: folder of caption files, or the one above its `text/`; None looks inside `root`.

    Raises:
        DataError: a list is missing or can't be read, or there are no caption files.
    """
    missing = [name for name in CUB_FILES if not (root / name).is_file()]
    if missing:
        raise DataError(f"{root} is not a CUB-200-2011 folder", found=f"no {', '.join(missing)}", next_step=HELP)
    text = (captions or root) / "text"
    text = text if text.is_dir() else captions or text
    if not text.is_dir():
        raise DataError(
            f"no caption files at {text}",
            expected="the text/ folder published with AttnGAN",
            next_step="t2i data build CUB_200_2011 --captions birds -o shards",
        )
    paths, labels, boxes, class_names = (_numbered(root / name) for name in CUB_FILES)
    source = Source("cub", classes=list(class_names.values()))
    for number, listed in paths.items():
        name, picture = _shard_name(listed), root / "images" / listed
        box = _box(boxes.get(number, ""))
        if listed.startswith("/") or ".." in Path(listed).parts:
            source.skip(name, "path outside the data folder")
        elif labels.get(number) not in class_names:
            source.skip(name, "no class")
        elif box is None:
            source.skip(name, "no bounding box")
        elif not _is_file(picture):
            source.skip(name, "missing picture")
        elif (lines := _caption_lines(source, name, text / Path(listed).with_suffix(".txt"))) is not None:
            source.add(Entry(name, picture, tuple(lines), class_names[labels[number]], box))
    return source


def read_folder(root: Path) -> Source:
    """Read pictures with a `name.txt` beside each, a caption a line; the class is the sub-folder, in sorted order.

    Pictures directly in `root` have no class. Hidden files and folders are not looked at.
    """
    source = Source("folder")
    for here, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        folder = Path(here).relative_to(root)
        pictures = [name for name in sorted(files) if name.lower().endswith(PICTURE_SUFFIXES) and name[0] != "."]
        described = {Path(name).stem for name in pictures}
        for file in pictures:
            name = _shard_name((folder / file).as_posix())
            lines = _caption_lines(source, name, root / folder / f"{Path(file).stem}.txt")
            if lines is not None:
                class_name = None if folder == Path() else folder.as_posix()
                source.add(Entry(name, root / folder / file, tuple(lines), class_name))
        for file in sorted(files):
            if file.endswith(".txt") and Path(file).stem not in described and file[0] != ".":
                source.skip((folder / file).as_posix(), "captions without a picture")
    return source


def read_csv(path: Path, root: Path | None) -> Source:
    """Read a CSV with columns picture and caption, and optionally class and split; a picture may have several rows.

    A picture's path is relative to the CSV, and the file must lie inside the CSV's folder or inside `root`.

    Raises:
        DataError: not UTF-8, not a CSV, or without its columns.
    """
    rows = _csv_rows(path)
    columns = next(rows)[1]
    places: dict[str, int] = {
        name: columns.index(name) for name in ("picture", "caption", "class", "split") if name in columns
    }
    if not {"picture", "caption"} <= places.keys() or any(columns.count(name) > 1 for name in places):
        raise DataError(
            f"{path} lacks its columns",
            found=", ".join(columns) or "an empty first line",
            expected="picture and caption, each once, and optionally class and split",
            next_step=HELP,
        )
    base = path.parent.resolve()
    allowed = [base, *([root.resolve()] if root else [])]
    grouped: dict[Path, list[dict[str, str]]] = {}
    source = Source("csv")
    for line, cells in rows:
        row = {name: cells[place].strip() if place < len(cells) else "" for name, place in places.items()}
        picture = _inside(base, row["picture"], allowed)
        if not row["picture"]:
            source.skip(f"line {line}", "no picture named")
        elif picture is None:
            source.skip(row["picture"], "path outside the data folder", f"line {line}; --root allows another folder")
        else:
            grouped.setdefault(picture, []).append(row)
    for picture, group in grouped.items():
        home = next(folder for folder in allowed if picture.is_relative_to(folder))
        name = _shard_name(picture.relative_to(home).as_posix())
        classes = {row.get("class", "") for row in group} - {""}
        splits = {row.get("split", "").lower() for row in group} - {""}
        if len(classes) > 1 or len(splits) > 1:
            source.skip(name, "rows disagree", ", ".join(sorted(classes if len(classes) > 1 else splits)))
        elif not splits <= {"train", "test"}:
            source.skip(name, "split neither train nor test", *splits)
        elif not _is_file(picture):
            source.skip(name, "missing picture")
        else:
            captions = tuple(row["caption"] for row in group)
            source.add(Entry(name, picture, captions, next(iter(classes), None), None, next(iter(splits), None)))
    return source


def _numbered(path: Path) -> dict[str, str]:
    """One of CUB's lists: number to what follows it on its line."""
    rows: dict[str, str] = {}
    for place, line in enumerate(read_text(path).splitlines(), 1):
        number, _, rest = line.strip().partition(" ")
        if number and (not rest or number in rows):
            problem = "a number twice" if rest else "a number with nothing behind it"
            raise DataError(f"{path}, line {place} can't be used", found=f"{problem}: {line[:80]!r}", next_step=HELP)
        if number:
            rows[number] = rest.strip()
    return rows


def _box(text: str) -> Box | None:
    try:
        left, top, width, height = (float(number) for number in text.split())
    except ValueError:
        return None
    return left, top, width, height


def read_text(path: Path, limit: int = MAX_LIST_BYTES) -> str:
    """A list in UTF-8, of at most `limit` bytes.

    Raises:
        DataError: too large, or no text.
    """
    if path.stat().st_size > limit:
        raise DataError(f"{path} is too large for a list", found=f"{path.stat().st_size} bytes", next_step=HELP)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8", found=f"byte {error.start} is no part of it", next_step=HELP) from error
    if "\0" in text:
        raise DataError(f"{path} is not text", found="a zero byte", next_step=HELP)
    return text


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each row that is not blank; the first are the column names in lower case."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        yield 1, [name.strip().lower() for name in next(reader, [])]
        yield from ((reader.line_num, cells) for cells in reader if any(cells))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num} is not CSV: {error}", next_step=HELP) from error


def _caption_lines(source: Source, name: str, path: Path) -> list[str] | None:
    """Lines of one picture's caption file; None, after a skip, where there is none to be used."""
    try:
        if not path.is_file():
            source.skip(name, "no captions")
        elif path.stat().st_size > MAX_CAPTIONS_BYTES:
            source.skip(name, "captions file too large", f"{path.stat().st_size} bytes")
        elif "\0" in (text := path.read_bytes().decode("utf-8-sig")):
            source.skip(name, "captions not text", "a zero byte")
        else:
            return text.splitlines()
    except UnicodeDecodeError as error:
        source.skip(name, "captions not UTF-8", f"byte {error.start}")
    except OSError as error:
        source.skip(name, "captions can't be read", error.strerror or str(error))
    return None


def _inside(base: Path, written: str, allowed: list[Path]) -> Path | None:
    """Where a written path leads, links followed; None if that is in none of the allowed folders."""
    try:
        found = (base / written).resolve()
    except (OSError, ValueError, RuntimeError):  # too long, a zero byte, a loop of links
        return None
    return found if any(found.is_relative_to(folder) for folder in allowed) else None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name longer than the file system takes
        return False


def _shard_name(written: str) -> str:
    """Path without its suffix; other dots of the file name become "_", as WebDataset cuts names at the first one."""
    folder, slash, file = written.rpartition("/")
    return folder + slash + file.rpartition(".")[0].replace(".", "_") if "." in file else written
