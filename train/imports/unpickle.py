"""Pickles of plain data, read without running code: their operations are done here, as far as plain data need them.

Python's own unpickler looks classes up, hashes and nests whatever it is told, and believes lengths. This one has a list
of operations, makes nothing that is larger than its bytes allow, and compares and hashes texts and small numbers alone.
"""

import io
import pickle
import pickletools
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from attngan_deploy.errors import DataError
from attngan_deploy.system.files import read_file

LARGEST = 256 * 2**20  # bytes; the captions.pickle of COCO, the largest published one, has a tenth
MOST_OPERATIONS = 40_000_000  # COCO's has a quarter
MOST_MEMORY = 2**30  # bytes of what is made of them; COCO's makes a third
MOST_BITS = 128  # of a number
LARGEST_KEY = 2**31  # numbers of any size could be chosen so that a dict looks through all of them for each
POINTER = 8
ENTRY = 100  # bytes that a list, a dict, or a place in one or in the memo takes at most
GIT_LFS = "a pointer of Git LFS, whose file git lfs pull brings"
PLAIN = "lists, dicts, texts and numbers only"
AGAIN = "the file that was published, downloaded or copied again"
DAMAGED = (  # what a pickle that is none raises here
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
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
BYTE_STRINGS = {"STRING", "BINSTRING", "SHORT_BINSTRING"}  # the texts of Python 2, which don't say their encoding
NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"}
VALUES = {"FLOAT", "BINFLOAT", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
VALUES |= {"SHORT_BINBYTES", "BINBYTES", "BINBYTES8"} | BYTE_STRINGS | NUMBERS


def describe_bytes(data: bytes, size: int) -> str:
    """What a file seems to be, in words, for those who meant to give another.

    Args:
        data: at least its first 40 bytes, if it has so many.
        size: how many it has.
    """
    if not size:
        return "an empty file"
    kinds = {b"PK": "a zip archive", b"\x80": "a pickle", b"<": "a web page", b"version https://git-lfs": GIT_LFS}
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
        raise DataError(
            f"{path} can't be read: {error.strerror or error}", expected="a pickle", next_step="t2i import --help"
        ) from error
    except ValueError as error:
        raise DataError(
            f"{path} can't be read: {error}",
            expected=f"a pickle of at most {LARGEST:,} bytes",
            next_step="t2i import --help",
        ) from error
    try:
        return Unpickler(path, encoding).load(io.BytesIO(data))
    except DAMAGED as error:
        raise DataError(
            f"{path} is no pickle, or a damaged one",
            found=describe_bytes(data, len(data)),
            expected="a complete pickle",
            next_step=AGAIN,
        ) from error


class Unpickler:
    """Does the operations of pickles that make plain data, and refuses all others.

    Args:
        path: whose pickles they are.
        encoding: of the texts of Python 2.
        most_operations: in all pickles that are loaded.
        most_memory: bytes that all that is made of them may take.
    """

    def __init__(
        self,
        path: Path,
        encoding: str = "latin1",
        most_operations: int = MOST_OPERATIONS,
        most_memory: int = MOST_MEMORY,
    ) -> None:
        self.path, self._encoding, self._most_operations = path, encoding, most_operations
        self._operations_done, self._memory_left = 0, most_memory
        self.stack: list[Any] = []  # above the last mark
        self._below: list[list[Any]] = []  # what is below each mark
        self._memo: dict[int, Any] = {}
        self.operations: dict[str, Callable[[Any], None]] = {
            "PROTO": self._check_protocol,
            "FRAME": lambda length: None,  # it only says how much to read at once
            "STOP": lambda _: None,  # it is the last one
            "MARK": lambda _: self._mark(),
            "EMPTY_LIST": lambda _: self.stack.append([]),
            "LIST": lambda _: self.push(self.pop_marked()),
            "APPEND": lambda _: self._extend([self.stack.pop()]),
            "APPENDS": lambda _: self._extend(self.pop_marked()),
            "EMPTY_DICT": lambda _: self.stack.append({}),
            "DICT": lambda _: self._make_dict(),
            "SETITEM": lambda _: self.set_items([self.stack.pop(-2), self.stack.pop()]),
            "SETITEMS": lambda _: self.set_items(self.pop_marked()),
            "MEMOIZE": lambda _: self._keep(len(self._memo)),
            "STACK_GLOBAL": lambda _: self._find_stacked(),
            **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), self._keep),
            **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda place: self.stack.append(self._memo[place])),
            **dict.fromkeys(("GLOBAL", "INST"), lambda name: self.find_global(*name.split(" ", 1))),
            **{name: partial(self._push_constant, value) for name, value in CONSTANTS.items()},
        }

    def load(self, stream: BinaryIO) -> Any:
        """What the next pickle of a stream holds.

        Raises:
            DataError: an operation that is not for plain data, or too much of it.
            Exception: one of `DAMAGED`, for what is no pickle.
        """
        self.stack, self._below, self._memo = [], [], {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that are none
            self._run(stream)
        return self.stack.pop()

    def _run(self, stream: BinaryIO) -> None:
        argument: Any
        for operation, argument, _ in pickletools.genops(stream):
            name = operation.name
            self._operations_done += 1
            if name in VALUES:
                if name in NUMBERS and argument.bit_length() > MOST_BITS:
                    raise ValueError(f"a number of {argument.bit_length()} bits")
                if name in BYTE_STRINGS:
                    argument = argument.encode("latin1").decode(self._encoding)
                self._memory_left -= sys.getsizeof(argument) + POINTER
                self.stack.append(argument)
            elif name in self.operations:
                self._memory_left -= ENTRY
                self.operations[name](argument)
            else:
                self.refuse(name)
            if self._operations_done > self._most_operations:
                raise self.too_large(f"at most {self._most_operations:,} operations")
            if self._memory_left < 0:
                raise self.too_large("less of it")

    def find_global(self, module: str, name: str) -> None:
        """Put what a pickle names on the stack; plain data name nothing."""
        raise DataError(
            f"{self.path} is refused: reading it could run code",
            found=ascii(f"{module}.{name}"[:80]),
            expected=PLAIN,
            next_step=AGAIN,
        )

    def too_large(self, expected: str) -> Exception:
        """What is said of pickles that ask for too much time or memory."""
        return DataError(f"{self.path} is too large", expected=expected, next_step=AGAIN)

    def refuse(self, operation: str) -> NoReturn:
        """Say that an operation is not done."""
        what = f"{self.path} is refused: it holds what plain data does not need"
        raise DataError(what, found=operation, expected=PLAIN, next_step=AGAIN)

    def pop_marked(self) -> list[Any]:
        """What stands above the last mark, which is taken off with it."""
        marked, self.stack = self.stack, self._below.pop()
        return marked

    def push(self, value: object) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def _push_constant(self, value: bool | None, _: None) -> None:
        self.stack.append(value)

    def _mark(self) -> None:
        self._below.append(self.stack)
        self.stack = []

    def _check_protocol(self, number: int) -> None:
        if number > pickle.HIGHEST_PROTOCOL:
            raise pickle.UnpicklingError(f"protocol {number}")

    def _keep(self, place: int) -> None:
        if place > self._operations_done:
            raise pickle.UnpicklingError("a place far beyond the last")
        self._memo[place] = self.stack[-1]

    def _extend(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise pickle.UnpicklingError("values behind what is no list")
        self.stack[-1].extend(values)

    def _make_dict(self) -> None:
        items = self.pop_marked()
        self.push({})
        self.set_items(items)

    def set_items(self, items: list[Any]) -> None:
        """Put keys and values, in turns, into the dict on top of the stack."""
        if type(self.stack[-1]) is not dict:
            raise pickle.UnpicklingError("items of what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, bytes, int) or (type(key) is int and abs(key) >= LARGEST_KEY):
                raise pickle.UnpicklingError("a key that is neither a text nor a small number")
            self.stack[-1][key] = value

    def _find_stacked(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise pickle.UnpicklingError("no name")
        self.find_global(module, name)
