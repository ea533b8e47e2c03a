"""`t2i score` of what people bring: it is read, or the line that refuses it has a next step that works."""

import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attngan_deploy.cli import app, register, report_errors
from tests.makers.tiny_judge import SIZE, make_tiny_judge

register("models", "score")


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_judge(tmp_path_factory.mktemp("judges") / "colours")


@pytest.fixture
def birds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve pictures in the folder `birds`, which is in the current one."""
    monkeypatch.chdir(tmp_path)
    folder = Path("birds")
    folder.mkdir()
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return folder


def score(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str]:
    """The status of a command, and what it told on both streams."""
    try:
        status = report_errors(lambda: app(["score", *map(str, arguments)], standalone_mode=True))
    except SystemExit as end:
        status = int(end.code or 0)
    return status, "".join(capsys.readouterr())


def test_links_of_a_tar(birds: Path, judge: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("links").mkdir()
    for file in birds.iterdir():
        Path("links", file.name).symlink_to(Path("../birds", file.name))
    with tarfile.open("both.tar", "w") as tar:
        for folder in ("links", "birds"):
            tar.add(folder)
    status, told = score(capsys, "both.tar", "--judge", judge)
    assert status == 0 and "24 used of 24 found" in told and "skipped" not in told
    with tarfile.open("links.tar", "w") as tar:
        tar.add("links")
        tar.add(birds / "00.png")
    status, told = score(capsys, "links.tar", "--judge", judge)
    assert status == 0 and "warning: 11 of 13 pictures are broken and were skipped" in told
    assert "links/01.png is a link to ../birds/01.png, which the tar" in told
    assert score(capsys, "links.tar", "--judge", judge, "--strict")[0] == 1
    with tarfile.open("links.tar", "w") as tar:
        tar.add("links")
    status, told = score(capsys, "links.tar", "--judge", judge)
    assert status == 1 and "has no usable picture; found links/0" in told and "Next: pack the folder again" in told
    status, told = score(capsys, "birds", "--judge", judge, "--metric", "fid", "--reference", "links.tar")
    assert status == 1 and "links.tar has no usable picture" in told
    status, told = score(capsys, "--model", "base", "--captions", "links.tar", "--n", "1", "--judge", judge)
    assert status == 1 and "which the tar does not hold; found 12 such links" in told


@pytest.mark.parametrize(("suffix", "packer"), [(".gz", "gzip"), (".bz2", "bzip2"), (".xz", "xz")])
def test_a_packed_tar_is_unpacked_by_its_next_step(
    birds: Path, judge: Path, capsys: pytest.CaptureFixture[str], suffix: str, packer: str
) -> None:
    with tarfile.open("all birds.tar", f"w:{suffix[1:]}") as tar:
        tar.add(birds)
    status, told = score(capsys, "all birds.tar", "--judge", judge)
    assert status == 1 and f"is packed by {packer}. Next: unpack it: " in told
    if not shutil.which(packer):
        pytest.skip(f"needs {packer}")
    subprocess.run(told.strip().partition("unpack it: ")[2], shell=True, check=True)
    assert score(capsys, "all birds-unpacked.tar", "--judge", judge)[0] == 0


@pytest.mark.parametrize("name", ["birds.zip", "birds.tgz", "all birds.tar.gz"])
def test_an_archive_is_unpacked_by_its_next_step(
    birds: Path, judge: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    shutil.make_archive("made", "zip" if name.endswith("zip") else "gztar", birds)
    next(Path().glob("made*")).rename(name)
    shutil.rmtree(birds)
    status, told = score(capsys, name, "--judge", judge)
    assert status == 1 and "Next: unpack it, and name the folder: " in told
    line = told.strip().partition("name the folder: ")[2]
    if not shutil.which(line.split()[0]):
        pytest.skip(f"needs {line.split()[0]}")
    subprocess.run(line, shell=True, check=True, stdout=subprocess.DEVNULL)
    assert "12 used of 12 found" in score(capsys, name.partition(".")[0], "--judge", judge)[1]


def test_shards_in_a_sub_folder(birds: Path, judge: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("top/my shards").mkdir(parents=True)
    for number in range(2):
        with tarfile.open(f"top/my shards/{number}.tar", "w") as tar:
            for file in sorted(birds.iterdir())[number::2]:
                tar.add(file, file.name)
    status, told = score(capsys, "top", "--judge", judge)
    assert status == 1 and "Next: t2i score 'top/my shards'" in told
    assert "12 used of 12 found" in score(capsys, "top/my shards", "--judge", judge)[1]


def test_a_reference_of_no_pictures_is_told_what_one_is(
    birds: Path, judge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir()
    for name in ("list.txt", "set.json", "empty"):
        if name != "empty":
            Path(name).write_text("birds/00.png\n")
        status, told = score(capsys, birds, "--judge", judge, "--metric", "fid", "--reference", name)
        assert status == 1 and told.rstrip().endswith("Next: --reference with a folder or a .tar of real pictures")


def test_a_crop_that_is_named_fits_all_pictures(birds: Path, judge: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, sides in enumerate([(30, 20), (17, 40), (60, 60)]):
        Image.new("RGB", sides, "red").save(birds / f"z{number}.jpg")
    shutil.copytree(birds, "real")
    Image.new("RGB", (15, 44), "red").save("real/zz.png")
    with tarfile.open("real.tar", "w") as tar:
        tar.add("real")
    for reference, side in (((), SIZE), (("--metric", "fid", "--reference", "real.tar"), 15)):
        status, told = score(capsys, "birds", "--judge", judge, *reference)
        found = re.search(r"Next: add (--crop) (\d+), the shorter side of the smallest picture", told)
        assert status == 1 and found is not None and int(found[2]) == min(side, 17)
        assert score(capsys, "birds", "--judge", judge, *reference, *found.groups())[0] == 0
    status, told = score(capsys, "birds", "--judge", judge, "--crop", "18")
    assert status == 1 and f"Next: add --crop {min(SIZE, 17)}," in told


def test_pictures_of_other_kinds_are_told(birds: Path, judge: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (SIZE, SIZE)).save(birds / "a.tif")
    Image.new("RGB", (SIZE, SIZE)).save(birds / "b.gif")
    (birds / "c.HEIC").write_bytes(b"ftypheic")
    status, told = score(capsys, "birds", "--judge", judge)
    assert status == 0 and "warning: 3 pictures of kinds that are not read (1 gif, 1 heic, 1 tif) were left out" in told


def test_a_manifest_of_some_of_the_pictures(birds: Path, judge: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (birds / "manifest.jsonl").write_text('{"file": "01.png", "caption": "a bird"}\n{"file": "02.png"}\n')
    status, told = score(capsys, "birds", "--judge", judge)
    assert status == 0 and "manifest.jsonl names 2 of 12 pictures; --order name scores all that are there" in told
    assert "12 used of 12 found" in score(capsys, "birds", "--judge", judge, "--order", "name")[1]


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"GIF89a", "a GIF"),
        (b"II*\0\x10\0\0\0CR", "a TIFF"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS: git lfs pull brings"),
        (b"nothing", "$"),
    ],
)
def test_what_is_called_a_picture_and_is_none_is_told(
    birds: Path, judge: Path, capsys: pytest.CaptureFixture[str], written: bytes, kind: str
) -> None:
    for file in birds.iterdir():
        file.write_bytes(written)
    status, told = score(capsys, "birds", "--judge", judge)
    expected = "no PNG, WebP or JPEG)" if kind == "$" else f"no PNG, WebP or JPEG, but {kind}"
    assert status == 1 and expected in told and "Next: " in told


@pytest.mark.parametrize("name", ["0.CR2", "1.nef", "2.dng", "3.mpo"])
def test_pictures_of_cameras_are_pictures(
    birds: Path, judge: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (birds / name).write_bytes(b"II*\0")
    status, told = score(capsys, "birds", "--judge", judge)
    assert status == 0 and "1 pictures of kinds that are not read (1 " in told
    Path("raw").mkdir()
    (birds / name).rename(Path("raw", name))
    status, told = score(capsys, "raw", "--judge", judge)
    assert status == 1 and "Next: make PNGs of them" in told


@pytest.mark.parametrize(
    ("mean", "covariance"), [("m", "s"), ("mean", "cov"), ("fid_mu", "fid_sigma"), ("Mu", "Sigma")]
)
def test_statistics_under_other_names_get_theirs_by_the_next_step(
    birds: Path, judge: Path, capsys: pytest.CaptureFixture[str], mean: str, covariance: str
) -> None:
    np.savez("real set.npz", **{mean: np.zeros(5), covariance: np.eye(5), "n": np.array(12)})
    fid = ("birds", "--judge", judge, "--metric", "fid", "--reference")
    status, told = score(capsys, *fid, "real set.npz")
    assert status == 1 and f"found {mean}, {covariance}, n; expected 'mu' [F]" in told
    subprocess.run(told.strip().partition("these names: ")[2], shell=True, check=True)
    with np.load("real set-named.npz") as named:
        assert named["mu"].shape == (5,) and named["sigma"].shape == (5, 5)
    assert "holds the features of another judge; found 5 features" in score(capsys, *fid, "real set-named.npz")[1]
    np.savez("real set.npz", mu=np.zeros((1, 5)), sigma=np.eye(5))
    assert "found 'mu' of shape [1, 5]; " in score(capsys, *fid, "real set.npz")[1]
    np.savez("real set.npz", features=np.zeros((3, 5)))
    assert "found features; expected " in score(capsys, *fid, "real set.npz")[1]
