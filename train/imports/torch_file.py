"""Weights in files that torch saved (`.pth`), by any version of it, or in safetensors, read without running code.

The pickle in the file is read by `StateUnpickler`, which makes descriptions of tensors and nothing else. Numbers are
read when all tensors are known to fit into the bytes that are there.
"""

import io
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from attngan_deploy.errors import CheckpointError
from attngan_deploy.train.imports import unpickle

STATE_DICT = "a state dict: names and tensors"
LARGEST_PICKLE = 16 * 2**20  # bytes; a network of a thousand weights has a hundredth
MOST_OPERATIONS = 400_000  # a weight takes some 40
MOST_MEMORY = 2**27  # bytes that descriptions of weights may take
LARGEST_DIRECTORY = 2**22  # bytes of an archive's list of files; in memory it takes ten times that
MOST_DIMENSIONS = 16
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # what files of torch before 1.6 begin with
SAFETENSORS = b"\0\0{"  # the end of its header's size, and that header
DTYPES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}
TENSORS = {"_rebuild_tensor", "_rebuild_tensor_v2"}  # the first is of torch 0.3 and older
# What torch saves of tensors that are sparse, quantised, complex or on no device, which no network here has.
ODD = {"_rebuild_meta_tensor_no_storage", "_rebuild_qtensor", "_rebuild_sparse_tensor", "_rebuild_tensor_v3"}
ODD |= {"_get_layout", "Size", "UntypedStorage", "ComplexFloatStorage", "ComplexDoubleStorage", "per_tensor_affine"}
ODD |= {"QInt8Storage", "QInt32Storage", "QUInt8Storage", "per_channel_affine"}
ODD |= {str(value).removeprefix("torch.") for value in vars(torch).values() if isinstance(value, torch.dtype)}
# what a damaged file makes its readers raise
DAMAGED = (*unpickle.DAMAGED, SafetensorError, RuntimeError, struct.error, zipfile.BadZipFile)


@dataclass(frozen=True)
class Name:
    """Something that a pickle names and that is not looked up."""

    module: str
    name: str


class OddTensor:
    """What a file describes as something of torch, but no plain tensor."""


@dataclass(frozen=True)
class Storage:
    """Numbers in a file, of which tensors are views."""

    key: str  # under which the file has them
    dtype: torch.dtype
    count: int
    start: int = 0  # number with which the part that is meant begins

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize


@dataclass(frozen=True)
class View:
    """A tensor as a file describes it: numbers of a storage from `offset` on, of a shape and strides."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.storage.dtype.itemsize

    def fits(self) -> bool:
        """Whether all that is asked for are numbers of the storage."""
        numbers = (self.storage.count, self.offset, *self.shape, *self.strides)
        if any(type(number) is not int or not 0 <= number < 2**48 for number in numbers):
            return False
        if len(self.shape) != len(self.strides) or len(self.shape) > MOST_DIMENSIONS:
            return False
        steps = ((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        return 0 in self.shape or self.offset + sum(steps) < self.storage.count

    def of(self, data: bytearray) -> Tensor:
        """The tensor, of the bytes of its storage."""
        dtype = self.storage.dtype
        if 0 in self.shape:
            return torch.empty(self.shape, dtype=dtype)
        return torch.frombuffer(data, dtype=dtype).as_strided(self.shape, self.strides, self.offset)


def load_state(path: Path, unwrap: Callable[[object], object] = lambda loaded: loaded) -> dict[str, Tensor]:
    """Read a state dict on the CPU.

    Args:
        unwrap: finds it in what the file holds, where a tensor is a `View`; nothing else of the file is read.

    Raises:
        CheckpointError: missing, damaged, hostile (it names code, or unpacks to more than it holds), or no state dict.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe would be waited for
        raise CheckpointError(f"{path} is no file", expected=STATE_DICT)
    try:
        with _Stream(path) as stream:
            head, size = stream.read(9), path.stat().st_size
            stream.seek(0)
            if head[6:] == SAFETENSORS:
                return load_file(path)
            read = _read_archive if head.startswith(b"PK") else _read_stream
            return read(path, stream, size, unwrap)
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror or error}", expected=STATE_DICT) from error
    except DAMAGED as error:
        with path.open("rb") as again:
            found = unpickle.describe_bytes(again.read(40), path.stat().st_size)
        raise CheckpointError(
            f"{path} is no file of weights that torch saved, or a damaged one",
            found=found,
            expected=STATE_DICT,
            next_step="unpack it, and name the file in it" if path.suffix == ".zip" else "download or copy it again",
        ) from error


class _Stream(io.BufferedReader):
    """A file of which at most `limit` bytes are read at once: zipfile reads an archive's list of files in one go."""

    limit: int | None = None

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))

    def read(self, size: int | None = -1, /) -> bytes:
        if self.limit is None:
            return super().read(size)
        data = super().read(min(self.limit + 1, sys.maxsize if size is None or size < 0 else size))
        if len(data) > self.limit:
            raise zipfile.BadZipFile("its list of files is too long")
        return data


def _read_archive(path: Path, stream: _Stream, size: int, unwrap: Callable[[object], object]) -> dict[str, Tensor]:
    """The format of torch 1.6 and later: an archive of a pickle, and a file for each storage."""
    stream.limit = LARGEST_DIRECTORY
    with zipfile.ZipFile(stream) as archive:
        stream.limit = None
        files = archive.infolist()
        unpacked = sum(file.file_size for file in files)
        if unpacked > size:  # torch never compresses what it saves
            raise CheckpointError(f"{path} is refused: {size:,} bytes that unpack to {unpacked:,}", expected=STATE_DICT)
        (pickled,) = (file.filename for file in files if file.filename.split("/")[1:] == ["data.pkl"])
        folder = pickled.removesuffix("data.pkl")

        def content(name: str, most: int) -> bytes:
            file = archive.getinfo(folder + name)
            if file.compress_type != zipfile.ZIP_STORED or file.file_size > most:
                raise zipfile.BadZipFile(f"{name} is packed, or larger than what it is for")
            return archive.read(file)

        loaded = StateUnpickler(path).load(io.BytesIO(content("data.pkl", LARGEST_PICKLE)))
        views = _checked(path, unwrap(loaded), size)
        if f"{folder}byteorder" in archive.namelist() and content("byteorder", 9) != b"little":
            raise zipfile.BadZipFile("its numbers are of a machine that writes them the other way round")
        return _tensors(views, lambda storage: bytearray(content(f"data/{storage.key}", storage.nbytes)))


def _read_stream(path: Path, stream: _Stream, size: int, unwrap: Callable[[object], object]) -> dict[str, Tensor]:
    """The format of torch before 1.6: five pickles, and then the storages."""
    pickles, unpickler = io.BytesIO(stream.read(LARGEST_PICKLE)), StateUnpickler(path)
    if unpickler.load(pickles) != MAGIC or unpickler.load(pickles) != PROTOCOL:
        raise pickle.UnpicklingError("it begins otherwise")
    unpickler.load(pickles)  # sizes of numbers where it was made; storages have their own everywhere
    views = _checked(path, unwrap(unpickler.load(pickles)), size)
    keys, places = unpickler.load(pickles), dict[str, int]()
    place = pickles.tell()
    for key in keys:
        if type(key) is not str:
            raise pickle.UnpicklingError("a storage without a name")
        stream.seek(place)
        (count,) = struct.unpack("<q", stream.read(8))
        if count != unpickler.storages[key].count:
            raise pickle.UnpicklingError("a storage of another size")
        places[key] = place + 8
        place += 8 + unpickler.storages[key].nbytes

    def content(storage: Storage) -> bytearray:
        stream.seek(places[storage.key])
        return bytearray(stream.read(storage.nbytes))

    return _tensors(views, content)


class StateUnpickler(unpickle.Unpickler):
    """Makes descriptions of tensors of the pickle in a file of weights."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, most_operations=MOST_OPERATIONS, most_memory=MOST_MEMORY)
        self.storages: dict[str, Storage] = {}  # those that were described, by their key
        del self.operations["INST"]
        self.operations |= {
            "EMPTY_TUPLE": lambda _: self.stack.append(()),
            "TUPLE": lambda _: self.push(tuple(self.pop_marked())),
            **{f"TUPLE{count}": partial(self._make_tuple, count) for count in (1, 2, 3)},
            "REDUCE": lambda _: self._call(),
            "BUILD": lambda _: self.stack.pop(),  # attributes, as the versions of layers
            "BINPERSID": lambda _: self._find_storage(*self.stack.pop()),
        }

    def find_global(self, module: str, name: str) -> None:
        """Put a name on the stack, where it is one of those that weights are made of; nothing is looked up."""
        known = (module, name) == ("collections", "OrderedDict")
        known |= module in ("torch", "torch.cuda") and name in DTYPES
        known |= module == "torch._utils" and name in (*TENSORS, "_rebuild_parameter")
        known |= module in ("torch", "torch.storage", "torch.serialization", "torch._utils") and name in ODD
        if not known:
            raise CheckpointError(
                f"{self.path} is refused: it holds more than weights, and loading that could run code",
                found=ascii(f"{module}.{name}")[1:81].rstrip("'"),
                expected=STATE_DICT,
                next_step="torch.save(network.state_dict(), ...) where the file was made",
            )
        self.push(Name(module, name))

    def refuse(self, operation: str) -> NoReturn:
        """Say that an operation is not done."""
        raise pickle.UnpicklingError(operation)

    def too_large(self, expected: str) -> Exception:
        """What is said of pickles that ask for too much time or memory."""
        what = f"{self.path} is refused: its list of weights is too large"
        return CheckpointError(what, expected=f"{STATE_DICT}, {expected}")

    def _make_tuple(self, count: int, _: None) -> None:
        if len(self.stack) < count:
            raise pickle.UnpicklingError("too little for a tuple")
        values = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.push(values)

    def _call(self) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        if type(called) is not Name or type(arguments) is not tuple:
            raise pickle.UnpicklingError("a call of what can't be called")
        if called.name in TENSORS:
            storage, offset, shape, strides = arguments[:4]
            odd = not isinstance(storage, Storage)
            self.push(OddTensor() if odd else View(storage, storage.start + offset, shape, strides))
        elif called.name == "_rebuild_parameter":
            self.push(arguments[0])
        elif called.name == "OrderedDict":
            self.push({})
            for pair in arguments[0] if arguments else ():
                self.set_items(list(pair))
        else:
            self.push(OddTensor())

    def _find_storage(self, what: str, kind: Name, key: str, place: str, count: int, part: Any = None) -> None:
        """Put a storage on the stack; where it was kept does not matter, and of some only a part is meant."""
        if kind.name not in DTYPES:
            self.push(OddTensor())
            return
        if type(key) is not str or type(count) is not int or count < 0 or what != "storage":
            raise pickle.UnpicklingError("no storage")
        whole = Storage(key, DTYPES[kind.name], count)
        if self.storages.setdefault(key, whole) != whole:
            raise pickle.UnpicklingError("a storage of two kinds")
        self.push(replace(whole, start=part[1]) if part else whole)


def _checked(path: Path, loaded: object, size: int) -> dict[str, View]:
    """The tensors of a state dict, none of which asks for more than there is."""
    if not isinstance(loaded, dict) or not loaded:
        raise CheckpointError(f"{path} holds no weights", found=type(loaded).__name__, expected=STATE_DICT)
    for name, value in loaded.items():
        shown = ascii(name)[:80]
        if not isinstance(name, str) or not isinstance(value, (View, OddTensor)):
            kind = "Tensor" if isinstance(value, (View, OddTensor)) else type(value).__name__
            what = f"{path} holds other things than weights"
            raise CheckpointError(what, found=f"{shown}: {kind}", expected=STATE_DICT)
        if isinstance(value, OddTensor):
            raise CheckpointError(f"{path}: {shown} is no plain tensor", expected=STATE_DICT)
        if not value.fits():
            raise pickle.UnpicklingError("a tensor beyond its numbers")
    if sum(value.nbytes for value in loaded.values()) > size:
        raise CheckpointError(f"{path} is refused: its tensors claim to be larger than the file", expected=STATE_DICT)
    return loaded


def _tensors(views: dict[str, View], content: Callable[[Storage], bytearray]) -> dict[str, Tensor]:
    """Read the storages, each once, and make the tensors."""
    storages = {view.storage.key: view.storage for view in views.values()}
    data = {key: content(storage) for key, storage in storages.items()}
    if any(len(data[key]) != storage.nbytes for key, storage in storages.items()):
        raise EOFError("it was cut")
    return {name: view.of(data[view.storage.key]) for name, view in views.items()}
