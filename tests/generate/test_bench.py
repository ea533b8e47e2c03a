"""Rounds: processes that are timed side by side, what becomes of those that die, and the page."""

import os
import re
import shutil
import signal
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.engines.request import EngineRequest
from attngan_deploy.errors import BundleError, EngineError
from attngan_deploy.generate.bench import rounds as module
from attngan_deploy.generate.bench.page import HEADINGS, cells, notes, page
from attngan_deploy.generate.bench.rounds import BenchReport, Process, Row, Schedule, run_rounds
from attngan_deploy.generate.bench.worker import LoadedEngine
from tests.makers.commands import PATIENCE, children
from tests.makers.golden_bundle import with_manifest

GOOD = EngineRequest("onnxruntime", "cpu", "fp32")
QUICK = Schedule(batches=(3, 1), rounds=2, seconds=0.01, threads=1)


@pytest.fixture(scope="module")
def report(tiny_bundle: Path) -> BenchReport:
    """Two good engines, and one that can't run."""
    wanted = [GOOD, EngineRequest("onnxruntime", "cpu", "int8"), EngineRequest("auto", "cpu", "fp32")]
    return run_rounds(open_bundle(tiny_bundle), wanted, QUICK)


def test_rows(report: BenchReport) -> None:
    assert [(row.batch, row.request.backend) for row in report.rows] == [
        *((1, "onnxruntime"), (1, "auto")),
        *((3, "onnxruntime"), (3, "auto")),
    ]
    for row in report.rows:
        assert len(row.speeds) == 2 and row.speed is not None and row.speed > 0
        assert row.loaded.verification.passed
        assert row.loaded.seconds > 0.01  # a bundle is checked and two sessions are made, on any machine
        assert row.loaded.bytes > 1000
        if row.batch == 1:
            assert len(row.latencies) >= 2 * module.LATENCY_CALLS
            p50, p99 = row.latency(50), row.latency(99)
            assert p50 is not None and p99 is not None and 0 < p50 <= p99 <= max(row.latencies)
        else:
            assert row.latencies == [] and row.latency(50) is None
    assert report.rows[0].ratio == report.rows[2].ratio == 1.0
    assert report.rows[1].ratio == pytest.approx(report.rows[1].speed / report.rows[0].speed)  # type: ignore[operator]


def test_what_can_not_run_says_why(report: BenchReport) -> None:
    ((request, why),) = report.refused
    assert request.precision == "int8"
    assert "has no graph 'generator' in int8" in why


def test_memory_is_the_processes_own(report: BenchReport) -> None:
    """A large parent does not count, which the usual `ru_maxrss` on Linux gets wrong."""
    ballast = np.ones(200 * 2**20, np.uint8)
    with Process() as process:
        empty = process.ask("memory")
    if empty is None:
        pytest.skip("this system does not say how much memory a process held")
    assert empty < 60e6 < ballast.nbytes
    assert all(row.memory is not None and row.memory > empty for row in report.rows)


def test_pictures_are_of_the_same_captions_and_noise(report: BenchReport) -> None:
    first, second = report.rows[0].loaded, report.rows[1].loaded
    assert first.pictures.shape == (4, 128, 128, 3) and first.pictures.dtype == np.uint8
    assert first.captions == second.captions and len(first.captions) == 4
    assert np.abs(first.pictures.astype(int) - second.pictures).max() <= 1
    assert not np.array_equal(first.pictures[0], first.pictures[1])


def test_json_values(report: BenchReport) -> None:
    told = report.to_json()
    assert told["model"] == "tiny" and len(told["model_hash"]) == 64
    assert told["machine"]["packages"]["numpy"] == np.__version__
    row = told["rows"][0]
    assert row["images_per_second"] == np.median(row["rounds"])
    assert row["verification"]["passed"] is True
    assert told["refused"][0]["why"]


def test_every_engine_has_its_turn_in_every_round(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, str]] = []
    real = Process.ask

    def ask(process: Process, command: str, *arguments: object) -> object:
        if command == "time":
            asked.append((id(process), f"{arguments[0]} {'warm' if arguments[1] == 0 else 'timed'}"))
        return real(process, command, *arguments)

    monkeypatch.setattr(Process, "ask", ask)
    done: list[tuple[int, int]] = []
    run_rounds(
        open_bundle(tiny_bundle),
        [GOOD, EngineRequest("auto", "cpu", "fp32")],
        Schedule((2,), 2, 0.01, 1),
        progress=lambda now, total: done.append((now, total)),
    )
    one, other = asked[0][0], asked[1][0]
    assert one != other
    assert asked == [(who, what) for what in ("2 warm", "2 timed", "2 timed") for who in (one, other)]
    assert done == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_a_process_that_dies_is_a_row_with_its_reason(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a library that crashes ends it; the others go on."""
    real, seen = Process.ask, []

    def ask(process: Process, command: str, *arguments: object) -> object:
        if command == "time" and arguments[0] == 2 and (not seen or seen == [process]):
            seen[:] = [process]
            os.kill(process._process.pid, signal.SIGSEGV)
        return real(process, command, *arguments)

    monkeypatch.setattr(Process, "ask", ask)
    report = run_rounds(open_bundle(tiny_bundle), [GOOD, GOOD], Schedule((1, 2), 1, 0.01, 1))
    whole, well, dead, alive = report.rows
    assert whole.speeds and well.speeds and alive.speeds
    assert dead.speeds == [] and dead.ratio is None
    assert dead.why == "its process died (signal 11)"
    assert alive.ratio == 1.0
    assert cells(dead)[4] == "-"
    assert f"{GOOD}, batch 2: its process died (signal 11)" in notes(report)


def test_an_engine_that_fails_at_one_batch_goes_on_at_the_next(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Process.ask

    def ask(process: Process, command: str, *arguments: object) -> object:
        if command == "time" and arguments[0] == 2:
            raise EngineError("no memory for that")
        return real(process, command, *arguments)

    monkeypatch.setattr(Process, "ask", ask)
    rows = run_rounds(open_bundle(tiny_bundle), [GOOD], Schedule((1, 2, 3), 1, 0.01, 1)).rows
    assert [row.why for row in rows] == ["", "no memory for that", ""]
    assert [bool(row.speeds) for row in rows] == [True, False, True]


def test_a_process_that_never_starts(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "START", "import sys; print('no such library', file=sys.stderr); sys.exit(3)")
    report = run_rounds(open_bundle(tiny_bundle), [GOOD], QUICK)
    assert report.rows == []
    assert report.refused == [(GOOD, "its process died (exit status 3: no such library)")]


def test_what_libraries_print_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = "import os; from attngan_deploy.generate.bench import worker; "
    noisy += "worker.peak_memory = lambda: os.write(1, b'hello'); "
    monkeypatch.setattr(module, "START", noisy + "worker.main()")
    with Process() as process:
        assert process.ask("memory") == 5


def test_no_process_is_left(tiny_bundle: Path) -> None:
    before = children()

    def stop(done: int, total: int) -> None:
        if done:
            assert len(children() - before) >= 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_rounds(open_bundle(tiny_bundle), [GOOD, GOOD], QUICK, progress=stop)
    assert children() - before == set()


def test_a_process_ends_when_its_bench_is_killed() -> None:
    process = Process()
    process.ask("memory")
    assert process._process.stdin is not None
    process._process.stdin.close()  # what the system does when the bench dies
    assert process._process.wait(timeout=PATIENCE) == 0
    process._process.stdin = None
    process.end()


def test_a_bundle_without_golden_cases(tiny_bundle: Path, tmp_path: Path) -> None:
    bare = with_manifest(Path(shutil.copytree(tiny_bundle, tmp_path / "bare")), golden=None)
    with pytest.raises(BundleError, match="has no golden cases"):
        run_rounds(open_bundle(bare), [GOOD], QUICK)


def test_asking_the_dead() -> None:
    process = Process()
    process._process.kill()
    process._process.wait()
    with pytest.raises(EngineError, match="its process died"):
        process.ask("memory")
    process.end()


class Sources(HTMLParser):
    """Everything that a page refers to, and its tags in balance."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else(report: BenchReport) -> None:
    text = page(report)
    reader = Sources()
    reader.feed(text)
    assert reader.open == []
    assert len(reader.sources) == 8 and all(source.startswith("data:image/webp;base64,") for source in reader.sources)
    assert not re.search(r"https?://|<script|<link|@import|url\(", text)
    for heading in HEADINGS:
        assert heading in text
    assert "onnxruntime on cpu, int8" in text and "in int8" in text
    assert report.machine.cpu in text


def test_the_page_escapes_what_it_shows(report: BenchReport) -> None:
    row = report.rows[0]
    loaded = LoadedEngine(**{**vars(row.loaded), "captions": ["<script>&\"'", "b", "c", "d"]})
    odd = BenchReport(report.bundle, report.machine, report.schedule, [Row(GOOD, loaded, 1)], [(GOOD, "<b>bold</b>")])
    text = page(odd)
    assert "<script>" not in text and "<b>" not in text
    assert "&lt;script&gt;&amp;&quot;" in text
