"""Reading shards: what is joined, and what a damaged tar says."""

import gzip
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from attngan_deploy.errors import DataError
from attngan_deploy.media.shards import MAX_MEMBER_BYTES, Sample, iter_samples
from attngan_deploy.score.pictures import find_pictures

FACTS = {"class": 3, "captions": ["a red bird", "a small bird"]}


def write_tar(path: Path, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_a_picture_and_its_json_become_one_sample(tmp_path: Path) -> None:
    shard = write_tar(
        tmp_path / "a.tar",
        ("1.x/b.webp", b"first"),
        ("1.x/b.json", json.dumps(FACTS).encode()),
        ("1.x/notes.txt", b"not a sample"),
        ("1.x/c.json", json.dumps(FACTS).encode()),  # the json may come first
        ("1.x/c.PNG", b"second"),
        ("1.x/lonely.json", json.dumps(FACTS).encode()),
        ("d.jpg", b"third"),
    )
    assert list(iter_samples(shard)) == [
        Sample("1.x/b", ".webp", b"first", 3, ["a red bird", "a small bird"]),
        Sample("1.x/c", ".png", b"second", 3, ["a red bird", "a small bird"]),
        Sample("d", ".jpg", b"third", -1, []),
    ]


def test_an_empty_tar_has_no_samples(tmp_path: Path) -> None:
    assert list(iter_samples(write_tar(tmp_path / "a.tar"))) == []


def test_a_shard_that_tar_packed_again(tmp_path: Path) -> None:
    """Members in another order, behind "./", with what macOS adds, and the captions of img2dataset."""
    shard = write_tar(
        tmp_path / "a.tar",
        ("./1.x/b.webp", b"first"),
        ("./1.x/._b.webp", b"of macOS"),
        ("./1.x/c.jfif", b"second"),
        ("./d.png", b"third"),
        ("./.DS_Store", b"of macOS"),
        ("./d.json", b'{"caption": "a bird", "key": "d", "url": "u"}'),
        ("./1.x/._b.json", b"of macOS"),
        ("./1.x/c.json", json.dumps(FACTS).encode()),
        ("./1.x/b.json", json.dumps(FACTS).encode()),
        ("./e.jpg", b"fourth"),
        ("./e.json", b'{"caption": null}'),
    )
    assert list(iter_samples(shard)) == [
        Sample("1.x/b", ".webp", b"first", 3, ["a red bird", "a small bird"]),
        Sample("1.x/c", ".jfif", b"second", 3, ["a red bird", "a small bird"]),
        Sample("d", ".png", b"third", -1, ["a bird"]),
        Sample("e", ".jpg", b"fourth", -1, []),
    ]
    (tmp_path / "._a.tar").write_bytes(b"of macOS")
    assert find_pictures(tmp_path).count() == 4


@pytest.mark.skipif(not shutil.which("tar"), reason="needs tar")
@pytest.mark.parametrize("order", [".", "*.webp *.json", "*.json *.webp"])
def test_tar_itself(tmp_path: Path, order: str) -> None:
    for name in "abcd":
        (tmp_path / f"{name}.webp").write_bytes(name.encode())
        (tmp_path / f"{name}.json").write_text(json.dumps({"class": 1, "captions": [f"bird {name}"]}))
    subprocess.run(f"tar cf ../{tmp_path.name}.tar {order}", shell=True, check=True, cwd=tmp_path)
    found = {sample.name: (sample.picture, sample.captions) for sample in iter_samples(f"{tmp_path}.tar")}
    assert found == {name: (name.encode(), [f"bird {name}"]) for name in "abcd"}


def test_captions_and_classes_beside_pictures_as_webdataset_has_them(tmp_path: Path) -> None:
    shard = write_tar(
        tmp_path / "a.tar",
        ("0.jpg", b"first"),
        ("0.txt", b"\xef\xbb\xbfa red bird\r\n\r\na jay\r\n"),
        ("0.cls", b"7\n"),
        ("1.txt", b"1. a tern\n"),
        ("1.jpg", b"second"),
        ("1.json", b'{"url": "u", "caption": null}'),
        ("2.jpg", b"third"),
        ("2.txt", b"not this"),
        ("2.cls", b"bird"),
        ("2.json", json.dumps(FACTS).encode()),
        ("lonely.txt", b"a bird"),
    )
    assert list(iter_samples(shard)) == [
        Sample("0", ".jpg", b"first", 7, ["a red bird", "a jay"]),
        Sample("1", ".jpg", b"second", -1, ["a tern"]),
        Sample("2", ".jpg", b"third", 3, ["a red bird", "a small bird"]),
    ]
    for text in (b"\xff", b"a" * (2**20 + 1)):
        shard = write_tar(tmp_path / "a.tar", ("0.jpg", b"first"), ("0.txt", text))
        with pytest.raises(DataError, match=r"0\.txt can't be read"):
            list(iter_samples(shard))


@pytest.mark.skipif(not shutil.which("tar"), reason="needs tar")
def test_links_are_the_files_that_they_lead_to(tmp_path: Path) -> None:
    """`tar` makes links of a file's other names: those of a folder without duplicates, of links, of one named twice."""
    folder, pool = tmp_path / "in", tmp_path / "in/pool"
    pool.mkdir(parents=True)
    (pool / "blob").write_bytes(b"picture")
    (folder / "a.json").write_text(json.dumps(FACTS))
    (folder / "b.json").hardlink_to(folder / "a.json")
    (folder / "a.webp").hardlink_to(pool / "blob")
    (folder / "b.webp").symlink_to("pool/blob")
    (folder / "c.webp").symlink_to("b.webp")
    (folder / "to the pool").symlink_to("pool")
    shard = tmp_path / "a.tar"
    subprocess.run(["tar", "cf", shard, ".", "./b.webp", "./a.json"], check=True, cwd=folder)
    assert sorted((sample.name, sample.picture, sample.class_id) for sample in iter_samples(shard)) == [
        ("a", b"picture", 3),
        ("b", b"picture", 3),
        ("c", b"picture", -1),
    ]
    assert find_pictures(shard).count() == 3


def test_links_multiply_no_work(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", ("a.png", bytes(2**18)))
    with tarfile.open(shard, "a") as tar:
        for number in range(500):
            member = tarfile.TarInfo(f"{number}.png")
            member.type, member.linkname = (tarfile.LNKTYPE, tarfile.SYMTYPE)[number % 2], "a.png"
            tar.addfile(member)
    made = 0
    with pytest.raises(DataError, match=r"\d+\.png is a link too many.*tar -chf"):
        for sample in iter_samples(shard):
            made += len(sample.picture)
    assert made <= 11 * shard.stat().st_size


def test_links_that_lead_nowhere_are_told(tmp_path: Path) -> None:
    shard = tmp_path / "a.tar"
    with tarfile.open(shard, "w") as tar:
        for name, target in (("a.png", "b.png"), ("b.png", "a.png"), ("birds", "/data/birds"), ("._c.png", "x")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    lost: list[str] = []
    assert list(iter_samples(shard, lost)) == []
    assert [line.split(",")[0] for line in lost] == [
        "a.png is a link to b.png",
        "b.png is a link to a.png",
        "birds is a link to /data/birds",
    ]
    with pytest.raises(DataError, match=r"a\.png is a link to b\.png, which.*found 3 such links.*tar -chf"):
        list(iter_samples(shard))


@pytest.mark.parametrize(
    "facts",
    [
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"class": Infinity}',
        b'{"class": true}',
        b'{"class": "3"}',
        b'{"class": -2}',
        b'{"class": 9999999999999999999999}',
        b'{"captions": "a red bird"}',
        b'{"captions": null}',
        b'{"captions": ["a red bird", 3]}',
    ],
)
def test_a_json_of_another_form_is_named(tmp_path: Path, facts: bytes) -> None:
    shard = write_tar(tmp_path / "a.tar", ("b.webp", b"picture"), ("b.json", facts))
    with pytest.raises(DataError, match=r"a\.tar: b\.json can't be read"):
        list(iter_samples(shard))


@pytest.mark.parametrize("kept", [100, 512, 700, 1024, 1536, 2000, 2048, 2560, 3072, 3500])
def test_a_truncated_tar_is_an_error_wherever_it_was_cut(tmp_path: Path, kept: int) -> None:
    shard = write_tar(tmp_path / "a.tar", ("b.webp", b"1" * 500), ("c.webp", b"2" * 500), ("d.webp", b"3" * 500))
    shard.write_bytes(shard.read_bytes()[:kept])
    with pytest.raises(DataError, match="not a complete tar file"):
        list(iter_samples(shard))


def test_a_damaged_header_in_the_middle_is_an_error_after_the_good_samples(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", ("b.webp", b"1"), ("c.webp", b"2"), ("d.webp", b"3"))
    content = bytearray(shard.read_bytes())
    content[2048:2060] = b"#" * 12
    shard.write_bytes(content)
    samples = iter_samples(shard)
    assert next(samples).name == "b"
    with pytest.raises(DataError, match="damaged at byte 2048"):
        list(samples)


def test_a_member_that_claims_to_be_huge_is_not_read(tmp_path: Path) -> None:
    member = tarfile.TarInfo("b.webp")
    member.size = MAX_MEMBER_BYTES + 1
    shard = tmp_path / "a.tar"
    shard.write_bytes(member.tobuf() + bytes(1024))
    with pytest.raises(DataError, match=r"b\.webp is too large"):
        list(iter_samples(shard))


def test_what_is_no_tar_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.tar").write_text("not a tar")
    (tmp_path / "empty.tar").write_bytes(b"")
    packed = write_tar(tmp_path / "plain.tar", ("b.webp", b"1")).read_bytes()
    (tmp_path / "packed.tar").write_bytes(gzip.compress(packed))
    for name in ("text.tar", "empty.tar", "packed.tar"):
        with pytest.raises(DataError, match="not a complete tar file"):
            list(iter_samples(tmp_path / name))
    for missing in (tmp_path / "none.tar", tmp_path):
        with pytest.raises(DataError, match="no shard at"):
            list(iter_samples(missing))


def test_the_real_test_birds_are_all_there(real_birds: Path) -> None:
    samples = list(iter_samples(real_birds / "test.tar"))
    assert len(samples) == 2933
    assert len({sample.class_id for sample in samples}) == 50
    assert {len(sample.captions) for sample in samples} == {10}
