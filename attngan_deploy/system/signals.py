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
IN_C, IDLE = "works in C", "waits for work in C"  # names of a thread; nothing can stop the first


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

    The thread is kept for the next work, as starting one takes longer than a small graph does. After Ctrl-C it is
    busy until its work has ended, and other work gets another one.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    made: list[Result] = []
    ended: SimpleQueue[BaseException | None] = SimpleQueue()
    thread = _idle.pop() if _idle else _WorkThread()
    thread.name = IN_C  # from here on, so that it is known for one that works wherever Ctrl-C comes
    thread.works.put((lambda: made.append(work()), ended))
    while True:
        with suppress(Empty):
            raised = ended.get(timeout=0.1)
            break
    if raised is None:
        return made[0]
    try:
        raise raised
    finally:
        del raised  # it holds this frame, which would hold it, and all that the work took, until they are collected


class _WorkThread(threading.Thread):
    """A thread for one work after another; it says itself that it is idle, as nobody may wait for it any more."""

    def __init__(self) -> None:
        super().__init__(name=IN_C, daemon=True)
        self.works: SimpleQueue[tuple[Callable[[], None], SimpleQueue[BaseException | None]]] = SimpleQueue()
        self.start()

    def run(self) -> None:
        while True:
            work, ended = self.works.get()
            raised = None
            try:
                work()
            except BaseException as error:
                raised = error
            del work  # and what it holds
            self.name = IDLE
            _idle.append(self)
            ended.put(raised)
            del ended, raised


_idle: list[_WorkThread] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # threads stay behind


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
