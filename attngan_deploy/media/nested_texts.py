"""Texts in records of JSON and in cells of tables: those of lists, at paths, and of chats."""

import ast
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, TypeGuard

from attngan_deploy.errors import CaptionError
from attngan_deploy.media.caption import choose_column

ANSWERS, ASKS = ("assistant", "gpt", "model"), ("user", "human")  # who speaks in a chat


def texts_of(cell: str) -> list[str]:
    """The captions in a cell: the texts of a list, as pandas and labelling tools write one; else the cell itself."""
    if re.match(r"\[\s*['\"]", cell) and cell.rstrip().endswith("]"):
        for parse in (json.loads, ast.literal_eval):
            with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
                if isinstance(texts := parse(cell.strip()), list) and all(isinstance(text, str) for text in texts):
                    return texts
    return [cell]


def texts_in(record: Any, field: str | None) -> list[str]:
    """The captions of a record that has a list of texts; else none, and its one caption may be wrong."""
    try:
        value = value_at(record, field or choose_column("", list(record), None)) if isinstance(record, dict) else None
    except CaptionError:
        return []
    return value if is_texts(value) else []


def is_texts(value: Any) -> TypeGuard[list[str]]:
    """Whether a value is a list of texts, and of at least one."""
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value)


def value_at(record: Any, path: str) -> Any:
    """What stands in a record at a path such as data.text or messages.1.content; None for nothing."""
    if isinstance(record, dict) and path in record:
        return record[path]
    for part in path.split("."):
        if isinstance(record, list):
            record = record[int(part)] if part.isdecimal() and int(part) < len(record) else None
        else:
            record = record.get(part) if isinstance(record, dict) else None
    return record


def path_of(record: Any) -> str:
    """The longest text of a record's objects, which is a caption rather than the others are; "" for none."""
    nested = dict(_nested_texts(record))
    if not nested:
        return ""
    path = max(nested, key=lambda path: len(nested[path]))
    whole = path.removesuffix(".0")
    return f"choose the text with --column {whole if is_texts(value_at(record, whole)) else path}"


def _nested_texts(record: Any, path: str = "", depth: int = 8) -> Iterator[tuple[str, str]]:
    """Texts in the objects of a record, each with its path, e.g. "data.text"; also in the first of a list.

    Of a chat, which is a list of what each side said, it is the first answer, or else what the user said first.
    """
    inner = record if isinstance(record, dict) else {}
    if isinstance(record, list):
        roles = [turn.get("role", turn.get("from")) if isinstance(turn, dict) else None for turn in record]
        said = (place for those in (ANSWERS, ASKS) for place, role in enumerate(roles) if role in those)
        inner = {place: record[place] for place in [next(said, 0)] if record}
    for key, value in inner.items():
        here = f"{path}.{key}" if path else str(key)
        if isinstance(value, str):
            if path:
                yield here, value
        elif depth and value and isinstance(value, (dict, list)):
            yield from _nested_texts(value, here, depth - 1)
