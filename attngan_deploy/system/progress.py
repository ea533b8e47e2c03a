"""Progress on standard error: a bar where a person is looking, plain lines where not."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attngan_deploy.system.terminal import at_terminal, printable, show

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def show_progress(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function to be called with (done, total): first with done 0, then whenever something was done.

    Speed and time left are of the work since it was last called with done 0.

    The unit is what is counted, in short, e.g. "img"; the speed is shown as "img/s".
    """
    what = printable(what)
    if at_terminal():
        with _bar(what, unit) as update:
            yield update
    else:
        yield _lines(what, unit)


@contextmanager
def _bar(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TextColumn("ETA"), TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=None, rate="")
        start = time.perf_counter()

        def update(done: int, total: int) -> None:
            nonlocal start
            if not done:
                start = time.perf_counter()
                progress.reset(task)
            rate = f"{done / max(1e-9, time.perf_counter() - start):.1f} {unit}/s" if done else ""
            progress.update(task, completed=done, total=total, rate=rate)

        yield update


def _lines(what: str, unit: str) -> Callable[[int, int], None]:
    start = last = time.perf_counter()

    def update(done: int, total: int) -> None:
        nonlocal start, last
        now = time.perf_counter()
        if not done:
            start = last = now
        if 0 < done < total and now - last >= SECONDS_BETWEEN_LINES:
            last, rate = now, done / (now - start)
            left = (total - done) / rate
            show(f"{what}: {done}/{total}, {rate:.1f} {unit}/s, {left:.0f} s left", error=True)

    return update
