"""The judge that scores: what goes in, what comes out, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from attngan_deploy.errors import BundleError, ScoreError
from attngan_deploy.score.judge import BATCH_SIZE, Judge
from tests.tiny_judge import CLASSES, SIZE, make_tiny_judge


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    return Judge.load(make_tiny_judge(tmp_path_factory.mktemp("judges") / "colours"))


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def test_facts_come_from_the_bundle(judge: Judge) -> None:
    assert (judge.name, judge.classes, judge.size, judge.resize) == ("colours", CLASSES, SIZE, "bilinear")
    assert judge.hash == judge.bundle.hash and len(judge.hash) == 64


def test_pictures_go_in_as_the_manifest_says(judge: Judge) -> None:
    batch = pictures(3)
    probabilities, features = judge.predict(batch)
    mean = batch.astype(np.float64).mean(axis=(1, 2)) / 127.5 - 1
    np.testing.assert_allclose(features, mean, atol=1e-5)
    expected = np.exp(8 * mean) / np.exp(8 * mean).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert probabilities.dtype == np.float64 and features.dtype == np.float32


def test_many_pictures_are_judged_in_batches(judge: Judge) -> None:
    many = pictures(BATCH_SIZE * 2 + 3)
    probabilities, features = judge.predict(many)
    alone, _ = judge.predict(many[-1:])
    np.testing.assert_allclose(probabilities[-1], alone[0], atol=1e-6)
    assert len(features) == len(many)


@pytest.mark.parametrize(
    "wrong",
    [pictures(2)[:, 1:], pictures(2).astype(np.float32), pictures(2)[0], pictures(0)],
    ids=["size", "type", "rank", "none"],
)
def test_other_pictures_are_refused(judge: Judge, wrong: np.ndarray) -> None:
    with pytest.raises(ScoreError, match="judge"):
        judge.predict(wrong)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    judge = Judge.load(make_tiny_judge(tmp_path / "nan", broken="nan"))
    with pytest.raises(ScoreError, match=r"not finite; found 2 of 2 pictures, the first b\.png"):
        judge.look(pictures(2), ["b.png", "c.png"])


def test_a_judge_with_the_wrong_number_of_outputs_is_refused(tmp_path: Path) -> None:
    judge = Judge.load(make_tiny_judge(tmp_path / "shape", broken="shape"))
    with pytest.raises(ScoreError, match=r"wrong outputs; found logits \[2, 2\].*expected logits \[2, 3\]"):
        judge.predict(pictures(2))


@pytest.mark.parametrize(
    "changed",
    [
        {"input": {}},
        {"classes": "many"},
        {"classes": 1},
        {"input": {"size": 16, "mean": [0], "std": [1], "resize": "bilinear"}},
        {"input": {"size": 16, "mean": [0] * 3, "std": [1] * 3, "resize": "lanczos"}},
    ],
    ids=str,
)
def test_a_manifest_that_says_too_little_is_refused(tmp_path: Path, changed: dict[str, object]) -> None:
    with pytest.raises(BundleError, match="judge"):
        Judge.load(make_tiny_judge(tmp_path / "judge", **changed))


def test_a_model_is_no_judge(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match="not a judge bundle"):
        Judge.load(tiny_bundle)
