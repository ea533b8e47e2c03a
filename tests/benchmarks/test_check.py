"""The guard against lost speed: it fails when a ratio has fallen, and does not for one bad measurement."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attngan_deploy.system.machine import this_machine

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks" / "speed"
TABLE = {"a : b": 2.0, "c : d": 1.0}


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("check")


def test_a_ratio_that_has_fallen(check: ModuleType) -> None:
    assert check.fallen({"a : b": 1.61, "c : d": 0.81}, TABLE) == []
    assert check.fallen({"a : b": 1.59, "c : d": 3.0}, TABLE) == ["a : b"]
    assert check.fallen({"a : b": 2.0}, TABLE) == ["c : d"]  # one that is no longer measured is no success
    assert "| a : b | 2.0 | 1.5 | FELL |" in check.as_table({"a : b": 1.5, "c : d": 1.0}, TABLE)


def test_it_is_measured_again_before_it_counts(check: ModuleType) -> None:
    runs = iter([{"a : b": 1.0, "c : d": 1.0}, {"a : b": 1.9, "c : d": 0.5}])
    assert check.best_of(lambda: next(runs), TABLE) == {"a : b": 1.9, "c : d": 1.0}
    bad = [{"a : b": 1.0, "c : d": 1.0}] * check.TRIES
    runs = iter(bad)
    assert check.fallen(check.best_of(lambda: next(runs), TABLE), TABLE) == ["a : b"]
    assert next(runs, None) is None  # as often as it may


class Turn:
    """An engine that takes its time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def time(self, batch: int, seconds: float) -> float:
        return self.seconds

    def end(self) -> None: ...


@pytest.mark.parametrize(
    ("slower", "here", "status"), [(1.0, True, 0), (1.2, True, 0), (1.3, True, 1), (1.3, False, 0)]
)
def test_the_command(
    check: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    slower: float,
    here: bool,
    status: int,
) -> None:
    """With engines as fast as the table says, and with the second one slower, also on another kind of processor."""
    table = json.loads(check.TABLE.read_text())
    made_on = table.pop(check.PROCESSOR)
    assert table.keys() == check.RATIOS.keys()
    cpu = made_on if here else "another processor"
    monkeypatch.setattr(check, "this_machine", lambda: replace(this_machine(), cpu=cpu))
    seconds = dict.fromkeys(check.LINES, 1.0)
    for name, (fast, slow) in check.RATIOS.items():
        if fast != "folder":
            seconds[fast] = seconds[slow] / table[name] if slow == "eager" else seconds[fast]
    seconds["as exported"] = seconds["openvino"] * table["OpenVINO fp32 : graph as exported"]
    seconds["folder"] = seconds["openvino"] / table["captions to PNG files : engine alone"]
    seconds["onnxruntime"] *= slower

    class Turns:
        def __init__(self, *_: Any) -> None: ...

        def __enter__(self) -> list[Turn]:
            return [Turn(value) for value in seconds.values()]

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(check, "turns", Turns)
    monkeypatch.setattr(sys, "argv", ["check.py"])
    try:
        check.main()
        code = 0
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    assert code == status
    assert ("no verdict" in capsys.readouterr().out) != here


def test_continuous_integration_runs_it() -> None:
    assert "python benchmarks/speed/check.py" in (BENCHMARKS.parents[1] / ".ci" / "run").read_text()
