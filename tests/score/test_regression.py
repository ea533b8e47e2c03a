"""Engines judged by quality: what is alike passes with a difference of 0, and every kind of damage fails."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from attngan_deploy import TextToImage
from attngan_deploy.errors import ScoreError
from attngan_deploy.score.judge import Judge
from attngan_deploy.score.outputs import FeatureStatistics
from attngan_deploy.score.regression import Check, Regression, RegressionLimits, regression
from tests.makers.tiny_bundle import make_tiny_checkpoint
from tests.makers.tiny_judge import SIZE, make_tiny_judge

CAPTIONS = [f"caption {number}" for number in range(20)]
COUNT = 300


class Made(NamedTuple):
    pictures: np.ndarray


class Engine:
    """An engine double: birds of the caption's tint with noise of the seed, then whatever `damage` does to them."""

    def __init__(
        self, damage: Callable[[np.ndarray], np.ndarray] = lambda pictures: pictures, missing: int = 0
    ) -> None:
        self.damage, self.missing, self.description = damage, missing, "double"

    def stream(
        self,
        captions: Sequence[str],
        seed: int = 0,
        *,
        batch_size: int | None = None,
        places: Iterable[tuple[int, int]] | None = None,
    ) -> Iterator[Made]:
        pictures = [self._picture(seed, *place) for place in places or []]
        for start in range(0, len(pictures) - self.missing, batch_size or 16):
            batch = np.stack(pictures[start : start + (batch_size or 16)])
            yield Made(self.damage(batch.astype(np.float64)).clip(0, 255).astype(np.uint8))

    def _picture(self, seed: int, caption: int, sample: int) -> np.ndarray:
        rng = np.random.default_rng((seed, caption, sample))
        tint = np.array([(200, 60, 30), (30, 120, 90), (60, 40, 170)][caption % 3]) + rng.normal(0, 25, 3)
        return np.clip(tint + rng.normal(0, 20, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    return Judge.load(make_tiny_judge(tmp_path_factory.mktemp("judges") / "colours"), threads=1)


@pytest.fixture(scope="module")
def reference() -> FeatureStatistics:
    return FeatureStatistics.of(np.random.default_rng(9).normal(size=(500, 3)) * 0.3)


def run(judge: Judge, damaged: Engine, **options: object) -> Regression:
    return regression(Engine(), damaged, judge, CAPTIONS, count=COUNT, **options)  # type: ignore[arg-type]


def test_an_engine_differs_from_itself_by_exactly_nothing(judge: Judge, reference: FeatureStatistics) -> None:
    result = run(judge, Engine(), reference=reference, splits=10)
    assert result.passed and result.identical == 1
    assert [(check.difference, check.noise) for check in result.checks] == [(0, 0)] * 3
    assert all(check.limit > 0 for check in result.checks)


def test_half_a_level_of_rounding_passes(judge: Judge, reference: FeatureStatistics) -> None:
    result = run(judge, Engine(lambda x: x + np.random.default_rng(0).integers(0, 2, x.shape)), reference=reference)
    assert result.passed and result.identical == 0
    assert all(check.difference != 0 for check in result.checks)


def test_batches_of_the_makers_do_not_matter(judge: Judge) -> None:
    one, other = (run(judge, Engine(lambda x: x * 0.97), batch_size=size) for size in (7, 100))
    for a, b in zip(one.per_seed, other.per_seed, strict=True):
        assert a == pytest.approx(b, rel=1e-6)


@pytest.mark.parametrize(
    ("damage", "caught"),
    [
        (lambda x: x + np.random.default_rng(0).normal(0, 60, x.shape), "between both"),
        (lambda x: x[..., ::-1], "between both"),
        (lambda x: np.broadcast_to(x[:1], x.shape), "Inception Score"),
        (lambda x: np.full_like(x, 128), "Inception Score"),
        (lambda x: x * 0.9 + 20, "between both"),
        (lambda x: x.mean(axis=(1, 2, 3), keepdims=True) + 0 * x, "Inception Score"),
    ],
    ids=["noise", "channels", "collapse", "grey", "washed out", "no colour"],
)
def test_damage_fails(judge: Judge, damage: Callable[[np.ndarray], np.ndarray], caught: str) -> None:
    result = run(judge, Engine(damage))
    assert not result.passed
    assert any(caught in check.name and not check.passed for check in result.checks), str(result)


def test_the_limit_does_not_depend_on_how_many_pictures_there_are(judge: Judge) -> None:
    few, many = (
        regression(Engine(), Engine(lambda x: x * 0.97), judge, CAPTIONS, count=count).checks[1] for count in (60, 300)
    )
    assert few.limit == pytest.approx(many.limit, rel=0.15)
    assert few.difference == pytest.approx(many.difference, rel=0.15)


def test_a_difference_that_is_not_known_well_enough_fails() -> None:
    assert Check("score", 4.5, 4.5, 0.0, 0.01, 0.05).passed
    assert not Check("score", 4.5, 4.5, 0.0, 0.03, 0.05).passed
    assert not Check("score", 4.5, 4.5, 0.06, 0.0, 0.05).passed
    assert not Check("score", 4.5, 4.5, float("nan"), 0.0, 0.05).passed


def test_differences_are_means_over_seeds(judge: Judge) -> None:
    result = run(judge, Engine(lambda x: x * 0.8), seeds=(4, 5, 6, 7))
    differences = [row["inception_score_b"] - row["inception_score_a"] for row in result.per_seed]
    assert [row["seed"] for row in result.per_seed] == [4, 5, 6, 7]
    assert result.checks[0].difference == pytest.approx(np.mean(differences))
    assert result.checks[0].noise == pytest.approx(np.std(differences, ddof=1) / 2)
    assert result.checks[0].limit == pytest.approx(
        0.01 * np.mean([row["inception_score_a"] for row in result.per_seed])
    )


def test_limits_decide(judge: Judge) -> None:
    darker = Engine(lambda x: x * 0.9)
    assert not run(judge, darker).passed
    assert run(judge, darker, limits=RegressionLimits(10, 100, 10)).passed


def test_json_and_text_say_all(judge: Judge, reference: FeatureStatistics) -> None:
    result = run(judge, Engine(lambda x: x[..., ::-1]), reference=reference)
    told = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert told["passed"] is False and told["count"] == COUNT and told["seeds"] == [0, 1, 2]
    assert [check["passed"] for check in told["checks"]] == [check.passed for check in result.checks]
    text = str(result)
    assert "300 pictures of 20 captions with each of 3 seeds by judge colours" in text and "FAIL  Frechet" in text


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"seeds": (0, 1)}, "too few seeds to know the noise of a difference; found 0, 1; expected at least 3"),
        ({"seeds": (0, 1, 1)}, "too few seeds"),
        ({"count": 1}, "too few pictures; found 1 of 20 captions"),
        ({"captions": []}, "too few pictures"),
        ({"splits": 301}, "fewer pictures than splits"),
        ({"limits": RegressionLimits(inception_score=0.0)}, "a limit must be above 0"),
    ],
    ids=str,
)
def test_what_can_not_be_judged_is_refused(judge: Judge, options: dict[str, object], what: str) -> None:
    arguments = {"captions": CAPTIONS, "count": COUNT} | options
    with pytest.raises(ScoreError, match=what):
        regression(Engine(), Engine(), judge, **arguments)  # type: ignore[arg-type]


def test_missing_pictures_are_no_pass(judge: Judge) -> None:
    with pytest.raises(ScoreError, match=r"one number and size; found \[64, 16, 16, 3\] and \[48, 16"):
        run(judge, Engine(missing=64))


def test_torch_and_the_bundle_that_was_made_of_it(tmp_path: Path, judge: Judge) -> None:
    from attngan_deploy.export.bundle_writer import export_bundle
    from attngan_deploy.export.deploy import GraphOptions
    from attngan_deploy.export.parity.torch_maker import torch_maker

    checkpoint = make_tiny_checkpoint(tmp_path / "checkpoint")
    bundle = export_bundle(checkpoint, tmp_path / "bundle", GraphOptions(weights="fp32"))
    model, maker = TextToImage.load(bundle, backend="onnxruntime", threads=1), torch_maker(checkpoint)
    captions = ["a red bird", "this small blue bird has long wings"]
    a, b = (np.concatenate([made.pictures for made in one.stream(captions, 3)]) for one in (model, maker))
    assert a.shape == b.shape and np.abs(a.astype(int) - b).max() <= 1
    result = regression(maker, model, judge, captions, count=12, batch_size=5)
    assert result.passed and result.identical > 0, str(result)
    assert "torch" in result.a and "onnxruntime" in result.b
