"""`t2i data build` of folders and lists as chat programs, spreadsheets and other trainers leave them."""

import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

pytest.importorskip("nltk", reason="needs the train extra")

from attngan_deploy.cli.train import check_data
from attngan_deploy.errors import DataError
from attngan_deploy.train.data import metadata
from attngan_deploy.train.data.split import SplitRule
from tests.makers.data_makers import EVERYTHING, birds, described, make_cub, picture, run, samples


def test_a_folder_for_validation_alone_is_that_of_tests(tmp_path: Path) -> None:
    for name in ("Training/A/1.jpg", "Training/B/1.jpg", "Validation/A/2.jpg"):
        described(tmp_path / "in" / name)
    report = run(tmp_path / "in", tmp_path / "out", split=SplitRule())
    assert (report["split"], report["classes_in_both"]) == ("as the source says", ["A"])
    assert list(samples(tmp_path / "out", "test")) == ["Validation/A/2"]
    assert report["notes"]["picture for validation taken for testing"] == 1
    (tmp_path / "in/list.csv").write_text(
        "picture,caption,split\nTraining/A/1.jpg,a bird,Training\nValidation/A/2.jpg,a bird,testing\n"
    )
    report = run(tmp_path / "in/list.csv", tmp_path / "csv", split=SplitRule())
    assert (report["train"]["pictures"], report["test"]["pictures"]) == (1, 1)


def test_marks_of_a_list_are_no_part_of_captions(tmp_path: Path) -> None:
    described(tmp_path / "in/A/1.jpg", "1. a red bird\n2. a small bird\n")
    described(tmp_path / "in/A/2.jpg", "a red bird\n- a small bird\n")
    report = run(tmp_path / "in", tmp_path / "out", split=EVERYTHING)
    found = {name: sample.captions for name, sample in samples(tmp_path / "out").items()}
    assert found == {"A/1": ["a red bird", "a small bird"], "A/2": ["a red bird", "- a small bird"]}
    assert report["notes"] == {"marks of a list left out": 1}
    (tmp_path / "in/list.csv").write_text("picture,caption\nA/1.jpg,1. a red bird\nA/2.jpg,2. a jay\n")
    report = run(tmp_path / "in/list.csv", tmp_path / "csv", split=EVERYTHING)
    assert [sample.captions for sample in samples(tmp_path / "csv").values()] == [["a red bird"], ["a jay"]]


def test_a_list_in_a_folder_without_captions_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "in/1.jpg")
    (tmp_path / "in/list.csv").write_text("picture,caption\n1.jpg,a bird\n")
    with pytest.raises(DataError, match=r"Next: name the list in it: t2i data build .*list\.csv -o data$"):
        run(tmp_path / "in", tmp_path / "out")


def test_a_csv_without_column_names_gets_them_by_its_next_step(tmp_path: Path) -> None:
    picture(tmp_path / "in/1.jpg")
    (tmp_path / "in/list.csv").write_text("1.jpg,a red bird\n")
    with pytest.raises(DataError, match="no line of column names") as refused:
        run(tmp_path / "in/list.csv", tmp_path / "out")
    subprocess.run(str(refused.value).rpartition(" on top: ")[2], shell=True, check=True)
    run(tmp_path / "in/list-named.csv", tmp_path / "out", split=EVERYTHING)
    assert samples(tmp_path / "out")["1"].captions == ["a red bird"]


def test_cells_that_say_nothing_are_no_captions_and_no_classes(tmp_path: Path) -> None:
    for name in "1234":
        picture(tmp_path / f"in/{name}.jpg")
    (tmp_path / "in/list.csv").write_text(
        "picture,caption,class\n1.jpg,a red bird,nan\n2.jpg,N/A,A\n3.jpg,a jay,None\nNULL,a tern,A\n4.jpg,a tern,A\n"
    )
    report = run(tmp_path / "in/list.csv", tmp_path / "out", split=EVERYTHING)
    assert report["skipped"]["reasons"] == {"all captions empty": 1, "no picture named": 1}
    assert (tmp_path / "out/classes.txt").read_text().split() == ["A", "picture:1", "picture:3"]


def test_a_folder_of_tars_is_unpacked_by_its_next_step(tmp_path: Path) -> None:
    for number in range(2):
        described(tmp_path / f"made/{number}.jpg", "a red bird\n")
        (tmp_path / "i2d").mkdir(exist_ok=True)
        with tarfile.open(tmp_path / f"i2d/0000{number}.tar", "w") as tar:
            for suffix in ("jpg", "txt"):
                tar.add(tmp_path / f"made/{number}.{suffix}", f"{number}.{suffix}")
        (tmp_path / f"i2d/0000{number}_stats.json").write_text("{}")
    with pytest.raises(DataError, match="Next: unpack its tars, and name the folder") as refused:
        run(tmp_path / "i2d", tmp_path / "out")
    subprocess.run(str(refused.value).rpartition("the folder: ")[2], shell=True, check=True)
    report = run(tmp_path / "i2d-unpacked", tmp_path / "out", split=EVERYTHING)
    assert report["train"]["pictures"] == 2


def test_training_on_pictures_or_one_shard_is_told_what_to_name(tmp_path: Path) -> None:
    root = birds(tmp_path / "raw")
    run(root, tmp_path / "data")
    with pytest.raises(DataError, match=r"Next: t2i data build .*raw -o data"):
        check_data(root)
    with pytest.raises(DataError, match=r"is a shard; .*Next: --data .*data$"):
        check_data(tmp_path / "data/train.tar")
    assert check_data(tmp_path / "data") == tmp_path / "data"


@pytest.mark.parametrize("above", ["", "images/"])
def test_a_csv_without_classes_takes_its_folders(tmp_path: Path, above: str) -> None:
    names = [f"{above}{side}/{bird}/{number}.jpg" for side in ("train", "Test") for bird in "AB" for number in "12"]
    for name in names:
        picture(tmp_path / "in" / name)
    table = tmp_path / "in/list.csv"
    table.write_text("picture,caption\n" + "".join(f"{name},a red bird\n" for name in names))
    report = run(table, tmp_path / "out", split=SplitRule())
    assert (report["split"], report["classes_in_both"]) == ("as the source says", ["A", "B"])
    assert report["notes"] == {
        "picture whose folder is its class, as no column is": 8,
        "picture whose folder says its side of the split, as no column does": 8,
    }
    table.write_text("picture,caption,class\n" + "".join(f"{name},a red bird,C{name[-5]}\n" for name in names))
    report = run(table, tmp_path / "named", split=SplitRule())
    assert (report["test"]["pictures"], report["classes_in_both"]) == (4, ["C1", "C2"])
    picture(tmp_path / "in/loose.jpg")
    table.write_text("picture,caption\nloose.jpg,a jay\n" + "".join(f"{name},a red bird\n" for name in names))
    report = run(table, tmp_path / "mixed", split=EVERYTHING)
    assert report["train"]["classes"] == 9
    assert report["notes"] == {"picture that is a class of its own, as no column says its class": 9}
    report = run(table, tmp_path / "drawn", split=SplitRule())
    kept_apart = "picture in train/ or test/, which were not taken for a split, as others lie elsewhere"
    assert report["notes"].get(kept_apart, 0) == (0 if above else 8)


def test_pictures_of_a_csv_in_one_folder_are_classes_of_their_own(tmp_path: Path) -> None:
    for name in "12":
        picture(tmp_path / f"in/images/{name}.jpg")
    (tmp_path / "in/list.csv").write_text("picture,caption\nimages/1.jpg,a red bird\nimages/2.jpg,a jay\n")
    report = run(tmp_path / "in/list.csv", tmp_path / "out", split=EVERYTHING)
    assert report["train"]["classes"] == 2
    assert report["notes"] == {"picture that is a class of its own, as no column says its class": 2}


def test_what_a_chat_program_says_around_captions_is_noted(tmp_path: Path) -> None:
    described(tmp_path / "in/A/1.jpg", "Here are some captions:\n1. a red bird\n2. a small bird\n3. a bird\n")
    described(tmp_path / "in/A/2.jpg", "a red bird\na jay: it sings\n")
    report = run(tmp_path / "in", tmp_path / "out", split=EVERYTHING)
    assert report["notes"] == {"captions file with lines of a chat or a heading, which were taken": 1}


def test_a_metadata_file_describes_the_pictures_of_its_folder(tmp_path: Path) -> None:
    for name in ("train/1.png", "train/2.png", "test/1.png"):
        picture(tmp_path / "in" / name)
    (tmp_path / "in/train/metadata.jsonl").write_text(
        '{"file_name": "1.png", "text": "a red bird"}\n{"file_name": "2.png", "text": ["a jay", "a blue jay"]}\n'
    )
    (tmp_path / "in/metadata.jsonl").write_text(
        '{"file_name": "test/1.png", "caption": "a small bird"}\n{"file_name": "test/2.png", "caption": "a wren"}\n'
    )
    report = run(tmp_path / "in", tmp_path / "out", split=SplitRule())
    assert (report["split"], report["skipped"]["reasons"]) == ("as the source says", {"missing picture": 1})
    found = {name: sample.captions for name, sample in samples(tmp_path / "out").items()}
    assert found == {"train/1": ["a red bird"], "train/2": ["a jay", "a blue jay"]}
    assert [sample.captions for sample in samples(tmp_path / "out", "test").values()] == [["a small bird"]]
    with pytest.raises(DataError, match=r"Next: name the folder that it is in: t2i data build .*/in/train -o data$"):
        run(tmp_path / "in/train/metadata.jsonl", tmp_path / "file")


def test_numbers_alone_are_no_caption_and_a_list_in_a_cell_is_several(tmp_path: Path) -> None:
    described(tmp_path / "in/A/1.jpg", "14 0.5 0.5 0.2 0.3\n")
    described(tmp_path / "in/A/2.jpg", "2 birds\n")
    report = run(tmp_path / "in", tmp_path / "out", split=EVERYTHING)
    assert report["skipped"]["reasons"] == {"all captions empty": 1}
    (tmp_path / "in/list.csv").write_text("picture,caption\nA/1.jpg,\"['a red bird', 'a jay']\"\nA/2.jpg,a wren\n")
    run(tmp_path / "in/list.csv", tmp_path / "csv", split=EVERYTHING)
    assert [sample.captions for sample in samples(tmp_path / "csv").values()] == [["a red bird", "a jay"], ["a wren"]]


def coco(path: Path, names: list[str]) -> Path:
    """COCO's captions of pictures: two of each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": number, "file_name": name, "width": 40} for number, name in enumerate(names)]
    annotations = [
        {"id": 9, "image_id": number, "caption": f"a {what} bird"} for number in range(len(names)) for what in "xy"
    ]
    path.write_text(json.dumps({"info": {}, "images": images, "licenses": [], "annotations": annotations}))
    return path


def test_captions_of_coco_are_read_and_their_folder_leads_to_them(tmp_path: Path) -> None:
    for name in ("train2017/1.jpg", "val2017/2.jpg", "flat/1.jpg", "flat/2.jpg"):
        picture(tmp_path / "in" / name)
    train = coco(tmp_path / "in/annotations/captions_train2017.json", ["1.jpg"])
    coco(tmp_path / "in/annotations/captions_val2017.json", ["2.jpg"])
    with pytest.raises(DataError, match=rf"Next: name the list in it: t2i data build {train} -o data$"):
        run(tmp_path / "in", tmp_path / "out")
    run(train, tmp_path / "out", split=EVERYTHING)
    assert {name: each.captions for name, each in samples(tmp_path / "out").items()} == {
        "train2017/1": ["a x bird", "a y bird"]
    }
    beside = coco(tmp_path / "in/flat/captions_train.json", ["1.jpg", "2.jpg", "3.jpg"])
    report = run(beside, tmp_path / "flat", split=EVERYTHING)
    assert (report["train"]["captions"], report["skipped"]["reasons"]) == (4, {"missing picture": 1})


def test_a_list_of_json_is_read_and_another_form_is_shown_one(tmp_path: Path) -> None:
    picture(tmp_path / "in/1.jpg")
    (tmp_path / "in/list.json").write_text(json.dumps([{"image": "1.jpg", "captions": ["a red bird", "a jay"]}]))
    run(tmp_path / "in/list.json", tmp_path / "out", split=EVERYTHING)
    assert samples(tmp_path / "out")["1"].captions == ["a red bird", "a jay"]
    (tmp_path / "in/list.json").write_text(json.dumps({"1.jpg": ["a red bird", "a jay"]}))
    run(tmp_path / "in/list.json", tmp_path / "by_picture", split=EVERYTHING)
    assert samples(tmp_path / "by_picture")["1"].captions == ["a red bird", "a jay"]
    record = {"image": "1.jpg", "caption": "a jay", "class": "A"}
    (tmp_path / "in/list.jsonl").write_text(f"{json.dumps(record)}\n\n{json.dumps(record | {'caption': 'a tit'})}\n")
    run(tmp_path / "in/list.jsonl", tmp_path / "lines", split=EVERYTHING)
    assert samples(tmp_path / "lines")["1"].captions == ["a jay", "a tit"]
    (tmp_path / "in/list.jsonl").write_text(json.dumps(record | {"set": "test"}))
    with pytest.raises(DataError, match=r"under another name; .* in its objects, call 'set' split"):
        run(tmp_path / "in/list.jsonl", tmp_path / "refused")
    for other in (
        '{"images": []}',
        '{"1.jpg": 3}',
        "{}",
        "[1]",
        "{",
        '[{"image": "1.jpg"}]',
        '{"images": [1], "annotations": [2]}',
        "3",
    ):
        (tmp_path / "in/list.json").write_text(other)
        with pytest.raises(DataError, match=r"is no list of pictures and captions; .* with a line picture,caption on"):
            run(tmp_path / "in/list.json", tmp_path / "other")


@pytest.mark.parametrize(("name", "inner"), [("captions.csv", ""), ("captions.txt", "Images/")])
def test_tables_of_kaggle_lie_beside_the_folder_of_their_pictures(tmp_path: Path, name: str, inner: str) -> None:
    picture(tmp_path / f"in/Images/{inner}1.jpg")
    picture(tmp_path / f"in/Images/{inner}2.jpg")
    (tmp_path / "in/notes").mkdir()
    (tmp_path / "in" / name).write_text('image,caption\n1.jpg,"a small, red bird"\n1.jpg,a bird , red\n2.jpg,a jay\n')
    with pytest.raises(DataError, match=rf"Next: name the list in it: t2i data build .*/{name} -o data$"):
        run(tmp_path / "in", tmp_path / "folder")
    report = run(tmp_path / "in" / name, tmp_path / "out", split=EVERYTHING)
    found = {name: sample.captions for name, sample in samples(tmp_path / "out").items()}
    assert found == {f"Images/{inner}1": ["a small, red bird", "a bird , red"], f"Images/{inner}2": ["a jay"]}
    assert report["skipped"]["count"] == 0
    (tmp_path / "in/Images").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"missing picture \(2\); .* name it with --root$"):
        run(tmp_path / "in" / name, tmp_path / "none", split=EVERYTHING)
    run(tmp_path / "in" / name, tmp_path / "rooted", split=EVERYTHING, root=tmp_path / "elsewhere" / inner)
    assert list(samples(tmp_path / "rooted")) == ["1", "2"]


def test_a_list_of_flickr_gets_its_column_names_by_its_next_step(tmp_path: Path) -> None:
    picture(tmp_path / "in/pictures/1.jpg")
    (tmp_path / "in/Flickr8k.token.txt").write_text("1.jpg#0\ta red bird .\n1.jpg#1\ta small bird .\n")
    with pytest.raises(DataError, match="no line of column names") as refused:
        run(tmp_path / "in/Flickr8k.token.txt", tmp_path / "out")
    subprocess.run(str(refused.value).rpartition(" on top: ")[2], shell=True, check=True)
    run(tmp_path / "in/Flickr8k.token-named.txt", tmp_path / "out", split=EVERYTHING)
    assert samples(tmp_path / "out")["pictures/1"].captions == ["a red bird .", "a small bird ."]


def test_metadata_that_is_no_file_and_links_without_end_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "in/1.png")
    metadata = tmp_path / "in/metadata.jsonl"
    metadata.write_text('\r\n\n\r{"file_name": "1.png", "text": "a red bird"}\r{')
    with pytest.raises(DataError, match=r"line 5 of .*metadata\.jsonl can't be used"):
        run(tmp_path / "in", tmp_path / "out")
    metadata.unlink()
    metadata.symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"metadata\.jsonl can't be read: it is a pipe or a device, no file"):
        run(tmp_path / "in", tmp_path / "out")
    metadata.unlink()
    os.mkfifo(metadata)
    with pytest.raises(DataError, match=r"metadata\.jsonl can't be read: it is a pipe or a device, no file"):
        run(tmp_path / "in", tmp_path / "out")

    names = "abcdefgh"  # each links to all others, which makes some hundred thousand ways
    for name in names:
        described(tmp_path / f"mesh/{name}/1.jpg")
        for other in names.replace(name, ""):
            (tmp_path / f"mesh/{name}/to-{other}").symlink_to(f"../{other}")
    report = run(tmp_path / "mesh", tmp_path / "out", split=EVERYTHING)
    assert 8 + 8 * 7 <= report["train"]["pictures"] < 200
    assert "link behind a link, to a folder that was read" in report["skipped"]["reasons"]


def test_a_list_of_json_says_class_and_split(tmp_path: Path) -> None:
    path = Path("c.json")
    record = {"image": "1.jpg", "captions": ["a jay", "a tit"], "split": "test", "class": 3}
    rows = [
        cells for _, cells in metadata.rows_of_json(path, json.dumps([record, {"image": "2.jpg", "text": "a wren"}]))
    ]
    assert rows[0] == ["picture", "caption", "class", "split"]
    assert rows[1:] == [["1.jpg", "a jay", "3", "test"], ["1.jpg", "a tit", "3", "test"], ["2.jpg", "a wren", "", ""]]
    (tmp_path / "c.json").write_text(json.dumps([{"image": "1.jpg", "caption": "a jay", "label": "x", "set": "test"}]))
    with pytest.raises(DataError, match=r"under another name; .* in its objects, call 'label' class and 'set' split"):
        run(tmp_path / "c.json", tmp_path / "out")


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_metadata_of_a_folder_says_class_and_split(tmp_path: Path, form: str) -> None:
    for name in ("1", "2", "3", "4"):
        picture(tmp_path / f"in/birds/{name}.png")
    described(tmp_path / "in/birds/5.png")
    sides = {"1": "train", "2": "Test", "3": "validation", "5": "test"}
    rows = [
        {"file_name": f"{name}.png", "text": "a jay", "split": side, "class": f"C{name}"}
        for name, side in sides.items()
    ]
    rows.append({"file_name": "1.png", "text": "a red jay", "split": "train", "class": ""})
    rows.append({"file_name": "4.png", "text": "a tit", "split": "train", "class": "C1"})
    rows.append({"file_name": "4.png", "text": "a blue tit", "split": "test", "class": "C1"})
    lines = [json.dumps(row) for row in rows]
    if form == "csv":
        lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    (tmp_path / f"in/birds/metadata.{form}").write_text("\n".join(lines) + "\n")
    report = run(tmp_path / "in", tmp_path / "out", split=SplitRule())
    assert {name: sample.captions for name, sample in samples(tmp_path / "out").items()} == {
        "birds/1": ["a jay", "a red jay"]
    }
    assert list(samples(tmp_path / "out", "test")) == ["birds/2", "birds/5"]
    assert (tmp_path / "out/classes.txt").read_text().split() == ["C1", "C2", "C5"]
    assert report["skipped"]["reasons"] == {"rows disagree": 1, "split neither train nor test": 1}
    written = (tmp_path / f"in/birds/metadata.{form}").read_text()
    (tmp_path / f"in/birds/metadata.{form}").write_text(written.replace("split", "set").replace("class", "label"))
    with pytest.raises(
        DataError, match=rf"metadata\.{form} seems to have a class and a split under another .* in its (objects|first)"
    ):
        run(tmp_path / "in", tmp_path / "refused", split=SplitRule())


def test_metadata_of_each_side_keeps_the_folders_split(tmp_path: Path) -> None:
    for side in ("train", "test"):
        picture(tmp_path / f"in/{side}/1.png")
        picture(tmp_path / f"in/{side}/A/2.png")
        (tmp_path / f"in/{side}/metadata.csv").write_text(
            'file_name,text,class\n1.png,a jay,B\nA/2.png,"a tit, blue",\n'
        )
    (tmp_path / "in/train/A/metadata.csv").write_text("url,width\n")
    report = run(tmp_path / "in", tmp_path / "out", split=SplitRule())
    assert (report["split"], report["classes_in_both"]) == ("as the source says", ["A", "B"])
    assert samples(tmp_path / "out", "test")["test/A/2"].captions == ["a tit, blue"]


def test_splits_of_karpathy_are_read(tmp_path: Path) -> None:
    sides = {"train2014/1": "train", "val2014/2": "restval", "val2014/3": "test", "val2014/4": "val"}
    images = []
    for name, side in sides.items():
        picture(tmp_path / f"in/{name}.jpg")
        folder, _, file = name.partition("/")
        sentences = [{"tokens": ["a"], "raw": f"a {what} bird"} for what in ("red", side)]
        images.append({"filepath": folder, "filename": f"{file}.jpg", "split": side, "sentences": sentences})
    table = tmp_path / "in/dataset_coco.json"
    table.write_text(json.dumps({"images": images, "dataset": "coco"}))
    with pytest.raises(DataError, match=rf"Next: name the list in it: t2i data build {table} -o data$"):
        run(tmp_path / "in", tmp_path / "folder")
    report = run(table, tmp_path / "out", split=SplitRule())
    assert {name: each.captions for name, each in samples(tmp_path / "out").items()} == {
        "train2014/1": ["a red bird", "a train bird"],
        "val2014/2": ["a red bird", "a restval bird"],
    }
    assert list(samples(tmp_path / "out", "test")) == ["val2014/3"]
    assert (report["train"]["classes"], report["classes_in_both"]) == (2, [])
    for image in images:
        del image["filepath"]
    for place in (*(tmp_path / "in/val2014").iterdir(),):
        place.rename(tmp_path / "in/train2014" / place.name)
    table.write_text(json.dumps({"images": images, "dataset": "flickr8k"}))
    run(table, tmp_path / "flat", split=SplitRule())
    assert list(samples(tmp_path / "flat")) == ["train2014/1", "train2014/2"]


def test_folders_of_a_table_with_a_split_are_no_sides_of_classes(tmp_path: Path) -> None:
    names = [f"{side}/{bird}/1.jpg" for side in ("train", "valid", "test") for bird in "AB"]
    for name in names:
        picture(tmp_path / "in" / name)
    rows = "".join(f"{name},a red bird,{name.partition('/')[0]}\n" for name in names)
    (tmp_path / "in/list.csv").write_text("picture,caption,split\n" + rows)
    report = run(tmp_path / "in/list.csv", tmp_path / "out", split=SplitRule())
    assert report["classes_in_both"] == ["A", "B"]


def test_shards_of_img2dataset_are_no_classes(tmp_path: Path) -> None:
    for shard in ("00000", "00001"):
        described(tmp_path / f"in/{shard}/{shard}0000.jpg")
        described(tmp_path / f"in/{shard}/{shard}0001.jpg")
    (tmp_path / "in/00000_stats.json").write_text("{}")
    run(tmp_path / "in", tmp_path / "out", split=EVERYTHING)
    classes = ["00001", "picture:00000/000000000", "picture:00000/000000001"]
    assert (tmp_path / "out/classes.txt").read_text().split() == classes


def test_the_folder_above_cub_and_one_that_lacks_a_list_are_told(tmp_path: Path) -> None:
    root = make_cub(tmp_path / "in/CUB_200_2011")
    with pytest.raises(DataError, match=rf"Next: name the CUB-200-2011 folder, {root}$"):
        run(tmp_path / "in", tmp_path / "out")
    (root / "bounding_boxes.txt").unlink()
    with pytest.raises(DataError, match=r"is not a CUB-200-2011 folder; found no bounding_boxes\.txt"):
        run(root, tmp_path / "out")
