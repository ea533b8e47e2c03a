"""The page that compares engines and precisions, made by a command."""

import sys
from pathlib import Path

import pytest

from attngan_deploy.cli import report_errors
from attngan_deploy.export.precision.writer import extend_bundle
from benchmarks.paper import parity


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "SIZES", (4, 1))
    monkeypatch.setattr("attngan_deploy.export.precision.writer.SIZES", (8, 1))


@pytest.mark.usefixtures("few")
def test_every_engine_has_a_row(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = extend_bundle(str(tiny_bundle), ["fp16", "int8"], tmp_path / "tiny")
    monkeypatch.setattr(sys, "argv", ["parity.py", str(folder), "--threads", "1"])
    parity.main()
    page = capsys.readouterr().out
    ran, _, rest = page.partition("## Graphs as the export measured them")
    assert "| onnxruntime 1." in ran and "| int8 |" in ran and "| 30 dB |" in ran
    assert "rounded to fp16" in rest.partition("## What did not run here")[0]
    for backend in ("onnxruntime on cuda", "tensorrt on cuda", "tensorrt-rtx on cuda", "openvino on"):
        assert backend in rest or backend in ran
    written = (Path(__file__).parents[2] / "docs" / "parity.md").read_text(encoding="utf-8")
    assert outline(page) == outline(written)
    assert [line.split()[1] for line in page.split("## DM-GAN and DF-GAN")[1].splitlines() if " dB |" in line] == [
        "DM-GAN",
        "DF-GAN",
    ]


def outline(page: str) -> list[str]:
    """Headings, and the heads of tables."""
    lines = page.splitlines()
    below = [*lines[1:], ""]
    return [line for line, after in zip(lines, below, strict=True) if line[:1] == "#" or after.startswith("| ---")]


def test_a_bundle_that_is_not_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["parity.py", "nowhere"])
    assert report_errors(parity.main) == 1
    assert capsys.readouterr().err.startswith("t2i: no model 'nowhere'")
