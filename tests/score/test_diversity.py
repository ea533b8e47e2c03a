"""Diversity: against every pair formed by hand, and of generators that have none."""

import io
import tracemalloc
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attngan_deploy.errors import ScoreError
from attngan_deploy.media.shards import iter_samples
from attngan_deploy.score.judge import Judge
from attngan_deploy.score.metrics import diversity as module
from attngan_deploy.score.metrics.diversity import diversity

CAPTIONS = [f"caption {place // 4}" for place in range(20)]


def features_of(captions: list[str], spread: float, width: int = 6, seed: int = 0) -> np.ndarray:
    """A point a caption, and pictures around it."""
    rng = np.random.RandomState(seed)
    centres = {caption: rng.randn(width) + 2 for caption in dict.fromkeys(captions)}
    return np.array([centres[caption] + spread * rng.randn(width) for caption in captions], np.float32)


def by_pairs(features: np.ndarray, captions: list[str]) -> dict[str, list[float]]:
    x = features.astype(np.float64)
    u = x / np.linalg.norm(x, axis=1, keepdims=True)
    found: dict[str, list[float]] = {name: [] for name in ("within", "between", "within_sq", "between_sq")}
    for i in range(len(x)):
        for j in range(i):
            name = "within" if captions[i] == captions[j] else "between"
            found[name].append(1 - float(u[i] @ u[j]))
            found[f"{name}_sq"].append(float(((x[i] - x[j]) ** 2).sum()))
    return found


@pytest.mark.parametrize("block", [3, 512])
def test_equals_every_pair_formed_by_hand(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    features = features_of(CAPTIONS, 0.5)
    result, pairs = diversity(features, CAPTIONS), by_pairs(features, CAPTIONS)
    assert result["cosine"] == pytest.approx({"within": np.mean(pairs["within"]), "between": np.mean(pairs["between"])})
    roots = {"within": np.mean(pairs["within_sq"]) ** 0.5, "between": np.mean(pairs["between_sq"]) ** 0.5}
    assert result["euclidean"] == pytest.approx(roots)
    assert result["value"] == pytest.approx(np.mean(pairs["within"]) / np.mean(pairs["between"]))
    assert (result["captions"], result["pictures"], result["pictures_per_caption"]) == (5, 20, 4)
    assert 0 < result["standard_error"] < result["value"]


def test_captions_of_unlike_sizes_count_alike() -> None:
    captions = ["a"] * 2 + ["b"] * 5 + ["c"]
    features = features_of(captions, 0.5)
    a, b = (np.mean(by_pairs(features[rows], captions[rows])["within"]) for rows in (slice(0, 2), slice(2, 7)))
    result = diversity(features, captions)
    assert result["cosine"]["within"] == pytest.approx((a + b) / 2)
    assert result["cosine"]["between"] == pytest.approx(np.mean(by_pairs(features, captions)["between"]))
    assert (result["captions"], result["pictures"]) == (2, 7)


def test_a_collapsed_generator_is_caught() -> None:
    """One picture a caption whatever the seed, which an Inception Score can't tell from the best."""
    result = diversity(features_of(CAPTIONS, 0.0), CAPTIONS)
    assert result["value"] == pytest.approx(0, abs=1e-12)
    assert result["near_duplicates"] == 1


def test_one_picture_for_everything_is_caught() -> None:
    result = diversity(np.ones((20, 6), np.float32), CAPTIONS)
    assert (result["value"], result["near_duplicates"]) == (0, 1)


def test_a_generator_that_ignores_its_caption_is_at_one() -> None:
    captions = [f"caption {place % 20}" for place in range(400)]
    features = np.random.RandomState(0).randn(400, 64).astype(np.float32)
    result = diversity(features, captions)
    assert result["value"] == pytest.approx(1, abs=0.02)
    assert result["near_duplicates"] == 0


def test_near_duplicates_are_counted_within_a_caption_and_below_the_threshold() -> None:
    def at(degrees: float) -> list[float]:
        return [np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]

    captions = ["a", "a", "a", "b", "b"]
    features = np.array([at(0), at(20), at(60), at(0), at(90)], np.float32)  # 1 - cos 20 degrees is 0.06
    assert diversity(features, captions)["near_duplicates"] == pytest.approx(2 / 5)
    assert diversity(features, captions, threshold=0.05)["near_duplicates"] == 0


def test_pictures_without_a_caption_are_left_out() -> None:
    captions = ["a", "", "a", "b", "b", ""]
    features = features_of(captions, 0.5)
    kept = [place for place, caption in enumerate(captions) if caption]
    assert diversity(features, captions) == diversity(features[kept], [captions[place] for place in kept])


def test_one_caption_has_no_yardstick() -> None:
    result = diversity(features_of(["a"] * 4, 0.5), ["a"] * 4)
    assert result["cosine"]["within"] > 0
    assert [result["value"], result["standard_error"], result["cosine"]["between"]] == [None] * 3


@pytest.mark.parametrize(
    ("features", "captions", "message"),
    [
        (np.ones((3, 2)), ["a", "b", "c"], "no caption has two pictures.*3 captions"),
        (np.ones((2, 2)), ["", ""], "no caption has two pictures"),
        (np.ones((3, 2)), ["a", "a"], "with 2 captions"),
        (np.full((2, 2), np.nan), ["a", "a"], "finite"),
    ],
)
def test_bad_input_is_refused(features: np.ndarray, captions: list[str], message: str) -> None:
    with pytest.raises(ScoreError, match=message):
        diversity(features.astype(np.float32), captions)


def test_memory_does_not_grow_with_the_pairs() -> None:
    features = np.random.RandomState(0).rand(6000, 16).astype(np.float32)
    tracemalloc.start()
    try:
        diversity(features, ["a"] * 6000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * 2**20  # all pairs at once take 288 MB


def test_the_threshold_tells_copies_from_other_birds(real_birds: Path) -> None:
    birds, copies = [], []
    for sample in islice(iter_samples(real_birds / "test.tar"), 0, 2800, 70):
        with Image.open(io.BytesIO(sample.picture)) as image:
            birds.append(image.convert("RGB").crop((4, 4, 148, 148)))
            copies.append(image.convert("RGB").crop((5, 5, 149, 149)))
    judge = Judge.load(threads=1)
    pixels = [np.asarray(image.resize((judge.size, judge.size), Image.Resampling.BILINEAR)) for image in birds + copies]
    _, features = judge.predict(np.stack(pixels))
    each = [str(place % 40) for place in range(80)]
    assert diversity(features, each)["near_duplicates"] >= 0.95
    assert diversity(features[:40], ["a bird"] * 40)["near_duplicates"] == 0
