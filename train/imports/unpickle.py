"""Pickles of plain data, read without running code: no class and no function that a pickle names is ever looked up."""

import io
import pickle
import pickletools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from attngan_deploy.errors import DataError
from attngan_deploy.system.files import read_file

LARGEST = 256 * 2**20  # bytes; the captions.pickle of COCO, the largest published one, has a tenth
MOST_OPERATIONS = 40_000_000  # each can make an object of 64 bytes; COCO's has a quarter
UNUSED = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET", "EMPTY_SET", "ADDITEMS"}
FRAME_BYTES = 9  # of the operation and its argument
IMPORTS = {"GLOBAL", "STACK_GLOBAL", "INST"}
MEMO_OPERATIONS = {"PUT", "BINPUT", "LONG_BINPUT"}
DAMAGED = (  # what a pickle that is no pickle makes the unpickler raise
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    OverflowError,
    MemoryError,
    RecursionError,
)


def describe_bytes(data: bytes, size: int) -> str:
    """What a file seems to be, in words, for those who meant to give another.

    Args:
        data: at least its first 40 bytes, if it has so many.
        size: how many it has.
    """
    if not size:
        return "an empty file"
    kinds = {b"PK": "a zip archive", b"\x80": "a pickle"}
    kind = next((kind for start, kind in kinds.items() if data.startswith(start)), "")
    return f"{size:,} bytes that start " + (f"like {kind}" if kind else f"with {data[:40]!a}")


def load_plain(path: Path, encoding: str = "latin1") -> Any:
    """Read a pickle of lists, dicts, texts and numbers, of Python 2 or 3.

    Raises:
        DataError: missing, no pickle, cut short, too large, or naming anything that would have to be imported.
    """
    try:
        data = read_file(path, LARGEST)
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}", expected="a pickle") from error
    except ValueError as error:
        raise DataError(f"{path} can't be read: {error}", expected=f"a pickle of at most {LARGEST:,} bytes") from error
    size = len(data)
    try:
        frames = _check_operations(path, data)
        return _PlainUnpickler(path, without_frames(data, frames), encoding).load()
    except DAMAGED as error:
        raise DataError(
            f"{path} is no pickle, or a damaged one", found=describe_bytes(data, size), expected="a complete pickle"
        ) from error


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, path: Path, data: bytes, encoding: str) -> None:
        super().__init__(io.BytesIO(data), encoding=encoding)
        self.path = path

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse: every class and function of a pickle is asked for here before anything is done with it."""
        raise DataError(
            f"{self.path} is refused: reading it could run code",
            found=ascii(f"{module}.{name}"[:80]),
            expected="lists, dicts, texts and numbers only",
        )


def without_frames(data: bytes, frames: Sequence[int]) -> bytes:
    """A pickle without its frames, which only say how much to read at once.

    Where something begins in a frame and ends behind it, the unpickler loses its place, and would do other operations
    than those that were looked at.

    Args:
        frames: places of its FRAME operations, as `pickletools.genops` tells them.
    """
    ends = [0, *(place + FRAME_BYTES for place in frames)]
    return b"".join(data[end:place] for end, place in zip(ends, [*frames, len(data)], strict=True))


def _check_operations(path: Path, data: bytes) -> list[int]:
    """Refuse what would take much more memory than the file has bytes, before any of it is done.

    Returns:
        Places of its frames.
    """
    frames: list[int] = []
    for count, (operation, argument, place) in enumerate(pickletools.genops(data), start=1):
        if count > MOST_OPERATIONS:
            raise DataError(f"{path} is too large", expected=f"at most {MOST_OPERATIONS:,} operations")
        if operation.name in IMPORTS:
            return frames  # reading ends here, and names it
        if operation.name == "FRAME":
            frames.append(int(place or 0))
        if operation.name in UNUSED:  # of tuples in tuples, a few bytes make a key that takes years to hash
            raise DataError(
                f"{path} is refused: it holds what plain data does not need",
                found=operation.name,
                expected="lists, dicts, texts and numbers only",
            )
        too_far = operation.name in MEMO_OPERATIONS and int(argument or 0) > count
        if too_far or operation.name == "BYTEARRAY8":
            raise DataError(f"{path} is refused: {operation.name} asks for memory that plain data does not need")
    return frames
