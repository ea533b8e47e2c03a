"""What people type where something else is meant: each line that is told works as it stands."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from attngan_deploy.cli import app, register, report_errors

register("models", "generate", "score", "replay", "data")

T2I = Callable[..., tuple[int, str]]


@pytest.fixture
def t2i(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> T2I:
    """Run `t2i` in a folder of its own; returns the status, and what it told without the frame around it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("T2I_MODELS", str(tiny_bundle.parent))
    monkeypatch.setenv("COLUMNS", "500")

    def run(*arguments: str) -> tuple[int, str]:
        try:
            status = report_errors(lambda: app([*arguments], standalone_mode=True))
        except SystemExit as end:
            status = int(end.code or 0)
        return status, " ".join(re.sub("[\u2500-\u257f]", " ", "".join(capsys.readouterr())).split())

    return run


ENGINE = ("--model", "tiny", "--backend", "onnxruntime")


@pytest.mark.parametrize(
    ("arguments", "caption"),
    [
        (["--caption", "a", "small", "red", "bird"], "a small red bird"),
        (["--caption", "a", "bird"], "a bird"),
        (["a", "small", "bird"], "a small bird"),
        (["--caption", "a", "bird", "--caption", "a", "jay"], "a small red bird"),
    ],
)
def test_a_caption_without_quotes_is_told_whole(t2i: T2I, arguments: list[str], caption: str) -> None:
    status, told = t2i("generate", *arguments, *ENGINE)
    assert status == 2 and f'a caption goes behind --caption "{caption}"' in told


@pytest.mark.parametrize("name", ["two.txt", "c/two.csv", "notes.md", "c/two.txt"])
def test_a_file_is_no_caption(t2i: T2I, name: str) -> None:
    Path("c").mkdir()
    Path(name).write_text("caption\na small red bird\n" if name.endswith("csv") else "a small red bird\n")
    status, told = t2i("generate", "--caption", name, *ENGINE, "-o", "out")
    assert status == 1 and f"--caption {name} is the name of a file; expected a caption. Next: t2i generate" in told
    assert not Path("out").exists()
    line = shlex.split(told.partition("Next: t2i ")[2])
    assert t2i(*line)[0] == 0 and Path("out/00001_00.png" if name[-3:] != "csv" else "out/00002_00.png").exists()


def test_a_file_that_is_not_there_is_no_caption_either(t2i: T2I) -> None:
    status, told = t2i("generate", "--caption", "three.jsonl", *ENGINE)
    assert status == 1 and "--caption three.jsonl is the name of a file, which is not there" in told
    Path("bird").touch()
    assert t2i("generate", "--caption", "bird", *ENGINE)[0] == 0


def test_several_files_of_captions(t2i: T2I) -> None:
    for name in ("a.txt", "b c.txt", "d.csv"):
        Path(name).write_text("a bird\n")
    status, told = t2i("generate", "a.txt", "b c.txt", *ENGINE)
    assert status == 2 and "one file is read: cat a.txt 'b c.txt' | t2i generate -" in told
    assert "one file is read: t2i generate a.txt" in t2i("generate", "a.txt", "d.csv")[1]


def test_several_paths_where_one_is_read(t2i: T2I) -> None:
    for folder in ("g0", "g1"):
        Path(folder).mkdir()
        for number in range(3):
            Image.new("RGB", (16, 16), (number, 0, 0)).save(f"{folder}/{number}.png")
            Path(folder, f"{number}.txt").write_text("a bird\n")
    files = sorted(map(str, Path("g0").glob("*.png")))
    status, told = t2i("score", *files, "--splits", "1", "--no-shuffle")
    assert status == 2 and "3 were given, and one is read: t2i score g0 --splits 1 --no-shuffle" in told
    assert "2 were given, and one is read: t2i score g0" in t2i("score", "g0", "g1")[1]
    assert "4 were given, and one is read: t2i score g0/0.png" in t2i("score", *files, "g1/0.png")[1]
    status, told = t2i("data", "build", *files, "-o", "data", "--size", "16")
    assert status == 2 and "one is read: t2i data build g0 --out data --size 16" in told
    assert t2i(*shlex.split(told.partition("one is read: t2i ")[2]))[0] == 0
    status, told = t2i("replay", *files)
    assert status == 2 and "3 were given, and one is read: t2i replay g0/0.png" in told
