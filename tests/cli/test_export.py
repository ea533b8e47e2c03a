"""`t2i export` as a person types it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from attngan_deploy.bundles import manifest
from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.cli import app, register, report_errors
from attngan_deploy.cli.export import Variant
from attngan_deploy.export import bundle_writer
from attngan_deploy.export.precision import writer as precision_writer
from attngan_deploy.train.config import VARIANTS
from tests.makers.capless import run_capless
from tests.makers.precise_bundle import add_half_generator
from tests.makers.tiny_bundle import make_tiny_checkpoint
from tests.makers.tiny_judge import make_tiny_judge

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
    assert open_bundle(place / "models" / "att1").manifest.variant == "att1"
    for word in ("image_128", "worst difference", "stored weights against trained ones", "generator.onnx"):
        assert word in result.stdout


def test_json_is_what_a_program_reads(place: Path) -> None:
    make_tiny_checkpoint(place / "checkpoint")
    result = call("--variant", "base", "--checkpoint", "checkpoint", "-o", "bundle", "--weights", "fp32", "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    bundle = open_bundle(place / "bundle")
    assert (facts["bundle"], facts["hash"], facts["bytes"]) == ("bundle", bundle.hash, bundle.bytes)
    assert facts["parity"] == bundle.manifest.told("parity")
    assert bundle.manifest.weights_dtype == "float32"


def test_another_variant_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tiny_checkpoint(place / "checkpoint", "base")
    line = fails_with(capsys, "--variant", "att2", "--checkpoint", "checkpoint", "-o", "bundle")
    assert "checkpoint is another variant; found base; expected att2" in line
    assert not (place / "bundle").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--checkpoint", "nowhere"), "no checkpoint at nowhere; found no such folder"),
        (("--target", "onnx,coreml"), "--target coreml can't be made; expected onnx, tensorrt, tensorrt-rtx, openvino"),
        (("--precision", "fp16,fp8"), "--precision fp8 can't be made; expected fp32, fp16, bf16, int8"),
        (("--precision", "auto"), "--precision auto means nothing in an export"),
        (("--target", "edge", "--precision", "fp16,int8"), "--target edge takes one precision; found fp16, int8"),
        (("--target-output", "place"), "--target-out is the place of one target; found none but onnx"),
        (
            ("--target", "edge,triton", "--target-output", "place"),
            "--target-out is the place of one target; found edge, triton",
        ),
    ],
)
def test_what_is_not_there_is_named(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert message in fails_with(capsys, "--variant", "base", *arguments)
    assert not any(place.iterdir())


def test_without_a_run_what_ships_is_exported_and_checked(
    place: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_bundle, place / "models" / "att1")
    monkeypatch.setenv("T2I_MODELS", str(place / "models"))
    (place / "runs/att1").mkdir(parents=True)  # an empty folder is no run
    before = sorted((place / "models" / "att1").iterdir())
    result = call("--variant", "att1")  # as in a checkout, whose models/att1 it is
    assert result.exit_code == 0, result.stderr
    assert "there is no run at runs/att1: this exports the att1 that ships" in result.stderr
    assert "checked: 4 golden pictures" in result.stderr and "passed" in result.stderr
    assert "models/att1" in result.stdout
    assert call("--variant", "att1", "--precision", "fp16", "--target", "triton,edge").exit_code == 0
    assert sorted(path.name for path in place.iterdir()) == [
        *("att1-fp16", "att1-fp16-edge.onnx", "att1-fp16-triton", "models", "runs")
    ]
    assert open_bundle(place / "att1-fp16").precisions("generator") == ("fp32", "fp16")
    assert sorted((place / "models" / "att1").iterdir()) == before
    monkeypatch.chdir(place / "att1-fp16")
    assert call("--variant", "att1", "--json").exit_code == 0
    assert open_bundle(Path("models/att1")).hash == open_bundle(tiny_bundle).hash
    assert call("--variant", "att1", "--weights", "fp16").exit_code == 2
    line = (
        "there is no run at runs/attngan; expected a run folder, or --checkpoint. Next: t2i train gan --variant attngan"
    )
    assert line in fails_with(capsys, "--variant", "attngan")


def test_a_copy_of_what_ships_needs_no_other_package(place: Path, tiny_bundle: Path) -> None:
    code = "import sys; sys.modules.update(onnx=None, torch=None, safetensors=None)\n"
    code += "from attngan_deploy.cli import app, register; register('export', 'models'); app()"
    environment = {**os.environ, "T2I_MODELS": str(place / "models")}
    shutil.copytree(tiny_bundle, place / "models" / "att2")
    for arguments in (("--variant", "att2", "-o", "mine"), ("--bundle", "att2", "-o", "copy", "--target", "triton")):
        command = [sys.executable, "-c", code, "export", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        assert open_bundle(place / arguments[3]).hash == open_bundle(tiny_bundle).hash


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --variant to export a checkpoint, or --bundle"),
        (("--variant", "base", "--bundle", "base"), "give --variant to export a checkpoint, or --bundle"),
        (("--bundle", "base", "--checkpoint", "x"), "--checkpoint: of no use with --bundle"),
        (("--bundle", "base", "--weights", "fp32", "-o", "q"), "--weights: of no use with --bundle"),
        (("--bundle", "base", "-o", "q", "--captions", "x"), "--captions calibrates and measures precisions other"),
        (("--bundle", "base", "--precision", ","), "--precision and --target each name at least one"),
        (("--bundle", "base"), "nothing to make"),
    ],
)
def test_a_checkpoint_or_a_bundle(place: Path, arguments: tuple[str, ...], message: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())


def test_precisions_of_a_checkpoint(place: Path) -> None:
    make_tiny_checkpoint(place / "checkpoint")
    result = call("--variant", "base", "--checkpoint", "checkpoint", "-o", "bundle", "--precision", "fp32,fp16")
    assert result.exit_code == 0, result.stderr
    assert open_bundle(place / "bundle").precisions("generator") == ("fp32", "fp16")
    for word in ("generator.fp16.onnx", "worst pixel", "kept in fp32", "none"):
        assert word in result.stdout


def test_precisions_that_an_export_drops_are_named(place: Path, tiny_bundle: Path) -> None:
    make_tiny_checkpoint(place / "checkpoint")
    add_half_generator(tiny_bundle, place / "bundle", "fp16", "bf16")
    arguments = ("--variant", "base", "--checkpoint", "checkpoint", "-o", "bundle")
    line = "had fp16,bf16 before and has not now; to add: t2i export --bundle ./bundle --precision fp16,bf16"
    assert line in call(*arguments).stderr
    assert "before and has not now" not in call(*arguments).stderr


def test_an_installed_model_is_not_changed(
    place: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where a folder of its name is at hand."""
    monkeypatch.setenv("T2I_MODELS", str(tiny_bundle.parent))
    shutil.copytree(tiny_bundle, "tiny")
    assert "-o is needed: tiny was named" in fails_with(capsys, "--bundle", "tiny", "--precision", "fp16")
    assert open_bundle(tiny_bundle).precisions("generator") == ("fp32",)
    assert call("--bundle", "./tiny", "--precision", "fp16").exit_code == 0
    assert open_bundle(place / "tiny").precisions("generator") == ("fp32", "fp16")


def test_devices_are_checked_before_anything_is_made(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the package tensorrt-rtx")
    make_tiny_checkpoint(place / "checkpoint")
    arguments = ("--variant", "base", "--checkpoint", "checkpoint", "-o", "bundle", "--target", "tensorrt-rtx")
    assert "can't build for 'sm61'" in fails_with(capsys, *arguments, "--device", "sm89,sm61")
    assert [path.name for path in place.iterdir()] == ["checkpoint"]


def test_temporary_names_are_not_told(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tiny_checkpoint(place / "checkpoint")
    arguments = ("--variant", "base", "--checkpoint", "checkpoint", "-o")
    line = fails_with(capsys, *arguments, "x" * 250)
    assert "File name too long" in line and f"at {'x' * 250};" in line
    monkeypatch.setattr(bundle_writer, "save_graph", lambda model, path: path.write_bytes(b"none"))
    line = fails_with(capsys, *arguments, "bundle")
    assert "bundle/text_encoder.onnx" in line and ".part" not in line


def test_a_precision_below_its_floor_leaves_no_bundle(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tiny_checkpoint(place / "checkpoint")
    monkeypatch.setattr(manifest, "FLOORS", {**manifest.FLOORS, "bf16": 190.0})
    monkeypatch.setattr(precision_writer, "SIZES", (2, 1))
    arguments = ("--variant", "base", "--checkpoint", "checkpoint", "-o", "bundle", "--precision", "bf16")
    assert "bf16 changes the pictures too much" in fails_with(capsys, *arguments)
    assert [path.name for path in place.iterdir()] == ["checkpoint"]


def test_weights_that_are_no_numbers(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = make_tiny_checkpoint(place / "checkpoint")
    tensors = load_file(checkpoint / "text_encoder.safetensors")
    tensors["lstm.weight_hh_l0"][0, 0] = float("nan")
    save_file(tensors, checkpoint / "text_encoder.safetensors")
    line = fails_with(capsys, "--variant", "base", "--checkpoint", "checkpoint", "-o", "bundle")
    assert "text_encoder has values that are not finite; found lstm.weight_hh_l0" in line
    assert not (place / "bundle").exists()


def test_a_bundle_and_its_targets(place: Path, tiny_bundle: Path) -> None:
    arguments = ("--bundle", str(tiny_bundle), "-o", "tiny", "--target", "edge,triton", "--json")
    result = call(*arguments)
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert [(one["target"], one["precision"], Path(one["path"]).name) for one in facts["products"]] == [
        ("edge", "fp32", "tiny-edge.onnx"),
        ("triton", "fp32", "tiny-triton"),
    ]
    assert sorted(path.name for path in place.iterdir()) == ["tiny", "tiny-edge.onnx", "tiny-triton"]
    assert all(one["bytes"] > 1000 for one in facts["products"])
    assert facts["precisions"] == {}


def test_only_what_was_made_is_told(place: Path, tiny_bundle: Path) -> None:
    shutil.copytree(tiny_bundle, "tiny")
    result = call("--bundle", "./tiny", "--target", "edge")
    assert result.exit_code == 0, result.stderr
    assert "edge: single file" in result.stdout and result.stdout.splitlines()[-1].endswith("tiny-edge.onnx")
    for word in ("against", "generator.onnx", "PSNR"):
        assert word not in result.stdout
    result = call("--bundle", "./tiny", "--precision", "fp16")
    assert "generator.fp16.onnx" in result.stdout and result.stdout.splitlines()[-1].startswith("tiny  ")
    for word in ("against", "generator.onnx", "vocabulary.txt"):
        assert word not in result.stdout
    result = call("--bundle", "./tiny", "--precision", "fp16", "--target", "triton", "--captions", "none.txt")
    assert "--captions has no use here: no precision is made; found fp32, fp16 in tiny" in str(result.exception)
    assert call("--bundle", "./tiny", "-o", "copy").stdout.startswith("copy  ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--bundle", "nowhere", "--target", "edge"), "no model 'nowhere'"),
        (("--bundle", "judge", "--target", "triton"), "judge is not a text-to-image bundle; found kind 'judge'"),
        (
            ("--bundle", "new", "--precision", "fp16"),
            "new was made for a newer version of this program; found schema 9",
        ),
        (("--bundle", "tiny", "--precision", "int8", "--captions", "none.txt"), "no captions file at none.txt"),
        (("--bundle", "tiny", "--target", "triton", "--target-output", "tiny"), "tiny holds other files"),
    ],
)
def test_bundles_that_can_not_be_added_to(
    place: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    shutil.copytree(tiny_bundle, "tiny")
    shutil.copytree(tiny_bundle, "new")
    manifest = json.loads((place / "new" / "bundle.json").read_text())
    (place / "new" / "bundle.json").write_text(json.dumps(manifest | {"schema": 9}))
    make_tiny_judge(place / "judge")
    assert message in fails_with(capsys, *arguments)
    assert sorted(path.name for path in place.iterdir()) == ["judge", "new", "tiny"]


def test_a_read_only_folder_is_named(tmp_path: Path, tiny_bundle: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    done = run_capless("export", "--bundle", str(tiny_bundle), "-o", str(locked / "tiny"), "--precision", "fp16")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("t2i: ")]
    assert f"Permission denied at {locked}" in line


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
