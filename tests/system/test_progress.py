"""What is told of progress: the speed is that of the work at hand, whatever came before it."""

import sys

import pytest

from attngan_deploy.system import progress
from attngan_deploy.system.progress import show_progress


def test_time_left_is_of_the_work_at_hand(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    with show_progress("report, step 2 of 3, base", "img") as update:
        now[0] = 5000.0  # loading, or other steps
        update(0, 300)
        for done in (100, 200, 300):
            now[0] += 50.0
            update(done, 300)
        now[0] += 1000.0
        update(0, 40)
        now[0] += 10.0
        update(20, 40)
    assert capsys.readouterr().err.splitlines() == [
        "report, step 2 of 3, base: 100/300, 2.0 img/s, 100 s left",
        "report, step 2 of 3, base: 200/300, 2.0 img/s, 50 s left",
        "report, step 2 of 3, base: 20/40, 2.0 img/s, 10 s left",
    ]


def test_a_bar_begins_anew_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    with show_progress("features", "img") as update:
        now[0] = 1000.0
        update(0, 10)
        now[0] += 2.0
        update(10, 10)
    assert "5.0 img/s" in capsys.readouterr().err
