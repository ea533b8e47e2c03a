"""What TensorRT calls while it works: a log and a monitor. An exception that one raises would be lost in TensorRT."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

STEPS = 1000  # progress is told in thousandths
KEPT = 100  # errors that are remembered

Progress = Callable[[int, int], None]


def make_log(trt: Any) -> Any:
    """A logger that keeps the latest errors, and tells nobody."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._errors: deque[tuple[int, str]] = deque(maxlen=KEPT)
            self._count = 0
            self._here = threading.local()  # engines share one log, and run in several threads

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                self._errors.append((self._count, message))
                self._count += 1

        def begin(self) -> None:
            """Something begins in this thread: errors before it are not its own."""
            self._here.first = self._count

        def cause(self) -> str:
            """The first error since what began last, which is the cause of those that follow."""
            first = getattr(self._here, "first", 0)
            return next((text for number, text in self._errors if number >= first), "it does not say why")

    return Log()


def make_monitor(trt: Any, progress: Progress | None, signals: list[int]) -> Any:
    """A monitor that tells `progress`; what that raises is kept in `stopped`, and ends the build as held signals do."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.stopped: BaseException | None = None
            self._phases: dict[str, list[Any]] = {}  # name to parent, number of steps, steps done
            self._told = 0

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self._phases[phase] = [parent, max(1, steps), 0]

        def step_complete(self, phase: str, step: int) -> bool:
            try:
                if phase in self._phases:
                    self._phases[phase][2] = step + 1
                self._tell()
            except BaseException as error:
                self.stopped = error
            return self.stopped is None and not signals

        def phase_finish(self, phase: str) -> None:
            self._phases.pop(phase, None)

        def _tell(self) -> None:
            if progress is None:
                return
            done = int(STEPS * self._done(None))
            if done > self._told:
                self._told = done
                progress(done, STEPS)

        def _done(self, parent: str | None) -> float:
            """Share of a phase that its inner phases have done, the whole for None."""
            inner = [(name, steps, done) for name, (outer, steps, done) in self._phases.items() if outer == parent]
            return max((min(1.0, (done + self._done(name)) / steps) for name, steps, done in inner), default=0.0)

    return Monitor()
