"""`t2i replay`, as a person types it."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.makers.commands import t2i


@pytest.fixture(autouse=True)
def picture(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("T2I_MODELS", str(tiny_bundle.parent))
    engine = ("--backend", "onnxruntime", "--threads", "1")
    assert t2i("generate", "--caption", "a red bird", "--model", "tiny", *engine) == 0
    capsys.readouterr()
    return "out/00001_00.png"


def test_again(picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert t2i("replay", picture, "--threads", "1") == 0
    told = capsys.readouterr()
    assert told.out.startswith("identical (onnxruntime ")
    assert told.out.endswith(": 00001_00-again.png\n")
    assert told.err == ""
    with Image.open(picture) as one, Image.open("00001_00-again.png") as other:
        assert np.array_equal(np.asarray(one), np.asarray(other))


def test_an_earlier_one_stays(picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("00001_00-again.png").write_bytes(b"mine")
    assert t2i("replay", picture, "--threads", "1") == 0
    assert capsys.readouterr().out.endswith(": 00001_00-again-2.png\n")
    assert Path("00001_00-again.png").read_bytes() == b"mine" and Path("00001_00-again-2.png").is_file()


def test_no_link_is_written_through(picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("00001_00-again.png").symlink_to("victim")
    assert t2i("replay", picture, "--threads", "1") == 0
    assert capsys.readouterr().out.endswith(": 00001_00-again-2.png\n")
    Path("there").write_text("mine")
    Path("link.png").symlink_to("there")
    for name in ("00001_00-again.png", "link.png"):
        assert t2i("replay", picture, "-o", name, "--threads", "1") == 1
        assert f"{name} is a link, and is left alone" in capsys.readouterr().err
    assert not Path("victim").exists() and Path("there").read_text() == "mine"


def test_json_and_another_file(picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert t2i("replay", picture, "-o", "again.webp", "--json", "--threads", "1") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["file"], told["same"], told["worst_level"]) == ("again.webp", True, 0)
    assert told["origin"]["caption"] == "a red bird"
    assert told["engine"]["backend"] == "onnxruntime"
    with Image.open("again.webp") as image:
        assert image.size == (128, 128)


def test_a_changed_picture_fails_but_is_made(picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Image.open(picture) as image:
        image.load()
        from PIL.PngImagePlugin import PngInfo

        facts = PngInfo()
        facts.add_text("t2i", image.info["t2i"])
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save("flipped.png", pnginfo=facts)
    assert t2i("replay", "flipped.png", "--threads", "1") == 1
    told = capsys.readouterr()
    assert "differs by at most" in told.out
    assert told.err == "t2i: flipped.png is not what its model makes: it was changed after onnxruntime made it\n"
    assert Path("flipped-again.png").is_file()


def test_no_engine_named_is_no_change_claimed(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--caption", "a red bird", "--model", "tiny", "--backend", "onnxruntime", "--threads", "1")
    assert t2i("generate", *arguments, "--format", "webp", "-o", "webp") == 0
    with Image.open("webp/00001_00.webp") as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save("webp/00001_00.webp", lossless=True)
    capsys.readouterr()
    assert t2i("replay", "webp/00001_00.webp", "--threads", "1") == 1
    assert "it was changed after onnxruntime made it" in capsys.readouterr().err
    manifest = Path("webp", "manifest.jsonl")
    record = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({key: record[key] for key in record if key not in ("backend", "precision")}) + "\n")
    assert t2i("replay", "webp/00001_00.webp", "--threads", "1") == 1
    assert capsys.readouterr().err == (
        "t2i: webp/00001_00.webp differs from what onnxruntime makes in fp32, and the manifest.jsonl beside it does "
        "not name the engine that made it: try --backend and --precision\n"
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["none.png"], "no picture at none.png"),
        (["out/manifest.jsonl"], "manifest.jsonl is no picture"),
        (["out/00001_00.png", "--model", "none"], "no model 'none'"),
        (["out/00001_00.png", "--model", "judge"], "is not a text-to-image bundle"),
        (["out/00001_00.png", "--model", "base"], "was made by another model; found base "),
        (["out/00001_00.png", "--backend", "caffe"], "no backend 'caffe'"),
        (["out/00001_00.png", "-o", "out/00001_00.png"], "is the picture itself"),
    ],
)
def test_bad_input(capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    assert t2i("replay", *arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert told in captured.err
    assert not list(Path().glob("*.png"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a pipe that has a name")
def test_what_is_no_file_is_not_opened(picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("pipe.png")
    Path("zero.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "zero.png", "/dev/full"):
        assert t2i("replay", name) == 1
        assert f"{name} is no picture of ours: it is a pipe or a device, no file" in capsys.readouterr().err
    assert t2i("replay", picture, "-o", "pipe.png", "--threads", "1") == 1
    assert "pipe.png is not a file, and is left alone" in capsys.readouterr().err
    Path("large.png").touch()
    os.truncate("large.png", 2**27)
    assert t2i("replay", "large.png") == 1
    assert "large.png is no picture of ours: it has more than" in capsys.readouterr().err
