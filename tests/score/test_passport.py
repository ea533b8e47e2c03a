"""The passport: everything needed to judge a score, and every reason to doubt it."""

import json
from dataclasses import replace

import pytest

from attngan_deploy.score.metrics.inception_score import order_warnings
from attngan_deploy.score.passport import (
    JudgeFacts,
    Passport,
    PictureFacts,
    describe_resize,
    picture_warnings,
)

JUDGE = JudgeFacts("judge", "ab" * 32, 50, 128, 0.75, "onnxruntime")
PICTURES = PictureFacts(
    source="out",
    found=30_000,
    used=30_000,
    skipped=[],
    other_files=["grid.png"],
    width=128,
    height=128,
    crop=None,
    resize="none",
    formats={"png": 30_000},
    order="manifest",
    shuffle_seed=None,
)


def test_json_holds_everything() -> None:
    facts = json.loads(json.dumps(Passport({"inception_score": {"mean": 4.5}}, JUDGE, PICTURES).to_json()))
    assert facts["passport"] == 2
    assert facts["scores"]["inception_score"]["mean"] == 4.5
    assert facts["judge"] == {
        "name": "judge",
        "hash": "ab" * 32,
        "classes": 50,
        "size": 128,
        "accuracy": 0.75,
        "engine": "onnxruntime",
    }
    assert set(facts["pictures"]) >= {"found", "used", "skipped", "width", "crop", "resize", "order", "shuffle_seed"}
    assert facts["reference"] is None
    assert "not with scores by other judges" in facts["note"]


def test_thirty_thousand_png_of_the_right_size_raise_no_warning() -> None:
    assert picture_warnings(PICTURES) == []


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"used": 4999}, "only 4999 pictures"),
        ({"formats": {"jpeg": 20_000, "png": 10_000}}, "20000 of 30000 pictures are JPEG"),
        ({"formats": {"lossy webp": 7, "webp": 3}}, "7 of 30000 pictures are JPEG or lossy WebP"),
        ({"resize": "PIL bilinear 64 -> 128, upscaled"}, "upscaled"),
        ({"skipped": ["a.png: truncated"], "found": 30_001}, "1 of 30001 pictures are broken"),
    ],
)
def test_each_doubt_is_a_warning(changed: dict[str, object], what: str) -> None:
    (warning,) = picture_warnings(replace(PICTURES, **changed), "reference: ")  # type: ignore[arg-type]
    assert warning.startswith("reference: ") and what in warning


@pytest.mark.parametrize(
    ("found", "crop", "described"),
    [
        (128, None, "none"),
        (152, 128, "none"),
        (152, None, "PIL bilinear 152 -> 128"),
        (64, None, "PIL bilinear 64 -> 128, upscaled"),
        (152, 96, "PIL bilinear 96 -> 128, upscaled"),
    ],
)
def test_resizing_is_described(found: int, crop: int | None, described: str) -> None:
    text = describe_resize(found, found, crop, 128, "bilinear")
    assert text == described
    assert replace(PICTURES, resize=text).was_upscaled == ("upscaled" in described)


@pytest.mark.parametrize(
    ("mean", "seed", "warns"), [(5.2, None, True), (24.0, None, False), (5.2, 2020, False), (17.8, None, True)]
)
def test_an_order_by_class_is_a_warning(mean: float, seed: int | None, warns: bool) -> None:
    assert bool(order_warnings({"mean": mean, "one_split": 25.5}, seed)) == warns
