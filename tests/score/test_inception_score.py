"""Inception Score against the golden values of torch-fidelity, torchmetrics and the published formula."""

import numpy as np
import pytest

from attngan_deploy.errors import ScoreError
from attngan_deploy.score.metrics.inception_score import (
    inception_score,
    inception_score_from_logits,
    softmax,
    split_bounds,
    splits_of,
)

EXACT = 1e-9


def check(ours: float, golden: dict[str, np.ndarray], name: str) -> None:
    assert ours == pytest.approx(float(golden[name]), rel=EXACT)


def test_matches_the_published_formula(golden: dict[str, np.ndarray]) -> None:
    score = inception_score(golden["is_probs"], 10)
    check(score.mean, golden, "is_numpy_mean")
    check(score.deviation, golden, "is_numpy_std_pop")
    np.testing.assert_allclose(score.per_split, golden["is_numpy_per_split"], rtol=EXACT)
    check(float(np.std(score.per_split, ddof=1)), golden, "is_numpy_std_sample")


def test_matches_torch_fidelity(golden: dict[str, np.ndarray]) -> None:
    score = inception_score_from_logits(golden["is_logits"], 10)
    check(score.mean, golden, "is_tf_noshuffle_mean")
    check(score.deviation, golden, "is_tf_noshuffle_std")
    check(score.mean, golden, "is_tf_noshuffle_from_logits_mean")
    check(score.deviation, golden, "is_tf_noshuffle_from_logits_std")
    check(inception_score(golden["is_probs"], 1).mean, golden, "is_tf_splits1_mean")


def test_matches_torch_fidelity_in_other_orders(golden: dict[str, np.ndarray]) -> None:
    permutation = np.random.RandomState(2020).permutation(1000)
    np.testing.assert_array_equal(permutation, golden["is_shuffle2020_perm"])
    shuffled = inception_score(golden["is_probs"][permutation])
    check(shuffled.mean, golden, "is_tf_shuffle2020_mean")
    check(shuffled.deviation, golden, "is_tf_shuffle2020_std")
    by_class = inception_score(golden["is_probs"][golden["is_sorted_order"]])
    check(by_class.mean, golden, "is_tf_classsorted_noshuffle_mean")
    check(by_class.deviation, golden, "is_tf_classsorted_noshuffle_std")


def test_matches_torchmetrics(golden: dict[str, np.ndarray]) -> None:
    score = inception_score(golden["is_probs"])
    check(score.mean, golden, "is_torchmetrics_noshuffle_mean")
    check(float(np.std(score.per_split, ddof=1)), golden, "is_torchmetrics_noshuffle_std")


def test_splits_that_do_not_divide_the_pictures(golden: dict[str, np.ndarray]) -> None:
    score = inception_score(golden["is_probs"][:993])
    check(score.mean, golden, "is_tf_n993_noshuffle_mean")
    check(score.deviation, golden, "is_tf_n993_noshuffle_std")
    # torchmetrics cuts 993 pictures into chunks of 100, the last of 93
    rows = golden["is_probs"][:993]
    chunks = [inception_score(rows[start : start + 100], 1).mean for start in range(0, 993, 100)]
    check(float(np.mean(chunks)), golden, "is_torchmetrics_n993_noshuffle_mean")


@pytest.mark.parametrize("count", [100, 200, 500, 1000])
def test_few_pictures_give_a_low_score(golden: dict[str, np.ndarray], count: int) -> None:
    check(inception_score(golden["is_probs"][:count]).mean, golden, f"is_tf_first{count}_splits10_mean")


def test_one_hot_rows_give_the_number_of_classes(golden: dict[str, np.ndarray]) -> None:
    one_hot = np.tile(np.eye(50), (20, 1))
    check(inception_score(one_hot).mean, golden, "is_onehot_xlogy_mean")
    assert inception_score(one_hot).mean == pytest.approx(50, rel=1e-12)


def test_uniform_rows_give_one(golden: dict[str, np.ndarray]) -> None:
    check(inception_score(np.full((1000, 50), 0.02)).mean, golden, "is_uniform_mean")


def test_logits_fed_as_probabilities_are_refused(golden: dict[str, np.ndarray]) -> None:
    """torch-fidelity takes the reverse without a word; nobody can tell logits that look like probabilities."""
    check(inception_score_from_logits(golden["is_probs"]).mean, golden, "is_WRONG_probs_fed_as_logits_mean")
    with pytest.raises(ScoreError, match=r"row 0 sums to .* use inception_score_from_logits"):
        inception_score(golden["is_logits"])


def test_float32_probabilities_are_taken() -> None:
    logits = np.random.default_rng(0).normal(size=(200, 50)) * 3
    exact, rounded = inception_score(softmax(logits)), inception_score(softmax(logits).astype(np.float32))
    assert rounded.mean == pytest.approx(exact.mean, rel=1e-6)


def test_huge_logits_do_not_overflow() -> None:
    assert inception_score_from_logits(np.eye(50) * 1e4, 1).mean == pytest.approx(50)


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        (np.full((20, 4), np.nan), "not finite"),
        (np.full((20, 4), -0.25), "sums to -1"),
        (np.array([[1.5, -0.5]] * 20), "smallest value is -0.5"),
        (np.ones(20), "shape \\[20\\]"),
        (np.full((9, 4), 0.25), "9 pictures, 10 splits"),
        (np.zeros((0, 4)), "0 pictures, 10 splits"),
    ],
)
def test_bad_input_is_refused(rows: np.ndarray, what: str) -> None:
    with pytest.raises(ScoreError, match=what):
        inception_score(rows)


@pytest.mark.parametrize(
    "logits", [np.full((20, 4), np.inf), np.zeros((0, 4)), np.zeros(4), np.zeros((20, 0))], ids=str
)
def test_bad_logits_are_refused(logits: np.ndarray) -> None:
    with pytest.raises(ScoreError):
        inception_score_from_logits(logits)


@pytest.mark.parametrize(("count", "splits"), [(10, 10), (993, 10), (1000, 7)])
def test_splits_cover_every_picture_once(count: int, splits: int) -> None:
    bounds = split_bounds(count, splits)
    assert [place for start, end in bounds for place in range(start, end)] == list(range(count))
    assert len(bounds) == splits


@pytest.mark.parametrize(
    ("count", "asked", "splits"),
    [(30_000, None, 10), (10, None, 10), (9, None, 9), (1, None, 1), (0, None, 1), (9, 2, 2)],
)
def test_splits_that_nobody_asked_for(count: int, asked: int | None, splits: int) -> None:
    assert splits_of(count, asked) == splits
