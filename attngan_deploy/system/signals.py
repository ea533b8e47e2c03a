"""Signals: those that must not part what belongs together, those that come while C works, and their stack."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Result = TypeVar("Result")
IN_C = "works in C"  # name of a thread that nothing can stop


@contextmanager
def uninterrupted() -> Iterator[list[int]]:
    """Hold Ctrl-C and SIGTERM back until the block is done, so that they can't part steps that belong together.

    Yields a list in which the signals that came stand. Only the main thread receives signals; in others this does
    nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield []
        return
    held: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: held.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield held
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if held:
            signal.raise_signal(held[0])


def interruptibly(work: Callable[[], Result]) -> Result:
    """Do what takes long in C, so that Ctrl-C is heard meanwhile: it is left to a thread that ends with the process."""
    if threading.current_thread() is not threading.main_thread():
        return work()
    made: list[Result] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            made.append(work())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name=IN_C, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
    if raised:
        raise raised[0]
    return made[0]


def kill(process: int) -> None:
    """End a process at once, as nothing that it does can prevent."""
    os.kill(process, getattr(signal, "SIGKILL", signal.SIGTERM))  # on Windows every signal does


class _Stack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = (("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def own_signal_stack() -> Iterator[None]:
    """Put the calling thread's alternate signal stack back as it was, however the block ends (Linux only).

    OpenVINO puts it into memory of its own, and frees that with its models; the next Ctrl-C, which Python handles on
    that stack, would then end the process with a segmentation fault.
    """
    if sys.platform != "linux":
        yield
        return
    before, library = _Stack(), ctypes.CDLL(None)
    library.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        library.sigaltstack(ctypes.byref(before), None)
