"""Pictures that are scored as they are made: the same numbers as through files, and nothing left running."""

import io
import json
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from attngan_deploy.errors import CaptionError, DataError, ScoreError
from attngan_deploy.generate.generation import generate
from attngan_deploy.generate.pipeline import Batch, TextToImage
from attngan_deploy.generate.run import Run
from attngan_deploy.media.captions import CaptionList, from_texts
from attngan_deploy.score.generated import GeneratedPictures, made_ahead, read_caption_list, spread
from attngan_deploy.score.judge import Judge
from attngan_deploy.score.measure import ScoreOptions, measure
from attngan_deploy.score.pictures import find_pictures
from tests.makers.tiny_judge import make_tiny_judge

CAPTIONS = ["a red bird", "this small bird is blue with a short bill", "a black bird", "the white bird has wings"]


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> TextToImage:
    return TextToImage.load(tiny_bundle, backend="onnxruntime", precision="fp32", threads=1)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    return Judge.load(make_tiny_judge(tmp_path_factory.mktemp("judges") / "colours"), threads=1)


def running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("generator")]


def make_shard(path: Path, captions: list[list[str]], classes: list[int]) -> Path:
    with tarfile.open(path, "w") as tar:
        for number, (texts, class_id) in enumerate(zip(captions, classes, strict=True)):
            facts = json.dumps({"class": class_id, "captions": texts}).encode()
            for suffix, data in (("png", b"picture"), ("json", facts)):
                member = tarfile.TarInfo(f"{number:05d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("samples", [1, 3])
def test_scores_are_those_of_the_files(tmp_path: Path, model: TextToImage, judge: Judge, samples: int) -> None:
    run = Run.of(model.bundle, CaptionList(from_texts(CAPTIONS)), 5, samples=samples, batch_size=3)
    generate(run, str(tmp_path / "out"), model=model)
    options = ScoreOptions(("is", "fid", "kid"), batch_size=5, threads=1)
    stored = measure(find_pictures(tmp_path / "out"), judge, options)
    straight = measure(GeneratedPictures(model, CAPTIONS, 4 * samples, 5, 3), judge, options)
    assert np.array_equal(stored.logits, straight.logits) and np.ptp(stored.logits) > 0.1
    assert np.array_equal(stored.features, straight.features)
    assert np.array_equal(stored.statistics.covariance, straight.statistics.covariance)
    assert stored.captions == straight.captions and set(straight.captions) == {*CAPTIONS}
    assert stored.facts.order == straight.facts.order == "manifest"
    assert (straight.facts.used, straight.facts.formats, straight.facts.width) == (
        4 * samples,
        {"generated": 4 * samples},
        128,
    )


def test_a_picture_shows_its_caption_with_its_noise(model: TextToImage) -> None:
    """Picture p is caption p % C and sample p // C, as the noise contract counts them."""
    made = list(GeneratedPictures(model, CAPTIONS, 6, 9, classes=[7, 8, 9, 7]).prepared(128, None, None))
    assert [item.name for item in made] == ["00001_00", "00001_01", "00002_00", "00002_01", "00003_00", "00004_00"]
    assert [item.class_id for item in made] == [7, 7, 8, 8, 9, 7]
    expected = model.generate(CAPTIONS, seed=9, images_per_caption=2)
    for item, place in zip(made, (0, 1, 2, 3, 4, 6), strict=True):
        assert item.pixels is not None and np.array_equal(item.pixels, expected[place])
    assert sorted(spread(4, 6)) == sorted((number % 4, number // 4) for number in range(6))


def test_fewer_pictures_than_captions(model: TextToImage) -> None:
    source = GeneratedPictures(model, [*CAPTIONS, "xyzzy"], 2)
    assert [item.caption for item in source.prepared(128, None, None)] == CAPTIONS[:2]
    assert source.generated.captions == 2 and running() == []


def test_the_passport_says_what_made_them(model: TextToImage, judge: Judge) -> None:
    source = GeneratedPictures(model, ["a red xyzzy bird", "a bird"], 3, 4)
    made = measure(source, judge).facts.generated
    assert made is not None and made.model_hash == model.bundle.hash and made.engine == model.description
    assert (made.captions, made.seed, made.unknown_words) == (2, 4, ("xyzzy",))
    other = GeneratedPictures(model, ["a red bird", "a bird"], 3, 4).generated
    assert other.captions_sha256 != made.captions_sha256


def test_pictures_are_cropped_and_resized_like_files(tmp_path: Path, model: TextToImage, judge: Judge) -> None:
    generate(Run.of(model.bundle, CaptionList(from_texts(CAPTIONS))), str(tmp_path / "out"), model=model)
    for crop in (None, 100, judge.size):
        options = ScoreOptions(crop=crop, threads=1)
        stored, straight = (
            measure(source, judge, options)
            for source in (find_pictures(tmp_path / "out"), GeneratedPictures(model, CAPTIONS, 4))
        )
        np.testing.assert_allclose(stored.logits, straight.logits, atol=1e-5)
        assert stored.facts.resize == straight.facts.resize
    with pytest.raises(ScoreError, match="smaller than the crop"):
        measure(GeneratedPictures(model, CAPTIONS, 4), judge, ScoreOptions(crop=129))


def test_an_error_of_the_judge_ends_the_thread(tmp_path: Path, model: TextToImage) -> None:
    broken = Judge.load(make_tiny_judge(tmp_path / "nan", broken="nan"), threads=1)
    with pytest.raises(ScoreError, match=r"not finite.*00001_00"):
        measure(GeneratedPictures(model, CAPTIONS, 400, batch_size=1), broken, ScoreOptions(batch_size=2))
    assert running() == []


def batches(count: int, made: list[int], error: Exception | None = None) -> Iterator[Batch]:
    for number in range(count):
        made.append(number)
        yield Batch(np.full((1, 1, 1, 3), number, np.uint8), [(number, 0)], np.zeros((1, 1, 1, 1), np.float32))
    if error is not None:
        raise error


def test_an_error_of_the_generator_arrives_after_what_came_before() -> None:
    seen = []
    with pytest.raises(ValueError, match="broken"):
        for batch in made_ahead(batches(5, [], ValueError("broken"))):
            seen.append(batch.places[0][0])
    assert seen == [0, 1, 2, 3, 4] and running() == []


def test_no_more_is_made_than_waits() -> None:
    made: list[int] = []
    ahead = made_ahead(batches(100, made), ahead=2)
    next(ahead)
    ahead.close()
    assert len(made) <= 4 and running() == []  # one given, two waiting, one in hand


def test_captions_of_a_shard_come_by_their_number(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "a.tar", [["a1", "a2", "a3"], ["b1"], ["c1", "c2"]], [4, 5, 6])
    assert read_caption_list(shard) == (["a1", "b1", "c1", "a2", "c2", "a3"], [4, 5, 6, 4, 6, 4])
    assert read_caption_list(make_shard(tmp_path / "b.tar", [["a1"], ["b1"]], [-1, 5])) == (["a1", "b1"], None)


def test_captions_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a red bird\n\na blue bird\n")
    assert read_caption_list(tmp_path / "a.txt") == (["a red bird", "a blue bird"], None)


def test_bad_captions_and_numbers_are_refused(tmp_path: Path, model: TextToImage) -> None:
    with pytest.raises(CaptionError, match="no captions"):
        read_caption_list(make_shard(tmp_path / "a.tar", [[]], [1]))
    with pytest.raises(DataError, match="no shard"):
        read_caption_list(tmp_path / "none.tar")
    with pytest.raises(CaptionError, match="line 2 has only unknown words"):
        GeneratedPictures(model, ["a bird", "xyzzy"], 2)
    with pytest.raises(CaptionError, match="no captions"):
        GeneratedPictures(model, [], 2)
    with pytest.raises(ScoreError, match="1 or more"):
        GeneratedPictures(model, CAPTIONS, 0)
    with pytest.raises(ScoreError, match="a class for each caption"):
        GeneratedPictures(model, CAPTIONS, 4, classes=[1])
