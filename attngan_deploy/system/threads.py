"""Work ahead: threads make what comes next while what was made is used."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import TypeVar

from attngan_deploy.system.processor import usable_cores
from attngan_deploy.system.signals import uninterrupted

T = TypeVar("T")


def results_ahead(
    calls: Iterable[Callable[[], T]],
    ahead: int,
    threads: int | None = None,
    name: str = "",
    waits: bool = False,
    complete: bool = False,
) -> Generator[T, None, None]:
    """Yield what calls return, in their order, while threads make those that follow; closing this ends the threads.

    An error of a call is raised here, after the results before it.

    Args:
        ahead: at most this many results wait, or are being made.
        threads: None for one a core that this process may use.
        name: what the names of the threads begin with.
        waits: whether ending this early waits for calls that are being made; who presses Ctrl-C would not want that.
        complete: whether calls that were taken are made also after Ctrl-C or an error.
    """
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(threads or usable_cores(), name)
    try:
        for call in calls:
            waiting.append(pool.submit(call))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        pool.shutdown()
    finally:
        with uninterrupted() if complete else nullcontext():
            pool.shutdown(wait=waits or complete, cancel_futures=not complete)
