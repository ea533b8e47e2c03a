"""`t2i report`: the whole way from bundles and data to a page, twice."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.cli import app, register, report_errors
from attngan_deploy.score.metrics.registry import describe_scores
from tests.makers.tiny_judge import make_tiny_judge
from tests.makers.tiny_matcher import make_tiny_matcher
from tests.makers.tiny_training import make_tiny_shards

register("report")
pytestmark = pytest.mark.filterwarnings(
    "ignore::attngan_deploy.generate.pipeline.UnknownWordWarning"
)  # the tiny vocabulary


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_shards(tmp_path_factory.mktemp("data"))


@pytest.fixture
def judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Judges and a matcher of the names that a report asks for."""
    models = tmp_path / "models"
    make_tiny_judge(models / "judge")
    make_tiny_matcher(models / "matcher", make_tiny_judge(models / "judge200"))
    monkeypatch.setenv("T2I_MODELS", str(models))
    return models


def report(data: Path, out: Path, *options: str) -> list[str]:
    return ["report", "--data", str(data), "-o", str(out), "--crop", "64", "--splits", "2", "--threads", "1", *options]


@pytest.mark.usefixtures("judges")
def test_twice_gives_the_same_files(data: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    texts = []
    for name in ("one", "two"):
        options = report(data, tmp_path / name, "--n", "30", "--models", str(tiny_bundle))
        result = CliRunner().invoke(app, options, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        texts.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
        steps = [line for line in result.stderr.splitlines() if line.startswith("t2i: report, step ")]
        assert steps == [
            "t2i: report, step 1 of 5, real pictures to compare with",
            "t2i: report, step 2 of 5, tiny: pictures",
            "t2i: report, step 3 of 5, tiny: word fidelity and figures",
            "t2i: report, step 4 of 5, real, test species",
            "t2i: report, step 5 of 5, real, train species",
        ]
    assert texts[0] == texts[1]
    assert set(texts[0]) == {"report.html", "report.md", "passports.json"}
    passports = json.loads(texts[0]["passports.json"])
    assert list(passports) == ["tiny", "real, test species", "real, train species"]
    scores = [set(passport["scores"]) for passport in passports["tiny"]]
    assert scores == [{"inception_score"}, {"frechet_distance", "r_precision"}, {"word_fidelity"}]
    assert "frechet_distance" not in passports["real, test species"][1]["scores"]  # they are the reference
    assert passports["tiny"][0]["pictures"]["used"] == 30
    assert passports["tiny"][0]["pictures"]["generated"]["captions"] == 24


@pytest.mark.usefixtures("judges")
def test_scores_are_recorded_in_the_bundle(data: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))
    options = report(data, tmp_path / "out", "--n", "30", "--models", str(folder), "--matcher", "none", "--record")
    assert CliRunner().invoke(app, options, catch_exceptions=False).exit_code == 0
    bundle = open_bundle(folder)
    assert bundle.hash == open_bundle(tiny_bundle).hash
    assert bundle.manifest.told("scores") == json.loads((tmp_path / "out/passports.json").read_text())["tiny"]
    lines = describe_scores(bundle)
    assert len(lines) == 3 and "Inception Score" in lines[0] and lines[2].startswith("colour words followed")


@pytest.mark.usefixtures("judges")
def test_bad_input(data: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*arguments: str) -> str:
        assert report_errors(lambda: app(list(arguments))) == 1
        return capsys.readouterr().err

    (tmp_path / "empty").mkdir()
    assert "no test.tar in" in said(*report(tmp_path / "empty", tmp_path / "out", "--models", str(tiny_bundle)))
    assert "no model 'nobody'" in said(*report(data, tmp_path / "out", "--models", "nobody"))
    (tmp_path / "file").write_text("x")
    told = said(*report(data, tmp_path / "file", "--models", str(tiny_bundle)))
    assert "is not a folder" in told and "Next: choose another -o" in told
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


@pytest.mark.usefixtures("judges")
def test_a_link_in_the_folder_is_not_written_through(data: Path, tmp_path: Path) -> None:
    mine, out = tmp_path / "mine", tmp_path / "out"
    mine.touch()
    out.mkdir()
    (out / "report.html").symlink_to(mine)
    result = CliRunner().invoke(app, report(data, out), catch_exceptions=True)
    assert "report.html is a link, and is left alone" in str(result.exception) and not mine.read_bytes()
