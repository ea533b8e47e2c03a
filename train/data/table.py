"""Tables of pictures and captions: a CSV, a text that is one, or a JSON file such as COCO's captions."""

import re
from collections.abc import Iterator
from pathlib import Path

from attngan_deploy.errors import DataError
from attngan_deploy.media.caption import is_no_value
from attngan_deploy.media.list_marks import without_marks
from attngan_deploy.media.nested_texts import texts_of
from attngan_deploy.system.files import is_ignored
from attngan_deploy.train.data import metadata
from attngan_deploy.train.data.pictures import PICTURE_SUFFIXES
from attngan_deploy.train.data.sources import (
    HELP,
    Entry,
    Folders,
    Source,
    class_and_split,
    is_file,
    read_text,
    shard_name,
)


def read_csv(path: Path, root: Path | None) -> Source:
    """Read a CSV with columns picture and caption, and optionally class and split; a picture may have several rows.

    Of COCO's captions and of lists of JSON, each caption is a row. A picture's path is relative to the CSV (for a file
    in `annotations/`, to the folder above), to the one folder of pictures beside it, or to `root`, and the file must
    lie inside one of these.

    Raises:
        DataError: not UTF-8, not a CSV, or without its columns.
    """
    is_json = path.suffix.lower() in (".json", *metadata.LINES)
    rows = metadata.rows_of_json(path, read_text(path)) if is_json else _rows_of_csv(path)
    columns = [name.strip().lower() for name in next(rows)[1]]
    if "picture" not in columns:  # as Kaggle's tables call it
        columns = ["picture" if name == "image" else name for name in columns]
    places: dict[str, int] = {
        name: columns.index(name) for name in ("picture", "caption", "class", "split") if name in columns
    }
    if not {"picture", "caption"} <= places.keys() or any(columns.count(name) > 1 for name in places):
        raise DataError(
            f"{path} lacks its columns",
            found=", ".join(columns) or "an empty first line",
            expected="picture and caption, each once, and optionally class and split",
            next_step=metadata.renamed(columns) or HELP,
        )
    metadata.check_facts(path, columns)
    base = (path.parent.parent if path.parent.name == "annotations" else path.parent).resolve()
    homes = [base, *_folder_of_pictures(base, path.stem), *([root] if root else [])]
    allowed = [base, *([root.resolve()] if root else [])]
    grouped: dict[Path, list[dict[str, str]]] = {}
    source, folders = Source("csv"), Folders()
    for where, cells in rows:
        if len(cells) > len(columns) and places["caption"] == len(columns) - 1:  # of a caption without quotes
            cells = [*cells[: places["caption"]], ",".join(cells[places["caption"] :]).rstrip(" ,")]
        row = {name: cells[place].strip() if place < len(cells) else "" for name, place in places.items()}
        row["picture"] *= not is_no_value(row["picture"])
        row["picture"] = re.sub(r"(\.\w+)#\d+$", r"\1", row["picture"])  # Flickr's lists number a picture's captions
        picture = _inside(homes, row["picture"], allowed, folders)
        if not row["picture"]:
            source.skip(where, "no picture named")
        elif picture is None:
            source.skip(row["picture"], "path outside the data folder", f"{where}; --root allows another folder")
        else:
            grouped.setdefault(picture, []).append(row)
    every = [row for group in grouped.values() for row in group]
    for row, plain in zip(every, without_marks(row["caption"] for row in every), strict=True):
        source.notes["marks of a list left out"] += plain != row["caption"]
        row["caption"] = plain
    for picture, group in grouped.items():
        home = next(folder for folder in allowed if picture.is_relative_to(folder))
        name = shard_name(picture.relative_to(home).as_posix())
        if (facts := class_and_split(source, name, group)) is None:
            continue
        if not is_file(picture):
            source.skip(name, "missing picture")
        else:
            captions = tuple(text for row in group for text in texts_of(row["caption"]))
            source.add(Entry(name, picture, captions, facts[0], None, facts[1]))
    return source


def _folder_of_pictures(base: Path, stem: str) -> list[Path]:
    """The one sub-folder that holds pictures, or of several the one that the table's name has, as COCO's do; and so on.

    Kaggle's archives often have the folder in another of the same name.
    """
    try:
        there = sorted(base.iterdir())
    except OSError:
        return []
    folders = (each for each in there if each.is_dir() and not each.name.startswith("."))
    holding = [
        folder
        for folder in folders
        if any(each.suffix.lower() in PICTURE_SUFFIXES and not is_ignored(each.name) for each in folder.rglob("*"))
    ]
    named = [folder for folder in holding if folder.name in stem] if len(holding) > 1 else holding
    return [*named, *_folder_of_pictures(named[0], stem)] if len(named) == 1 else []


def _rows_of_csv(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Place and cells of each row that is not blank, the column names first."""
    yield from ((f"line {line}", cells) for line, cells in metadata.cells_of_csv(path))


def _inside(homes: list[Path], written: str, allowed: list[Path], folders: Folders) -> Path | None:
    """Where a written path leads, links followed; None if that is in none of the allowed folders."""
    try:
        found = next(filter(None, (folders.find(home, written) for home in homes)), None)
        found = (found or homes[0] / written.replace("\\", "/")).resolve()
    except (OSError, ValueError, RuntimeError):  # too long, a zero byte, a loop of links
        return None
    return found if any(found.is_relative_to(folder) for folder in allowed) else None
