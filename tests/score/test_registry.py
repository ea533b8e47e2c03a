"""Metrics are one object each: a new one is scored, shown, listed and compared without a line elsewhere."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from attngan_deploy.cli import app, register, report_errors
from attngan_deploy.score.judge import Judge
from attngan_deploy.score.metrics.metric import Column, Metric, MetricInputs, Needs, ScoreFacts
from attngan_deploy.score.metrics.registry import METRICS, describe_metrics, describe_scores
from attngan_deploy.score.passport import Passport
from attngan_deploy.score.report.results import ReportRow, cells, headings
from tests.makers.tiny_judge import SIZE, make_tiny_judge

register("score")


def brightness(inputs: MetricInputs) -> ScoreFacts:
    """Mean feature; of the tiny judge, the mean of all pixels in [-1, 1]."""
    features = inputs.outputs.features
    return {"value": float(features.mean()), "pictures": len(features)}


TOY = Metric(
    name="brightness",
    key="mean_brightness",
    label="mean brightness",
    needs=Needs.FEATURES,
    compute=brightness,
    rows=lambda facts: [("mean brightness", f"{facts['value']:+.2f} of {facts['pictures']} pictures")],
    settings=("pictures",),
    warnings=lambda _, facts: ["the pictures are dark"] if facts["value"] < 0 else [],
    summary="brightness {value:.2f}",
    column=Column("brightness", "brightness", "{value:.2f}"),
)


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures of one grey, and the toy metric among the others."""
    monkeypatch.setitem(METRICS, TOY.name, TOY)
    (tmp_path / "out").mkdir()
    for number in range(4):
        Image.fromarray(np.full((SIZE, SIZE, 3), 64, np.uint8)).save(tmp_path / "out" / f"{number}.png")
    make_tiny_judge(tmp_path / "judge")
    return tmp_path / "out"


def run(*arguments: str | Path) -> tuple[str, str]:
    result = CliRunner().invoke(app, ["score", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def test_a_metric_is_added_by_one_object(pictures: Path) -> None:
    how = (pictures, "--judge", pictures.parent / "judge", "--splits", "2", "--threads", "1")
    table, told = run(*how, "--metric", "is,brightness")
    assert "mean brightness" in table and "-0.50 of 4 pictures" in table and "Inception Score" in table
    assert "t2i: warning: the pictures are dark" in told
    saved = pictures.parent / "a.json"
    document = json.loads(run(*how, "--metric", "brightness", "--json", "-o", saved)[0])
    assert document["scores"] == {"mean_brightness": {"value": pytest.approx(64 / 127.5 - 1, abs=1e-6), "pictures": 4}}
    assert "mean brightness" in run("--compare", saved, saved)[0]


def test_its_number_stands_in_lists_and_reports(pictures: Path) -> None:
    document = {"passport": 2, "scores": {"mean_brightness": {"value": 0.25}}, "judge": {"name": "judge"}}
    row = ReportRow("mine", [Passport.from_json(document, "it")])
    assert dict(zip(headings(), cells(row), strict=True))["brightness"] == "0.25"
    bundle = Judge.load(make_tiny_judge(pictures.parent / "scored", scores=[document])).bundle
    assert any(line.startswith("brightness 0.25 by judge judge") for line in describe_scores(bundle))


def test_its_name_is_asked_for(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "brightness" in describe_metrics()
    assert report_errors(lambda: app(["score", str(pictures), "--metric", "dullness"], standalone_mode=False)) == 1
    assert "words or brightness" in capsys.readouterr().err


def test_help_lists_every_metric() -> None:
    text = " ".join(CliRunner().invoke(app, ["score", "--help"], env={"COLUMNS": "300"}).output.split())
    assert describe_metrics() in text


def test_every_metric_says_what_a_passport_and_a_table_need() -> None:
    assert [metric.name for metric in METRICS.values()] == list(METRICS)
    assert len({metric.key for metric in METRICS.values()}) == len(METRICS)
    assert all(metric.values and metric.needs for metric in METRICS.values())
