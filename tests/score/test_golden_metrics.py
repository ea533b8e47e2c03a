"""Every value of the golden file has a rule here that computes it: a new one without a rule fails."""

import re
from collections.abc import Callable

import numpy as np
import pytest

from attngan_deploy.score.metrics.frechet import FeatureStatistics, frechet_distance
from attngan_deploy.score.metrics.inception_score import inception_score, inception_score_from_logits
from attngan_deploy.score.metrics.kernel import kernel_distance, kernel_distance_of_subsets

Golden = dict[str, np.ndarray]
EXACT = {"rel": 1e-9, "abs": 0.0}
ZERO = {"rel": 0.0, "abs": 1e-9}
SINGULAR = {"rel": 0.0, "abs": 1e-5}
FLOAT32 = {"rel": 0.0, "abs": 1e-5}
HALF = {"rel": 0.0, "abs": 2e-4}  # float16 inputs: routes differ by more than their sums
FAR = {"rel": 1e-8, "abs": 0.0}  # torchmetrics loses digits where the mean is 1000
INPUTS = {"is_logits", "is_probs", "feat_a", "feat_b", "feat_c"}  # `golden` draws them, and compares them
UNSEEDED = "is_torchmetrics_fp16logits_mean_unseeded"  # drawn from a global generator: nobody can repeat it


def numbers(text: str) -> int:
    return int(re.findall(r"\d+", text)[-1])


def is_of(g: Golden, name: str) -> float:
    """Inception Score by the words in the name of its value."""
    rows, splits = g["is_probs"], 10
    if "shuffle2020" in name:
        rows = rows[g["is_shuffle2020_perm"]]
    elif "classsorted" in name:
        rows = rows[g["is_sorted_order"]]
    elif first := re.search(r"first(\d+)", name):
        rows = rows[: int(first[1])]
    elif "n993" in name:
        rows = rows[:993]
    if "splits1_" in name:
        splits = 1
    score = inception_score_from_logits(g["is_logits"]) if "from_logits" in name else inception_score(rows, splits)
    if name == "is_torchmetrics_n993_noshuffle_mean":  # chunks of 100, the last of 93
        return float(np.mean([inception_score(rows[start : start + 100], 1).mean for start in range(0, 993, 100)]))
    if name.endswith("mean"):
        return score.mean
    sample = "torchmetrics" in name or name.endswith("sample")
    return float(np.std(score.per_split, ddof=1 if sample else 0))


def fid_of(g: Golden, name: str) -> float:
    pair = re.match(r"fid_(a)([abc])_", name)
    assert pair is not None
    a, b = g["feat_a"], g[f"feat_{pair[2]}"]
    if "n40" in name:
        a, b = a[:40], b[:40]
    if "offset1000" in name:
        a, b = a + 1000, b + 1000
    if name.endswith("_f32"):
        a, b = a.astype(np.float32), b.astype(np.float32)
    if name.endswith("_f16in"):
        a, b = a.astype(np.float16), b.astype(np.float16)
    return frechet_distance(FeatureStatistics.of(a), FeatureStatistics.of(b))


def fid_bias_of(g: Golden, name: str) -> float:
    count, both = numbers(name), np.random.RandomState(5).randn(20000, 64)
    statistics = (FeatureStatistics.of(both[start : start + count]) for start in (0, 10000))
    return frechet_distance(*statistics)


def kid_of(g: Golden, name: str) -> float:
    a, b = g["feat_a"], g[f"feat_{name[5]}"]
    if "halves" in name:
        return kernel_distance_of_subsets(a[:250], a[250:], subsets=100, size=100).mean
    if "full" in name:
        return kernel_distance(a, b)
    count, size, seed = map(int, re.findall(r"\d+", name))
    subsets = kernel_distance_of_subsets(a, b, count, size, seed)
    return subsets.mean if name.endswith("mean") else subsets.deviation


def one_hot(g: Golden, name: str) -> float:
    return inception_score(np.tile(np.eye(50), (20, 1))).mean


RULES: list[tuple[str, Callable[[Golden, str], object], dict[str, float]]] = [
    ("is_numpy_per_split", lambda g, name: inception_score(g["is_probs"]).per_split, EXACT),
    ("is_shuffle2020_perm", lambda g, name: np.random.RandomState(2020).permutation(1000), EXACT),
    ("is_sorted_order", lambda g, name: np.argsort(g["is_probs"].argmax(axis=1), kind="stable"), EXACT),
    ("is_WRONG_.*", lambda g, name: inception_score_from_logits(g["is_probs"]).mean, EXACT),
    ("is_onehot_xlogy_mean", one_hot, EXACT),
    ("is_uniform_mean", lambda g, name: inception_score(np.full((1000, 50), 0.02)).mean, EXACT),
    ("is_(?!onehot).*_(mean|std|std_pop|std_sample)", is_of, EXACT),
    ("fid_bias_.*", fid_bias_of, EXACT),
    ("fid_aa_.*", fid_of, ZERO),
    ("fid_.*_n40_.*", fid_of, SINGULAR),
    ("fid_.*_f32", fid_of, FLOAT32),
    ("fid_.*_f16in", fid_of, HALF),
    ("fid_ab_offset1000_torchmetrics_f64", fid_of, FAR),
    ("fid_a[bc]_.*", fid_of, EXACT),
    ("kid_.*", kid_of, EXACT),
]


def test_every_value_is_computed(golden: Golden) -> None:
    checked = {UNSEEDED, *INPUTS}
    for name, value in golden.items():
        rule = next((each for each in RULES if re.fullmatch(each[0], name)), None)
        if rule is not None and name != UNSEEDED:
            assert rule[1](golden, name) == pytest.approx(value, rel=rule[2]["rel"], abs=rule[2]["abs"]), name
            checked.add(name)
    traps = {name for name, value in golden.items() if np.isnan(value).any()}
    assert traps == {"is_onehot_no_eps_numpy_mean", "is_onehot_tf_mean"}
    assert set(golden) - checked == traps


def test_a_one_hot_judge_gives_50_where_others_give_nan(golden: Golden) -> None:
    assert one_hot(golden, "") == pytest.approx(50, rel=1e-12)
    assert inception_score_from_logits(np.tile(np.eye(50), (20, 1)) * 1e6).mean == pytest.approx(50, rel=1e-12)
