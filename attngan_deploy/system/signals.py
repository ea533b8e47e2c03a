"""Signals: those that must not part what belongs together, those that come while C works, and their stack."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
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
    """Do what may take long in C, so that Ctrl-C is heard meanwhile: it is left to a thread that ends with the process.

    The thread is kept for the next work, as starting one takes longer than a small graph does.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    made: list[Result] = []
    ended: SimpleQueue[BaseException | None] = SimpleQueue()

    def run() -> None:
        try:
            made.append(work())
        except BaseException as error:
            ended.put(error)
        else:
            ended.put(None)

    works = _idle.pop() if _idle else _started()
    works.put(run)
    while True:
        with suppress(Empty):
            raised = ended.get(timeout=0.1)
            break
    _idle.append(works)
    if raised is not None:
        raise raised
    return made[0]


_idle: list["SimpleQueue[Callable[[], None]]"] = []  # what threads that wait are given their work by
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # threads stay behind


def _started() -> "SimpleQueue[Callable[[], None]]":
    works: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def serve() -> None:
        thread = threading.current_thread()
        waits = thread.name
        while True:
            run = works.get()
            thread.name = IN_C
            run()
            thread.name = waits
            del run  # and what it holds

    threading.Thread(target=serve, daemon=True).start()
    return works


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
