"""Readers of what people have: CUB-200-2011, or a folder of pictures with captions beside them; tables have their own.

A reader opens captions and lists, never pictures. Each picture it can't use becomes a `Skip` with the reason.
"""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote

from attngan_deploy.errors import DataError
from attngan_deploy.media.caption import is_no_value, saved_as_utf8, split_lines
from attngan_deploy.media.list_marks import has_other_lines, without_marks
from attngan_deploy.media.packed import ARCHIVES, archive_line
from attngan_deploy.media.shards import OTHER_SUFFIXES
from attngan_deploy.system.files import is_ignored, read_file
from attngan_deploy.train.data import metadata
from attngan_deploy.train.data.links import Links
from attngan_deploy.train.data.pictures import PICTURE_SUFFIXES, Box
from attngan_deploy.train.data.sides import TEST, TRAIN, side_of

KINDS = ("cub", "folder", "csv")
CUB_FILES = ("images.txt", "image_class_labels.txt", "bounding_boxes.txt", "classes.txt")
TEXTS = ("text", "text_c10")  # folders of caption files, as published with AttnGAN and before it
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
        """Take an entry, captions cleaned, names in NFC, unless its name is taken or bad, or no caption is left."""
        class_name = None if entry.class_name is None else composed(entry.class_name)
        entry = replace(entry, name=composed(entry.name), class_name=class_name)
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
        """Captions with single white space; one without a word, or N/A, is dropped, and noted unless it is blank."""
        captions = [" ".join(line.split()) for line in lines]
        kept = tuple(caption for caption in captions if any(map(str.isalpha, caption)) and not is_no_value(caption))
        self.notes["caption without a word dropped"] += sum(map(bool, captions)) - len(kept)
        return kept


def detect_kind(path: Path) -> str:
    """Tell "cub", "folder" or "csv" from what is there.

    Raises:
        DataError: nothing there, or a file that is no table.
    """
    if path.is_dir():
        return "cub" if all((path / name).is_file() for name in CUB_FILES[:2]) else "folder"
    tables = (".csv", ".tsv", ".json", *metadata.LINES)
    if path.name != metadata.NAME and path.is_file() and (path.suffix.lower() in tables or metadata.is_table(path)):
        return "csv"
    found = "another kind of file" if path.exists() else "nothing"
    if path.is_file() and path.name == metadata.NAME:
        line = f"name the folder that it is in: t2i data build {quote(str(path.parent))} -o data"
        raise DataError(f"{path} is the list of a folder of pictures", next_step=line)
    unpack = path.is_file() and path.suffix.lower() in (*ARCHIVES, ".tar")
    raise DataError(
        f"no pictures at {path}",
        found=found,
        expected="a CUB-200-2011 folder, a folder or a .csv",
        next_step=archive_line(path) if unpack else HELP,
    )


def cub_near(path: Path) -> Path | None:
    """A CUB-200-2011 folder in or above one that is none."""
    try:
        near = [path.resolve().parent, *sorted(each for each in path.iterdir() if each.is_dir())]
    except OSError:
        return None
    return next((each for each in near if detect_kind(each) == "cub"), None)


def read_cub(root: Path, captions: Path | None) -> Source:
    """Read CUB-200-2011 with the caption files published with AttnGAN (`text/<class>/<name>.txt`, a caption a line).

    Pictures come in the order of `images.txt`; class numbers start at 0, in the order of `classes.txt`.

    Args:
        root: folder of `images.txt`, `image_class_labels.txt`, `bounding_boxes.txt`, `classes.txt` and `images/`.
        captions: folder of caption files, or the one above its `text/` or `text_c10/`; None looks inside `root`.

    Raises:
        DataError: a list is missing or can't be read, or there are no caption files.
    """
    missing = [name for name in CUB_FILES if not (root / name).is_file()]
    if missing:
        raise DataError(f"{root} is not a CUB-200-2011 folder", found=f"no {', '.join(missing)}", next_step=HELP)
    above = captions or root
    text = next((above / name for name in TEXTS if (above / name).is_dir()), captions or above / TEXTS[0])
    packed = above if above.suffix.lower() in ARCHIVES else above / "text.zip"
    if not text.is_dir() or (text == above and packed.is_file()):
        raise DataError(
            f"no caption files at {text}",
            expected="the text/ folder published with AttnGAN",
            next_step=f"unpack {packed}, and name the folder"
            if packed.is_file()
            else "t2i data build CUB_200_2011 --captions birds -o shards",
        )
    paths, labels, boxes, class_names = (numbered(root / name) for name in CUB_FILES)
    source = Source("cub", classes=[composed(name) for name in class_names.values()])
    folders = Folders()
    for number, written in paths.items():
        listed = written.replace("\\", "/")
        name, picture = shard_name(listed), folders.find(root / "images", listed)
        box = _box(boxes.get(number, ""))
        if listed.startswith("/") or ".." in Path(listed).parts:
            source.skip(name, "path outside the data folder")
        elif labels.get(number) not in class_names:
            source.skip(name, "no class")
        elif box is None:
            source.skip(name, "no bounding box")
        elif picture is None:
            source.skip(name, "missing picture")
        elif (
            lines := _caption_lines(source, name, folders.find(text, f"{listed.rpartition('.')[0]}.txt"))
        ) is not None:
            source.add(Entry(name, picture, tuple(lines), class_names[labels[number]], box))
    return source


def read_folder(root: Path) -> Source:
    """Read pictures with a `name.txt`, `name.jpg.txt` or `name.caption` beside each, or with a folder's metadata.

    The class is what the metadata says, else the sub-folder; pictures directly in `root` have none. Hidden files
    and folders are not looked at. Links are followed as `Links` says.
    """
    source, finder, links = Source("folder"), Folders(), Links(root)
    listed: dict[Path, list[str]] = {}  # captions of pictures that metadata names
    told: dict[Path, list[dict[str, str]]] = {}  # of each, class and split of its records
    for here, folders, files in os.walk(root, followlinks=True):
        folder = Path(here).relative_to(root)
        folders[:] = sorted(name for name in folders if not (name.startswith(".") or is_ignored(name)))
        for name, reason in links.leave_out(here, folders):
            source.skip((folder / name).as_posix(), reason)
        files = sorted(name for name in files if not (name.startswith(".") or is_ignored(name)))
        pictures = [name for name in files if name.lower().endswith(PICTURE_SUFFIXES) and (Path(here) / name).exists()]
        for listing in metadata.files_in(Path(here), files):
            text = read_text(listing) if listing.name == metadata.NAME else ""
            for path, captions, facts in metadata.described_in(listing, text):
                listed.setdefault(path, []).extend(captions)
                told.setdefault(path, []).append(facts)
        described = {composed(each).casefold() for name in pictures for each in (name, Path(name).stem)}
        for file in pictures:
            name = shard_name((folder / file).as_posix())
            names = (f"{Path(file).stem}.txt", f"{file}.txt", f"{Path(file).stem}.caption")
            beside = next(filter(None, (finder.find(root / folder, each) for each in names)), None)
            rows = listed.get(root / folder / file) if beside is None else None
            said = class_and_split(source, name, told.get(root / folder / file, []))
            lines = None if said is None else rows or _caption_lines(source, name, beside)
            if said is not None and lines is not None:
                is_class = folder != Path() and not Path(f"{here}_stats.json").is_file()  # of a shard of img2dataset
                class_name = said[0] or (folder.as_posix() if is_class else None)
                source.add(Entry(name, root / folder / file, tuple(lines), class_name, None, said[1]))
        for file in files:
            if not (Path(here) / file).exists():
                source.skip((folder / file).as_posix(), "link that leads nowhere")
            elif file.lower().endswith(OTHER_SUFFIXES) and not file.lower().endswith(PICTURE_SUFFIXES):
                source.skip((folder / file).as_posix(), f"a format that is not read: {Path(file).suffix.lower()}")
            elif file.lower().endswith(".txt") and composed(Path(file).stem).casefold() not in described:
                source.skip((folder / file).as_posix(), "captions without a picture")
    for path in listed:
        if not is_file(path):
            source.skip(os.path.relpath(path, root), "missing picture")
    return source


def class_and_split(source: Source, name: str, rows: list[dict[str, str]]) -> tuple[str | None, str | None] | None:
    """Class and side of the split that a picture's records say; None, after a skip, where these can't be taken."""
    classes = {composed(cell) for row in rows if not is_no_value(cell := row.get("class", ""))}
    splits = {side_of(cell) for row in rows if not is_no_value(cell := row.get("split", ""))}
    if len(classes) > 1 or len(splits) > 1:
        source.skip(name, "rows disagree", ", ".join(sorted(classes if len(classes) > 1 else splits)))
    elif not splits <= {TRAIN, TEST}:
        source.skip(name, "split neither train nor test", *splits)
    else:
        return next(iter(classes), None), next(iter(splits), None)
    return None


def numbered(path: Path) -> dict[str, str]:
    """One of CUB's lists: number to what follows it on its line."""
    rows: dict[str, str] = {}
    for place, line in enumerate(split_lines(read_text(path)), 1):
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
        DataError: too large, no text, or no file.
    """
    if path.stat().st_size > limit:
        raise DataError(f"{path} is too large for a list", found=f"{path.stat().st_size} bytes", next_step=HELP)
    try:
        text = read_file(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8", found=f"byte {error.start} is no part of it", next_step=saved_as_utf8(str(path))
        ) from error
    except ValueError as error:
        raise DataError(f"{path} can't be read: {error}", next_step=HELP) from error
    if "\0" in text:
        raise DataError(f"{path} is not text", found="a zero byte", next_step=saved_as_utf8(str(path)))
    return text


def _caption_lines(source: Source, name: str, path: Path | None) -> list[str] | None:
    """Lines of one picture's caption file; None, after a skip, where there is none to be used."""
    try:
        if path is None:
            source.skip(name, "no captions")
        elif path.stat().st_size > MAX_CAPTIONS_BYTES:
            source.skip(name, "captions file too large", f"{path.stat().st_size} bytes")
        elif "\0" in (text := path.read_bytes().decode("utf-8-sig")):
            source.skip(name, "captions not text", "a zero byte")
        else:
            written = [line.strip() for line in split_lines(text)]
            source.notes["captions file with lines of a chat or a heading, which were taken"] += has_other_lines(
                written
            )
            source.notes["marks of a list left out"] += (lines := without_marks(written)) != written
            return lines
    except UnicodeDecodeError as error:
        source.skip(name, "captions not UTF-8", f"byte {error.start}")
    except OSError as error:
        source.skip(name, "captions can't be read", error.strerror or str(error))
    return None


class Folders:
    """Files by names that were written on another system: with a backslash, in other case, letters taken apart."""

    def __init__(self) -> None:
        self._names: dict[Path, dict[str, list[str]]] = {}

    def find(self, folder: Path, written: str) -> Path | None:
        """The file that a relative or absolute path means: as it is written, else the only one that reads like it."""
        if is_file(folder / written):
            return folder / written
        found = folder
        for part in Path(written.replace("\\", "/")).parts:
            alike = [part] if part == ".." else self._listed(found).get(composed(part).casefold(), [part])
            if len(alike) > 1 and part not in alike:
                return None
            found /= part if part in alike else alike[0]
        return found if is_file(found) else None

    def _listed(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._names:
            names = self._names[folder] = {}
            try:
                for path in folder.iterdir():
                    names.setdefault(composed(path.name).casefold(), []).append(path.name)
            except (OSError, ValueError):
                pass
        return self._names[folder]


def composed(name: str) -> str:
    """A name in NFC, as most systems write it; macOS takes letters apart."""
    return unicodedata.normalize("NFC", name)


def is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name longer than the file system takes, a zero byte
        return False


def shard_name(written: str) -> str:
    """Path without its suffix; other dots of the file name become "_", as WebDataset cuts names at the first one."""
    folder, slash, file = written.rpartition("/")
    return folder + slash + file.rpartition(".")[0].replace(".", "_") if "." in file else written
