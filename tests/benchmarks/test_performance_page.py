"""The pages about speed say what was measured, and nothing else."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "speed"))
    return importlib.import_module("performance_page")


def test_pages_are_made_from_the_measurement(pages: ModuleType) -> None:
    told = json.loads(pages.MEASURED.read_text())
    assert pages.page(told) + "\n" == (ROOT / "docs" / "performance.md").read_text()
    assert pages.readme_table(told) in (ROOT / "README.md").read_text()


def test_a_target_that_is_missed_says_so(pages: ModuleType) -> None:
    told = json.loads(pages.MEASURED.read_text())
    told["engines"]["rows"]["OpenVINO fp32"]["of_roofline"] = 0.69
    told["engines"]["rows"]["OpenVINO fp32" + pages.SIDES]["of_roofline"] = 0.68  # the better form counts
    told["commands"]["rows"][pages.FASTEST]["whole_of_alone"] = 0.9
    rows = {words: (wanted, met) for words, wanted, _, met in pages.targets(told)}
    assert rows["OpenVINO fp32, of the fp32 roofline, at least"] == (0.7, False)
    assert rows["whole command : engine alone, at least"] == (0.85, True)
    assert "| OpenVINO fp32, of the fp32 roofline, at least | 0.7 | 0.69 | missed |" in pages.page(told)
