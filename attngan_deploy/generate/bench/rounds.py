"""Rounds: a process for each engine, all of them timed in turn, so that whatever disturbs the machine disturbs all."""

import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from attngan_deploy.bundles.bundle import Bundle
from attngan_deploy.engines.golden import load_golden
from attngan_deploy.engines.request import EngineRequest
from attngan_deploy.errors import EngineError
from attngan_deploy.generate.bench.worker import LoadedEngine
from attngan_deploy.system.machine import Machine, this_machine

# "-m" would give the worker's classes another home to pickle.
START = "from attngan_deploy.generate.bench.worker import main; main()"
LATENCY_CALLS = 20  # calls of one picture in each round: p99 of 5 rounds is that of 100


class Process(AbstractContextManager["Process"]):
    """A worker in a Python of its own: `with Process() as process: process.ask("memory")`."""

    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (`end` closes it)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )

    def __exit__(self, *error: object) -> None:
        self.end()

    def ask(self, command: str, *arguments: Any) -> Any:
        """Give a command of `BenchWorker` and wait for the answer; raise EngineError where it fails or dies."""
        assert self._process.stdin and self._process.stdout
        try:
            pickle.dump((command, arguments), self._process.stdin)
            self._process.stdin.flush()
            fine, answer = pickle.load(self._process.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            raise EngineError(f"its process died ({self._last_words()})") from error
        if not fine:
            raise EngineError(answer)
        return answer

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _last_words(self) -> str:
        status = self._process.wait()
        self._errors.seek(0)
        lines = [line for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        return f"{how}: {lines[-1].strip()}" if lines else how


@dataclass(frozen=True)
class Schedule:
    """How to measure: each number of pictures made together for itself, in rounds, of which speeds are the medians."""

    batches: Sequence[int] = (1, 16)
    rounds: int = 5
    seconds: float = 0.5  # how long a turn of an engine lasts at least
    threads: int | None = None  # CPU threads of each engine; None for one a core


@dataclass
class Row:
    """An engine at one batch size."""

    request: EngineRequest  # what was asked for
    loaded: LoadedEngine
    batch: int
    # pictures a second in each round, from captions to uint8 pictures; none where it failed
    speeds: list[float] = field(default_factory=list)
    # seconds of each call; [] for a batch of more than one picture
    latencies: list[float] = field(default_factory=list)
    memory: int | None = None  # most bytes that its process had held by then; None where the system does not say
    ratio: float | None = None  # its speed against that of the first row of its batch
    why: str = ""  # the error that ended it

    @property
    def speed(self) -> float | None:
        """Median of the rounds, in pictures a second."""
        return float(np.median(self.speeds)) if self.speeds else None

    def latency(self, percent: float) -> float | None:
        """A percentile of the latency of one picture, in seconds."""
        return float(np.percentile(self.latencies, percent)) if self.latencies else None

    def to_json(self) -> dict[str, Any]:
        return {
            "asked": self.request.names,
            "engine": asdict(self.loaded.facts),
            "batch": self.batch,
            "images_per_second": self.speed,
            "rounds": self.speeds,
            "ratio": self.ratio,
            "latency_p50_seconds": self.latency(50),
            "latency_p99_seconds": self.latency(99),
            "peak_memory_bytes": self.memory,
            "load_seconds": self.loaded.seconds,
            "graph_bytes": self.loaded.bytes,
            "verification": self.loaded.verification.to_json(),
            "why": self.why,
        }


@dataclass(frozen=True)
class BenchReport:
    """What was measured: rows by batch, in the order of the requests, and why other requests can't run here."""

    bundle: Bundle
    machine: Machine
    schedule: Schedule
    rows: list[Row]
    refused: list[tuple[EngineRequest, str]]

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.bundle.name,
            "model_hash": self.bundle.hash,
            "machine": asdict(self.machine),
            "schedule": asdict(self.schedule),
            "rows": [row.to_json() for row in self.rows],
            "refused": [{**request.names, "why": why} for request, why in self.refused],
        }


def run_rounds(
    bundle: Bundle,
    requests: Sequence[EngineRequest],
    schedule: Schedule,
    tell: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BenchReport:
    """Measure engines side by side. No process of it outlives it.

    Args:
        tell: called with a line about what is loaded now.
        progress: called with (done, total) turns.

    Raises as `load_golden`.
    """
    load_golden(bundle)
    machine = this_machine()
    refused: list[tuple[EngineRequest, str]] = []
    engines: list[tuple[EngineRequest, LoadedEngine, Process]] = []
    with ExitStack() as stack:
        for request in requests:
            tell(f"loading {request}")
            process = stack.enter_context(Process())
            try:
                loaded = process.ask("load", bundle.folder, replace(request, threads=schedule.threads))
            except EngineError as error:
                refused.append((request, str(error)))
                process.end()
            else:
                engines.append((request, loaded, process))
        rows = _rows(engines, schedule, progress)
    return BenchReport(bundle, machine, schedule, rows, refused)


def _rows(
    engines: Sequence[tuple[EngineRequest, LoadedEngine, Process]],
    schedule: Schedule,
    progress: Callable[[int, int], None],
) -> list[Row]:
    """Time every batch size; within one, each round gives every engine its turn."""
    turns, done = len(schedule.batches) * (schedule.rounds + 1), 0
    progress(0, turns)
    rows: list[Row] = []
    for batch in sorted(schedule.batches):
        taken = {process: Row(request, loaded, batch) for request, loaded, process in engines}
        for number in range(schedule.rounds + 1):  # the first one warms up and is left out
            for process, row in taken.items():
                if not row.why:
                    _turn(process, row, schedule.seconds if number else 0.0)
            done += 1
            progress(done, turns)
        speeds = [row.speed for row in taken.values() if row.speed]
        for row in taken.values():
            row.ratio = row.speed / speeds[0] if row.speed else None
        rows += taken.values()
    return rows


def _turn(process: Process, row: Row, seconds: float) -> None:
    """Time an engine for some seconds; one call without any only warms it up."""
    try:
        calls: list[float] = process.ask("time", row.batch, seconds, LATENCY_CALLS if row.batch == 1 and seconds else 1)
        row.memory = process.ask("memory")
    except EngineError as error:  # it may only have lacked memory for this batch
        row.speeds, row.latencies, row.memory, row.why = [], [], None, str(error)
        return
    if seconds:
        row.speeds.append(len(calls) * row.batch / sum(calls))
        row.latencies += calls if row.batch == 1 else []
