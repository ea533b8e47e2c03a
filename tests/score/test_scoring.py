"""Metrics together: what each needs is asked for before anything is made, and the passport says all of it."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attngan_deploy.errors import DataError, ScoreError
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.score.generated import GeneratedPictures
from attngan_deploy.score.judge import Judge
from attngan_deploy.score.measure import Rows, ScoreOptions, measure, measure_by
from attngan_deploy.score.metrics.diversity import diversity
from attngan_deploy.score.metrics.word_fidelity import word_fidelity
from attngan_deploy.score.pictures import find_pictures
from attngan_deploy.score.scoring import measure_and_score, score_model
from tests.makers.tiny_judge import SIZE, make_tiny_judge

CAPTIONS = ["a red bird", "a blue bird"]


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> TextToImage:
    return TextToImage.load(tiny_bundle, backend="onnxruntime", precision="fp32", threads=1)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    return Judge.load(make_tiny_judge(tmp_path_factory.mktemp("judges") / "colours"), threads=1)


def fill(folder: Path, count: int = 6, size: int = SIZE) -> Path:
    folder.mkdir()
    for number in range(count):
        picture = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"{number}.png")
    return folder


def describe(folder: Path, name: str, **facts: object) -> None:
    (folder / name).with_suffix(".json").write_text(json.dumps(facts))


def test_captions_and_classes_stand_beside_pictures(tmp_path: Path, judge: Judge) -> None:
    folder = fill(tmp_path / "real", 4)
    for name, caption, class_id in (("0.png", "zero", 5), ("2.png", "two", 7)):
        describe(folder, name, captions=[caption, "other"], **{"class": class_id})
    (folder / "notes.json").write_text("[]")
    measured = measure(find_pictures(folder), judge, ScoreOptions(shuffle_seed=None, threads=1))
    assert measured.captions == ["zero", "", "two", ""]
    assert measured.class_ids.tolist() == [5, -1, 7, -1] and measured.facts.other_files == ("notes.json",)
    shuffled = measure(find_pictures(folder), judge, ScoreOptions(threads=1))
    order = np.random.RandomState(2020).permutation(4)
    assert shuffled.captions == [measured.captions[place] for place in order]
    assert np.array_equal(shuffled.class_ids, measured.class_ids[order])
    (folder / "1.json").write_text("[]")
    with pytest.raises(DataError, match=r"1\.json can't be read"):
        measure(find_pictures(folder), judge)


def test_captions_of_a_manifest_come_before_those_of_a_shard(tmp_path: Path, judge: Judge) -> None:
    fill(tmp_path / "files", 2)
    with tarfile.open(tmp_path / "pictures-00000.tar", "w") as tar:
        for number in range(2):
            tar.add(tmp_path / "files" / f"{number}.png", f"{number}.png")
            facts = json.dumps({"class": 3, "captions": [f"shard {number}"]}).encode()
            member = tarfile.TarInfo(f"{number}.json")
            member.size = len(facts)
            tar.addfile(member, io.BytesIO(facts))
    options = ScoreOptions(shuffle_seed=None, threads=1)
    measured = measure(find_pictures(tmp_path / "pictures-00000.tar"), judge, options)
    assert measured.captions == ["shard 0", "shard 1"] and measured.class_ids.tolist() == [3, 3]
    records = [{"file": f"pictures-00000.tar/{number}.png", "caption": f"manifest {number}"} for number in (1, 0)]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert measure(find_pictures(tmp_path), judge, options).captions == ["manifest 1", "manifest 0"]


def test_diversity_is_that_of_the_features(model: TextToImage, judge: Judge) -> None:
    source = GeneratedPictures(model, CAPTIONS, 8)
    passport = measure_and_score(source, judge, ScoreOptions(("is", "diversity"), splits=2, threads=1))
    measured = measure(source, judge, ScoreOptions(("diversity",), threads=1))
    assert passport.scores["diversity"] == diversity(measured.features, measured.captions)
    assert passport.scores["diversity"]["pictures"] == 8 and "inception_score" in passport.scores


def test_words_need_no_judge(model: TextToImage, judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attngan_deploy.score.metrics.word_fidelity.SEEDS", (0,))
    monkeypatch.setattr(word_fidelity, "__defaults__", (("a {colour} bird",), ("red", "blue"), (0, 1), None))
    alone = score_model(model)
    assert alone.judge is None and alone.to_json()["judge"] is None and alone.pictures.used == 0
    assert alone.scores["word_fidelity"]["model_hash"] == model.bundle.hash
    both = measure_and_score(
        GeneratedPictures(model, CAPTIONS, 4), judge, ScoreOptions(("is", "words"), splits=2, threads=1)
    )
    assert both.scores["word_fidelity"] == alone.scores["word_fidelity"] and both.pictures.used == 4


def test_a_reference_of_another_size_is_a_warning(tmp_path: Path, judge: Judge) -> None:
    out, same, larger = fill(tmp_path / "out"), fill(tmp_path / "same"), fill(tmp_path / "larger", size=SIZE + 8)
    options = ScoreOptions(("fid",), threads=1)

    def warned(reference: Path, chosen: ScoreOptions) -> bool:
        passport = measure_and_score(out, judge, chosen, reference)
        return any(f"of another size than the pictures ({SIZE + 8} x" in text for text in passport.warnings)

    assert warned(larger, options) and not warned(same, options)
    assert not warned(larger, ScoreOptions(("fid",), crop=SIZE, threads=1))


@pytest.mark.parametrize(
    ("metrics", "changed", "count", "what"),
    [
        (("is",), {"splits": 5}, 4, "fewer pictures than splits; found 4 pictures, 5 splits"),
        (("diversity",), {}, 2, "two pictures or more; found 2 pictures of 2 captions"),
        (("fid",), {}, 4, "distances to a reference"),
        (("is",), {"order": "name"}, 4, "one order"),
        (("nothing",), {}, 4, "no metric 'nothing'"),
        ((), {}, 4, "no metric"),
    ],
)
def test_what_can_not_work_is_refused_before_pictures_are_made(
    model: TextToImage,
    judge: Judge,
    monkeypatch: pytest.MonkeyPatch,
    metrics: tuple[str, ...],
    changed: dict[str, object],
    count: int,
    what: str,
) -> None:
    monkeypatch.setattr(TextToImage, "stream", None)
    with pytest.raises(ScoreError, match=what):
        measure_and_score(GeneratedPictures(model, CAPTIONS, count), judge, ScoreOptions(metrics, **changed))  # type: ignore[arg-type]


def test_words_of_files_are_refused(tmp_path: Path, judge: Judge) -> None:
    with pytest.raises(ScoreError, match="words is measured on a model"):
        measure_and_score(fill(tmp_path / "out"), judge, ScoreOptions(("words",)))


@pytest.mark.parametrize("expected", [0, 10, 1000])
def test_rows_are_put_in_order_whatever_was_expected(expected: int) -> None:
    values = np.random.default_rng(0).normal(size=(200, 150)).astype(np.float32)
    rows = Rows(expected)
    for start in range(0, 200, 30):
        rows.add(values[start : start + 30])
    order = np.random.default_rng(1).permutation(200)
    assert np.array_equal(rows.arranged(order), values[order])


def test_judges_that_look_together_see_what_each_sees_alone(tmp_path: Path, judge: Judge) -> None:
    darker = {"size": SIZE, "mean": [100.0] * 3, "std": [127.5] * 3, "resize": "bilinear"}
    other = Judge.load(make_tiny_judge(tmp_path / "other", input=darker), threads=1)
    files = find_pictures(fill(tmp_path / "out", 40))
    hows = [ScoreOptions(("is",), threads=1), ScoreOptions(("fid", "kid"), shuffle_seed=None, threads=1)]
    for one, how, found in zip((judge, other), hows, measure_by([judge, other], files, hows), strict=True):
        alone = measure(files, one, how)
        assert np.array_equal(found.logits, alone.logits) and np.array_equal(found.features, alone.features)
        assert found.facts == alone.facts and found.statistics.count == alone.statistics.count
    with pytest.raises(ScoreError, match="one size, crop and batch size"):
        measure_by([judge, other], files, [hows[0], ScoreOptions(crop=8)])
