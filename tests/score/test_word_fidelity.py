"""Word fidelity of model doubles whose fidelity is known, of a real bundle, and of painted pictures with captions."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attngan_deploy.errors import ScoreError
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.media.images import encode_picture
from attngan_deploy.media.tokenizer import Tokenizer
from attngan_deploy.score.metrics.colours import COLOURS
from attngan_deploy.score.metrics.word_fidelity import WORD_CAPTIONS, attended_region, colour_change, word_fidelity
from benchmarks.paper.word_colours import centre_region, real_word_colours
from tests.makers.painting_model import CORNER, PAINT, PaintingModel

MODELS = Path(__file__).resolve().parents[2] / "models"


def attended_only(picture: np.ndarray, word: str, _: float) -> None:
    picture[CORNER, CORNER] = PAINT[word]


def everywhere(picture: np.ndarray, word: str, _: float) -> None:
    picture[:] = PAINT[word]


def nowhere(picture: np.ndarray, word: str, noise: float) -> None:
    """Paint some colour, whatever the word."""
    picture[CORNER] = PAINT[COLOURS[int(abs(noise) * 1000) % 4]]


def wrongly(picture: np.ndarray, word: str, _: float) -> None:
    picture[CORNER, CORNER] = PAINT[COLOURS[(COLOURS.index(word) + 1) % 4]]


def background_only(picture: np.ndarray, word: str, _: float) -> None:
    """The word changes the rest, to colours that have no name."""
    picture[CORNER, CORNER] = 128
    picture[CORNER.stop :] = 60 + 40 * COLOURS.index(word)


def measure(paint: Any, **options: Any) -> dict[str, Any]:
    return word_fidelity(PaintingModel(paint), seeds=(0, 1, 2), **options)


def test_a_model_that_paints_what_the_word_attends_to() -> None:
    result = measure(attended_only)
    assert {name: result[name] for name in ("fidelity", "accuracy", "inside", "outside", "leakage", "focus")} == {
        "fidelity": pytest.approx(0.25),
        "accuracy": 1,
        "inside": pytest.approx(1),
        "outside": pytest.approx(0),
        "leakage": pytest.approx(0),
        "focus": pytest.approx(1),
    }
    assert result["change_inside"] > 50 and result["change_ratio"] == pytest.approx(0)
    assert result["colours"]["red"]["shares"] == pytest.approx({"red": 0.25, "black": 0, "yellow": 0, "blue": 0})


def test_a_model_that_leaks_everywhere() -> None:
    result = measure(everywhere)
    assert [result[name] for name in ("fidelity", "accuracy", "inside", "outside", "leakage")] == pytest.approx([1] * 5)
    assert result["change_ratio"] == pytest.approx(1)


def test_a_model_that_ignores_words_is_at_chance() -> None:
    result = measure(nowhere)
    assert [result[name] for name in ("fidelity", "inside", "outside", "change_inside")] == pytest.approx([0] * 4)
    assert result["accuracy"] == result["chance"] == 0.25
    assert result["leakage"] is None and result["change_ratio"] is None


def test_a_model_that_takes_one_colour_for_another() -> None:
    result = measure(wrongly)
    assert result["accuracy"] == 0
    assert result["inside"] == pytest.approx(-1 / 3)
    assert result["leakage"] is None
    assert result["colours"]["black"]["shares"]["red"] == pytest.approx(0.25)


def test_a_model_that_paints_red_for_most_words() -> None:
    def biased(picture: np.ndarray, word: str, _: float) -> None:
        picture[CORNER, CORNER] = PAINT[word if word == "yellow" else "red"]

    colours = measure(biased)["colours"]
    assert {name: colours[name]["inside"] for name in COLOURS} == pytest.approx(
        {"red": 1 / 3, "black": 0, "yellow": 1, "blue": 0}
    )
    assert {name: colours[name]["accuracy"] for name in COLOURS} == pytest.approx(
        {"red": 1 / 3, "black": 1 / 4, "yellow": 1, "blue": 1 / 4}
    )
    assert colours["red"]["shares"] == pytest.approx({"red": 0.25, "black": 0.25, "yellow": 0, "blue": 0.25})


def test_a_change_of_the_background_is_seen_without_a_named_colour() -> None:
    result = measure(background_only)
    assert result["outside"] == pytest.approx(0) and result["accuracy"] == 0.25
    assert result["change_inside"] == 0 and result["change_outside"] > 10


def test_even_attention_has_no_inside() -> None:
    result = word_fidelity(PaintingModel(attended_only, even_attention=True), seeds=(0,))
    assert result["focus"] == pytest.approx(0.25)
    assert result["inside"] == pytest.approx(result["outside"]) == pytest.approx(0.25)


def test_noise_of_the_measure() -> None:
    def sometimes(picture: np.ndarray, word: str, noise: float) -> None:
        if noise > 0:
            everywhere(picture, word, noise)

    result = word_fidelity(PaintingModel(sometimes), seeds=tuple(range(8)))
    share, sets = result["fidelity"], 8 * len(WORD_CAPTIONS)
    assert 0.4 < share < 0.6
    assert result["fidelity_error"] == pytest.approx((share * (1 - share) / (sets - 1)) ** 0.5)
    assert result["colours"]["blue"]["fidelity_error"] == result["fidelity_error"]
    assert word_fidelity(PaintingModel(sometimes), WORD_CAPTIONS[:1], seeds=(0,))["fidelity_error"] is None


def test_what_was_used_is_said_and_batches_are_bounded() -> None:
    model = PaintingModel(nowhere)
    result = word_fidelity(model, batch_size=3, seeds=(4, 5))
    assert model.largest_batch == 3
    assert result["pictures"] == 2 * 4 * len(WORD_CAPTIONS)
    assert (result["captions"], result["seeds"], result["region"]) == (list(WORD_CAPTIONS), [4, 5], 0.25)
    assert (result["model"], result["model_hash"]) == ("painter", "0123456789abcdef")
    assert result == json.loads(json.dumps(result))
    assert {**result, "seeds": 0} == {**word_fidelity(PaintingModel(nowhere), seeds=(4, 5)), "seeds": 0}


def test_two_colours_have_a_chance_of_a_half() -> None:
    result = measure(nowhere, colours=("blue", "red"))
    assert result["accuracy"] == result["chance"] == 0.5
    assert list(result["colours"]) == ["blue", "red"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"captions": ["a red bird"]}, "no {colour}.*a red bird"),
        ({"captions": []}, "captions and seeds"),
        ({"colours": ["red"]}, "two or more"),
        ({"colours": ["red", "red"]}, "each once"),
        ({"colours": ["red", "mauve"]}, "mauve"),
    ],
)
def test_bad_input_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ScoreError, match=message):
        measure(nowhere, **options)


def test_a_model_without_the_word_is_refused() -> None:
    model = PaintingModel(nowhere)
    model.tokenizer = Tokenizer(["<end>", "a", "bird", "red", "black", "yellow"])
    with pytest.raises(ScoreError, match="painter does not know the word 'blue'"):
        word_fidelity(model)


def test_a_real_bundle_gives_the_same_whatever_the_batch(tiny_bundle: Path) -> None:
    model = TextToImage.load(tiny_bundle, backend="onnxruntime", precision="fp32", threads=1, device="cpu")
    captions = ("a small {colour} bird", "this bird is {colour} and has a {colour} head")
    one, other = (word_fidelity(model, captions, seeds=(0, 1), batch_size=size) for size in (3, 16))
    for name in ("fidelity", "accuracy", "inside", "outside", "focus", "change_inside"):
        assert one[name] == pytest.approx(other[name], abs=2e-3), name
    assert one == word_fidelity(model, captions, seeds=(0, 1), batch_size=3)
    assert one["change_inside"] > 0 and one["model_hash"] == model.bundle.hash


@pytest.mark.parametrize("name", ["base", "att1", "att2"])
def test_shipped_models_know_every_word_of_the_captions(name: str) -> None:
    tokenizer = Tokenizer.load(MODELS / name / "vocabulary.txt")
    texts = [caption.format(colour=colour) for caption in WORD_CAPTIONS for colour in COLOURS]
    assert [text for text in texts if tokenizer.encode(text).unknown] == []
    assert len(set(WORD_CAPTIONS)) == len(WORD_CAPTIONS) >= 11
    assert not [text for text in WORD_CAPTIONS if any(colour in text.split() for colour in COLOURS)]


def test_the_region_is_a_quarter_also_with_ties() -> None:
    ramp = np.arange(64, dtype=np.float32).reshape(8, 8)
    region = attended_region(ramp, 16)
    assert region.mean() == 0.25 and region[12:].all() and not region[:12].any()
    assert (attended_region(np.ones((8, 8), np.float32), 16) == 0.25).all()
    ramp[:4], ramp[7] = 0, 64  # 8 above, 24 between, 32 tied at nought
    ramp[4:7] = 5
    assert attended_region(ramp, 8).mean() == 0.25
    assert attended_region(ramp, 8)[5, 5] == pytest.approx(8 / 24)


def test_change_is_the_distance_in_cielab() -> None:
    pictures = np.zeros((2, 4, 4, 3), np.uint8)
    pictures[1, :2, :2] = 255  # black to white is 100
    region = np.zeros((4, 4))
    region[:2, :2] = 1
    assert colour_change(pictures, region) == pytest.approx((100, 0), abs=0.01)


def test_the_centre_is_a_quarter() -> None:
    assert centre_region(152).mean() == 0.25
    assert centre_region(128)[32:96, 32:96].all()


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """Three painted birds a colour, of two sizes of centre, and some that count for none."""
    captions = [(f"a {word} bird", word) for word in COLOURS for _ in range(3)]
    captions += [("a red bird", "red"), ("a red and black bird", "blue"), ("a bird", "yellow"), ("", "red")]
    with tarfile.open(tmp_path / "birds.tar", "w") as tar:
        for number, (caption, colour) in enumerate(captions):
            picture = np.full((16, 16, 3), 128, np.uint8)
            picture[4:12, 4:12] = PAINT[colour]
            facts = json.dumps({"class": 0, "captions": [caption, "a blue bird"] if caption else []}).encode()
            for suffix, data in (("png", encode_picture(picture)), ("json", facts)):
                member = tarfile.TarInfo(f"{number}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return tmp_path / "birds.tar"


def test_real_pictures_by_the_colour_of_their_first_caption(shard: Path) -> None:
    result = real_word_colours(shard)
    assert result["pictures"] == {"red": 4, "black": 3, "yellow": 3, "blue": 3}
    assert result["sets"] == 3
    assert [result[name] for name in ("accuracy", "inside", "outside", "fidelity")] == pytest.approx([1, 1, 0, 0.25])
    assert result["centre"]["red"]["inside"] == {"red": 1, "black": 0, "yellow": 0, "blue": 0}
    assert result == real_word_colours(shard)


def test_real_pictures_without_a_colour_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "none.tar", "w"):
        pass
    with pytest.raises(ScoreError, match="no picture whose first caption names red"):
        real_word_colours(tmp_path / "none.tar")
