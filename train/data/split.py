"""Which pictures are for testing: by a list, by a number of classes drawn by a seed, or by what the source says.

Captions of unseen classes are what a text-to-image model is tested on, so the split goes by class.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from attngan_deploy.errors import DataError
from attngan_deploy.train.data.sources import HELP, Entry, Skip, read_text
from attngan_deploy.train.imports.unpickle import load_plain

DEFAULT_TEST_SHARE = 0.25  # of the classes; CUB-200-2011's published split has 50 of 200
MAX_SPLIT_BYTES = 16 * 2**20


@dataclass(frozen=True)
class SplitRule:
    """How to split.

    Attributes:
        file: names of test classes or test pictures, as text (one a line) or as a pickled list of strings; or a folder
            with the published `train/filenames.pickle` and `test/filenames.pickle`. It beats everything else.
        test_classes: how many classes are for testing: a whole number, or a share below 1 (a float). 0 is no test set.
            It beats what the source says. None: what the source says, else `DEFAULT_TEST_SHARE`.
        seed: draws the classes.
    """

    file: Path | None = None
    test_classes: int | float | None = None
    seed: int = 0


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
    return [name for line in read_text(path, MAX_SPLIT_BYTES).splitlines() if (name := line.strip())]


def _by_file(entries: list[Entry], file: Path) -> tuple[dict[str, str], list[Skip], str]:
    if file.is_dir():
        lists = {side: read_split_names(file / side / "filenames.pickle") for side in ("train", "test")}
        listed, otherwise = {name: side for side, names in lists.items() for name in names}, None
    elif file.parent.name == "train" and file.name == "filenames.pickle":
        raise DataError(
            f"{file} lists training pictures",
            expected="names of the test set",
            next_step=f"--split-file {file.parent.parent} (the folder above train/ and test/)",
        )
    else:
        listed, otherwise = dict.fromkeys(read_split_names(file), "test"), "train"
    splits: dict[str, str] = {}
    skipped = []
    for entry in entries:
        names = (entry.name, f"{entry.name}{entry.picture.suffix}", class_of(entry))
        side = next((listed[name] for name in names if name in listed), otherwise)
        if side is None:
            skipped.append(Skip(entry.name, "not in the split file"))
        else:
            splits[entry.name] = side
    if "test" not in splits.values():
        raise DataError(
            f"{file} names nothing of this data",
            found=", ".join(map(repr, list(listed)[:2])) or "an empty list",
            expected=f"classes or pictures such as {class_of(entries[0])!r} or {entries[0].name!r}",
            next_step=HELP,
        )
    return splits, skipped, f"by {file.name}"


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
