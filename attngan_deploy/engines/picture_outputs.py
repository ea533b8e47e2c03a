"""Pictures as bytes out of a generator's graph, so that no floats leave the device: two outputs that are added here.

They are added when a graph is loaded. That needs no ONNX package: protobuf merges two messages that are written one
after the other, field by field, so that nodes and outputs are appended as they stand in a file.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from attngan_deploy.bundles.manifest import Graph, TensorSpec

PICTURES, SUMS = "pictures", "sums"  # uint8 [N, S, S, 3], and f32 [N] of the values that they were made of
IMAGE = "image_"  # what the outputs of the stages begin with; their side follows

FLOAT, UINT8, INT64 = 1, 2, 7  # ONNX's numbers of types
VARINT, BYTES = 0, 2  # protobuf's wire types
INT_ATTRIBUTE, INTS_ATTRIBUTE = 2, 7


def last_image(graph: Graph) -> str:
    """The output with the image of the last stage; "" where a graph has none."""
    images = [name for name in graph.outputs if name.startswith(IMAGE)]
    return max(images, key=lambda name: int(name.removeprefix(IMAGE)), default="")


def read_model(path: Path, graph: Graph) -> tuple[bytes, Graph]:
    """A graph's file and what the manifest says of it; both with `PICTURES` and `SUMS` where it makes images."""
    data = path.read_bytes()
    return (add_pictures(data, graph), with_pictures(graph)) if last_image(graph) else (data, graph)


def with_pictures(graph: Graph) -> Graph:
    """What the manifest says of a graph, and of the outputs that `add_pictures` adds."""
    batch, channels, *sides = graph.outputs[last_image(graph)].shape
    added = {PICTURES: TensorSpec("uint8", (batch, *sides, channels)), SUMS: TensorSpec("float32", (batch,))}
    return replace(graph, outputs={**graph.outputs, **added})


def add_pictures(model: bytes, graph: Graph) -> bytes:
    """An ONNX model, and in it the outputs `PICTURES` and `SUMS` of its last image, f32 [N, 3, S, S] in [-1, 1].

    A sum of values that are not all finite is not finite. The last node makes bytes: TensorRT takes that of no other.
    """
    image = last_image(graph)
    scalars = {"pictures_one": 1.0, "pictures_half": 127.5, "pictures_least": 0.0, "pictures_most": 255.0}
    nodes = [
        _node("Add", [image, "pictures_one"], "pictures_above"),
        _node("Mul", ["pictures_above", "pictures_half"], "pictures_scaled"),
        _node("Round", ["pictures_scaled"], "pictures_rounded"),
        _node("Clip", ["pictures_rounded", "pictures_least", "pictures_most"], "pictures_levels"),
        _node("Transpose", ["pictures_levels"], "pictures_last", _ints("perm", (0, 2, 3, 1))),
        _node("Cast", ["pictures_last"], PICTURES, _int("to", UINT8)),
        _node("ReduceSum", [image, "pictures_axes"], SUMS, _int("keepdims", 0)),
    ]
    constants = [_constant(name, FLOAT, (), np.float32(value).tobytes()) for name, value in scalars.items()]
    constants.append(_constant("pictures_axes", INT64, (3,), np.array([1, 2, 3], np.int64).tobytes()))
    specs = with_pictures(graph).outputs
    outputs = [_output(PICTURES, UINT8, specs[PICTURES]), _output(SUMS, FLOAT, specs[SUMS])]
    fields = [(1, nodes), (5, constants), (12, outputs)]  # of GraphProto: node, initializer, output
    return model + _bytes(7, b"".join(_bytes(number, each) for number, many in fields for each in many))


def _node(kind: str, inputs: Iterable[str], output: str, attribute: bytes = b"") -> bytes:
    taken = b"".join(_bytes(1, name) for name in inputs)
    return taken + _bytes(2, output) + _bytes(3, f"make_{output}") + _bytes(4, kind) + attribute


def _int(name: str, value: int) -> bytes:
    return _bytes(5, _bytes(1, name) + _number(3, value) + _number(20, INT_ATTRIBUTE))


def _ints(name: str, values: Iterable[int]) -> bytes:
    return _bytes(5, _bytes(1, name) + b"".join(_number(8, value) for value in values) + _number(20, INTS_ATTRIBUTE))


def _constant(name: str, kind: int, shape: Iterable[int], values: bytes) -> bytes:
    return b"".join(_number(1, size) for size in shape) + _number(2, kind) + _bytes(8, name) + _bytes(9, values)


def _output(name: str, kind: int, spec: TensorSpec) -> bytes:
    sizes = [_bytes(2, size) if isinstance(size, str) else _number(1, size or 0) for size in spec.shape]
    shape = b"".join(_bytes(1, size) for size in sizes)
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, kind) + _bytes(2, shape)))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | VARINT) + _varint(value)


def _bytes(field: int, value: bytes | str) -> bytes:
    held = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | BYTES) + _varint(len(held)) + held


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])
