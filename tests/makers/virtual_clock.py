"""An event loop whose clock goes on as soon as nothing is left to do: a minute's sleep takes no time, and none less."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class Selector(selectors.DefaultSelector):
    """Adds the time that the loop would wait to `now`, and does not wait."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready, else the time goes on."""
        ready = super().select(None if timeout is None else 0)
        if not ready and timeout:
            self.now += timeout
        return ready


class Loop(asyncio.SelectorEventLoop):
    """Tells the selector's time."""

    def __init__(self) -> None:
        self._seconds = Selector()
        super().__init__(self._seconds)

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._seconds.now


def run_at_once(main: Coroutine[Any, Any, Any]) -> Any:
    """`asyncio.run`, in no time."""
    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(main)
