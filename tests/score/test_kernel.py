"""Kernel distance against the golden values of torch-fidelity and torchmetrics."""

import numpy as np
import pytest

from attngan_deploy.errors import ScoreError
from attngan_deploy.score.metrics.kernel import kernel_distance, kernel_distance_of_subsets

EXACT = 1e-9


@pytest.mark.parametrize("pair", ["ab", "ac"])
def test_matches_torch_fidelity_and_torchmetrics(golden: dict[str, np.ndarray], pair: str) -> None:
    a, other = golden["feat_a"], golden[f"feat_{pair[1]}"]
    for count, size in ((100, 100), (20, 150)):
        subsets = kernel_distance_of_subsets(a, other, subsets=count, size=size, seed=2020)
        name = f"kid_{pair}_tf_subsets{count}_size{size}_seed2020"
        assert subsets.mean == pytest.approx(float(golden[f"{name}_mean"]), rel=EXACT)
        assert subsets.deviation == pytest.approx(float(golden[f"{name}_std"]), rel=EXACT)
    whole = kernel_distance(a, other)
    for route in ("tf_full500_mean", "numpy_full_unbiased", "torchmetrics_full500_mean"):
        assert whole == pytest.approx(float(golden[f"kid_{pair}_{route}"]), rel=EXACT)


def test_a_subset_of_everything_is_the_whole(golden: dict[str, np.ndarray]) -> None:
    one = kernel_distance_of_subsets(golden["feat_a"], golden["feat_b"], subsets=1, size=500)
    assert one.mean == pytest.approx(float(golden["kid_ab_tf_full500_mean"]), rel=EXACT)


def test_halves_of_one_set_are_close(golden: dict[str, np.ndarray]) -> None:
    a = golden["feat_a"]
    ours = kernel_distance_of_subsets(a[:250], a[250:], subsets=100, size=100).mean
    assert ours == pytest.approx(float(golden["kid_aa_halves_size100_mean"]), rel=EXACT)


def test_bad_input_is_refused(golden: dict[str, np.ndarray]) -> None:
    a = golden["feat_a"]
    with pytest.raises(ScoreError, match="500 and 99"):
        kernel_distance_of_subsets(a, a[:99], size=100)
    with pytest.raises(ScoreError, match="can't be compared"):
        kernel_distance(a, a[:, :3])
    with pytest.raises(ScoreError, match="at least 2"):
        kernel_distance(a[:1], a)


def test_neither_order_nor_precision_of_storage_matters(golden: dict[str, np.ndarray]) -> None:
    a, b = golden["feat_a"].astype(np.float32), golden["feat_b"].astype(np.float32)
    order = np.random.RandomState(1).permutation(500)
    assert kernel_distance(a[order], b[::-1]) == pytest.approx(kernel_distance(a, b), rel=1e-12)
    assert kernel_distance(a, b) == pytest.approx(kernel_distance(golden["feat_a"], golden["feat_b"]), rel=1e-6)
