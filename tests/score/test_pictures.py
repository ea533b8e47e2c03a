"""Finding, ordering and preparing pictures for a judge."""

import io
import json
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attngan_deploy.errors import DataError, OutputError, ScoreError
from attngan_deploy.score.pictures import find_pictures
from attngan_deploy.score.preprocessing import PreparedPicture, prepare


def picture(width: int = 16, height: int | None = None, seed: int = 0) -> Image.Image:
    shape = (height or width, width, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def encoded(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def fill(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(names):
        (folder / name).write_bytes(encoded(picture(seed=seed)) if name.endswith(".png") else b"text")
    return folder


def write_manifest(folder: Path, *files: str) -> None:
    (folder / "manifest.jsonl").write_text("".join(json.dumps({"file": name}) + "\n" for name in files))


def make_tar(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w") as tar:
        for seed, name in enumerate(names):
            data = encoded(picture(seed=seed))
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def names_in_order(path: Path, order: str = "auto") -> list[str]:
    files = find_pictures(path, order)
    names = [item.name for item in files.prepared(16)]
    return [names[place] for place in files.arrange(names)]


def test_a_folder_is_read_by_name_and_sheets_are_left_out(tmp_path: Path) -> None:
    folder = fill(
        tmp_path / "out", "b.png", "a.png", "grid.png", "grid_12.png", "attention-3.png", "gridiron.png", "x.txt"
    )
    (folder / "attention").mkdir()
    (folder / ".hidden.png").write_bytes(b"")
    files = find_pictures(folder)
    assert [path.name for path in files.loose] == ["a.png", "b.png", "gridiron.png"]
    assert (files.source, files.order, files.count()) == ("out", "name", 3)
    assert files.other_files == [".hidden.png", "attention-3.png", "grid.png", "grid_12.png", "x.txt", "attention/"]


def test_a_manifest_gives_the_order_and_says_what_counts(tmp_path: Path) -> None:
    folder = fill(tmp_path / "out", "a.png", "b.png", "c.png")
    write_manifest(folder, "c.png", "a.png", "gone.png")
    assert names_in_order(folder) == ["c.png", "a.png"]
    assert find_pictures(folder).order == "manifest"
    assert find_pictures(folder).other_files == ["b.png", "manifest.jsonl"]
    assert names_in_order(folder, "name") == ["a.png", "b.png", "c.png"]


def test_a_tar_keeps_its_order_unless_told(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "real.tar", "b/2.png", "a/1.png", "c/3.png")
    assert names_in_order(tar) == ["b/2.png", "a/1.png", "c/3.png"]
    assert names_in_order(tar, "name") == ["a/1.png", "b/2.png", "c/3.png"]
    assert find_pictures(tar).order == "stored" and find_pictures(tar).count() == 3


def test_a_folder_of_shards_follows_its_manifest(tmp_path: Path) -> None:
    make_tar(tmp_path / "pictures-00000.tar", "2.png", "1.png")
    make_tar(tmp_path / "pictures-00001.tar", "0.png")
    stored = ["pictures-00000.tar/2.png", "pictures-00000.tar/1.png", "pictures-00001.tar/0.png"]
    assert names_in_order(tmp_path) == stored
    write_manifest(tmp_path, *reversed(stored))
    assert names_in_order(tmp_path) == stored[::-1]
    assert names_in_order(tmp_path, "stored") == stored
    assert names_in_order(tmp_path, "name") == sorted(stored)
    for order, effective in (("auto", "manifest"), ("stored", "stored"), ("name", "name")):
        assert find_pictures(tmp_path, order).order == effective


@pytest.mark.parametrize("count", [1, 5])
def test_order_does_not_depend_on_threads_or_on_waiting(tmp_path: Path, count: int) -> None:
    folder = fill(tmp_path / "out", *(f"{number:02d}.png" for number in range(20)))
    made = list(find_pictures(folder).prepared(16, threads=count, ahead=count))
    assert [item.name for item in made] == [f"{number:02d}.png" for number in range(20)]
    for seed, item in enumerate(made):
        assert np.array_equal(item.pixels, np.asarray(picture(seed=seed)))


@pytest.mark.parametrize(
    ("make", "order", "what"),
    [
        (lambda folder: folder / "nowhere", "auto", "no folder or tar"),
        (lambda folder: folder, "auto", "no pictures; found an empty folder"),
        (lambda folder: fill(folder, "a.txt"), "auto", "no pictures; found a.txt"),
        (lambda folder: fill(folder, "a.txt") / "a.txt", "auto", "neither a folder nor a .tar"),
        (
            lambda folder: fill(folder, "a.csv") / "a.csv",
            "auto",
            r"found a file; .* Next: t2i generate .*a\.csv -o out/",
        ),
        (lambda folder: fill(folder, "a.PNG") / "a.PNG", "auto", "found a picture; .* Next: name the folder .* in: /"),
        (lambda folder: fill(folder, "a.heic") / "a.heic", "auto", "Next: name the folder that it is in: /"),
        (lambda folder: fill(folder, "a.tar.gz") / "a.tar.gz", "auto", "Next: unpack it, and name the folder"),
        (lambda folder: fill(folder, "a.png"), "manifest", "has no manifest.jsonl"),
        (lambda folder: fill(folder, "a.png"), "stored", "no stored order"),
        (lambda folder: fill(folder, "a.png"), "random", "no order 'random'"),
        (lambda folder: make_tar(folder / "a.tar", "a.png"), "manifest", "has no manifest.jsonl"),
    ],
)
def test_what_can_not_be_scored_is_refused(tmp_path: Path, make: object, order: str, what: str) -> None:
    with pytest.raises(ScoreError, match=what):
        find_pictures(make(tmp_path), order)  # type: ignore[operator]


def test_a_damaged_manifest_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "a.png")
    (tmp_path / "manifest.jsonl").write_text("[1]\n")
    with pytest.raises(OutputError, match="not a manifest"):
        find_pictures(tmp_path)


def test_a_truncated_tar_is_refused(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "a.tar", "a.png", "b.png")
    tar.write_bytes(tar.read_bytes()[:700])
    with pytest.raises(DataError, match="not a complete tar"):
        list(find_pictures(tar).prepared(16))


def test_the_crop_is_the_exact_centre() -> None:
    image = picture(152)
    made = prepare("a", encoded(image), 128, crop=128)
    assert np.array_equal(made.pixels, np.asarray(image)[12:140, 12:140])
    assert made.size == (152, 152)


def test_another_size_is_resized_by_pil_bilinear() -> None:
    image = picture(40)
    made = prepare("a", encoded(image), 16)
    assert np.array_equal(made.pixels, np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR)))


@pytest.mark.parametrize(
    ("data", "file_format"),
    [
        (encoded(picture()), "png"),
        (encoded(picture(), "WEBP", lossless=True), "webp"),
        (encoded(picture(), "WEBP", quality=90), "lossy webp"),
        (encoded(picture(), "WEBP", quality=90, xmp=b"<x/>"), "lossy webp"),
        (encoded(picture(), "JPEG"), "jpeg"),
        (encoded(picture().convert("L")), "png"),
        (encoded(picture().convert("P")), "png"),
        (encoded(picture().convert("RGBA")), "png"),
        (encoded(Image.new("I;16", (16, 16))), "png"),
    ],
)
def test_formats_and_modes_become_rgb(data: bytes, file_format: str) -> None:
    made = prepare("a", data, 16)
    assert made.pixels is not None and made.pixels.shape == (16, 16, 3)
    assert made.file_format == file_format


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a picture",
        encoded(picture(64))[:-500],
        encoded(picture(64), "JPEG")[:200],
        encoded(picture(64), "WEBP")[:100],
        encoded(picture(), "GIF"),
    ],
    ids=["empty", "text", "cut png", "cut jpeg", "cut webp", "gif"],
)
def test_a_broken_picture_comes_back_with_a_reason(data: bytes) -> None:
    made = prepare("a", data, 16)
    assert made.pixels is None and made.reason


def png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    checked = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + checked + struct.pack(">I", 9) + b"IDAT"


@pytest.mark.parametrize("side", [5_000, 12_000, 60_000])
def test_a_huge_picture_is_refused_before_it_is_decoded(side: int) -> None:
    with pytest.raises(ScoreError, match="too large to be decoded safely"):
        prepare("bomb.png", png_header(side, side), 16)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ScoreError, match=r"not a square; found 20 x 10 px.*--crop 10"):
        prepare("a", encoded(picture(20, 10)), 16)
    with pytest.raises(ScoreError, match="smaller than the crop; found 20 x 10 px"):
        prepare("a", encoded(picture(20, 10)), 16, crop=16)
    assert prepare("a", encoded(picture(20, 18)), 16, crop=16).pixels is not None


def test_mixed_sizes_are_refused_with_two_names(tmp_path: Path) -> None:
    folder = fill(tmp_path / "out", "a.png", "b.png")
    (folder / "c.png").write_bytes(encoded(picture(24)))
    with pytest.raises(ScoreError, match=r"a\.png of 16 x 16 px and c\.png of 24 x 24 px"):
        list(find_pictures(folder).prepared(16))


def test_a_file_that_can_not_be_read_is_broken(tmp_path: Path) -> None:
    files = find_pictures(fill(tmp_path / "out", "a.png", "b.png"))
    (tmp_path / "out" / "a.png").unlink()
    first, second = files.prepared(16)
    assert first == PreparedPicture("a.png", reason="can't be read (No such file or directory)")
    assert second.pixels is not None


def test_sub_folders_are_entered_where_nothing_lies_above_them(tmp_path: Path) -> None:
    fill(tmp_path / "set", "notes.txt")
    for folder in ("002.Laysan", "001.Black/young", "attention", ".hidden"):
        (tmp_path / "set" / folder).mkdir(parents=True)
        fill(tmp_path / "set" / folder, "a.png", "grid.png", "b.txt")
    fill(tmp_path / "elsewhere", "c.png")
    (tmp_path / "set" / "003.Linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "003.Linked" / "back").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "002.Laysan" / "a.json").write_text('{"class": 7, "captions": ["a bird"]}')
    files = find_pictures(tmp_path / "set")
    assert names_in_order(tmp_path / "set") == ["001.Black/young/a.png", "002.Laysan/a.png", "003.Linked/c.png"]
    assert [item.class_id for item in files.prepared(16)] == [-1, 7, -1]
    assert files.notes == ("the pictures lie in 3 sub-folders, which were entered",)
    assert "notes.txt" in files.other_files and "001.Black/young/b.txt" in files.other_files
    fill(tmp_path / "set", "top.png")
    assert [path.name for path in find_pictures(tmp_path / "set").loose] == ["top.png"]
    assert "002.Laysan/" in find_pictures(tmp_path / "set").other_files
    (note,) = find_pictures(tmp_path / "set").notes
    assert note.startswith("3 pictures in sub-folders were not entered, as 1 above them came first: to score")


@pytest.mark.parametrize(
    "line",
    ['{"image": "a.png", "text": "a bird"}', '{"file": "/data/birds/a.png"}', "{}"],
    ids=["other keys", "other places", "no keys"],
)
def test_a_manifest_of_another_program_is_passed_over(tmp_path: Path, line: str) -> None:
    fill(tmp_path, "b.png", "a.png")
    (tmp_path / "manifest.jsonl").write_text(line + "\n")
    files = find_pictures(tmp_path)
    assert names_in_order(tmp_path) == ["a.png", "b.png"] and files.order == "name" and len(files.notes) == 1
    with pytest.raises((OutputError, ScoreError), match=r"not a manifest|has no pictures"):
        find_pictures(tmp_path, "manifest")
    (tmp_path / "manifest.jsonl").write_text("no JSON\n")
    assert names_in_order(tmp_path, "name") == ["a.png", "b.png"]


def test_a_manifest_without_a_last_line_feed_counts_whole(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "manifest.jsonl").write_text('{"file": "c.png"}\n{"file": "a.png"}')
    assert names_in_order(tmp_path) == ["c.png", "a.png"] and find_pictures(tmp_path).notes == ()


def test_mixed_sizes_are_cut_to_one(tmp_path: Path) -> None:
    folder = fill(tmp_path / "out", "a.png", "b.png")
    (folder / "c.png").write_bytes(encoded(picture(24, 20)))
    made = list(find_pictures(folder).prepared(16, crop=16))
    assert [item.size for item in made] == [(16, 16), (16, 16), (24, 20)]
    assert np.array_equal(made[2].pixels, np.asarray(picture(24, 20))[2:18, 4:20])
    with pytest.raises(ScoreError, match=r"Next: add --crop 16, or"):
        (folder / "c.png").write_bytes(encoded(picture(24)))
        list(find_pictures(folder).prepared(16))
