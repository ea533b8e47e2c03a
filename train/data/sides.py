"""What names of files, folders and cells say about the side of a split: training, testing or validation."""

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attngan_deploy.train.data.sources import Source

TRAIN, TEST, VALIDATION = "train", "test", "val"
WORDS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("test", "testing"), TEST),
    **dict.fromkeys(("val", "valid", "validation", "dev"), VALIDATION),
}
# In a list's name, as in trainvalclasses.txt, seen_classes.txt and chicken_strains.txt, which is no list for training.
FOR_TRAINING, FOR_TESTING = re.compile(r"(?<!s)train|(?<!un)seen"), re.compile(r"test|unseen")
PLAIN_LIST = re.compile(r"(file|class)?_?names?|classes|files|images|list")  # whose folder says what it is


def side_of(word: str) -> str:
    """The side that a word means, in whatever case; the word in lower case where it means none."""
    return WORDS.get(word.strip().casefold(), word.strip().lower())


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


def split_by_folders(source: "Source") -> None:
    """Take `train/` and `test/`, where a folder has these and nothing else, as its split.

    A third folder, for validation, is left out; where there is none for testing, it is that.
    """
    tops = {side_of(entry.class_name.partition("/")[0]) if entry.class_name else "" for entry in source.entries}
    if TRAIN not in tops or len(tops) < 2 or not tops <= {TRAIN, TEST, VALIDATION}:
        return
    entries, source.entries = source.entries, []
    for entry in entries:
        folder, _, class_name = str(entry.class_name).partition("/")
        if (side := side_of(folder)) == VALIDATION and TEST in tops:
            source.skip(entry.name, "split neither train nor test", folder)
            continue
        source.notes["picture for validation taken for testing"] += side == VALIDATION
        split = TRAIN if side == TRAIN else TEST
        source.entries.append(replace(entry, class_name=class_name or None, split=split))
