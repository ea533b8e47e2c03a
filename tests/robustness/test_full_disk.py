"""Disks that are full, and limits of file sizes: one clear line, what was done is kept, and a rerun completes."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.cli import report_errors
from attngan_deploy.generate.manifest import read_manifest
from attngan_deploy.media.images import decode_picture
from attngan_deploy.media.shards import iter_samples
from attngan_deploy.system.files import atomic_folder, is_part, write_atomically
from attngan_deploy.system.lock import is_lock
from attngan_deploy.train.data.build import BuildOptions, build
from attngan_deploy.train.runs.checkpoint import checkpoints_of, load_checkpoint
from attngan_deploy.train.runs.damsm import train_damsm
from attngan_deploy.train.runs.distributed import Processes
from attngan_deploy.train.runs.gan import GanRun
from attngan_deploy.train.runs.run_folder import RunFolder
from tests.makers.commands import PATIENCE, t2i
from tests.makers.data_makers import birds
from tests.makers.tiny_bundle import make_tiny_checkpoint
from tests.makers.tiny_training import make_tiny_backbone, make_tiny_shards, tiny_damsm_recipe, tiny_gan_recipe

resource = pytest.importorskip("resource", reason="sets limits that only POSIX has")


@contextmanager
def small_files(most: int) -> Iterator[None]:
    """No file may grow beyond `most` bytes, as after `ulimit -f`."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 100 kB; skips where none can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs the command mount")
    if done.returncode:
        pytest.skip(f"needs the right to mount a small disk: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def one_line(told: str) -> str:
    """The only line that begins with `t2i: ` and is no progress; there is no traceback."""
    lines = [line for line in told.splitlines() if line.startswith("t2i: ") and "t2i: model " not in line]
    assert len(lines) == 1, told
    assert "Traceback" not in told
    return lines[0]


def left_over(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if is_part(path) or is_lock(path)]


def generate(bundle: Path, out: Path, *options: str) -> int:
    captions = out.parent / "captions.txt"
    captions.write_text("a small red bird\na large black bird\n")
    engine = ("--backend", "onnxruntime", "--threads", "1", "--precision", "fp32")
    return t2i("generate", str(captions), "--model", str(bundle), "--n", "20", "-o", str(out), *engine, *options)


@pytest.mark.parametrize("file_format", ["png", "tar"])
def test_pictures_on_a_full_disk(
    tiny_bundle: Path, tmp_path: Path, small_disk: Path, capsys: pytest.CaptureFixture[str], file_format: str
) -> None:
    out, whole = small_disk / "out", tmp_path / "whole"
    assert generate(tiny_bundle, whole, "--format", file_format) == 0
    capsys.readouterr()
    assert generate(tiny_bundle, out, "--format", file_format) == 1
    told = one_line(capsys.readouterr().err)
    assert "can't be written: No space left on device" in told
    assert "free some space there" in told and "the same command again: what is done is kept" in told
    assert not left_over(small_disk)
    found = [path.read_bytes() for path in out.glob("*.png")]
    found += [sample.picture for path in out.glob("*.tar") for sample in iter_samples(path)]
    kept = len(found)
    assert 5 < kept < 40
    assert all(decode_picture(data).shape == (128, 128, 3) for data in found)
    assert len(read_manifest(out)) <= kept  # there may be no room for the lines of the last ones
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert generate(tiny_bundle, out, "--format", file_format) == 0
    assert f"made {40 - kept} pictures" in capsys.readouterr().out
    wanted = [(record["index"], record["sample"]) for record in read_manifest(whole)]
    assert [(record["index"], record["sample"]) for record in read_manifest(out)] == wanted
    if file_format == "png":
        pictures = {path.name: path.read_bytes() for path in whole.glob("*.png")}
        assert {path.name: path.read_bytes() for path in out.glob("*.png")} == pictures


def test_a_command_under_ulimit(tiny_bundle: Path, tmp_path: Path) -> None:
    """As a person meets it: the shell's own limit, and the command in a process of its own."""
    command = f"generate --caption 'a red bird' --model {tiny_bundle} --n 20 -o {tmp_path / 'out'} --format tar"
    line = f"ulimit -f 100; {sys.executable} -m attngan_deploy {command} --backend onnxruntime"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    told = one_line(done.stderr)
    assert "can't be written: File too large" in told and "ulimit -f unlimited" in told
    kept = len(read_manifest(tmp_path / "out"))
    assert 0 < kept < 20
    again = subprocess.run(
        ["bash", "-c", line.split("; ")[1]], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert again.returncode == 0, again.stderr
    assert f"made {20 - kept} pictures" in again.stdout


@pytest.mark.parametrize("most", [200, 4000, 100_000])
def test_an_export_without_room_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str], most: int) -> None:
    run = make_tiny_checkpoint(tmp_path / "run")
    command = ("export", "--variant", "base", "--checkpoint", str(run), "-o", str(tmp_path / "bundle"))
    largest = 0
    for there in (False, True):
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        with small_files(min(most, largest - 1) if largest else most):
            assert t2i(*command) == 1
        told = one_line(capsys.readouterr().err)
        assert f"File too large at {tmp_path / 'bundle'};" in told and "ulimit -f unlimited" in told
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        assert not left_over(tmp_path)
        if not there:
            assert t2i(*command) == 0
            largest = max(path.stat().st_size for path in (tmp_path / "bundle").iterdir())
            capsys.readouterr()
    open_bundle(tmp_path / "bundle")


def test_a_copy_without_room_names_what_is_written(tmp_path: Path) -> None:
    """The system tells of the file that is read."""
    (tmp_path / "picture").write_bytes(bytes(5000))
    with small_files(3000), pytest.raises(OSError) as whole, atomic_folder(tmp_path / "out") as folder:
        shutil.copyfile(tmp_path / "picture", folder / "picture")
    with small_files(3000), pytest.raises(OSError) as alone:
        write_atomically(tmp_path / "file", bytes(5000))
    assert whole.value.filename == str(tmp_path / "out") and alone.value.filename == str(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["picture"]


def test_shards_without_room_leave_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = birds(tmp_path / "birds")
    options = BuildOptions(source, tmp_path / "data", size=16)
    with small_files(3000):
        assert report_errors(lambda: build(options)) == 1
    assert f"File too large at {tmp_path / 'data'};" in one_line(capsys.readouterr().err)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["birds"]
    build(options)
    assert (tmp_path / "data" / "report.json").is_file()


def test_tensorboard_without_room_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It writes in a thread of its own, whose tracebacks nobody should see."""
    folder = RunFolder(tmp_path / "run", tiny_gan_recipe(), resume=False)

    def log() -> None:
        try:
            for step in range(2000):
                folder.log(step, {"loss": 1.0, "score": 2.0})
                folder._tensorboard.flush()
        finally:
            folder.close()

    with small_files(20_000):
        assert report_errors(log) == 1
    told = capsys.readouterr().err
    assert "File too large" in one_line(told) and len(told.splitlines()) == 1
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert lines and all(json.loads(line)["loss"] == 1.0 for line in lines)


def test_training_without_room_keeps_its_last_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, backbone = make_tiny_shards(tmp_path / "data"), make_tiny_backbone(tmp_path / "backbone.safetensors")
    train_damsm(tiny_damsm_recipe(epochs=1), data, tmp_path / "damsm", backbone)
    recipe = tiny_gan_recipe(checkpoint_minutes=0.0)

    def train(out: Path, resume: bool = False) -> int:
        run = GanRun.prepare(recipe, data, tmp_path / "damsm", out, backbone, resume=resume, processes=Processes())
        return report_errors(run.train)

    whole, out = tmp_path / "whole", tmp_path / "out"
    assert train(whole) == 0
    largest = max(path.stat().st_size for path in checkpoints_of(whole)[-1].iterdir())
    capsys.readouterr()
    with small_files(largest - 1):
        assert train(out) == 1
    told = one_line(capsys.readouterr().err)
    assert "File too large" in told and "nothing was left half-written" in told
    assert checkpoints_of(out) == [] and not left_over(out)
    assert train(out) == 0
    for folder in checkpoints_of(out):
        load_checkpoint(folder)
    for name in ("generator", "discriminators"):
        ours, wanted = (load_checkpoint(run).folder / f"{name}.safetensors" for run in (out, whole))
        assert not wanted.is_file() or ours.read_bytes() == wanted.read_bytes()
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
