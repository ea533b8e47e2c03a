"""Opening a matcher, what it makes of captions and features, and every way in which it can be unfit."""

import json
from pathlib import Path

import numpy as np
import pytest

from attngan_deploy.bundles.bundle import write_manifest
from attngan_deploy.errors import BundleError, ScoreError
from attngan_deploy.score import matcher as matching
from attngan_deploy.score.judge import Judge
from attngan_deploy.score.matcher import Matcher
from attngan_deploy.score.metrics.r_precision import r_precision
from attngan_deploy.score.verify import open_any
from tests.makers.commands import t2i
from tests.makers.tiny_judge import SIZE, make_tiny_judge
from tests.makers.tiny_matcher import make_tiny_matcher


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_judge(tmp_path_factory.mktemp("judges") / "judge")


@pytest.fixture(scope="module")
def folder(judge: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_matcher(tmp_path_factory.mktemp("matchers") / "matcher", judge)


def test_captions_and_pictures_meet(judge: Path, folder: Path) -> None:
    matcher, seen = Matcher.load(folder), Judge.load(judge)
    matcher.check_judge(seen)
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 0, 0]], np.uint8)
    pictures = np.broadcast_to(colours[:, None, None], (4, SIZE, SIZE, 3))
    codes = matcher.codes(seen.look(np.ascontiguousarray(pictures))[1])
    captions = ["a red bird", "Green!", "it is blue", "blue"]  # the last picture is red
    found = r_precision(codes, captions, np.array([0, 1, 2, 3]), matcher)
    assert (found["value"], found["candidates"], found["real"]["pictures"]) == (0.75, 3, 2933)


def test_sentences_keep_their_order_whatever_the_batch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matcher = Matcher.load(folder)
    captions = ["red", "red green blue", "blue", "green blue", "a bird", "red", "blue red", "bird green"]
    wanted = [[1, 0, 0], [1, 1, 1], [0, 0, 1], [0, 1, 1], [0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 1, 0]]
    for size in (1, 3, 256):
        monkeypatch.setattr(matching, "BATCH_SIZE", size)
        np.testing.assert_array_equal(matcher.sentences(captions), wanted)


def test_reading(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matcher = Matcher.load(folder)
    assert matcher.read("A RED, red bird?") == (1, 1, 4) and matcher.read("nothing known") == ()
    monkeypatch.setattr(matching, "MAX_WORDS", 2)
    assert matcher.read("red green blue") == (1, 2)
    for captions, message in (([], "no captions"), (["red", "what"], "knows no word of caption 'what'")):
        with pytest.raises(ScoreError, match=message):
            matcher.sentences(captions)


def test_another_judge_is_refused(tmp_path: Path, folder: Path) -> None:
    other = make_tiny_judge(tmp_path / "other", broken="nan", name="another")
    with pytest.raises(
        ScoreError, match=r"features of another judge; found judge another \w{12}; expected judge col"
    ) as told:
        Matcher.load(folder).check_judge(Judge.load(other))
    assert "--judge colours" in str(told.value) and "\n" not in str(told.value)


def test_features_that_do_not_fit_are_refused(tmp_path: Path, judge: Path, folder: Path) -> None:
    with pytest.raises(ScoreError, match=r"can't read these features; found \[2, 4\]; expected \[N, 3\]"):
        Matcher.load(folder).codes(np.zeros((2, 4), np.float32))
    with pytest.raises(ScoreError, match="no features"):
        Matcher.load(folder).codes(np.zeros((0, 3), np.float32))
    broken = make_tiny_matcher(tmp_path / "nan", judge, weight=float("nan"))
    with pytest.raises(ScoreError, match="codes that are not finite"):
        Matcher.load(broken).codes(np.ones((2, 3), np.float32))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"judge": None}, "does not say how it is used: KeyError"),
        ({"real": None}, "does not say how it is used: KeyError"),
        ({"real": [1]}, "does not say how it is used"),
        ({"real": {"r_precision": "much", "candidates": 100}}, "does not say how it is used"),
        ({"real": {"r_precision": 1.5, "candidates": 100}}, "its R-precision on real pictures is none"),
        ({"real": {"r_precision": 0.5}}, "does not say how it is used: KeyError"),
        ({"sizes": {"words": 9}}, "vocabulary of .* does not fit its embedding"),
    ],
)
def test_bad_manifests_are_refused(tmp_path: Path, judge: Path, changed: dict[str, object], message: str) -> None:
    folder = make_tiny_matcher(tmp_path / "bad", judge, **changed)
    with pytest.raises(BundleError, match=message):
        Matcher.load(folder)


@pytest.mark.parametrize("gone", ["vocabulary", "sizes", "graphs"])
def test_a_manifest_without_its_parts_is_damaged(tmp_path: Path, judge: Path, gone: str) -> None:
    with pytest.raises(BundleError, match=f"field '{gone}'"):
        make_tiny_matcher(tmp_path / "bad", judge, **{gone: None})


def test_a_damaged_or_foreign_bundle_is_refused(tmp_path: Path, judge: Path) -> None:
    with pytest.raises(BundleError, match="is not a matcher bundle; found kind 'judge'"):
        Matcher.load(judge)
    folder = make_tiny_matcher(tmp_path / "cut", judge)
    graph = folder / "picture_encoder.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"picture_encoder\.onnx has \d+ bytes instead of"):
        Matcher.load(folder)
    manifest = json.loads((folder / "bundle.json").read_text())
    del manifest["graphs"]["picture_encoder"]
    with pytest.raises(BundleError, match="has no graph 'picture_encoder'"):
        write_manifest(folder, manifest)


def test_its_hash_is_that_of_what_decides(tmp_path: Path, judge: Path, folder: Path) -> None:
    told = make_tiny_matcher(tmp_path / "told", judge, licence="MIT")
    other = make_tiny_matcher(tmp_path / "other", judge, weight=2.0)
    assert Matcher.load(told).hash == Matcher.load(folder).hash != Matcher.load(other).hash


def test_it_is_listed_and_verified(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("T2I_MODELS", str(folder.parent))
    assert open_any("matcher").kind == "matcher"
    assert t2i("models") == 0
    told = capsys.readouterr()
    assert "matcher" in told.out and "score: R-precision of real pictures 50.0%, 1 of 100" in told.out
    assert t2i("verify", "matcher") == 0
    assert "answers with finite numbers" in capsys.readouterr().out
    assert t2i("verify", "matcher", "--precision", "int8") == 1
    assert "has no graph" in capsys.readouterr().err


def test_verifying_finds_a_matcher_that_compares_nothing(
    tmp_path: Path, judge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = make_tiny_matcher(tmp_path / "nan", judge, weight=float("nan"))
    assert t2i("verify", str(broken)) == 1
    assert "codes that are not finite" in capsys.readouterr().err
