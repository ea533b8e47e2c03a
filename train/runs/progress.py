"""How far a run is, in time and in numbers, and what is said of it while it trains."""

import time
from collections.abc import Mapping

from attngan_deploy.system.terminal import show


def say(line: str) -> None:
    """Tell the person who trains, on standard error."""
    show(line, error=True)


class Clock:
    """What is due, how fast a run is, and how long it still takes.

    Args:
        first: how many steps, or epochs, were done before.
        every: seconds from one time to the next of what `due` is asked for.
    """

    def __init__(self, first: int, **every: float) -> None:
        self.first, self.every = first, every
        self.started = time.monotonic()
        self.last = dict.fromkeys(every, self.started)

    def due(self, what: str) -> bool:
        """Whether it is time again; True at most once in so many seconds."""
        now = time.monotonic()
        if now - self.last[what] < self.every[what]:
            return False
        self.last[what] = now
        return True

    def speed(self, done: int) -> float:
        """Steps, or epochs, a second."""
        return (done - self.first) / (time.monotonic() - self.started)

    def hours_left(self, done: int, total: int) -> float:
        """Hours from `done` to `total` at the speed so far."""
        return (total - done) / self.speed(done) / 3600


class Means:
    """Running means of metrics since they were last taken."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def add(self, metrics: Mapping[str, float]) -> None:
        """Take in the metrics of a step."""
        for name, value in metrics.items():
            self.values.setdefault(name, []).append(value)

    def take(self) -> dict[str, float]:
        """The means, rounded, of what was added since the last call."""
        means = {name: round(sum(values) / len(values), 5) for name, values in self.values.items()}
        self.values.clear()
        return means
