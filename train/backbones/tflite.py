"""The bird MobileNetV2 as Google's Coral project publishes it: a quantised TensorFlow Lite file to our weights."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flatbuffers import encode
from flatbuffers import number_types as numbers
from flatbuffers.table import Table
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from attngan_deploy.errors import CheckpointError
from attngan_deploy.system.files import read_file, sha256_of, write_atomically
from attngan_deploy.train.image_encoder import BirdMobileNet

LARGEST = 2**26
PUBLISHED = "mobilenet_v2_1.0_224_inat_bird_quant.tflite"
ADDRESS = "https://github.com/google-coral/test_data, as the README links to it"
CONVOLUTIONS = (3, 4)  # numbers of CONV_2D and DEPTHWISE_CONV_2D among TensorFlow Lite's operators
STORED = {2: "<i4", 3: "u1"}  # what its numbers of types mean
SLOTS = {"operators": 1, "graphs": 2, "buffers": 4}  # places of fields in its schema's tables


def convert_backbone(file: Path, out: Path) -> str:
    """Write the weights that `--backbone` names: dequantised, float16, batch norm folded; returns the file's SHA-256.

    Raises:
        CheckpointError: `file` is missing, damaged, or of another network.
    """
    wanted = BirdMobileNet().state_dict()
    try:
        found = _convolutions(read_file(file, LARGEST))
        pairs = zip(wanted.items(), found, strict=True)
        tensors = {name: _placed(values, like) for (name, like), values in pairs}
    except OSError as error:
        raise CheckpointError(
            f"{file} can't be read: {error.strerror or error}", expected=PUBLISHED, next_step=f"fetch it from {ADDRESS}"
        ) from error
    except (ValueError, IndexError, KeyError, TypeError, struct.error) as error:
        raise CheckpointError(
            f"{file} is not the bird MobileNetV2 of TensorFlow Lite: {error}",
            expected=PUBLISHED,
            next_step=f"fetch it from {ADDRESS}",
        ) from error
    digest = sha256_of(file)
    write_atomically(out, save(tensors, {"source": f"{file.name}, SHA-256 {digest}"}))
    return digest


def _placed(values: NDArray[np.float32], like: Tensor) -> Tensor:
    """Values [outputs, height, width, inputs], [1, height, width, channels] or [outputs] in torch's order."""
    if values.ndim == 4:
        values = values.transpose(3, 0, 1, 2) if values.shape[0] == 1 else values.transpose(0, 3, 1, 2)
    if values.shape != like.shape:
        raise ValueError(f"a convolution of {list(values.shape)} where one of {list(like.shape)} stands")
    return torch.from_numpy(values.astype(np.float16)).contiguous()


def _convolutions(data: bytes) -> list[NDArray[np.float32]]:
    """Weights and biases of the convolutions, one after the other, in the order in which they run."""
    if data[4:8] != b"TFL3":
        raise ValueError("it does not begin as one")
    model = Table(data, encode.Get(numbers.UOffsetTFlags.packer_type, data, 0))
    kinds = [_number(code, 0, numbers.Int8Flags) for code in _tables(model, SLOTS["operators"])]
    graph, buffers = _tables(model, SLOTS["graphs"])[0], _tables(model, SLOTS["buffers"])
    tensors = _tables(graph, 0)
    found = []
    for operator in _tables(graph, 3):
        if kinds[_number(operator, 0, numbers.Uint32Flags)] in CONVOLUTIONS:
            _, *constants = _array(operator, 1, "<i4")
            found += [_values(tensors[place], buffers) for place in constants]
    return found


def _values(tensor: Table, buffers: list[Table]) -> NDArray[np.float32]:
    stored = STORED[_number(tensor, 1, numbers.Int8Flags)]
    raw = _array(buffers[_number(tensor, 2, numbers.Uint32Flags)], 0, "u1").tobytes()
    scales = Table(tensor.Bytes, tensor.Indirect(tensor.Pos + tensor.Offset(_entry(4))))
    (scale,), (zero,) = _array(scales, 2, "<f4"), _array(scales, 3, "<i8")
    values: NDArray[np.float32] = (np.frombuffer(raw, stored).astype(np.float64) - zero).astype(np.float32) * scale
    return values.reshape(_array(tensor, 0, "<i4"))


def _entry(slot: int) -> int:
    return 4 + 2 * slot  # in a table's list of fields, which begins with two sizes


def _tables(table: Table, slot: int) -> list[Table]:
    start = table.Vector(table.Offset(_entry(slot)))
    length = table.VectorLen(table.Offset(_entry(slot)))
    return [Table(table.Bytes, table.Indirect(start + 4 * place)) for place in range(min(length, len(table.Bytes)))]


def _array(table: Table, slot: int, dtype: str) -> NDArray[Any]:
    offset = table.Offset(_entry(slot))
    return np.frombuffer(table.Bytes, np.dtype(dtype), table.VectorLen(offset), table.Vector(offset))


def _number(table: Table, slot: int, flags: type) -> int:
    offset = table.Offset(_entry(slot))
    return int(table.Get(flags, table.Pos + offset)) if offset else 0
