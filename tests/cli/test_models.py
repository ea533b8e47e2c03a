"""`t2i models`, as a person types it."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.makers.commands import t2i
from tests.makers.golden_bundle import with_manifest
from tests.makers.tiny_judge import make_tiny_judge

PASSPORT = {
    "passport": 1,
    "scores": {"inception_score": {"mean": 3.456789, "deviation": 0.1}, "frechet_distance": {"value": 120.25}},
    "judge": {"name": "colours", "hash": "abcdef0123456789"},
    "pictures": {"used": 2933},
}


@pytest.fixture(autouse=True)
def models(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """T2I_MODELS: "scored", a "judge" of colours, "cut" with half a graph, and "broken", whose manifest is none."""
    folder = tmp_path / "models"
    with_manifest(Path(shutil.copytree(tiny_bundle, folder / "scored")), scores=[PASSPORT, {"odd": 1}], licence="MIT")
    make_tiny_judge(folder / "judge")
    shutil.copytree(tiny_bundle, folder / "cut")
    graph = folder / "cut" / "generator.onnx"
    graph.write_bytes(graph.read_bytes()[:1000])
    (folder / "broken").mkdir()
    (folder / "broken" / "bundle.json").write_text("{")
    monkeypatch.setenv("T2I_MODELS", str(folder))
    return folder


def test_what_is_listed(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert t2i("models") == 0
    told = capsys.readouterr()
    blocks = {line.split()[0]: line for line in told.out.splitlines() if not line.startswith(" ")}
    assert blocks.keys() >= {"base", "scored", "judge", "cut", "broken"}
    assert str(models / "judge") in blocks["judge"]  # the first folder of a name wins
    assert blocks["base"].endswith("(default)")
    assert "damaged" in blocks["broken"] and "damaged" not in blocks["cut"]
    assert "licence: MIT" in told.out
    assert (
        "score: Inception Score 3.457, Fréchet distance 120.2 by judge colours abcdef012345 of 2933 pictures"
        in told.out
    )
    assert "score: a score that this version can't read: {'odd': 1}" in told.out
    assert "score: right on 75.0% of held-out real pictures" in told.out
    assert "bundle.json is not JSON" in told.err


def test_check_reads_every_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert t2i("models", "--check") == 1
    told = capsys.readouterr()
    assert "cut is damaged: generator.onnx has 1000 bytes instead of" in told.err
    damaged = {line.split()[0] for line in told.out.splitlines() if "damaged" in line}
    assert damaged == {"cut", "broken"}
    whole = {line.split()[0] for line in told.out.splitlines() if line.endswith("  whole")}
    assert "scored" in whole and not whole & damaged


def test_json(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert t2i("models", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    scored = rows["scored"]
    assert (scored["kind"], scored["licence"], scored["precisions"]) == ("text-to-image", "MIT", ["fp32"])
    assert scored["scores"][0] == PASSPORT
    assert scored["damaged"] is None and scored["bytes"] > 1000 and scored["folder"] == str(models / "scored")
    assert "is damaged" in rows["broken"]["damaged"] and rows["broken"]["kind"] is None
    assert [name for name, row in rows.items() if row["default"]] == ["base"]


def test_nothing_wrong(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.environ["T2I_MODELS"] = str(tiny_bundle.parent)  # the fixture's monkeypatch puts it back
    assert t2i("models", "--check") == 0
    told = capsys.readouterr()
    assert told.err == "" and told.out.count("  whole\n") == sum(line[0] != " " for line in told.out.splitlines())
    assert t2i("models") == 0
    assert "whole" not in capsys.readouterr().out  # nothing was looked at


def test_a_folder_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    os.environ["T2I_MODELS"] = "/nowhere/at/all"
    assert t2i("models") == 0
    told = capsys.readouterr()
    assert "base " in told.out
    assert told.err == "t2i: T2I_MODELS names /nowhere/at/all, which is no folder\n"
