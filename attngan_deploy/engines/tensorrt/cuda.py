"""The little of CUDA that running a TensorRT engine takes: find a GPU, hold memory on it, copy. Uses cuda-python."""

import ctypes
import importlib
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.engines.request import INSTALL
from attngan_deploy.errors import EngineError, MissingExtraError
from attngan_deploy.system.machine import driver_problem, nvidia, versions

OLD_DRIVER = "(CUDA error 35)"


@dataclass(frozen=True)
class Gpu:
    """A GPU, and its capability, e.g. "sm89"."""

    name: str
    capability: str


def find_gpu(number: int = 0) -> Gpu:
    """A GPU by its place among those that CUDA_VISIBLE_DEVICES leaves; this thread uses it from now on.

    Raises:
        MissingExtraError: cuda-python is missing.
        EngineError: the driver or the GPU is missing; it says which, in CUDA's own words.
    """
    try:
        count = _call("cudaGetDeviceCount")
    except EngineError as error:
        why: object = error
        if OLD_DRIVER in str(error):  # CUDA says the same where there is none
            driver = nvidia()
            why = driver_problem(driver, versions()) or driver.why or error
        raise EngineError(f"no NVIDIA GPU can be used here: {why}", next_step="t2i doctor") from error
    if count < 1:
        raise EngineError("this machine has no NVIDIA GPU that can be used", next_step="t2i doctor")
    if number >= count:
        raise EngineError(f"this machine has no GPU {number}", found=f"{count}", expected=f"0 to {count - 1}")
    use_gpu(number)
    properties = _call("cudaGetDeviceProperties", number)
    name = properties.name
    return Gpu(
        name.decode().rstrip("\0") if isinstance(name, bytes) else str(name),
        f"sm{properties.major}{properties.minor}",
    )


def use_gpu(number: int) -> None:
    """Let what this thread asks of CUDA be done by this GPU; a thread begins with the first one."""
    _call("cudaSetDevice", number)


class Stream:
    """A CUDA stream: work that is done in order, beside what the program does."""

    def __init__(self) -> None:
        stream = _call("cudaStreamCreate")
        self.handle = int(stream)
        self._stream = stream
        weakref.finalize(self, _runtime().cudaStreamDestroy, stream)

    def upload(self, array: NDArray[Any], buffer: "Buffer") -> None:
        """Copy a contiguous array to the GPU; it must live until `wait`."""
        kind = _runtime().cudaMemcpyKind.cudaMemcpyHostToDevice
        _call("cudaMemcpyAsync", buffer.address, array.ctypes.data, array.nbytes, kind, self._stream)

    def download(self, buffer: "Buffer", array: NDArray[Any]) -> None:
        """Copy from the GPU into a contiguous array, which holds the values after `wait`."""
        kind = _runtime().cudaMemcpyKind.cudaMemcpyDeviceToHost
        _call("cudaMemcpyAsync", array.ctypes.data, buffer.address, array.nbytes, kind, self._stream)

    def wait(self) -> None:
        """Wait until everything is done; raise EngineError where something failed on the GPU."""
        _call("cudaStreamSynchronize", self._stream)


class Buffer:
    """Memory on the GPU that grows when more is needed, and is freed with the object."""

    _allocate, _release = "cudaMalloc", "cudaFree"

    def __init__(self) -> None:
        self.address, self.size = 0, 0
        self._free: weakref.finalize[[int], Buffer] | None = None

    def reserve(self, size: int) -> None:
        """Make it hold `size` bytes, losing what it held when it grows; raise EngineError without memory."""
        if size <= self.size:
            return
        if self._free is not None:
            self._free()
        self.address, self.size = 0, 0
        self.address = int(_call(self._allocate, size))
        self.size = size
        self._free = weakref.finalize(self, getattr(_runtime(), self._release), self.address)


class PinnedBuffer(Buffer):
    """Memory of the machine that stays where it is: a GPU copies it while something else goes on."""

    _allocate, _release = "cudaMallocHost", "cudaFreeHost"

    def view(self, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array of this shape in the memory, which the next `view` may write over."""
        count = prod(shape)
        self.reserve(count * dtype.itemsize)
        held = (ctypes.c_char * (count * dtype.itemsize)).from_address(self.address)
        return np.frombuffer(memoryview(held), dtype, count).reshape(shape)


def _runtime() -> Any:
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise MissingExtraError(
            f"cuda-python can't be imported: {error}", next_step=f"{INSTALL['tensorrt']}, or [rtx]"
        ) from error


def _call(function: str, *arguments: Any) -> Any:
    """Call a function of the CUDA runtime; returns its one result, or None."""
    runtime = _runtime()
    try:
        status, *results = getattr(runtime, function)(*arguments)
    except (RuntimeError, OSError) as error:  # cuda-python found no library to call
        raise EngineError(f"{function} failed: {error}") from error
    if status != runtime.cudaError_t.cudaSuccess:
        _, text = runtime.cudaGetErrorString(status)
        words = text.decode() if isinstance(text, bytes) else str(text)
        raise EngineError(f"{function} failed: {words} (CUDA error {int(status)})")
    return results[0] if results else None
