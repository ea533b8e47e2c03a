"""A bundle that something else made is left alone, whichever command would replace it, unless it is told to."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.cli import app, register, report_errors
from tests.export.test_import_judge import HOW, classifier
from tests.makers.published_model import PublishedFiles
from tests.makers.tiny_bundle import make_tiny_checkpoint
from tests.makers.tiny_judge import make_tiny_judge
from tests.makers.tiny_matcher import make_tiny_matcher

register("export", "import_", "import_judge", "train.all", "train.judge", "train.damsm")

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in an empty folder; the line of its error, or "" where it did what it was asked."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> str:
        status = report_errors(lambda: app(list(map(str, arguments)), standalone_mode=False))
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("t2i: ")]
        assert status == len(lines)
        return "".join(lines)

    return call


def further(checkpoint: Path, **changed: object) -> None:
    document = json.loads((checkpoint / "checkpoint.json").read_text())
    (checkpoint / "checkpoint.json").write_text(json.dumps(document | changed))


def test_an_export_replaces_what_the_same_run_made(run: Run, tmp_path: Path, tiny_bundle: Path) -> None:
    checkpoint = make_tiny_checkpoint(tmp_path / "checkpoint")
    export = ("export", "--variant", "base", "--checkpoint", checkpoint, "-o", "bundle")
    assert run(*export) == ""
    further(checkpoint, pictures=640, step=20, curve=[{"pictures": 640}])
    assert run(*export) == ""
    assert open_bundle(tmp_path / "bundle").manifest.told("provenance", "step") == 20
    further(checkpoint, recipe={"name": "fast", "seed": 7}, started_from=[{"recipe": {"name": "none"}}])
    refused = run(*export)
    assert "bundle holds what this command did not make, and is left alone; found base " in refused
    assert ", of another recipe, started from; expected a new folder, or one of the same origin. Next: " in refused
    assert refused.endswith("choose another folder, or add --force to replace it")
    assert open_bundle(tmp_path / "bundle").manifest.told("provenance", "step") == 20
    assert run("export", "--bundle", tiny_bundle, "--precision", "fp16", "-o", "other") == ""
    assert "of another recipe" in run(*export[:-1], "other")
    assert run(*export, "--force") == ""
    assert open_bundle(tmp_path / "bundle").manifest.told("provenance", "recipe", "seed") == 7
    assert "of another recipe" in run("export", "--bundle", tiny_bundle, "-o", "bundle")
    att1 = make_tiny_checkpoint(tmp_path / "att1", "att1")
    assert "of another variant" in run("export", "--variant", "att1", "--checkpoint", att1, "-o", "other")


def test_an_import_is_not_replaced_by_its_smaller_export(run: Run, tmp_path: Path) -> None:
    files = PublishedFiles(tmp_path)
    made = ("import", *files.arguments, "-o", "models/attngan")
    assert run(*made) == run(*made) == ""
    before = open_bundle(tmp_path / "models/attngan").hash
    smaller = ("export", "--variant", "attngan", "--checkpoint", "models/attngan-checkpoint")
    assert "models/attngan holds what this command did not make" in (refused := run(*smaller))
    assert "of another weights dtype" in refused and open_bundle(tmp_path / "models/attngan").hash == before
    assert run(*smaller, "-o", "small") == ""
    (tmp_path / "others").mkdir()
    others = PublishedFiles(tmp_path / "others", "g_net_branch3_b3")
    assert "attngan-checkpoint holds what this command did not make" in run("import", *others.arguments, *made[-2:])
    assert "small holds what this command" in run("import", *others.arguments, "-o", "small")
    assert open_bundle(tmp_path / "models/attngan").hash == before
    assert run("import", *others.arguments, *made[-2:], "--force") == ""


def test_what_ships_is_left_alone_before_anything_is_trained(run: Run, tmp_path: Path, tiny_bundle: Path) -> None:
    judge = make_tiny_judge(tmp_path / "judge")
    make_tiny_matcher(tmp_path / "matcher", judge)
    shutil.copytree(tiny_bundle, tmp_path / "models" / "base")
    train = ("--data", "nothing", "--out", "runs")
    assert "models/base holds what this command did not make" in run("train", "all", *train)
    assert "judge holds what this" in run("train", "judge", *train, "--bundle", "judge")
    matcher = ("train", "damsm", *train, "--image-encoder", "judge", "--backbone", judge, "--bundle", "matcher")
    assert "matcher holds what this" in run(*matcher)
    for command in (("train", "all", *train), ("train", "judge", *train, "--bundle", "judge"), matcher):
        assert "nothing" in run(*command, "--force")  # the data, which comes next


def test_a_judge_of_another_file_is_left_alone(run: Run, tmp_path: Path) -> None:
    make_tiny_judge(tmp_path / "judge")
    file = classifier(tmp_path / "net.onnx")
    assert "of another network" in run("import-judge", file, "-o", "judge", *HOW)
    assert run("import-judge", file, "-o", "judge", *HOW, "--force") == ""
    again = classifier(tmp_path / "other.onnx")
    assert "of another network" in run("import-judge", again, "-o", "judge", *HOW)
