"""Frechet distance against the golden values of torch-fidelity, SciPy and torchmetrics."""

import os
import subprocess
import sys

import numpy as np
import pytest

from attngan_deploy.errors import ScoreError
from attngan_deploy.score.metrics.frechet import FeatureStatistics, frechet_distance

FULL_RANK = 1e-9  # relative
SINGULAR = 1e-5  # absolute; the other routes differ from each other by 1e-6
FLOAT32 = 1e-5  # absolute


def fid(a: np.ndarray, b: np.ndarray) -> float:
    return frechet_distance(FeatureStatistics.of(a), FeatureStatistics.of(b))


@pytest.mark.parametrize("pair", ["ab", "ac"])
@pytest.mark.parametrize("route", ["torch_fidelity", "scipy_sqrtm", "numpy_eigh", "svd_features", "torchmetrics_f64"])
def test_matches_every_route(golden: dict[str, np.ndarray], pair: str, route: str) -> None:
    a, other = golden["feat_a"], golden[f"feat_{pair[1]}"]
    assert fid(a, other) == pytest.approx(float(golden[f"fid_{pair}_{route}"]), rel=FULL_RANK)
    singular = fid(a[:40], other[:40])
    assert singular == pytest.approx(float(golden[f"fid_{pair}_n40_{route}"]), abs=SINGULAR)


def test_identical_sets_are_at_distance_zero(golden: dict[str, np.ndarray]) -> None:
    ours = fid(golden["feat_a"], golden["feat_a"])
    assert abs(ours) < 1e-9
    for route in ("torch_fidelity", "scipy_sqrtm", "numpy_eigh", "svd_features", "torchmetrics_f64"):
        assert ours == pytest.approx(float(golden[f"fid_aa_{route}"]), abs=1e-9)


def test_is_symmetric(golden: dict[str, np.ndarray]) -> None:
    assert fid(golden["feat_a"], golden["feat_c"]) == pytest.approx(fid(golden["feat_c"], golden["feat_a"]), rel=1e-12)


def test_float32_features_are_summed_in_float64(golden: dict[str, np.ndarray]) -> None:
    a, b = golden["feat_a"].astype(np.float32), golden["feat_b"].astype(np.float32)
    assert fid(a, b) == pytest.approx(float(golden["fid_ab_torch_fidelity_f32"]), abs=FLOAT32)
    assert fid(a, b) == pytest.approx(float(golden["fid_ab_torch_fidelity"]), abs=FLOAT32)
    half = fid(golden["feat_a"].astype(np.float16), golden["feat_b"].astype(np.float16))
    assert half == pytest.approx(float(golden["fid_ab_torch_fidelity_f16in"]), abs=2e-4)


def test_a_mean_far_from_zero_costs_no_digits(golden: dict[str, np.ndarray]) -> None:
    ours = fid(golden["feat_a"] + 1000, golden["feat_b"] + 1000)
    assert ours == pytest.approx(float(golden["fid_ab_torch_fidelity"]), rel=FULL_RANK)
    assert ours == pytest.approx(float(golden["fid_ab_offset1000_torchmetrics_f64"]), rel=1e-8)
    assert ours == pytest.approx(float(golden["fid_ab_offset1000_eigh_f64"]), rel=FULL_RANK)


@pytest.mark.parametrize("batch", [1, 7, 64, 500])
def test_batches_do_not_matter(golden: dict[str, np.ndarray], batch: int) -> None:
    whole, parts = FeatureStatistics.of(golden["feat_c"]), FeatureStatistics()
    for start in range(0, 500, batch):
        parts.add(golden["feat_c"][start : start + batch])
    assert parts.count == 500
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(parts.covariance, np.cov(golden["feat_c"], rowvar=False), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("count", [100, 500, 2000, 10000])
def test_few_pictures_give_a_high_distance(golden: dict[str, np.ndarray], count: int) -> None:
    both = np.random.RandomState(5).randn(20000, 64)
    ours = fid(both[:count], both[10000 : 10000 + count])
    assert ours == pytest.approx(float(golden[f"fid_bias_same_dist_n{count}"]), rel=FULL_RANK)


def test_rank_is_known() -> None:
    features = np.random.default_rng(0).normal(size=(65, 64))
    assert FeatureStatistics.of(features[:64]).is_rank_deficient
    assert not FeatureStatistics.of(features).is_rank_deficient


def test_bad_input_is_refused() -> None:
    features = np.random.default_rng(0).normal(size=(8, 4))
    with pytest.raises(ScoreError, match="4 and 3 numbers"):
        fid(features, features[:, :3])
    with pytest.raises(ScoreError, match="1 pictures"):
        fid(features, features[:1])
    statistics = FeatureStatistics.of(features)
    with pytest.raises(ScoreError, match="another width"):
        statistics.add(features[:, :3])
    with pytest.raises(ScoreError, match="finite"):
        statistics.add(np.full((2, 4), np.nan))
    with pytest.raises(ScoreError, match="no finite number"):
        frechet_distance(statistics, FeatureStatistics.from_covariance(np.full(4, 1e200), np.eye(4)))


def test_threads_do_not_matter() -> None:
    code = """
import numpy as np
from attngan_deploy.score.metrics.frechet import FeatureStatistics, frechet_distance
x = np.random.RandomState(0).randn(700, 320)
a, b = FeatureStatistics.of(x[:350]), FeatureStatistics.of(x[350:] * 1.1 + 0.2)
print(repr(frechet_distance(a, b)))
"""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    results = [
        float(
            subprocess.run(
                [sys.executable, "-c", code],
                env={**os.environ, **dict.fromkeys(names, threads)},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for threads in ("1", "3")
    ]
    assert results[0] == pytest.approx(results[1], rel=FULL_RANK)
