"""How weights are stored: float32, float16, or 8 bits with one scale a row. What is stored is exactly what is meant.

Rounding gives float32 values that a smaller type holds exactly; the graph builder then finds that type by itself, so
that no list of names has to agree between the network that torch runs and the graph.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

LARGEST_CODE = 127
ZERO_CODE = 128  # unsigned, as TensorRT takes signed 8-bit constants for quantization alone
SCALE_BITS = 11  # of a scale's mantissa: code times scale then has 18 bits, and is exact in float32

Floats = NDArray[np.float32]


class Rows(NamedTuple):
    """A matrix as uint8 [R, ...] and float32 [R, 1, ...]: a weight is (code - 128) times its row's scale."""

    codes: NDArray[np.uint8]
    scales: Floats


def as_float32(tensor: Tensor | Floats) -> Floats:
    """A torch tensor or numpy array as a numpy array in float32."""
    if isinstance(tensor, Tensor):
        tensor = tensor.detach().cpu().numpy()
    return np.asarray(tensor, np.float32)


def as_exact_half(array: Floats) -> NDArray[np.float16] | None:
    """The array in float16, or None where that would change a value."""
    with np.errstate(over="ignore", under="ignore"):
        half = array.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), array) else None


def as_exact_rows(array: Floats, row_axes: int = 1) -> Rows | None:
    """The array in 8 bits with a scale for each row, or None where that would change a value.

    Args:
        row_axes: how many leading axes name a row; the others are inside it.
    """
    rows = to_rows(array, row_axes)
    return rows if np.array_equal(from_rows(rows), array) else None


def to_rows(array: Floats, row_axes: int = 1) -> Rows:
    """The array in 8 bits: each row divided by its scale, the row's largest magnitude / 127 rounded to 11 bits."""
    inside = tuple(range(row_axes, array.ndim))
    mantissa, exponent = np.frexp(np.abs(array).max(axis=inside, keepdims=True) / np.float32(LARGEST_CODE))
    scales = np.ldexp(np.rint(mantissa * 2**SCALE_BITS) / 2**SCALE_BITS, exponent).astype(np.float32)
    codes = np.rint(array / np.where(scales == 0, 1, scales)).clip(-LARGEST_CODE, LARGEST_CODE)
    return Rows((codes + ZERO_CODE).astype(np.uint8), scales)


def from_rows(rows: Rows) -> Floats:
    """The float32 values that the codes and scales stand for."""
    return (rows.codes.astype(np.float32) - ZERO_CODE) * rows.scales
