"""What would wait for ever fails instead."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def alarm(seconds: int = 60) -> Iterator[None]:
    """Fail where the block takes longer, also where it waits for a pipe; for the main thread of POSIX systems."""

    def ring(signal_number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"it took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
