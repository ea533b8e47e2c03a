"""The server's own errors on standard error, so many at most that no client can fill a disk with them."""

import logging
import time

RECORDS = 20  # in a minute
LETTERS = 4000  # of a record: the end of it, where a traceback names its error
LOGGERS = ("uvicorn.error", "asyncio")


class BoundedLog(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes so many records a minute, cut to a length, and how many it left out before."""

    def __init__(self) -> None:
        super().__init__()
        self._minute, self._count = 0.0, 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or count it."""
        now = time.monotonic()
        if now - self._minute > 60:
            left_out, self._minute, self._count = self._count - RECORDS, now, 0
            if left_out > 0:
                self.stream.write(f"t2i: {left_out} more errors were left out\n")
        self._count += 1
        if self._count <= RECORDS:
            super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        """A record with its traceback, or the end of it."""
        return super().format(record)[-LETTERS:]


def bound_logs() -> None:
    """Let the errors of uvicorn and asyncio be written by one `BoundedLog`."""
    handler = BoundedLog()
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.ERROR)
