"""Readers of CUB-200-2011, folders and CSVs, and what each of them skips."""

import os
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("nltk", reason="needs the train extra")

from attngan_deploy.errors import DataError
from attngan_deploy.media.captions import read_captions
from attngan_deploy.train.data import build as data_build
from attngan_deploy.train.data.build import BuildOptions
from attngan_deploy.train.data.split import SplitRule
from tests.makers.data_makers import (
    BLUE,
    EVERYTHING,
    GREEN,
    birds,
    close_to,
    described,
    make_cub,
    picture,
    pixels,
    run,
    samples,
)


def test_pictures_without_a_sub_folder_are_each_a_class_of_their_own(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        described(tmp_path / f"in/{name}.png")
    described(tmp_path / "in/a/d.png")
    run(tmp_path / "in", tmp_path / "out", split=EVERYTHING)
    assert (tmp_path / "out/classes.txt").read_text().splitlines() == ["a", "picture:a", "picture:b", "picture:c"]
    assert len({sample.class_id for sample in samples(tmp_path / "out").values()}) == 4


def test_cub_keeps_its_order_its_class_numbers_and_its_crop(tmp_path: Path) -> None:
    root = make_cub(tmp_path / "cub")
    scene = Image.new("RGB", (60, 50), BLUE)
    scene.paste(GREEN, (16, 8, 40, 32))  # the square of 1.5 x 16 around the box 20, 15, 16 x 10
    scene.save(root / "images/001.Bird_1/Bird_1_0.jpg", quality=100, subsampling=0)
    report = run(root, tmp_path / "out", split=EVERYTHING)
    assert report["kind"] == "cub"
    found = samples(tmp_path / "out")
    assert list(found)[:3] == ["001.Bird_1/Bird_1_0", "001.Bird_1/Bird_1_1", "002.Bird_2/Bird_2_0"]
    assert found["003.Bird_3/Bird_3_1"].class_id == 2
    assert len(found["003.Bird_3/Bird_3_1"].captions) == 10
    assert close_to(pixels(found["001.Bird_1/Bird_1_0"].picture)[1:-1, 1:-1], GREEN)


def test_cub_takes_captions_from_elsewhere_and_needs_them(tmp_path: Path) -> None:
    root = make_cub(tmp_path / "cub")
    (root / "text").rename(tmp_path / "text")
    with pytest.raises(DataError, match="no caption files"):
        run(root, tmp_path / "out")
    for given in (tmp_path, tmp_path / "text"):
        assert run(root, tmp_path / "out", captions=given, force=True)["train"]["pictures"] == 6


def test_cub_skips_what_its_lists_do_not_support(tmp_path: Path) -> None:
    root = make_cub(tmp_path / "cub", species=4, each=2)
    with (root / "images.txt").open("a") as stream:
        stream.write("90 ../text/x.jpg\n91 001.Bird_1/gone.jpg\n92 001.Bird_1/no_box.jpg\n93 001.Bird_1/no_class.jpg\n")
    with (root / "image_class_labels.txt").open("a") as stream:
        stream.write("90 1\n91 1\n92 1\n93 77\n")
    with (root / "bounding_boxes.txt").open("a") as stream:
        stream.write("90 1 1 9 9\n91 1 1 9 9\n92 1 1 9\n93 1 1 9 9\n")
    boxes = (root / "bounding_boxes.txt").read_text().replace("1 20.0 15.0 16.0 10.0", "1 61 0 10 10", 1)
    (root / "bounding_boxes.txt").write_text(boxes)
    report = run(root, tmp_path / "out", split=EVERYTHING)
    assert {skip["name"].rpartition("/")[2]: skip["reason"] for skip in report["skipped"]["list"]} == {
        "x": "path outside the data folder",
        "gone": "missing picture",
        "no_box": "no bounding box",
        "no_class": "no class",
        "Bird_1_0": "box outside picture",
    }
    assert report["train"]["pictures"] == 7


@pytest.mark.parametrize("line", ["3", "1 again.jpg"])
def test_a_broken_cub_list_names_its_line(tmp_path: Path, line: str) -> None:
    root = make_cub(tmp_path / "cub", species=1, each=1)
    with (root / "images.txt").open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(DataError, match=r"images\.txt, line 2"):
        run(root, tmp_path / "out")


def test_a_csv_groups_rows_and_obeys_its_split(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        picture(tmp_path / f"in/p/{name}.png")
    (tmp_path / "in/list.csv").write_text(
        "\ufeffPicture,Caption,Class,Split,extra\n"
        'p/a.png,"a red,\nbird",x,train,1\n'
        "p/b.png,a blue bird,x,test\n"
        "p/../p/a.png,another caption,,\n"
        "\n"
        "p/c.png,no split,y,\n",
        encoding="utf-8",
    )
    report = run(tmp_path / "in/list.csv", tmp_path / "out")
    assert samples(tmp_path / "out")["p/a"].captions == ["a red, bird", "another caption"]
    assert list(samples(tmp_path / "out", "test")) == ["p/b"]
    assert report["skipped"]["reasons"] == {"no split": 1}
    assert report["classes_in_both"] == ["x"]


def test_a_csv_reaches_only_its_own_folder_and_the_given_root(tmp_path: Path) -> None:
    picture(tmp_path / "in/inside.png")
    picture(tmp_path / "elsewhere/outside.png")
    (tmp_path / "in/link.png").symlink_to(tmp_path / "elsewhere/outside.png")
    rows = ["inside.png", "../elsewhere/outside.png", str(tmp_path / "elsewhere/outside.png"), "link.png"]
    listed = tmp_path / "in/list.csv"
    listed.write_text("picture,caption\n" + "".join(f"{row},a bird\n" for row in rows))
    report = run(listed, tmp_path / "out", split=EVERYTHING)
    assert report["skipped"]["reasons"] == {"path outside the data folder": 3}
    assert list(samples(tmp_path / "out")) == ["inside"]
    run(listed, tmp_path / "wide", split=EVERYTHING, root=tmp_path / "elsewhere")
    assert {name: len(sample.captions) for name, sample in samples(tmp_path / "wide").items()} == {
        "inside": 1,
        "outside": 3,
    }


def test_a_csv_says_which_rows_it_left_out(tmp_path: Path) -> None:
    for name in ("good", "torn", "odd", "mute"):
        picture(tmp_path / f"in/{name}.png")
    listed = tmp_path / "in/list.csv"
    listed.write_text(
        "picture,caption,class,split\ngood.png,a bird,x,train\n,lost,x,train\ngone.png,a bird,x,train\n"
        f"torn.png,a bird,x,train\ntorn.png,a bird,y,train\nodd.png,a bird,x,validation\nmute.png,...,x,train\n"
        f"{'n' * 300}.png,a bird,x,train\n"
    )
    reasons = run(listed, tmp_path / "out")["skipped"]["reasons"]
    assert reasons == {
        "no picture named": 1,
        "missing picture": 2,
        "rows disagree": 1,
        "split neither train nor test": 1,
        "all captions empty": 1,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"file,text\na.png,b\n", "lacks its columns; found file, text"),
        (b"", "lacks its columns"),
        (b"picture,caption,caption\n", "lacks its columns"),
        (b"picture,caption\na.png,\xff\n", "not UTF-8"),
        (b"picture,caption\na.png,\x00\n", "not text"),
        (b'picture,caption\na.png,"open\n', "not CSV"),
        (b"picture,caption\na.png," + b"x" * 200_000 + b"\n", "not CSV"),
        (b"picture,caption\n", "no usable picture"),
    ],
)
def test_a_csv_that_is_none_is_one_clear_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        run(tmp_path / "list.csv", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_kinds_are_detected_and_can_be_overridden(tmp_path: Path) -> None:
    root = make_cub(tmp_path / "cub")
    assert data_build.read_source(BuildOptions(root, tmp_path / "out")).kind == "cub"
    assert data_build.read_source(BuildOptions(root, tmp_path / "out", kind="folder")).kind == "folder"
    for options, message in (
        ({"source": tmp_path / "none"}, "no pictures at"),
        ({"source": tmp_path / "none", "kind": "cub"}, "no folder at"),
        ({"source": root, "kind": "csv"}, "no file at"),
        ({"source": birds(tmp_path / "in"), "kind": "cub"}, "not a CUB-200-2011 folder"),
        ({"source": birds(tmp_path / "in"), "captions": tmp_path}, "--captions belongs to --kind cub"),
        ({"source": root, "root": tmp_path}, "--root belongs to --kind csv"),
    ):
        with pytest.raises(DataError, match=message):
            data_build.read_source(BuildOptions(output=tmp_path / "out", **options))


def test_every_unusable_picture_is_counted_and_listed(tmp_path: Path) -> None:
    root = tmp_path / "in"
    described(root / "x/good.jpg", "\ufeffa red bird\r\n...\n\n  a   small\tbird \n")
    picture(root / "x/good.png")
    described(root / "x/mute.jpg", " \n\n...\n")
    described(root / "x/latin.jpg").with_suffix(".txt").write_bytes("Grün".encode("cp1252"))
    described(root / "x/binary.jpg").with_suffix(".txt").write_bytes(b"a\0b")
    described(root / "x/long.jpg").with_suffix(".txt").write_bytes(b"a" * (2**20 + 1))
    picture(root / "x/silent.jpg")
    described(root / "x/torn.jpg", size=(400, 400))
    (root / "x/torn.jpg").write_bytes((root / "x/torn.jpg").read_bytes()[:900])
    described(root / "x/text.jpg").write_text("no picture")
    described(root / "x/empty.jpg").write_bytes(b"")
    described(root / "x/bell\x07.jpg")
    (root / "x/orphan.txt").write_text("a bird")
    picture(root / ".hidden/a.jpg")
    report = run(root, tmp_path / "out", split=EVERYTHING)
    assert {(skip["name"], skip["reason"]) for skip in report["skipped"]["list"]} == {
        ("x/good", "duplicate name"),
        ("x/mute", "all captions empty"),
        ("x/latin", "captions not UTF-8"),
        ("x/binary", "captions not text"),
        ("x/long", "captions file too large"),
        ("x/silent", "no captions"),
        ("x/torn", "broken picture"),
        ("x/text", "broken picture"),
        ("x/empty", "broken picture"),
        ("x/bell\x07", "name that is not UTF-8 or has control characters"),
        ("x/orphan.txt", "captions without a picture"),
    }
    assert report["skipped"]["count"] == 11
    assert report["skipped"]["reasons"]["broken picture"] == 3
    assert report["notes"]["caption without a word dropped"] == 2
    assert samples(tmp_path / "out")["x/good"].captions == ["a red bird", "a small bird"]
    assert str(tmp_path) not in (tmp_path / "out/report.json").read_text()


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes only there")
def test_a_file_name_that_is_not_utf8_is_skipped(tmp_path: Path) -> None:
    described(tmp_path / "in/x/good.jpg")
    try:
        described(tmp_path / "in/x" / os.fsdecode(b"b\xff.jpg"))
    except OSError:
        pytest.skip("this file system refuses such names")
    assert run(tmp_path / "in", tmp_path / "out", split=EVERYTHING)["skipped"]["count"] == 1


def test_dots_in_a_file_name_do_not_cut_the_name_in_the_shard(tmp_path: Path) -> None:
    described(tmp_path / "in/1.x/my.red.bird.jpg")
    run(tmp_path / "in", tmp_path / "out", split=EVERYTHING)
    assert list(samples(tmp_path / "out")) == ["1.x/my_red_bird"]


@pytest.mark.parametrize("sign", ["\u2028", "\x0b", "\x0c", "\x1e", "\x85"])
def test_signs_that_end_no_line_end_no_caption(tmp_path: Path, sign: str) -> None:
    described(tmp_path / "in/x/a.jpg", f"a red{sign}bird\ra blue bird\r\na third\n")
    run(tmp_path / "in", tmp_path / "out", split=EVERYTHING)
    (sample,) = samples(tmp_path / "out").values()
    (tmp_path / "c.txt").write_bytes((tmp_path / "in/x/a.txt").read_bytes())
    generated = [" ".join(caption.text.split()) for caption in read_captions(tmp_path / "c.txt")]
    assert sample.captions == generated == [" ".join(f"a red{sign}bird".split()), "a blue bird", "a third"]


@pytest.mark.parametrize("start", ["picture;caption;class\n", "sep=;\nPicture;Caption;Class\n"])
def test_a_csv_of_another_delimiter(tmp_path: Path, start: str) -> None:
    picture(tmp_path / "in/a.png")
    (tmp_path / "in/list.csv").write_text(f"{start}a.png;a red, small bird;x\n;;\n")
    (tmp_path / "in/list.tsv").write_text("caption\tpicture\na red, small bird\ta.png\n\t\n")
    for kind in ("csv", "tsv"):
        report = run(tmp_path / f"in/list.{kind}", tmp_path / kind, split=EVERYTHING)
        assert samples(tmp_path / kind)["a"].captions == ["a red, small bird"]
        assert report["skipped"]["count"] == 0


def test_linked_folders_and_endings_of_other_systems(tmp_path: Path) -> None:
    described(tmp_path / "elsewhere/one.jpg")
    described(tmp_path / "in/x/two.JPG").with_suffix(".txt").rename(tmp_path / "in/x/two.TXT")
    described(tmp_path / "in/x/three.jpg").rename(tmp_path / "in/x/three.jfif")
    described(tmp_path / "in/x/e\u0301te\u0301.jpg").with_suffix(".txt").rename(tmp_path / "in/x/\u00e9t\u00e9.txt")
    (tmp_path / "in/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/x/loop").symlink_to(tmp_path / "in")
    (tmp_path / "in/gone").symlink_to(tmp_path / "nowhere")
    for name in (".DS_Store", "._two.JPG", "Thumbs.db", "desktop.ini"):
        (tmp_path / "in/x" / name).write_bytes(b"\0")
    (tmp_path / "in/x/new.avif").write_bytes(b"\0")
    described(tmp_path / "in/lost+found/a.jpg")
    described(tmp_path / "in/@eaDir/a.jpg")
    report = run(tmp_path / "in", tmp_path / "out", split=EVERYTHING)
    assert sorted(samples(tmp_path / "out")) == ["linked/one", "x/three", "x/two", "x/\u00e9t\u00e9"]
    assert {(skip["name"], skip["reason"]) for skip in report["skipped"]["list"]} == {
        ("x/loop", "link to a folder above it"),
        ("gone", "link that leads nowhere"),
        ("x/new.avif", "a format that is not read: .avif"),
    }


def test_paths_as_other_systems_write_them_are_found(tmp_path: Path) -> None:
    picture(tmp_path / "in/birds/Cafe\u0301/Red.JPG")
    picture(tmp_path / "in/birds/one.png")
    picture(tmp_path / "in/birds/ONE.png")
    rows = ["birds\\Caf\u00e9\\red.jpg", "Birds/Cafe\u0301/Red.JPG", "birds\\one.png", "birds/One.png"]
    listed = tmp_path / "in/list.csv"
    listed.write_text("picture,caption\n" + "".join(f"{row},a bird\n" for row in rows), encoding="utf-8")
    report = run(listed, tmp_path / "out", split=EVERYTHING)
    assert {name: len(sample.captions) for name, sample in samples(tmp_path / "out").items()} == {
        "birds/Caf\u00e9/Red": 2,
        "birds/one": 1,
    }
    assert [(skip["name"], skip["reason"]) for skip in report["skipped"]["list"]] == [("birds/One", "missing picture")]
    root = make_cub(tmp_path / "cub")
    images = (root / "images.txt").read_text().replace("/", "\\")
    (root / "images.txt").write_text(images.replace("Bird_1_0.jpg", "bird_1_0.JPG"))
    next((root / "text").rglob("Bird_2_0.txt")).rename(root / "text/002.Bird_2/Bird_2_0.TXT")
    report = run(root, tmp_path / "birds", split=EVERYTHING)
    assert (report["train"]["pictures"], report["skipped"]["count"]) == (8, 0)


def test_classes_that_look_alike_are_one(tmp_path: Path) -> None:
    described(tmp_path / "in/cafe\u0301/a.jpg")
    described(tmp_path / "in/caf\u00e9/b.jpg")
    described(tmp_path / "in/caf\u00e9/a.jpg")
    report = run(tmp_path / "in", tmp_path / "out", split=EVERYTHING)
    assert (tmp_path / "out/classes.txt").read_text(encoding="utf-8").splitlines() == ["caf\u00e9"]
    assert sorted(samples(tmp_path / "out")) == ["caf\u00e9/a", "caf\u00e9/b"]
    assert report["skipped"]["reasons"] == {"duplicate name": 1}


def test_folders_that_are_a_split_are_one(tmp_path: Path) -> None:
    for name in ("train/A/1.jpg", "train/B/1.jpg", "test/A/2.jpg", "val/A/3.jpg"):
        described(tmp_path / "in" / name)
    report = run(tmp_path / "in", tmp_path / "0", split=SplitRule())
    assert list(samples(tmp_path / "0", "test")) == ["test/A/2"] and report["train"]["pictures"] == 2
    assert (report["split"], report["classes_in_both"]) == ("as the source says", ["A"])
    assert report["skipped"]["reasons"] == {"split neither train nor test": 1}
    assert (tmp_path / "0/classes.txt").read_text() == "A\nB\n"
    assert run(tmp_path / "in", tmp_path / "1", split=SplitRule(test_classes=1))["skipped"]["count"] == 0
    described(tmp_path / "in/other/1.jpg")
    assert "drawn by seed" in run(tmp_path / "in", tmp_path / "2", split=SplitRule())["split"]


def test_captions_that_keep_the_suffix_of_their_picture(tmp_path: Path) -> None:
    for name in ("A/1.jpg", "B/1.PNG"):
        described(tmp_path / "in" / name)
        (tmp_path / "in" / name).with_suffix(".txt").rename(tmp_path / "in" / f"{name}.txt")
    described(tmp_path / "in/C/1.jpg")
    (tmp_path / "in/C/1.txt").rename(tmp_path / "in/C/1.caption")
    assert run(tmp_path / "in", tmp_path / "out")["skipped"]["count"] == 0


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("file_name,text", "Next: in its first line, call 'file_name' picture and 'text' caption"),
        ("Picture;Title", "Next: in its first line, call 'title' caption"),
        ("filepaths,caption,labels,Data Set", "'filepaths' picture and 'labels' class and 'data set' split"),
        ("url,caption", "Next: t2i data build --help"),
    ],
)
def test_columns_of_other_programs_are_named(tmp_path: Path, header: str, told: str) -> None:
    (tmp_path / "metadata.csv").write_text(f"{header}\n")
    with pytest.raises(DataError, match=f"lacks its columns; .* {told}"):
        run(tmp_path / "metadata.csv", tmp_path / "out")


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (
            "picture,Species,Set,caption",
            "seems to have a class and a split under another name; .* call 'species' class and 'set' split",
        ),
        ("picture,class,Train/Test,caption", "seems to have a split under another name; .* call 'train/test' split"),
        ("picture,label,split,caption", "seems to have a class under another name; .* call 'label' class; or"),
    ],
)
def test_a_class_or_split_under_another_name_is_not_passed_over(tmp_path: Path, header: str, told: str) -> None:
    (tmp_path / "metadata.csv").write_text(f"{header}\n1.jpg,a,test,a red bird\n")
    with pytest.raises(DataError, match=told):
        run(tmp_path / "metadata.csv", tmp_path / "out")


def test_cub_as_its_archives_unpack(tmp_path: Path) -> None:
    """The pictures' archive has folders and lists that no build needs; the captions' have one of two names."""
    root = make_cub(tmp_path / "dl/CUB_200_2011")
    (root / "train_test_split.txt").write_text("".join(f"{number} {number % 2}\n" for number in range(1, 9)))
    for name in ("README", "parts/parts.txt", "attributes/attributes.txt", "../attributes.txt"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("1 back\n")
    captions = tmp_path / "birds"
    captions.mkdir()
    (root / "text").rename(captions / "text")
    report = run(root, tmp_path / "0", captions=captions / "text", split=SplitRule(root / "train_test_split.txt"))
    assert (report["train"]["captions"], report["test"]["captions"], report["skipped"]["count"]) == (40, 40, 0)
    (captions / "text").rename(captions / "text_c10")
    assert run(root, tmp_path / "1", captions=captions)["train"]["pictures"] == 6
    for source in (tmp_path / "dl", root / "images"):
        with pytest.raises(
            DataError, match=r"found --kind folder. Next: name the CUB-200-2011 folder, .*CUB_200_2011$"
        ):
            run(source, tmp_path / "2", captions=captions)
    (captions / "text_c10").rename(tmp_path / "text")
    (captions / "text.zip").touch()
    with pytest.raises(DataError, match=r"Next: unpack .*birds.text\.zip, and name the folder"):
        run(root, tmp_path / "2", captions=captions)
    (tmp_path / "CUB_200_2011.tgz").touch()
    with pytest.raises(DataError, match=r"found another kind of file; .* Next: unpack it, and name the folder"):
        run(tmp_path / "CUB_200_2011.tgz", tmp_path / "2")
