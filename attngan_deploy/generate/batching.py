"""Which pictures are made together, and batches side by side."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")
MAX_BATCH_WORDS = 2048  # pictures times words of the longest caption: attention needs 16 kB of memory for each


def grouped(
    places: Iterable[tuple[int, int]], ids: Sequence[list[int]] | Mapping[int, list[int]], batch_size: int
) -> Iterator[list[tuple[int, int]]]:
    """Cut places into batches, smaller ones where captions are very long."""
    group: list[tuple[int, int]] = []
    longest = 0
    for caption, sample in places:
        grown = max(longest, len(ids[caption]))
        if group and (len(group) == batch_size or (len(group) + 1) * grown > MAX_BATCH_WORDS):
            yield group
            group, grown = [], len(ids[caption])
        group.append((caption, sample))
        longest = grown
    if group:
        yield group


def side_by_side(work: Callable[[Job], Result], jobs: Iterable[Job], streams: int) -> Iterator[tuple[Job, Result]]:
    """Each job with its result, in order; `streams` threads work, and one result more than they waits to be taken."""
    pool = ThreadPoolExecutor(streams)
    waiting: deque[tuple[Job, Future[Result]]] = deque()
    try:
        for job in jobs:
            waiting.append((job, pool.submit(work, job)))
            if len(waiting) > streams + 1:
                first, made = waiting.popleft()
                yield first, made.result()
        for first, made in waiting:
            yield first, made.result()
    finally:
        pool.shutdown(cancel_futures=True)
