"""Captions of a folder of pictures in one file beside them, as `datasets` of Hugging Face, COCO and Kaggle have it."""

import json
import re
from collections.abc import Container, Iterator
from pathlib import Path
from shlex import quote
from typing import Any

from attngan_deploy.errors import CaptionError, DataError
from attngan_deploy.media.caption import CAPTION_COLUMNS, DEFAULT_COLUMN, PICTURE_COLUMNS
from attngan_deploy.media.caption_kind import HEAD_BYTES, ROW
from attngan_deploy.media.caption_lines import csv_rows
from attngan_deploy.media.nested_texts import is_texts

NAME = "metadata.jsonl"
TABLE = "metadata.csv"  # the same as a table
LINES = (".jsonl", ".ndjson")  # of JSON lines
LINE = re.compile(r"([^\r\n]*)(?:\r\n|[\r\n]|$)")  # one after another, as a list of them may take much memory
OTHER_COLUMNS = {"picture": PICTURE_COLUMNS, "caption": CAPTION_COLUMNS}  # these are named, not read
OTHER_FACTS = {  # so are these, beside a picture and a caption
    "class": ("species", "label", "labels", "class_name", "class name", "classname", "category"),
    "split": ("set", "partition", "subset", "data set", "data_set", "train/test", "train_test"),
}


def described_in(file: Path, text: str) -> Iterator[tuple[Path, list[str], dict[str, str]]]:
    """Pictures, captions, and what is said of class and split, of the records of a folder's metadata.

    Args:
        file: a `metadata.jsonl`, or a `metadata.csv` that has columns of pictures and captions.
        text: of the former.

    Raises:
        DataError: a line is no record, names no picture or caption, or has a class or split by another name.
    """
    for number, record in _records_of_csv(file) if file.name == TABLE else _records_of_lines(text):
        if (pair := _pair_of(record)) is None:
            raise DataError(
                f"line {number} of {file} can't be used",
                found=repr(record)[:60],
                expected='{"file_name": "1.jpg", "text": "a red bird"}',
                next_step=f"take that line out: sed -i '{number}d' {quote(str(file))}",
            )
        facts = {key.strip().lower(): value for key, value in record.items()}
        check_facts(file, list(facts))
        yield file.parent / pair[0].replace("\\", "/"), pair[1], {name: _told(facts.get(name)) for name in OTHER_FACTS}


def _records_of_lines(text: str) -> Iterator[tuple[int, Any]]:
    """Number and value of each line of JSON lines; of one that is none, its text."""
    for number, match in enumerate(LINE.finditer(text), 1):
        if match[1].strip():
            try:
                yield number, json.loads(match[1])
            except (ValueError, RecursionError):
                yield number, match[1]


def _records_of_csv(path: Path) -> Iterator[tuple[int, Any]]:
    """Number of the line and cells by column, in lower case, of each row of a CSV."""
    rows = cells_of_csv(path)
    columns = [name.strip().lower() for name in next(rows)[1]]
    yield from ((line, dict(zip(columns, cells, strict=False))) for line, cells in rows)


def cells_of_csv(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number of the line and cells of each row that is not blank, the column names first."""
    try:
        with path.open("rb") as stream:
            yield from ((line, cells) for line, _, cells in csv_rows(stream, str(path)))
    except CaptionError as error:
        raise DataError(
            error.what, found=error.found, expected=error.expected, next_step=error.next_step or "t2i data build --help"
        ) from error


def _pair_of(record: Any) -> tuple[str, list[str]] | None:
    """Picture and captions of an object of JSON, by usual names; None where it has not both."""
    fields = record if isinstance(record, dict) else {}
    picture = next((fields[name] for name in ("picture", *PICTURE_COLUMNS) if name in fields), None)
    captions = next((fields[name] for name in (DEFAULT_COLUMN, *CAPTION_COLUMNS) if name in fields), None)
    captions = [captions] if isinstance(captions, str) else captions
    return (picture, captions) if isinstance(picture, str) and is_texts(captions) else None


def rows_of_json(path: Path, text: str) -> Iterator[tuple[str, list[str]]]:
    """The rows of a JSON file, names of columns first: of COCO, of Karpathy's splits, or of a list of pictures.

    Raises:
        DataError: it is of another form, or no JSON.
    """
    facts: list[str] = []
    told: list[list[str]] = []  # of each record, what it says of its class and split
    try:
        is_lines = path.suffix.lower() in LINES
        content = [value for _, value in _records_of_lines(text)] if is_lines else json.loads(text)
        if isinstance(content, dict) and "images" not in content:  # captions by picture
            content = [{"picture": name, DEFAULT_COLUMN: captions} for name, captions in content.items()]
        elif isinstance(content, dict) and "annotations" not in content:
            content = [_record_of(image) for image in content["images"]]
        if isinstance(content, dict):
            files = {image["id"]: image["file_name"] for image in content["images"]}
            pairs = [(files.get(each["image_id"], ""), [each["caption"]]) for each in content["annotations"]]
        else:
            pairs = [_pair_of(record) or ("", []) for record in content]
            known = {name for own, others in OTHER_FACTS.items() for name in (own, *others)}
            facts = sorted({key for record in content for key in record if key.strip().lower() in known})
            told = [[_told(record.get(key)) for key in facts] for record in content]
        is_whole = bool(pairs) and all(isinstance(name, str) and is_texts(captions) for name, captions in pairs)
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        is_whole = False
    if not is_whole:
        raise DataError(
            f"{path} is no list of pictures and captions",
            found=f"a {path.suffix} file of another form",
            expected='{"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [{"image_id": 1, "caption": '
            '"a red bird"}]} as in COCO, or [{"image": "1.jpg", "caption": "a red bird"}]',
            next_step="write it so, or as a .csv with a line picture,caption on top and a row for each caption",
        )
    yield "", ["picture", DEFAULT_COLUMN, *facts]
    for number, (name, captions) in enumerate(pairs, 1):
        yield from ((f"caption {number}", [name, caption, *(told and told[number - 1])]) for caption in captions)


def _record_of(image: dict[str, Any]) -> dict[str, Any]:
    """An image of Karpathy's splits of Flickr8k, Flickr30k and COCO as a record of a list."""
    picture = "/".join(filter(None, (image.get("filepath"), image["filename"])))
    captions = [sentence["raw"] for sentence in image["sentences"]]
    return {"picture": picture, DEFAULT_COLUMN: captions, "split": image.get("split")}


def _told(value: Any) -> str:
    """A class or a split as a cell of a table has it."""
    return "" if value is None else str(value)


def is_table(path: Path) -> bool:
    """Whether a text begins as a table of pictures and captions does, as Kaggle's captions.txt: with names or a row."""
    if path.suffix.lower() != ".txt" or not path.is_file():
        return False
    line = _first_line(path)
    return _has_columns(line) or ROW.match(line) is not None


def files_in(folder: Path, names: Container[str]) -> list[Path]:
    """Files of metadata in a folder of files `names`; a CSV counts where it has columns of pictures and captions."""
    there = [folder / name for name in (NAME, TABLE) if name in names]
    return [path for path in there if path.name == NAME or (path.is_file() and _has_columns(_first_line(path)))]


def _first_line(path: Path) -> str:
    with path.open("rb") as stream:
        lines = stream.read(HEAD_BYTES).decode("utf-8-sig", "replace").lstrip().splitlines()
    return lines[0] if lines else ""


def _has_columns(line: str) -> bool:
    cells = [cell.strip(' "').casefold() for cell in re.split(r"[,;\t|]", line)]
    is_header = not {"picture", *PICTURE_COLUMNS}.isdisjoint(cells) and len(cells) < 9
    return is_header and not {DEFAULT_COLUMN, *CAPTION_COLUMNS}.isdisjoint(cells)


def renamed(columns: list[str]) -> str:
    """Which columns to rename, where other programs' names of those that are missing are there."""
    found = {
        name: next((each for each in others if each in columns), "")
        for name, others in OTHER_COLUMNS.items()
        if name not in columns
    }
    if not all(found.values()):
        return ""
    return _calls(found | _facts(columns))


def check_facts(path: Path, columns: list[str]) -> None:
    """Raise DataError where a class or a split has another name: passed over, test classes would be trained on."""
    if found := _facts(columns):
        raise DataError(
            f"{path} seems to have {' and '.join(f'a {name}' for name in found)} under another name",
            found=", ".join(columns),
            expected="class and split, where it has them",
            next_step=f"{_calls(found, path.suffix.lower() in ('.json', *LINES))}; "
            f"or something else, such as '{next(iter(found.values()))} (not read)', "
            "where it is none",
        )


def _facts(columns: list[str]) -> dict[str, str]:
    return {
        name: other
        for name, others in OTHER_FACTS.items()
        if name not in columns and (other := next((each for each in others if each in columns), ""))
    }


def _calls(found: dict[str, str], is_json: bool = False) -> str:
    return f"in its {'objects' if is_json else 'first line'}, call " + " and ".join(
        f"{other!r} {name}" for name, other in found.items()
    )
