"""`t2i export` as a person types it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from attngan_deploy.bundle import open_bundle
from attngan_deploy.cli import app, register, report_errors
from attngan_deploy.cli.export import Variant
from attngan_deploy.train.config import VARIANTS
from tests.tiny_bundle import make_tiny_checkpoint

register("export", "models")  # a lone command would need no name


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["export", *arguments])


def fails_with(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail; its one line on standard error that is not progress."""
    assert report_errors(lambda: app(["export", *arguments], standalone_mode=False)) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    errors = [line for line in captured.err.splitlines() if line.startswith("t2i: ")]
    assert len(errors) == 1
    return errors[0]


def test_the_run_and_the_bundle_have_usual_places(place: Path) -> None:
    make_tiny_checkpoint(place / "runs" / "att1", "att1")
    result = call("--variant", "att1")
    assert result.exit_code == 0, result.stderr
    assert "no --checkpoint: using runs/att1" in result.stderr
    assert open_bundle(place / "models" / "att1").manifest["variant"] == "att1"
    for word in ("image_128", "worst difference", "stored weights against trained ones", "generator.onnx"):
        assert word in result.stdout


def test_json_is_what_a_program_reads(place: Path) -> None:
    make_tiny_checkpoint(place / "checkpoint")
    result = call("--variant", "base", "--checkpoint", "checkpoint", "-o", "bundle", "--weights", "fp32", "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    bundle = open_bundle(place / "bundle")
    assert (facts["bundle"], facts["hash"], facts["bytes"]) == ("bundle", bundle.hash, bundle.bytes)
    assert facts["parity"] == bundle.manifest["parity"]
    assert bundle.manifest["weights_dtype"] == "float32"


def test_another_variant_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tiny_checkpoint(place / "checkpoint", "base")
    line = fails_with(capsys, "--variant", "att2", "--checkpoint", "checkpoint", "-o", "bundle")
    assert "checkpoint is another variant; found base; expected att2" in line
    assert not (place / "bundle").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (),
            "there is no run at runs/base; expected a run folder, or --checkpoint. Next: t2i train gan --variant base",
        ),
        (("--checkpoint", "nowhere"), "no checkpoint at nowhere; found no such folder"),
        (("--target", "tensorrt"), "--target tensorrt can't be made yet; expected onnx"),
        (("--precision", "int8"), "--precision int8 can't be made yet; expected fp32"),
    ],
)
def test_what_is_not_there_is_named(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert message in fails_with(capsys, "--variant", "base", *arguments)
    assert not any(place.iterdir())


def test_a_place_that_can_not_be_written_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tiny_checkpoint(place / "checkpoint")
    (place / "file").write_text("no folder")
    line = fails_with(capsys, "--variant", "base", "--checkpoint", "checkpoint", "-o", "file/bundle")
    assert "file" in line
    assert sorted(path.name for path in place.iterdir()) == ["checkpoint", "file"]


def test_an_unknown_variant_is_a_usage_error() -> None:
    assert call("--variant", "att3").exit_code == 2
    assert tuple(variant.value for variant in Variant) == VARIANTS


def test_help_loads_no_torch() -> None:
    code = (
        "import sys; from attngan_deploy.cli import app, register; register('export', 'models')\n"
        "try: app(['export', '--help'])\n"
        "except SystemExit: print('torch' in sys.modules, 'onnx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.stdout.splitlines()[-1] == "False False", done.stderr
