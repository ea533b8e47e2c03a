"""Captions of a folder of pictures in one file beside them, as `datasets` of Hugging Face has it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from attngan_deploy.errors import DataError
from attngan_deploy.media.caption import CAPTION_COLUMNS, DEFAULT_COLUMN, PICTURE_COLUMNS
from attngan_deploy.media.nested_texts import is_texts

NAME = "metadata.jsonl"
LINE = re.compile(r"([^\r\n]*)(?:\r\n|[\r\n]|$)")  # one after another, as a list of them may take much memory
OTHER_COLUMNS = {"picture": PICTURE_COLUMNS, "caption": CAPTION_COLUMNS}  # these are named, not read


def described_in(folder: Path, text: str) -> Iterator[tuple[Path, list[str]]]:
    """Pictures and captions of the lines of a folder's `metadata.jsonl`.

    Raises:
        DataError: a line is no object of JSON, or names no picture or caption.
    """
    for number, match in enumerate(LINE.finditer(text), 1):
        line = match[1]
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        fields = record if isinstance(record, dict) else {}
        picture = next((fields[name] for name in ("picture", *PICTURE_COLUMNS) if name in fields), None)
        captions = next((fields[name] for name in (DEFAULT_COLUMN, *CAPTION_COLUMNS) if name in fields), None)
        captions = [captions] if isinstance(captions, str) else captions
        if not isinstance(picture, str) or not is_texts(captions):
            raise DataError(
                f"line {number} of {folder / NAME} can't be used",
                found=repr(line[:60]),
                expected='{"file_name": "1.jpg", "text": "a red bird"}',
                next_step=f"take that line out: sed -i '{number}d' {quote(str(folder / NAME))}",
            )
        yield folder / picture.replace("\\", "/"), captions


def renamed(columns: list[str]) -> str:
    """Which columns to rename, where other programs' names of those that are missing are there."""
    found = {
        name: next((each for each in others if each in columns), "")
        for name, others in OTHER_COLUMNS.items()
        if name not in columns
    }
    if not all(found.values()):
        return ""
    return "in its first line, call " + " and ".join(f"{other!r} {name}" for name, other in found.items())
