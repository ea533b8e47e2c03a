"""`t2i data build`: output on the right stream, exit statuses, and one line for each mistake."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

pytest.importorskip("nltk", reason="needs the train extra")

from attngan_deploy.cli import app, register, report_errors
from attngan_deploy.system.lock import is_lock
from tests.makers.commands import PATIENCE, wait_for

register("data")


def birds(root: Path, classes: int = 4, each: int = 1) -> Path:
    for number in range(classes):
        folder = root / f"kind{number}"
        folder.mkdir(parents=True)
        for place in range(each):
            Image.new("RGB", (30, 40), (number, 0, 0)).save(folder / f"b{place}.png")
            (folder / f"b{place}.txt").write_text(f"a bird of kind {number}\n")
    return root


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["data", "build", *map(str, arguments)])


def test_a_build_tells_counts_and_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attngan_deploy.system.progress.SECONDS_BETWEEN_LINES", 0.0)
    source = birds(tmp_path / "in")
    (source / "kind0/b0.txt").unlink()
    result = run(source, "-o", tmp_path / "out", "--size", "16", "--test-classes", "1")
    assert result.exit_code == 0
    assert "drawn by seed 0: 2 classes for training, 1 for testing\n" in result.stdout
    assert "train: 2 pictures, 2 captions, 2 classes" in result.stdout
    assert "test: 1 pictures" in result.stdout
    assert "skipped 1, listed in report.json: no captions (1)" in result.stdout
    assert "data build: 2/3" in result.stderr and "2/3" not in result.stdout


def test_json_is_the_report(tmp_path: Path) -> None:
    result = run(birds(tmp_path / "in"), "-o", tmp_path / "out", "--size", "16", "--test-classes", "0.5", "--json")
    assert json.loads(result.stdout) == json.loads((tmp_path / "out/report.json").read_text())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--test-classes", "1.5"],
        ["--test-classes", "-1"],
        ["--test-classes", "nan"],
        ["--test-classes", "some"],
        ["--kind", "video"],
        ["--size", "0"],
        ["--quality", "101"],
        ["--min-count", "0"],
        ["--no-such-option"],
    ],
)
def test_misuse_exits_2_and_makes_nothing(tmp_path: Path, arguments: list[str]) -> None:
    assert run(birds(tmp_path / "in"), "-o", tmp_path / "out", *arguments).exit_code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        ("none", [], "no pictures at"),
        ("in", ["--kind", "cub"], "is not a CUB-200-2011 folder"),
        ("in", ["--captions", "in"], "--captions belongs to --kind cub"),
        ("in", ["--test-classes", "4"], "can't split by class"),
        ("in", ["--split-file", "none.txt"], "no split file at"),
        ("in", ["-o", "in"], "is not empty"),
    ],
)
def test_a_failure_is_one_line_and_status_1(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    source: str,
    arguments: list[str],
    message: str,
) -> None:
    birds(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    command = ["data", "build", source, "-o", "out", *arguments]
    assert report_errors(lambda: app(command, standalone_mode=False)) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("t2i: ") and message in output.err and output.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def begun_files(folder: Path) -> list[Path]:
    """What a build has begun to write beside its final name, its lock left out."""
    return [path for path in folder.glob(".out.*") if not is_lock(path)]


def test_ctrl_c_leaves_nothing_half_written(tmp_path: Path) -> None:
    source = birds(tmp_path / "in", classes=2, each=150)
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job ignores it
        "from attngan_deploy.cli import app, register; register('data'); app()"
    )
    command = [sys.executable, "-c", code, "data", "build", str(source), "-o", str(tmp_path / "out"), "--size", "1024"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: begun_files(tmp_path), process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_help_does_not_load_what_only_a_build_needs() -> None:
    code = (
        "import sys; from attngan_deploy.cli import app, register; register('data')\n"
        "app(['data', 'build', '--help'], standalone_mode=False)\n"
        "assert not {'nltk', 'torch', 'numpy', 'PIL'} & sys.modules.keys()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "--split-file" in result.stdout


def test_a_build_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from attngan_deploy.cli import app, register; register('data')\n"
        "app(sys.argv[1:], standalone_mode=False); assert 'torch' not in sys.modules"
    )
    arguments = ["data", "build", str(birds(tmp_path / "in")), "-o", str(tmp_path / "out"), "--size", "16"]
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
