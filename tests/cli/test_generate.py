"""`t2i generate` and `t2i models`, as a person types them."""

import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from attngan_deploy.cli import app, register, report_errors
from attngan_deploy.errors import EngineError
from attngan_deploy.generate.manifest import read_manifest
from tests.makers.alike import alike
from tests.makers.commands import PATIENCE, wait_for

CAPTIONS = "a small red bird with black wings\n\nthis bird is blue\n"
COMMAND = """
import sys
from attngan_deploy.cli import app, register, report_errors
register("generate", "models")
sys.exit(report_errors(lambda: app(standalone_mode=True)))
"""

T2I = Callable[..., int]


@pytest.fixture
def t2i(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> T2I:
    """Run `t2i` in this process, in a folder with c.txt; returns the exit status.

    Pictures are compared, so `generate` runs on one engine; what "auto" does is tested in test_choice.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("T2I_MODELS", str(tiny_bundle.parent))
    Path("c.txt").write_text(CAPTIONS)
    register("generate", "models")

    def run(*arguments: str) -> int:
        engine = ("--backend", "onnxruntime") if arguments[0] == "generate" and "--backend" not in arguments else ()
        try:
            return report_errors(lambda: app([*arguments, *engine], standalone_mode=True))
        except SystemExit as end:
            return int(end.code or 0)

    return run


def names(folder: str | Path = ".") -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def picture(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_generate(t2i: T2I, capsys: pytest.CaptureFixture[str]) -> None:
    assert t2i("generate", "c.txt", "-o", "out", "--model", "tiny", "--n", "2", "--seed", "7") == 0
    told = capsys.readouterr()
    assert told.out.startswith("made 4 pictures at ")
    assert told.out.rstrip().endswith("img/s: out")
    assert told.err.startswith("t2i: model tiny ")
    assert f", onnxruntime {onnxruntime.__version__} on cpu, fp32, a thread a core\n" in told.err
    files = ["00001_00.png", "00001_01.png", "00003_00.png", "00003_01.png"]
    assert names("out") == [*files, "manifest.jsonl", "metadata.jsonl", "run.json"]
    assert [record["file"] for record in read_manifest(Path("out"))] == files
    assert picture("out/00001_00.png").shape == (128, 128, 3)
    from attngan_deploy import TextToImage

    expected = TextToImage.load("tiny", backend="onnxruntime").generate(
        CAPTIONS.split("\n\n"), seed=7, images_per_caption=2, batch_size=1
    )
    for row, file in enumerate(files):
        assert alike(picture(Path("out", file)), expected[row])


def test_fallback_is_told(t2i: T2I, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("generate", "c.txt", "--model", "tiny", "--backend", "tensorrt", "--allow-fallback")
    if t2i(*arguments) != 0 or "instead of" not in (told := capsys.readouterr().err):
        pytest.skip("TensorRT runs here")
    assert told.startswith("t2i: model tiny ")
    assert "onnxruntime" in told
    assert "fp32, a thread a core, instead of tensorrt on cuda in fp32 (" in told
    assert picture("out/00001_00.png").shape == (128, 128, 3)


def test_a_picture_says_what_made_it(t2i: T2I) -> None:
    """These keys, with the bundle, are all that it takes to make the picture again."""
    assert t2i("generate", "c.txt", "--model", "tiny", "--n", "2", "--seed", "9") == 0
    with Image.open("out/00003_01.png") as image:
        told = json.loads(image.info["t2i"])
    place = {"line": 3, "index": 1, "sample": 1, "seed": 9, "shared_noise": False}
    assert place.items() <= told.items()
    assert (told["caption"], told["model"]) == ("this bird is blue", "tiny")
    assert (told["backend"], told["precision"]) == ("onnxruntime", "fp32")
    assert len(told["model_hash"]) == 64


def test_rerun_says_what_it_skipped(t2i: T2I, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("generate", "c.txt", "--model", "tiny", "-o")
    assert t2i(*arguments, "out") == 0
    capsys.readouterr()
    assert t2i(*arguments, "out", "--n", "2", "--batch-size", "1") == 0
    assert "made 2 pictures" in (told := capsys.readouterr().out)
    assert "skipped 2 that were there" in told
    assert t2i(*arguments, "out", "--n", "2") == 0
    assert capsys.readouterr().out == "made 0 pictures, skipped 4 that were there: out\n"
    assert t2i(*arguments, "other", "--n", "2") == 0
    for file in Path("other").glob("*.png"):
        assert alike(picture(file), picture(Path("out", file.name)))
    capsys.readouterr()
    assert t2i(*arguments, "out", "--seed", "1") == 1
    told = capsys.readouterr().err
    assert "out belongs to another run; found seed 0; expected seed 1. Next: choose another -o" in told
    Path("c.txt").write_text("a black bird\n")
    assert t2i(*arguments, "out") == 1
    told = capsys.readouterr().err
    assert (
        'of other captions; found "a small red bird with black wings" as caption 1; expected "a black bird" as' in told
    )
    assert "Next: choose another -o: t2i generate c.txt --out out-2 --model tiny --backend onnxruntime" in told
    Path("out-2").mkdir()
    parts = ("--shard", "0/1", "--strict")
    assert t2i(*arguments, "out", *parts) == 1
    told = capsys.readouterr().err
    assert "Next: choose another -o: t2i generate c.txt --out out-3 --model tiny --strict" in told
    assert t2i("generate", "--caption", "a red bird", "--caption", "it's blue", "--model", "tiny", "-o", "out") == 1
    told = capsys.readouterr().err
    line = told.partition("choose another -o: t2i ")[2]
    assert not re.search("[0-9a-f]{12}", told) and t2i(*shlex.split(line)) == 0
    assert len(list(Path("out-3").glob("*.png"))) == 2


def test_unknown_words_are_told_once(t2i: T2I, capsys: pytest.CaptureFixture[str]) -> None:
    Path("c.txt").write_text("a yelow bird\n\na yelow head, qqq\n")
    assert t2i("generate", "c.txt", "--model", "tiny") == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert warned == [
        "t2i: line 1: left out 'yelow' (nearest known word: 'yellow')",
        "t2i: line 3: left out 'qqq' (no known word is near)",
    ]
    shutil.rmtree("out")
    assert t2i("generate", "c.txt", "--model", "tiny", "--strict") == 1
    assert "the caption on line 1 has unknown words" in capsys.readouterr().err
    assert not Path("out").exists()


def test_grid_has_a_caption_a_row(t2i: T2I, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("generate", "c.txt", "--model", "tiny", "--n", "3", "--grid", "--shared-noise")
    assert t2i(*arguments) == 0
    grid = picture("out/grid.png")
    assert grid.shape == (2 + 2 * 130, 2 + 3 * 130, 3)
    assert np.array_equal(grid[132:260, 262:390], picture("out/00003_02.png"))
    Path("out/grid.png").unlink()
    assert t2i(*arguments) == 0
    assert Path("out/grid.png").is_file()


def test_attention_is_made_for_pictures_that_are_there(t2i: T2I) -> None:
    arguments = ("generate", "c.txt", "--model", "tiny")
    assert t2i(*arguments) == 0
    before = Path("out/00001_00.png").stat().st_mtime_ns
    assert t2i(*arguments, "--attention") == 0
    assert names("out/attention") == ["00001_00.png", "00003_00.png"]
    assert Path("out/00001_00.png").stat().st_mtime_ns == before
    tall, low = picture("out/attention/00001_00.png"), picture("out/attention/00003_00.png")
    assert tall.shape[0] > low.shape[0]  # seven words and four, six tiles a row


def test_shared_noise(t2i: T2I) -> None:
    Path("c.txt").write_text("red bird\nred bird\n")
    assert t2i("generate", "c.txt", "--model", "tiny", "--shared-noise") == 0
    assert np.array_equal(picture("out/00001_00.png"), picture("out/00002_00.png"))
    assert all(record["shared_noise"] is True for record in read_manifest(Path("out")))


def test_captions_from_everywhere(t2i: T2I, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("c.csv").write_text("id,text\n1,red bird\n2,blue bird\n")
    Path("c.jsonl").write_text('{"text": "red bird"}\n{"text": "blue bird"}\n')
    assert t2i("generate", "c.csv", "--column", "text", "--model", "tiny", "-o", "csv") == 0
    assert t2i("generate", "c.jsonl", "--model", "tiny", "-o", "jsonl") == 0
    assert t2i("generate", "--caption", "red bird", "--caption", "blue bird", "--model", "tiny", "-o", "typed") == 0
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"red bird\nblue bird\n")))
    assert t2i("generate", "-", "--model", "tiny", "-o", "stdin") == 0
    made = {
        folder: [picture(path) for path in sorted(Path(folder).glob("*.png"))]
        for folder in ("csv", "jsonl", "typed", "stdin")
    }
    for pictures in made.values():
        assert np.array_equal(np.stack(pictures), np.stack(made["csv"]))


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["none.txt"], 1, "no captions file at none.txt"),
        (["a small red bird"], 1, 'Next: t2i generate --caption "a small red bird"'),
        (["A 3.5 cm bird."], 1, 'Next: t2i generate --caption "A 3.5 cm bird."'),
        (["a red/blue bird", "--shard", "0/2"], 1, "a caption itself goes behind --caption"),
        (["bird" * 100], 1, "a caption itself goes behind --caption"),
        (["a", "small", "bird"], 2, 'a caption goes behind --caption "a small bird"'),
        (["."], 1, "is a folder"),
        (["empty.txt"], 1, "empty.txt is empty"),
        (["binary.txt"], 1, "zero byte on line 1"),
        (["latin.txt"], 1, "is not UTF-8: byte 2, on line 1"),
        (["unknown.txt"], 1, "the caption on line 2 has only unknown words"),
        (["--caption", " "], 1, "no captions were given"),
        (["--caption", "\u200b\u00ad", "--model", "none"], 1, "no captions were given; expected --caption TEXT"),
        (["c.txt", "--model", "none"], 1, "no model 'none'"),
        (["c.txt", "--model", "damaged"], 1, "generator.onnx has"),
        (["c.txt", "--backend", "torch"], 1, "no backend 'torch'; expected auto, onnxruntime, openvino, "),
        (["c.txt", "--device", "cuda"], 1, "this ONNX Runtime has no cuda; found "),
        (
            ["c.txt", "--backend", "openvino", "--device", "cuda"],
            1,
            "openvino has no device cuda; expected cpu, gpu or npu",
        ),
        (
            ["c.txt", "--precision", "fp16", "--device", "cpu"],
            1,
            "does not compute in fp16 on cpu; expected fp32 or int8",
        ),
        (["c.txt", "--precision", "int8"], 1, "has no graph 'generator' in int8; found fp32"),
        (["c.txt", "--allow-fallback", "--precision", "fp8"], 1, "no precision 'fp8'"),
        (["c.txt", "-o", "c.txt"], 1, "c.txt is not a folder"),
        (["c.txt", "-o", "."], 1, "holds other files"),
        ([], 2, "give either a captions file or --caption TEXT"),
        (["c.txt", "--caption", "a bird"], 2, "give either a captions file or --caption TEXT"),
        (["c.txt", "--format", "bmp"], 2, "bmp"),
        (["c.txt", "--n", "0"], 2, "--n"),
        (["c.txt", "--threads", "0"], 2, "--threads"),
        (["c.txt", "--seed", "-1"], 2, "--seed"),
    ],
)
def test_bad_input(
    t2i: T2I,
    tiny_bundle: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    message: str,
) -> None:
    Path("empty.txt").touch()
    Path("binary.txt").write_bytes(b"\x7fELF\0\0")
    Path("latin.txt").write_bytes(b"a \xe9gret")
    Path("unknown.txt").write_text("a bird\nquick fox\n")
    damaged = Path(shutil.copytree(tiny_bundle, "damaged"))
    (damaged / "generator.onnx").write_bytes((damaged / "generator.onnx").read_bytes()[:1000])
    before = names()
    model = [] if "--model" in arguments else ["--model", "tiny"]
    assert t2i("generate", *arguments, *model) == status
    told = capsys.readouterr()
    assert told.out == ""
    lines = [line for line in told.err.splitlines() if not line.startswith("t2i: model ")]
    if status == 1:
        assert len(lines) == 1
        assert lines[0].startswith("t2i: ")
    assert message in " ".join(told.err.replace("│", " ").split())
    assert names() == before


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("c.txt", "c.txt is not a folder"),
        ("c.txt/deep/out", "c.txt is not a folder"),
        ("dangling", "dangling is not a folder"),
        ("/proc/x", "/proc/x can't be written"),
        ("theirs", "theirs holds other files"),
        ("done", "done belongs to another run; found seed 1; expected seed 0"),
    ],
)
def test_folders_are_refused_before_an_engine_is_loaded(
    t2i: T2I, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, out: str, message: str
) -> None:
    Path("dangling").symlink_to("nowhere")
    Path("theirs").mkdir()
    Path("theirs", "letter.txt").touch()
    assert t2i("generate", "c.txt", "--model", "tiny", "--seed", "1", "-o", "done") == 0
    capsys.readouterr()
    before = names(), names("theirs"), names("done")
    monkeypatch.setattr("attngan_deploy.generate.pipeline.choose", None)
    assert t2i("generate", "c.txt", "--model", "tiny", "-o", out) == 1
    told = capsys.readouterr().err
    assert message in told
    assert len(told.splitlines()) == 1
    assert (names(), names("theirs"), names("done")) == before


def test_failing_before_the_first_picture_leaves_nothing(
    t2i: T2I, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = names()
    assert t2i("generate", "c.txt", "--model", "tiny", "--device", "cuda", "-o", "deep/out") == 1
    assert names() == before

    def fail(*arguments: object) -> None:
        raise EngineError("the generator made values that are not finite")

    monkeypatch.setattr("attngan_deploy.generate.pipeline.check_finite", fail)
    Path("ours").mkdir()
    for out in ("deep/out", "ours"):
        assert t2i("generate", "c.txt", "--model", "tiny", "-o", out) == 1
        assert "not finite" in capsys.readouterr().err
    assert names() == [*before, "ours"]
    assert names("ours") == []

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("attngan_deploy.generate.pipeline.check_finite", stop)
    assert t2i("generate", "c.txt", "--model", "tiny", "-o", "out") == 130
    assert capsys.readouterr().err.endswith("t2i: stopped; nothing was made\n")
    assert names() == [*before, "ours"]


def start(tiny_bundle: Path, folder: Path, *options: str) -> "subprocess.Popen[str]":
    """A long run in a process of its own."""
    (folder / "c.txt").write_text(CAPTIONS)
    command = [sys.executable, "-c", COMMAND, "generate", "c.txt", "--model", str(tiny_bundle), "--n", "200"]
    return subprocess.Popen(
        [*command, "--batch-size", "3", "--threads", "1", "--backend", "onnxruntime", *options],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_pictures(process: "subprocess.Popen[str]", folder: Path, count: int) -> None:
    wait_for(lambda: len(list(folder.glob("out/*.png"))) >= count, process)


def check_folder(folder: Path) -> int:
    """Every picture is whole and every line of the manifest has one; returns how many lines there are."""
    for path in folder.glob("*.png"):
        assert picture(path).shape == (128, 128, 3)
    records = read_manifest(folder)
    assert all((folder / record["file"]).is_file() for record in records)
    assert len({record["file"] for record in records}) == len(records)
    return len(records)


def test_killed_and_run_again(tiny_bundle: Path, tmp_path: Path) -> None:
    done = 0
    for pictures in (10, 40, 90):
        process = start(tiny_bundle, tmp_path)
        wait_for_pictures(process, tmp_path, max(pictures, done + 1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        done = check_folder(tmp_path / "out")
        assert 0 < done < 400
    process = start(tiny_bundle, tmp_path)
    told, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "skipped" in told
    assert check_folder(tmp_path / "out") == 400
    assert len(names(tmp_path / "out")) == 403  # with run.json, manifest.jsonl and metadata.jsonl
    made = [(record["index"], record["sample"]) for record in read_manifest(tmp_path / "out")]
    assert made == [(index, sample) for index in (0, 1) for sample in range(200)]


def test_ctrl_c_keeps_what_is_done(tiny_bundle: Path, tmp_path: Path) -> None:
    process = start(tiny_bundle, tmp_path)
    wait_for_pictures(process, tmp_path, 20)
    process.send_signal(signal.SIGINT)
    told, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, errors
    assert told == ""
    assert "stopped; what is done is kept in out" in errors
    assert "Traceback" not in errors
    folder = tmp_path / "out"
    assert check_folder(folder) == len(list(folder.glob("*.png"))) >= 20
    assert not [name for name in names(folder) if name.endswith(".part")]


def test_models(t2i: T2I, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "bundle.json").write_text("{")
    os.environ["T2I_MODELS"] += os.pathsep + str(tmp_path)  # the fixture's monkeypatch puts it back
    assert t2i("models") == 0
    told = capsys.readouterr()
    assert "tiny " in told.out
    assert str(tiny_bundle) in told.out
    assert "broken is damaged: bundle.json is not JSON" in told.err
    assert t2i("models", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["tiny"]["kind"] == "text-to-image"
    assert rows["tiny"]["bytes"] > 1000
