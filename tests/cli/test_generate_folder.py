"""Folders of `t2i generate` that passed through other hands."""

import io
import tarfile
from pathlib import Path

import pytest

from attngan_deploy.generate.manifest import read_manifest
from attngan_deploy.media.shards import iter_samples
from attngan_deploy.score.pictures import find_pictures
from tests.cli import test_generate
from tests.cli.test_generate import CAPTIONS, T2I, names, picture

t2i = test_generate.t2i


@pytest.mark.parametrize("file_format", ["webp", "jpg", "tar"])
def test_formats(t2i: T2I, file_format: str) -> None:
    assert t2i("generate", "c.txt", "--model", "tiny", "--format", file_format, "--grid") == 0
    expected = ["pictures-00000.tar"] if file_format == "tar" else [f"0000{line}_00.{file_format}" for line in (1, 3)]
    expected += ["metadata.jsonl"] if file_format != "tar" else []
    assert names("out") == sorted([*expected, "grid.png", "manifest.jsonl", "run.json"])
    assert picture("out/grid.png").shape == (132, 262, 3)


@pytest.mark.parametrize("more", [(), ("--format", "tar"), ("--shard", "0/1")])
def test_what_systems_leave_in_a_folder_is_no_picture(t2i: T2I, more: tuple[str, ...]) -> None:
    left = [".DS_Store", "._00001_00.png", "._pictures-00000.tar", "Thumbs.db", "desktop.ini", ".directory"]
    for folder in ("lost+found", "@eaDir", "$RECYCLE.BIN"):
        (Path("out") / folder).mkdir(parents=True)
    for name in left:
        (Path("out") / name).write_bytes(b"\0\5\x16\7 of a system")
    for _ in range(2):
        assert t2i("generate", "c.txt", "--model", "tiny", "-o", "out", *more) == 0
    assert len(read_manifest(Path("out"))) == find_pictures(Path("out")).count() == 2
    assert set(names("out")) > {*left, "lost+found", "@eaDir"}


def test_a_shard_that_tar_packed_again_is_gone_on_with(t2i: T2I, capsys: pytest.CaptureFixture[str]) -> None:
    assert t2i("generate", "c.txt", "--model", "tiny", "-o", "out", "--format", "tar") == 0
    shard = Path("out/pictures-00000.tar")
    with tarfile.open(shard) as tar:
        members = [(member, tar.extractfile(member)) for member in sorted(tar, key=lambda each: each.name[::-1])]
        parts = [(member, stream.read() if stream else b"") for member, stream in members]
    with tarfile.open(shard, "w") as tar:
        for member, data in parts:
            member.name = f"./{member.name}"
            tar.addfile(member, io.BytesIO(data))
    capsys.readouterr()
    assert t2i("generate", "c.txt", "--model", "tiny", "-o", "out", "--format", "tar") == 0
    assert "made 0 pictures, skipped 2" in capsys.readouterr().out
    samples = list(iter_samples(shard))
    assert sorted(sample.captions[0] for sample in samples) == sorted(line for line in CAPTIONS.splitlines() if line)
