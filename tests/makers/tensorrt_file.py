"""Reads tensors and profiles from a serialised engine of TensorRT-RTX 1.7, without the GPU that its runtime asks for.

The format is not documented. What is read here was found in engines whose tensors were known: fields have a 16-bit tag
and the bytes 01 00 behind it, texts and lists have their length in 8 bytes before them, and a dynamic size is a
negative number that stands for the same size wherever it appears.
"""

import re
import struct
from dataclasses import dataclass

MAGIC = b"vtrt"
READABLE = "1.7"  # start of the versions whose engines were looked at
DTYPES = {0: "float32", 1: "float16", 3: "int32", 4: "bool", 5: "uint8", 8: "int64"}


def tag(number: int) -> bytes:
    return bytes([number, 0x80, 1, 0])


NAME = re.escape(tag(0x41) + tag(0x13)) + rb"(.{8})\x01\x80" + re.escape(tag(0x0C)) + rb".{8}"
DTYPE = re.escape(tag(0x1C) + tag(0x03) + b"\0" + tag(0x0D) + tag(0x07)) + rb"(.{4})"
DIMS = re.escape(tag(0x07)) + rb"(.{4})(?:\x01\x80" + re.escape(tag(0x09)) + rb".{8})?"
SHAPE, MODE = re.escape(tag(0x59)) + DIMS, re.escape(tag(0x28) + tag(0x07)) + rb"(.{4})"
PROFILE = re.escape(tag(0x37)) + rb"(.{8})"
TENSOR_PROFILE = re.escape(b"\x01\x80" + tag(0x59)) + rb"\x03\0\0\0\0\0\0\0"
END_OF_DIMS, END_OF_PROFILE = b"\xa6\x7f", b"\xc8\x7f"


@dataclass(frozen=True)
class FileTensor:
    """An input or output as the file says it; dynamic sizes are negative, equal ones are equal."""

    output: bool
    dtype: str
    shape: tuple[int, ...]


def read_tensors(data: bytes) -> dict[str, FileTensor]:
    """Inputs and outputs of an engine, by name."""
    assert data.startswith(MAGIC)
    tensors = {}
    for found in re.finditer(NAME, data, flags=re.DOTALL):
        length = int.from_bytes(found[1], "little")
        name = data[found.end() : found.end() + length]
        dtype = re.compile(DTYPE, re.DOTALL).match(data, found.end() + length)
        if dtype is None:
            continue
        shape = re.compile(SHAPE, re.DOTALL).search(data, dtype.end(), dtype.end() + 300)
        assert shape is not None
        dims, end = _numbers(data, shape)
        mode = re.compile(MODE, re.DOTALL).search(data, end, end + 100)
        assert mode is not None
        dtype_number = int.from_bytes(dtype[1], "little")
        tensors[name.decode()] = FileTensor(mode[1] != bytes(4), DTYPES[dtype_number], dims)
    return tensors


def read_profile(data: bytes) -> list[list[tuple[int, ...]]]:
    """Smallest, best and largest shape of each input, in the order of the graph."""
    tensors = len(read_tensors(data))
    for found in re.finditer(PROFILE, data, flags=re.DOTALL):
        if int.from_bytes(found[1], "little") != tensors:
            continue
        shapes, end = [], found.end()
        for _ in range(tensors):
            start = re.compile(TENSOR_PROFILE, re.DOTALL).match(data, end)
            assert start is not None
            end, three = start.end(), []
            for _ in range(3):
                dims = re.compile(DIMS, re.DOTALL).match(data, end)
                assert dims is not None
                numbers, end = _numbers(data, dims)
                assert data[end : end + 2] == END_OF_DIMS
                three.append(numbers)
                end += 2
            assert data[end : end + 2] == END_OF_PROFILE
            end += 2
            shapes.append(three)
        return [three for three in shapes if three[0]]
    raise AssertionError("no profile in the file")


def _numbers(data: bytes, found: re.Match[bytes]) -> tuple[tuple[int, ...], int]:
    """The sizes behind a match of `DIMS`, and where they end."""
    rank = max(0, int.from_bytes(found[1], "little", signed=True))
    return struct.unpack_from(f"<{rank}q", data, found.end()), found.end() + 8 * rank
