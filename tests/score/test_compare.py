"""Two passports: what may be compared, what may not, and why."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest

from attngan_deploy.errors import ScoreError
from attngan_deploy.score.compare import Comparison, comparable, read_passport
from attngan_deploy.score.compare import compare as compare_passports
from attngan_deploy.score.passport import JudgeFacts, Passport, PictureFacts

REFERENCE = {"source": "test.tar", "used": 2933, "width": 152, "height": 152, "crop": 128, "resize": "none"}
SCORES: dict[str, dict[str, Any]] = {
    "inception_score": {
        "mean": 4.5,
        "deviation": 0.03,
        "ddof": 0,
        "splits": 10,
        "per_split": [4.5] * 10,
        "pictures_per_split": [3000] * 10,
        "one_split": 4.52,
    },
    "frechet_distance": {"value": 20.0},
    "kernel_distance": {
        "mean": 0.5,
        "deviation": 0.04,
        "ddof": 0,
        "subsets": 100,
        "subset_size": 1000,
        "seed": 2020,
    },
    "r_precision": {
        "value": 0.6,
        "deviation": 0.003,
        "candidates": 100,
        "asked": 30_000,
        "wrong_captions": "other classes",
        "distinct_captions": 29_000,
        "seed": 0,
    },
    "diversity": {
        "value": 0.8,
        "standard_error": 0.01,
        "near_duplicates": 0.02,
        "threshold": 0.1,
        "captions": 100,
        "pictures": 1000,
    },
}
GENERATED = {
    "model": "att1",
    "model_hash": "cd" * 32,
    "engine": "onnxruntime",
    "captions": 29_330,
    "captions_sha256": "ef" * 32,
    "seed": 0,
}


def passport(**changes: Any) -> dict[str, Any]:
    """A passport with every score; `changes` by dotted path, with __ for the dots."""
    pictures = PictureFacts(
        source="att1",
        found=30_000,
        used=30_000,
        skipped=[],
        other_files=[],
        width=128,
        height=128,
        crop=None,
        resize="none",
        formats={"png": 30_000},
        order="manifest",
        shuffle_seed=2020,
    )
    judge = JudgeFacts("judge", "ab" * 32, 50, 128, 0.75, "onnxruntime 1.23 on cpu")
    facts: dict[str, Any] = json.loads(json.dumps(Passport(SCORES, judge, pictures, version="0.1.0").to_json()))
    facts |= {"reference": dict(REFERENCE), "matcher": {"name": "matcher", "hash": "98" * 32}}
    facts["pictures"]["generated"] = dict(GENERATED)
    for path, value in changes.items():
        *folders, key = path.split("__")
        place = facts
        for folder in folders:
            place = place[folder]
        place[key] = value
    return facts


def compare(a: Any, b: Any) -> Comparison:
    """Compare two passports that are JSON."""
    return compare_passports(comparable(a, "the first passport"), comparable(b, "the second passport"))


def refusal(a: Any, b: Any) -> str:
    with pytest.raises(ScoreError) as caught:
        compare(a, b)
    return str(caught.value)


def test_each_score_has_both_values_their_difference_and_its_noise() -> None:
    other = passport(
        scores__inception_score__mean=4.4,
        scores__inception_score__deviation=0.04,
        scores__frechet_distance__value=25.0,
        scores__diversity__near_duplicates=0.5,
    )
    result = compare(passport(), other)
    scores = {score.score: score for score in result.scores}
    assert set(scores) == {
        "inception_score.mean",
        "frechet_distance.value",
        "kernel_distance.mean",
        "r_precision.value",
        "diversity.value",
        "diversity.near_duplicates",
    }
    score = scores["inception_score.mean"]
    assert (score.a, score.b) == (4.5, 4.4) and score.difference == pytest.approx(-0.1)
    assert score.noise == pytest.approx(0.05)
    assert scores["frechet_distance.value"].difference == 5 and scores["frechet_distance.value"].noise is None
    assert scores["r_precision.value"].noise == pytest.approx(0.003 * math.sqrt(2))
    assert scores["diversity.near_duplicates"].difference == pytest.approx(0.48)
    assert result.rows()[0] == ("Inception Score", "4.5 +- 0.03", "4.4 +- 0.04", "-0.1", "0.05")
    told = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert told["scores"][0]["difference"] == pytest.approx(-0.1) and told["differences"] == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("judge__hash", "cd" * 32),
        ("judge__classes", 200),
        ("judge__size", 299),
        ("pictures__used", 3000),
        ("pictures__width", 256),
        ("pictures__height", 256),
        ("pictures__crop", 128),
        ("pictures__resize", "PIL bilinear 64 -> 128, upscaled"),
        ("pictures__order", "name"),
        ("pictures__shuffle_seed", None),
        ("pictures__generated__captions", 100),
        ("pictures__generated__captions_sha256", "00" * 32),
        ("reference__source", "train.tar"),
        ("reference__used", 2932),
        ("reference__crop", None),
        ("reference__resize", "PIL bilinear 152 -> 128"),
        ("matcher__hash", "00" * 32),
        ("scores__inception_score__splits", 5),
        ("scores__inception_score__ddof", 1),
        ("scores__inception_score__pictures_per_split", [2999] * 10),
        ("scores__kernel_distance__subset_size", 100),
        ("scores__kernel_distance__seed", 1),
        ("scores__r_precision__candidates", 10),
        ("scores__r_precision__wrong_captions", "other captions"),
        ("scores__diversity__threshold", 0.2),
    ],
)
def test_what_moves_scores_forbids_comparing_and_is_named(field: str, value: Any) -> None:
    message = refusal(passport(), passport(**{field: value}))
    assert message.count(field.replace("__", ".")) == 2 and "1 that must be the same differs" in message


def test_every_field_that_differs_is_named_with_both_values() -> None:
    other = passport(judge__hash="cd" * 32, pictures__used=3000, pictures__resize="PIL bilinear 152 -> 128")
    message = refusal(passport(), other)
    assert "3 that must be the same differ" in message and "\n" not in message
    assert "found judge.hash cdcdcdcdcdcd, pictures.used 3000, pictures.resize PIL bilinear 152 -> 128" in message
    assert "expected judge.hash abababababab, pictures.used 30000, pictures.resize none" in message


def test_settings_of_a_score_that_one_lacks_forbid_nothing() -> None:
    a, b = passport(reference__source="train.tar"), passport()
    for name in ("frechet_distance", "kernel_distance"):
        del a["scores"][name]
    result = compare(a, b)
    assert "frechet_distance.value" not in {score.score for score in result.scores}
    assert any(each.field == "scores" and each.b == "frechet_distance (not compared)" for each in result.differences)


def test_a_reference_is_known_by_its_content_where_both_say_it() -> None:
    a, b = passport(reference__sha256="11" * 32), passport(reference__sha256="11" * 32, reference__source="copy.tar")
    assert [each.field for each in compare(a, b).differences] == ["reference.source"]
    assert "reference.sha256" in refusal(a, passport(reference__sha256="22" * 32))


def test_other_differences_are_listed() -> None:
    other = passport(
        judge__engine="openvino",
        pictures__source="att2",
        version="0.2.0",
        warnings=["only 10 pictures"],
        pictures__generated__seed=1,
        judge__name="same judge",
    )
    result = compare(passport(), other)
    assert {each.field for each in result.differences} == {
        "judge.engine",
        "judge.name",
        "pictures.source",
        "pictures.generated.seed",
        "version",
        "warnings",
    }
    assert "pictures.source: att1 and att2" in result.notes()
    assert (result.a, result.b) == ("att1", "att2")


def test_passports_of_version_1_can_be_compared_with_those_of_version_2() -> None:
    old = passport(passport=1)
    del old["matcher"], old["pictures"]["generated"], old["scores"]["r_precision"], old["scores"]["diversity"]
    fields = [each.field for each in compare(old, passport(passport=2)).differences]
    assert fields == ["passport", "pictures.generated", "matcher.name", "scores", "scores"]


def test_words_need_neither_judge_nor_pictures() -> None:
    words = {"fidelity": 0.4, "fidelity_error": 0.03, "accuracy": 0.7, "leakage": None, "captions": ["a COLOUR bird"]}
    a, b = (passport(judge=None, scores={"word_fidelity": words}, pictures__used=used) for used in (10, 20))
    result = compare(a, b)
    assert [score.score for score in result.scores] == ["word_fidelity.fidelity", "word_fidelity.accuracy"]
    assert result.scores[0].noise == pytest.approx(0.03 * math.sqrt(2))
    b["scores"]["word_fidelity"] = words | {"captions": ["a COLOUR owl"]}
    assert "scores.word_fidelity.captions" in refusal(a, b)
    assert "judge.hash" in refusal(passport(), passport(judge=None))


def test_no_score_in_common_is_refused() -> None:
    a, b = passport(), passport()
    a["scores"], b["scores"] = {"frechet_distance": {"value": 1.0}}, {"inception_score": SCORES["inception_score"]}
    assert "no score in common; found inception_score; expected frechet_distance" in refusal(a, b)


def test_what_could_not_be_computed_is_left_out() -> None:
    other = passport(scores__diversity__value=None, scores__diversity__standard_error=None)
    scores = {score.score: score for score in compare(passport(), other).scores}
    assert "diversity.value" not in scores and "diversity.near_duplicates" in scores


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"passport": 3}, "unknown version; found 3; expected 1 or 2"),
        ({"passport": "1"}, "unknown version"),
        ({"passport": True}, "unknown version"),
        ({"judge": {}}, "judge.hash"),
        ({"pictures": []}, "pictures.source"),
        ({"scores": None}, "scores"),
        ({"scores": {"inception_score": 4.5}}, "scores.inception_score"),
        ({"scores": {"inception_score": {"mean": "4.5"}}}, "scores.inception_score.mean"),
        ({"scores": {"frechet_distance": {"value": math.nan}}}, "scores.frechet_distance.value"),
        ({"reference": None}, "reference"),
        ({"matcher": None}, "matcher.hash"),
    ],
    ids=str,
)
def test_broken_passports_are_refused(change: dict[str, Any], what: str) -> None:
    message = refusal(passport(), copy.deepcopy(passport()) | change)
    assert what in message and "the second passport" in message and "\n" not in message


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (None, "can't be read: No such file"),
        (b"", "it is not JSON"),
        (b"\xff\xfe", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b"[1, 2]", "is no passport of a score; found [1, 2]"),
        (b'{"mean": 4.5}', "found the fields mean"),
        (b'{"passport": 9}', "unknown version"),
    ],
    ids=["missing", "empty", "bytes", "deep", "list", "other", "newer"],
)
def test_files_that_are_no_passports_are_one_line(tmp_path: Path, data: bytes | None, what: str) -> None:
    path = tmp_path / "a.json"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ScoreError) as caught:
        read_passport(path)
    assert what in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(passport()))
    assert read_passport(tmp_path / "a.json") == comparable(passport(), "it")


def test_other_captions_are_refused() -> None:
    a, b = passport(pictures__captions_sha256="aa"), passport(pictures__captions_sha256="bb")
    with pytest.raises(ScoreError, match=r"pictures\.captions_sha256"):
        compare(a, b)
    assert compare(a, passport(pictures__captions_sha256="")).scores  # real pictures without captions, say


def test_a_number_beyond_all_scores() -> None:
    with pytest.raises(ScoreError, match=r"inception_score\.mean"):
        compare(passport(), passport(scores__inception_score__mean=10**400))


@pytest.mark.parametrize("side", ["pictures", "reference"])
def test_scores_by_another_decoder_are_not_compared_silently(side: str) -> None:
    old, here, other = ({f"{side}__decoder": name} for name in ("", "upright", "as stored"))
    assert f"{side}.decoder as stored" in refusal(passport(**here), passport(**other))
    assert not compare(passport(**here), passport(**here)).notes()
    assert compare(passport(), passport(**here)).notes() in (
        [f"{side}.decoder: {before} and upright"] for before in ("", "none")
    )  # of a passport that does not say it
    assert compare(passport(**old), passport()).scores
