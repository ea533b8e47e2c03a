"""A limit on the memory of a piece of code, so that a reader that believes what a file claims fails a test."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def resident() -> int:
    """Bytes of memory that this process holds."""
    table = Path("/proc/self/statm")
    if not table.is_file():
        pytest.skip("this system does not tell how much memory a process holds")
    return int(table.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def little_memory(bytes_more: int = 200 * 2**20, seconds: float = 20.0) -> Iterator[None]:
    """Fail where the block comes to hold more memory than it began with, or takes more seconds of the processor."""
    begun, before, most, ended = time.process_time(), resident(), [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.002):
            most[0] = max(most[0], resident())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
    assert max(most[0], resident()) - before < bytes_more, f"{(most[0] - before) / 2**20:.0f} MiB were taken"
    assert time.process_time() - begun < seconds
