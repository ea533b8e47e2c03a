"""Which pictures are for testing: by a list, by a number of classes drawn by a seed, or by what the source says.

Captions of unseen classes are what a text-to-image model is tested on, so the split goes by class.
"""

import difflib
import hashlib
import re
from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from attngan_deploy.errors import DataError
from attngan_deploy.media.caption import split_lines
from attngan_deploy.train.data.sides import TEST, TRAIN, list_for_testing, side_of_list
from attngan_deploy.train.data.sources import HELP, Entry, Skip, composed, numbered, read_text, shard_name
from attngan_deploy.train.imports.unpickle import load_plain

DEFAULT_TEST_SHARE = 0.25  # of the classes; CUB-200-2011's published split has 50 of 200
MAX_SPLIT_BYTES = 16 * 2**20
NUMBERED_SIDE = re.compile(r"\d+\s+[01]")  # a line of CUB's train_test_split.txt
SIDES = (TEST, TRAIN)  # as CUB numbers them
NUMBERED_NAME = re.compile(r"(\d+)\s+(\S.*)")  # a line of CUB's classes.txt or images.txt
BETWEEN_CELLS = re.compile(r"\s*[\s,;:|]\s*")
SIDE = re.compile(r"\d+|train|test|val|true|false", re.IGNORECASE)  # behind or in front of a name
NEAR = 0.85  # how alike two spellings of a class are, by difflib


@dataclass(frozen=True)
class SplitRule:
    """How to split."""

    # names of test classes or test pictures, or of training where its name says so, as in trainvalclasses.txt; as text
    # (one a line) or as a pickled list of strings; or a folder with the published `train/filenames.pickle` and
    # `test/filenames.pickle`, or `train.txt` and `test.txt`; or CUB's `train_test_split.txt` beside its `images.txt`.
    # It beats everything else.
    file: Path | None = None
    # how many classes are for testing: a whole number, or a share below 1 (a float). 0 is no test set. It beats what
    # the source says. None: what the source says, else `DEFAULT_TEST_SHARE`.
    test_classes: int | float | None = None
    seed: int = 0  # draws the classes


def split_entries(entries: list[Entry], rule: SplitRule) -> tuple[dict[str, str], list[Skip], str]:
    """Split pictures into train and test.

    Returns:
        "train" or "test" by entry name, the entries that belong to neither, and one line that says how it was done.

    Raises:
        DataError: the rule can't be applied to these classes.
    """
    if rule.file is not None:
        return _by_file(entries, rule.file)
    if rule.test_classes is None and any(entry.split for entry in entries):
        splits = {entry.name: entry.split for entry in entries if entry.split}
        return splits, [Skip(entry.name, "no split") for entry in entries if not entry.split], "as the source says"
    classes = sorted({class_of(entry) for entry in entries})
    asked = DEFAULT_TEST_SHARE if rule.test_classes is None else rule.test_classes
    if isinstance(asked, float) and len(classes) > 1:
        count = min(max(round(asked * len(classes)), 1), len(classes) - 1)
    elif isinstance(asked, int) and asked < len(classes):
        count = asked
    else:
        raise DataError(
            "can't split by class",
            found=f"{len(classes)} class{'es' * (len(classes) != 1)} for {asked} in the test set",
            expected="at least one class left for training",
            next_step="--test-classes 0 makes no test set",
        )
    drawn = set(sorted(classes, key=lambda name: hashlib.sha256(f"{rule.seed}:{name}".encode()).digest())[:count])
    splits = {entry.name: "test" if class_of(entry) in drawn else "train" for entry in entries}
    return splits, [], f"{count} of {len(classes)} classes drawn by seed {rule.seed}"


def class_of(entry: Entry) -> str:
    """Class of an entry; a picture without one is a class of its own, so that no two count as alike."""
    return entry.class_name or f"picture:{entry.name}"


def read_split_names(path: Path) -> list[str]:
    """Read a list of names, pickled (suffix .pickle or .pkl) or one a line; no pickle can run code or hold a number.

    Raises:
        DataError: missing, too large, hostile, or not a list of strings.
    """
    if not path.is_file():
        raise DataError(f"no split file at {path}", expected="names of test classes or pictures", next_step=HELP)
    if path.suffix.lower() in (".pickle", ".pkl"):
        return _unpickled_names(path)
    return [name for line in split_lines(read_text(path, MAX_SPLIT_BYTES)) if (name := line.strip())]


def _by_file(entries: list[Entry], file: Path) -> tuple[dict[str, str], list[Skip], str]:
    if file.is_dir() and (file / "filenames.pickle").is_file():  # one of the two folders of the published split
        file /= "filenames.pickle"
    if file.is_dir():
        lists = {side: read_split_names(path) for side, path in _lists_in(file).items()}
        listed, otherwise = {name: side for side, names in lists.items() for name in names}, None
    elif (folder := _folder_of_both(file)) is not None:
        raise DataError(
            f"{file} lists training pictures",
            expected="names of the test set",
            next_step=f"--split-file {folder} (the folder of both lists)",
        )
    elif (names := read_split_names(file)) and all(NUMBERED_SIDE.fullmatch(name) for name in names):
        listed, otherwise = _official(file, names), None
    else:
        role = side_of_list(file)
        listed, otherwise = dict.fromkeys(names, role), TRAIN if role == TEST else TEST
    known = {name for entry in entries for name in _names_of(entry)}
    meant = _meant(listed, known)
    listed = {meant[name]: side for name, side in listed.items()}
    splits: dict[str, str] = {}
    skipped = []
    used: set[str] = set()
    for entry in entries:
        found = [name for name in _names_of(entry) if name in listed]
        used.update(found)
        side = listed[found[0]] if found else otherwise
        if side is None:
            skipped.append(Skip(entry.name, "not in the split file"))
        else:
            splits[entry.name] = side
    unmatched = [name for name in listed if name not in used]
    _check_cells(file, unmatched, known)
    _check_spelling(file, unmatched, {class_of(entry) for entry in entries})
    sides = {*splits.values()}
    if not used or (otherwise is None and TEST not in sides):
        raise DataError(
            f"{file} names nothing of this data",
            found=", ".join(map(repr, list(listed)[:2])) or "an empty list",
            expected=f"classes or pictures such as {class_of(entries[0])!r} or {entries[0].name!r}",
            next_step=HELP,
        )
    if otherwise is not None and len(sides) < 2:
        beside = list_for_testing(file)
        raise DataError(
            f"{file} names all of this data",
            expected=f"some left for {'training' if otherwise == TRAIN else 'testing'}",
            next_step=f"--split-file {beside}" if beside else "leave only the names of the test set in the list",
        )
    skipped += [Skip(name, "in the split file, but no usable picture") for name in unmatched]
    return splits, skipped, f"by {file.name}" + ", whose names are for training" * (otherwise == TEST)


def _folder_of_both(file: Path) -> Path | None:
    """The folder of both lists of a split, where the file is the one for training; None where there is no other."""
    patterns = {
        "train.txt": (file.parent, "test.txt"),
        "filenames.pickle": (file.parent.parent, "test/filenames.pickle"),
    }
    folder, other = patterns.get(file.name, (file, ""))
    is_for_training = file.name == "train.txt" or file.parent.name == "train"
    return folder if other and is_for_training and (folder / other).is_file() else None


def _lists_in(folder: Path) -> dict[str, Path]:
    """The lists of both sides, as published or as text; raise DataError where they are not there."""
    for pattern in ("{}/filenames.pickle", "{}.txt"):
        lists = {side: folder / pattern.format(side) for side in ("train", "test")}
        if all(path.is_file() for path in lists.values()):
            return lists
    raise DataError(
        f"no split in the folder {folder}",
        expected="train/filenames.pickle and test/filenames.pickle, or train.txt and test.txt",
        next_step="name a file with the names of the test set",
    )


def _names_of(entry: Entry) -> list[str]:
    """What a list may call a picture by."""
    return [entry.name, f"{entry.name}{entry.picture.suffix}", class_of(entry)]


def _meant(listed: Iterable[str], known: Container[str]) -> dict[str, str]:
    """The name of the data that each listed one means, where it means one.

    Other systems and programs write a backslash, letters taken apart, quotes, "./", "images/" and a slash at the end;
    and a number in front, which is a place in a list where no two are alike, and else may be a side.
    """
    found = {name: _tidy(name, known) for name in listed}
    matches = {name: match for name, tidy in found.items() if tidy not in known if (match := NUMBERED_NAME.match(tidy))}
    numbers = {int(match[1]) for match in matches.values()}
    if len(numbers) == len(matches) and not (0 in numbers and numbers <= {0, 1}):
        found |= {name: tidy for name, match in matches.items() if (tidy := _tidy(match[2], known)) in known}
    return found


def _tidy(written: str, known: Container[str]) -> str:
    """A listed name as the data has it, unless it is one as it stands."""
    name = composed(written.replace("\\", "/"))
    if name in known:
        return name
    if name[:1] == name[-1:] and name[:1] in ("'", '"'):
        name = name[1:-1].strip()
    parts = [part for part in name.split("/") if part not in ("", ".")]
    name = "/".join(parts)
    below = "/".join(parts[1:])
    return below if name not in known and parts[:1] == ["images"] and below in known else name


def _official(file: Path, names: list[str]) -> dict[str, str]:
    """Side of each picture by CUB's list: a picture's number in `images.txt`, and whether it is for training."""
    images = file.parent / "images.txt"
    if not images.is_file():
        raise DataError(f"{file} lists numbers", expected=f"the names of them in {images}", next_step=HELP)
    paths = {number: shard_name(written.replace("\\", "/")) for number, written in numbered(images).items()}
    sides = {number: SIDES[int(side)] for number, side in map(str.split, names)}
    return {paths.get(number, f"picture {number}"): side for number, side in sides.items()}


def _check_spelling(file: Path, names: list[str], classes: set[str]) -> None:
    """Raise DataError where a listed class, or that of a listed picture, is one of the data in another spelling."""
    plain = {_plain(name): name for name in classes}
    wrong: dict[str, str] = {}
    for asked in sorted({name if name in classes else name.rpartition("/")[0] or name for name in names} - classes):
        near = difflib.get_close_matches(_plain(asked), plain, n=1, cutoff=NEAR)
        if near and re.findall(r"\d+", near[0]) == re.findall(r"\d+", _plain(asked)):  # else it is another of a series
            wrong[asked] = plain[near[0]]
    if wrong:
        shown = ", ".join(f"{asked!r} for {there!r}" for asked, there in list(wrong.items())[:3])
        raise DataError(
            f"{file} spells {len(wrong)} of the classes otherwise than the data",
            found=shown,
            expected="the same names",
            next_step="mend the list: those classes would be on the wrong side",
        )


def _check_cells(file: Path, lines: Iterable[str], known: Container[str]) -> None:
    """Raise DataError where a line has a name of the data in one of several cells: it would be on the wrong side."""
    wrong: dict[str, str] = {}
    for line in lines:
        for place in BETWEEN_CELLS.finditer(line):
            parts = line[: place.start()], line[place.end() :]
            for cell, other in (parts, parts[::-1]):
                if _tidy(cell, known) in known and (place[0].strip(" ") or SIDE.fullmatch(other)):
                    wrong[line] = _tidy(cell, known)
    if wrong:
        raise DataError(
            f"{file} has more than a name on {len(wrong)} of its lines",
            found=", ".join(f"{line!r} for {name!r}" for line, name in list(wrong.items())[:3]),
            expected="a test class or picture a line, or a number and a name where no two numbers are alike",
            next_step="leave only the names in the list",
        )


def _plain(name: str) -> str:
    """Letters and digits of a class in lower case, without accents and a number in front."""
    return re.sub(r"[\W_]+", "", re.sub(r"^\d+[\W_]+", "", normalize("NFKD", name))).casefold()


def _unpickled_names(path: Path) -> list[str]:
    try:
        names = load_plain(path, encoding="utf-8")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError("it holds something else")
    except DataError as error:
        raise DataError(
            f"{path} is not a pickled list of names ({error.what})", expected="a list of strings only", next_step=HELP
        ) from error
    return [name.strip() for name in names]
