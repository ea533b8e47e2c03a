"""What names of files, folders and cells say about the side of a split: training, testing or validation."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attngan_deploy.train.data.sources import Source

TRAIN, TEST, VALIDATION = "train", "test", "val"
WORDS = {
    **dict.fromkeys(("train", "training", "restval"), TRAIN),  # the last is of Karpathy's splits
    **dict.fromkeys(("test", "testing"), TEST),
    **dict.fromkeys(("val", "valid", "validation", "dev"), VALIDATION),
}
YEAR = re.compile(r"_?(19|20)\d\d$")  # behind the side in the names of COCO's folders, as in train2014
# In a list's name, as in trainvalclasses.txt, seen_classes.txt and chicken_strains.txt, which is no list for training.
FOR_TRAINING, FOR_TESTING = re.compile(r"(?<!s)train|(?<!un)seen"), re.compile(r"test|unseen")
PLAIN_LIST = re.compile(r"(file|class)?_?names?|classes|files|images|list")  # whose folder says what it is


def side_of(word: str) -> str:
    """The side that a word means, in whatever case, with a year or not; the word in lower case where it means none."""
    return WORDS.get(YEAR.sub("", word.strip().casefold()), word.strip().lower())


def side_of_list(file: Path) -> str:
    """What the names in a file are for: training where the file's name, or its folder's, says so, else testing."""
    stem = file.stem.casefold()
    if PLAIN_LIST.fullmatch(stem):
        return TRAIN if side_of(file.parent.name) == TRAIN else TEST
    return TRAIN if FOR_TRAINING.search(stem) and not FOR_TESTING.search(stem) else TEST


def list_for_testing(file: Path) -> Path | None:
    """The list of the test set that stands beside one of training or of all, where it is called alike."""
    names = (re.sub(r"trainval|train|all", word, file.stem, flags=re.IGNORECASE) for word in (TEST, "Test"))
    beside = (file.with_name(f"{name}{file.suffix}") for name in names if name != file.stem)
    return next((path for path in beside if path.is_file()), None)


def split_by_folders(source: "Source", folders: Sequence[str] | None = None) -> bool:
    """Take `train/` and `test/`, where a folder has these and nothing else, as its split.

    A third folder, for validation, is left out; where there is none for testing, it is that.

    Args:
        folders: of each picture, beside classes of its own; None where the folders are the classes.

    Returns:
        Whether they were taken.
    """
    places = [entry.class_name or "" for entry in source.entries] if folders is None else folders
    tops = {side_of(place.partition("/")[0]) for place in places}
    if TRAIN not in tops or len(tops) < 2 or not tops <= {TRAIN, TEST, VALIDATION}:
        return False
    entries, source.entries = source.entries, []
    for entry, place in zip(entries, places, strict=True):
        folder, _, class_name = place.partition("/")
        if (side := side_of(folder)) == VALIDATION and TEST in tops:
            source.skip(entry.name, "split neither train nor test", folder)
            continue
        source.notes["picture for validation taken for testing"] += side == VALIDATION
        split = TRAIN if side == TRAIN else TEST
        kept = entry.class_name if entry.class_name != place else class_name or None
        source.entries.append(replace(entry, class_name=kept, split=split))
    return True


def take_folders(source: "Source", takes_split: bool) -> None:
    """Take the folders of a table's pictures as their classes, and `train/` and `test/` as their split, where it has no
    such columns; notes say what was done of it.

    Args:
        takes_split: False where somebody said how to split.
    """
    parents = [entry.name.split("/")[:-1] for entry in source.entries]
    shared = 0  # folders that all pictures lie in
    while parents and all(len(parts) > shared and parts[shared] == parents[0][shared] for parts in parents):
        shared += 1
    folders = ["/".join(parts[shared:]) for parts in parents]
    is_split = any(entry.split for entry in source.entries)
    if any(entry.class_name for entry in source.entries):
        is_taken = takes_split and not is_split and split_by_folders(source, folders)
    else:
        if is_split and all(side_of(folder.partition("/")[0]) in WORDS.values() for folder in folders):
            folders = [folder.partition("/")[2] for folder in folders]  # they are no classes
        if all(folders):
            source.entries = [
                replace(entry, class_name=folder) for entry, folder in zip(source.entries, folders, strict=True)
            ]
        is_taken = takes_split and not is_split and split_by_folders(source)
        alone = sum(entry.class_name is None for entry in source.entries)
        source.notes["picture whose folder is its class, as no column is"] += len(source.entries) - alone
        source.notes["picture that is a class of its own, as no column says its class"] += alone
    sides = sum(side_of(folder.partition("/")[0]) in (TRAIN, TEST) for folder in folders)
    if is_taken:
        source.notes["picture whose folder says its side of the split, as no column does"] += len(source.entries)
    elif takes_split and not is_split:
        source.notes["picture in train/ or test/, which were not taken for a split, as others lie elsewhere"] += sides
