"""The judge that scores: what goes in, what comes out, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from attngan_deploy.errors import BundleError, ScoreError
from attngan_deploy.score.judge import BATCH_SIZE, Judge
from attngan_deploy.score.metrics.frechet import FeatureStatistics, frechet_distance
from attngan_deploy.score.metrics.inception_score import inception_score_from_logits
from attngan_deploy.score.metrics.kernel import kernel_distance
from tests.makers.tiny_judge import CLASSES, SIZE, make_tiny_judge


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


def test_dropped_outputs_do_not_count(judge: Judge, tmp_path: Path) -> None:
    """As StackGAN drops output 0 of its 51: before the softmax, so that what is left sums to 1."""
    dropping = Judge.load(make_tiny_judge(tmp_path / "dropping", classes=2, drop_outputs=[0]))
    batch = pictures(5)
    logits, features = dropping.look(batch)
    whole, same_features = judge.look(batch)
    assert dropping.classes == 2
    np.testing.assert_array_equal(logits, whole[:, 1:])
    np.testing.assert_array_equal(features, same_features)
    np.testing.assert_allclose(dropping.predict(batch)[0].sum(axis=1), 1, rtol=1e-12)


def test_what_moves_scores_moves_the_hash(judge: Judge, tmp_path: Path) -> None:
    how = {"size": SIZE, "mean": [127.5] * 3, "std": [127.5] * 3, "resize": "bilinear"}
    changes: list[dict[str, object]] = [
        {"classes": 2, "drop_outputs": [0]},
        {"classes": 2, "drop_outputs": [1]},
        {"input": how | {"mean": [128.0] * 3}},
        {"input": how | {"std": [128.0] * 3}},
    ]
    judges = [
        Judge.load(make_tiny_judge(tmp_path / str(place), **changed))  # type: ignore[arg-type]
        for place, changed in enumerate(changes)
    ]
    assert {other.bundle.hash for other in judges} == {judge.hash}
    assert len({judge.hash, *(other.hash for other in judges)}) == 5


@pytest.mark.parametrize("dropped", [[3], [-1], [0, 0], "0x", [None]], ids=str)
def test_outputs_that_are_not_there_can_not_be_dropped(tmp_path: Path, dropped: object) -> None:
    with pytest.raises(BundleError, match="judge"):
        Judge.load(make_tiny_judge(tmp_path / "judge", classes=2, drop_outputs=dropped))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_scores_depend_on_neither_batch_nor_threads(tmp_path: Path, batch: int, threads: int) -> None:
    folder = make_tiny_judge(tmp_path / "colours")
    many = pictures(130)

    def scores(judge: Judge, size: int) -> tuple[float, float, float]:
        parts = [judge.look(many[start : start + size]) for start in range(0, len(many), size)]
        logits, features = (np.concatenate(rows) for rows in zip(*parts, strict=True))
        a, b = FeatureStatistics.of(features[:65]), FeatureStatistics.of(features[65:])
        return (
            inception_score_from_logits(logits).mean,
            frechet_distance(a, b),
            kernel_distance(features[:65], features[65:]),
        )

    expected = scores(Judge.load(folder, threads=1), 130)
    assert scores(Judge.load(folder, threads=threads), batch) == pytest.approx(expected, rel=1e-5, abs=1e-8)
