"""Folders that a power cut left of older versions, which did not wait for the disk: the same command goes on."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from attngan_deploy.generate.manifest import read_manifest
from attngan_deploy.media.images import decode_picture
from attngan_deploy.media.shards import iter_samples
from tests.makers.alarm import alarm
from tests.makers.commands import t2i

ENGINE = ("--backend", "onnxruntime", "--precision", "fp32", "--threads", "1", "--batch-size", "1")
SHARDS = ("--shard", "0/1", "--shard-size", "3")
PICTURES = 8
PIPES = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a pipe that has a name")

Command = Callable[..., int]


@pytest.fixture
def make(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `t2i generate` of eight captions into `out`, with more options; returns the exit status."""
    monkeypatch.chdir(tmp_path)
    Path("c.txt").write_text("".join(f"a {word} bird\n" for word in ("red", "blue", "black", "white") * 2))

    def run(*options: str, captions: str = "c.txt") -> int:
        return t2i("generate", captions, "--model", str(tiny_bundle), "-o", "out", *ENGINE, *options)

    return run


def contents(folder: str = "out") -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def damage(name: str, data: bytes = b"") -> None:
    (Path("out") / name).write_bytes(data)


@pytest.mark.parametrize("lost", [b"", b"{", bytes(300)])
@pytest.mark.parametrize("file_format", ["png", "webp", "tar"])
def test_a_damaged_run_record(make: Command, capsys: pytest.CaptureFixture[str], file_format: str, lost: bytes) -> None:
    """The pictures, or the manifest, say whose they are; what nothing tells of is made again."""
    assert make("--format", file_format) == 0
    whole = contents()
    damage("run.json", lost)
    if file_format != "webp":
        damage("manifest.jsonl", whole["manifest.jsonl"][:1000] + bytes(2000))
    if file_format == "png":
        damage("00003_00.png")
    capsys.readouterr()
    assert make("--format", file_format) == 0
    assert f"made {int(file_format == 'png')} picture" in capsys.readouterr().out
    assert {name: data for name, data in contents().items() if name != "manifest.jsonl"} == {
        name: data for name, data in whole.items() if name != "manifest.jsonl"
    }
    assert [record["line"] for record in read_manifest(Path("out"))] == [*range(1, PICTURES + 1)]


def test_nearly_everything_is_lost(make: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert make() == 0
    whole = contents()
    for name in whole:
        damage(name, whole[name] if name == "00002_00.png" else b"")
    capsys.readouterr()
    assert make() == 0
    assert f"made {PICTURES - 1} pictures" in capsys.readouterr().out
    assert contents().keys() == whole.keys() and all(
        decode_picture(Path("out", name).read_bytes()).size for name in whole if name.endswith("png")
    )
    for name in whole:
        damage(name)
    assert make("--seed", "3") == 0  # nothing is there that could be lost


@pytest.mark.parametrize("options", [(), ("--seed", "1"), ("--shared-noise",)])
def test_what_may_be_of_another_run_is_refused(
    make: Command, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert make() == 0
    damage("run.json")
    before = contents()
    Path("d.txt").write_text(Path("c.txt").read_text().replace("white", "yellow"))
    capsys.readouterr()
    assert make(*options, captions="c.txt" if options else "d.txt") == 1
    assert "out/run.json is damaged" in capsys.readouterr().err
    assert contents() == before


def test_pictures_of_nobody_are_left_alone(make: Command, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    damage("run.json")
    damage("00001_00.png", b"a picture of mine")
    capsys.readouterr()
    assert make() == 1
    assert "out/run.json is damaged" in capsys.readouterr().err
    assert contents() == {"run.json": b"", "00001_00.png": b"a picture of mine"}


def test_an_emptied_shard_of_a_folder_is_made_again(make: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert make("--format", "tar") == 0
    whole = contents()
    for lost in (b"", bytes(4096)):
        damage("pictures-00000.tar", lost)
        capsys.readouterr()
        assert make("--format", "tar") == 0
        assert f"made {PICTURES} pictures" in capsys.readouterr().out
        assert contents() == whole


def test_a_damaged_record_of_a_run_in_parts(make: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(*SHARDS) == 0
    whole = contents()
    damage("run.json")
    damage("pictures-00001.tar")
    damage("manifest.jsonl")
    capsys.readouterr()
    assert make(*SHARDS) == 0
    assert "made 3 pictures" in capsys.readouterr().out
    assert contents() == whole
    damage("run.json", b"{")
    assert make(*SHARDS, "--seed", "1") == 1
    assert "out/run.json is damaged" in capsys.readouterr().err
    for name in whole:
        damage(name)
    assert make(*SHARDS) == 0
    assert contents() == whole


LOSSES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "zeros": lambda data: bytes(len(data)),
    "a byte": lambda data: data[:700] + bytes([data[700] ^ 1]) + data[701:],
    "more": lambda data: data + b"\n",
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("file_format", ["tar", "png"])
def test_a_shard_counts_by_size_and_hash(
    make: Command, capsys: pytest.CaptureFixture[str], file_format: str, loss: str
) -> None:
    assert make(*SHARDS, "--format", file_format) == 0
    whole = contents()
    file = "pictures-00001.tar" if file_format == "tar" else "00005_00.png"
    damage(file, LOSSES[loss](whole[file]))
    capsys.readouterr()
    assert make(*SHARDS, "--format", file_format) == 0
    assert "made 3 pictures" in (said := capsys.readouterr().out) and "3 of 3 shards" in said
    assert contents() == whole


@pytest.mark.parametrize("loss", ["emptied", "cut", "zeros"])
def test_a_damaged_manifest_counts_for_nothing(make: Command, capsys: pytest.CaptureFixture[str], loss: str) -> None:
    assert make(*SHARDS) == 0
    whole = contents()
    damage("pictures-00002.jsonl", LOSSES[loss](whole["pictures-00002.jsonl"]))
    damage("manifest.jsonl", b"")
    capsys.readouterr()
    assert make(*SHARDS[:1], "0/2", *SHARDS[2:]) == 0  # of another worker, whose shard it is not
    assert "2 of 3 shards of the run are there" in capsys.readouterr().out
    assert contents()["manifest.jsonl"] == b""
    assert make(*SHARDS) == 0
    assert contents() == whole


def test_a_manifest_tells_its_files(make: Command) -> None:
    assert make(*SHARDS) == 0
    *pictures, file = [json.loads(line) for line in Path("out/pictures-00000.jsonl").read_bytes().splitlines()]
    assert [picture["line"] for picture in pictures] == [1, 2, 3]
    assert file["file"] == "pictures-00000.tar" and file["bytes"] == Path("out/pictures-00000.tar").stat().st_size
    assert re.fullmatch("[0-9a-f]{64}", file["sha256"]) and len(file) == 3
    assert all("caption" in record for record in read_manifest(Path("out")))


def test_shards_of_an_older_version_count_where_they_are_whole(
    make: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make(*SHARDS) == 0
    whole = contents()
    for name in ("pictures-00000.jsonl", "pictures-00001.jsonl"):
        damage(name, b"".join(whole[name].splitlines(keepends=True)[:3]))
    damage("pictures-00001.tar", whole["pictures-00001.tar"][:-512])
    capsys.readouterr()
    assert make(*SHARDS) == 0
    assert "made 3 pictures" in capsys.readouterr().out
    assert sum(1 for shard in Path("out").glob("*.tar") for _ in iter_samples(shard)) == PICTURES


def test_what_killed_workers_left_is_swept(make: Command) -> None:
    assert make(*SHARDS) == 0
    whole = contents()
    Path("out/.pictures-00000.tar.0123abcd.part").mkdir()
    for name in ("pictures-00002.jsonl", "run.json", "manifest.jsonl", "pictures-00000.tar.0123abcd.part/half"):
        damage(f".{name}" if "/" in name else f".{name}.0123abcd.part", b"half")
    assert make(*SHARDS) == 0
    assert contents() == whole and not Path("out/.pictures-00000.tar.0123abcd.part").exists()


NAMES = ["run.json", "manifest.jsonl", "metadata.jsonl", "00002_00.png", "grid.png", "attention"]


@pytest.mark.parametrize("name", NAMES)
def test_a_link_in_the_folder_is_not_written_through(
    make: Command, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (Path("mine") if name == "attention" else Path("elsewhere")).mkdir()
    if name != "attention":
        Path("mine").write_bytes(b"")
    options = ("--grid", "--attention") if name in ("attention", "grid.png") else ()
    assert make(*(option for option in options if option != "--attention" or name != "attention")) == 0
    Path("out", name).unlink(missing_ok=True)
    Path("out", name).symlink_to(Path("mine").absolute())
    capsys.readouterr()
    assert make(*options) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "is a link" in line]
    assert f"out/{name} is a link, and is left alone" in line
    assert not list(Path("mine").iterdir()) if name == "attention" else Path("mine").read_bytes() == b""


@pytest.mark.parametrize("name", ["run.json", "manifest.jsonl", "pictures-00001.jsonl", "pictures-00001.tar"])
def test_nor_in_a_folder_of_parts(make: Command, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert make(*SHARDS) == 0
    Path("mine").write_bytes(b"")
    Path("out", name).unlink()
    Path("out", name).symlink_to(Path("mine").absolute())
    capsys.readouterr()
    assert make(*SHARDS) == 1
    assert f"out/{name} is a link, and is left alone" in capsys.readouterr().err
    assert Path("mine").read_bytes() == b""


def leave(*names: str) -> None:
    for path in Path("out").iterdir():
        if path.name not in names:
            path.unlink()


@PIPES
def test_a_pipe_is_nothing_that_a_power_cut_left(make: Command, capsys: pytest.CaptureFixture[str]) -> None:
    Path("other.txt").write_text("a red bird\n")
    assert make(captions="other.txt") == 0
    leave("run.json")
    os.mkfifo("out/pipe")
    capsys.readouterr()
    with alarm():
        assert make() == 1
    assert "out belongs to another run" in capsys.readouterr().err
    assert Path("out/pipe").is_fifo()


@PIPES
def test_a_pipe_in_the_place_of_a_shard_is_not_opened(make: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert make("--format", "tar") == 0
    leave("run.json")
    os.mkfifo("out/pictures-00000.tar")
    capsys.readouterr()
    with alarm():
        assert make("--format", "tar") == 1
    assert "pictures-00000.tar is not a file, and is left alone" in capsys.readouterr().err


@PIPES
@pytest.mark.parametrize("options", [(), SHARDS])
@pytest.mark.parametrize("name", ["pipe.jsonl", "large.jsonl"])
def test_what_is_no_manifest_tells_nothing_of_a_damaged_run(
    make: Command, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], name: str
) -> None:
    assert make(*options) == 0
    damage("run.json")
    leave("run.json")
    if name == "pipe.jsonl":
        os.mkfifo("out/pipe.jsonl")
    else:
        damage(name, b"{")
        os.truncate(f"out/{name}", 5 * 2**30)
    capsys.readouterr()
    with alarm():
        assert make(*options) == 1
    assert "run.json is damaged" in capsys.readouterr().err


@PIPES
@pytest.mark.parametrize(
    ("options", "name"),
    [((), "pictures-00000.tar"), (("--format", "png"), "00002_00.png"), (("--shard-size", "4"), "run.json")],
)
def test_a_part_takes_the_place_of_no_pipe(
    make: Command, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], name: str
) -> None:
    assert make(*SHARDS, *options) == 0
    Path("out", name).unlink()
    if name == "run.json":
        leave()
    os.mkfifo(Path("out", name))
    capsys.readouterr()
    with alarm():
        assert make(*SHARDS, *options) == 1
    assert f"{name} is not a file, and is left alone" in capsys.readouterr().err
    assert Path("out", name).is_fifo()


def test_a_manifest_with_a_second_name_keeps_what_that_one_had(make: Command) -> None:
    assert make() == 0
    Path("backup").hardlink_to("out/manifest.jsonl")
    before = Path("backup").read_bytes()
    assert make("--n", "2") == 0
    assert Path("backup").read_bytes() == before and len(read_manifest(Path("out"))) == 2 * PICTURES
