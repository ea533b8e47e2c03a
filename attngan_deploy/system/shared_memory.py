"""Memory that processes of a machine share: one writes into it, and others look at the same pages."""

import mmap
import os
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class SharedMemory:
    """Pages that end with their last reader: in memory where the system can (Linux), else in a temporary file."""

    def __init__(self) -> None:
        if hasattr(os, "memfd_create"):
            self._file = os.memfd_create("t2i")
        else:
            with tempfile.TemporaryFile() as file:
                self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)

    def write(self, values: NDArray[np.uint8]) -> None:
        """Put these behind what is there; raises OSError where there is no room."""
        data = memoryview(values.tobytes())
        while data:
            data = data[os.write(self._file, data) :]

    def array(self, shape: Sequence[int]) -> NDArray[np.uint8]:
        """What was written, as an array of this shape, which outlives this object."""
        return _mapped(self._file, shape)

    @property
    def place(self) -> Path | None:
        """Where other processes of this user find it while this object lives; None where the system has no such."""
        place = Path(f"/proc/{os.getpid()}/fd/{self._file}")
        return place if place.exists() else None


def array_at(place: Path, shape: Sequence[int]) -> NDArray[np.uint8]:
    """The array of another process, at the `place` of its memory."""
    with place.open("r+b") as file:
        return _mapped(file.fileno(), shape)


def _mapped(file: int, shape: Sequence[int]) -> NDArray[np.uint8]:
    return np.frombuffer(mmap.mmap(file, int(np.prod(shape))), np.uint8).reshape(shape)
