"""Reference pictures are judged once: what is kept is used for the same content only, and never when it is broken."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attngan_deploy.errors import ScoreError
from attngan_deploy.score.judge import Judge
from attngan_deploy.score.measure import measure
from attngan_deploy.score.outputs import JudgeOutputs, ScoreOptions
from attngan_deploy.score.pictures import find_pictures
from attngan_deploy.score.reference_cache import measure_reference
from tests.makers.tiny_judge import SIZE, make_tiny_judge

OPTIONS = ScoreOptions(("fid", "kid"), threads=1)


class CountingJudge(Judge):
    """A judge that remembers how many pictures it looked at."""

    seen = 0

    def look(self, pictures, names=()):  # type: ignore[no-untyped-def]
        self.seen += len(pictures)
        return super().look(pictures, names)


@pytest.fixture
def judge(tmp_path: Path) -> CountingJudge:
    return CountingJudge.load(make_tiny_judge(tmp_path / "judge"), threads=1)  # type: ignore[return-value]


@pytest.fixture
def real(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "real").mkdir()
    for number in range(12):
        picture = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / "real" / f"{number:02d}.png")
    return tmp_path / "real"


def equal(a: JudgeOutputs, b: JudgeOutputs) -> bool:
    arrays = [(a.statistics.arrays[name], b.statistics.arrays[name]) for name in ("count", "mean", "scatter")]
    return a.facts == b.facts and all(np.array_equal(x, y) for x, y in [*arrays, (a.features, b.features)])


def test_the_second_time_nobody_looks(tmp_path: Path, real: Path, judge: CountingJudge) -> None:
    first = measure_reference(real, judge, OPTIONS, folder=tmp_path / "cache")
    measured = measure(find_pictures(real), judge, OPTIONS)
    assert np.array_equal(first.features, measured.features) and first.facts.sha256
    assert replace(first.facts, sha256="") == measured.facts
    looked = judge.seen
    assert equal(measure_reference(real, judge, OPTIONS, folder=tmp_path / "cache"), first)
    copy = shutil.copytree(real, tmp_path / "copy")
    again = measure_reference(copy, judge, OPTIONS, folder=tmp_path / "cache")
    assert again.facts.source == "copy" and equal(replace(again, facts=first.facts), first)
    assert judge.seen == looked == 24


@pytest.mark.parametrize("changed", [{"crop": 8}, {"shuffle_seed": None}, {"shuffle_seed": 1}], ids=str)
def test_other_options_are_another_entry(
    tmp_path: Path, real: Path, judge: CountingJudge, changed: dict[str, int]
) -> None:
    measure_reference(real, judge, OPTIONS, folder=tmp_path / "cache")
    other = replace(OPTIONS, **changed)  # type: ignore[arg-type]
    found = measure_reference(real, judge, other, folder=tmp_path / "cache")
    assert judge.seen == 24 and np.array_equal(found.features, measure(find_pictures(real), judge, other).features)


def test_another_picture_or_judge_is_another_entry(tmp_path: Path, real: Path, judge: CountingJudge) -> None:
    first = measure_reference(real, judge, OPTIONS, folder=tmp_path / "cache")
    Image.new("RGB", (SIZE, SIZE), "red").save(real / "03.png")
    second = measure_reference(real, judge, OPTIONS, folder=tmp_path / "cache")
    assert judge.seen == 24 and not equal(first, second) and first.facts.sha256 != second.facts.sha256
    darker = {"size": SIZE, "mean": [127.5] * 3, "std": [100.0] * 3, "resize": "bilinear"}
    other = CountingJudge.load(make_tiny_judge(tmp_path / "other", input=darker), threads=1)
    measure_reference(real, other, OPTIONS, folder=tmp_path / "cache")
    assert other.seen == 12  # type: ignore[attr-defined]


def test_features_are_added_when_they_are_needed(tmp_path: Path, real: Path, judge: CountingJudge) -> None:
    fid = replace(OPTIONS, metrics=("fid",))
    assert measure_reference(real, judge, fid, folder=tmp_path / "cache").features.size == 0
    assert len(measure_reference(real, judge, OPTIONS, folder=tmp_path / "cache").features) == 12
    assert judge.seen == 24
    assert measure_reference(real, judge, fid, folder=tmp_path / "cache").features.size == 0
    assert judge.seen == 24


@pytest.mark.parametrize("how", ["empty", "garbage", "cut", "flipped", "other"])
def test_a_broken_entry_is_made_anew(tmp_path: Path, real: Path, judge: CountingJudge, how: str) -> None:
    first = measure_reference(real, judge, OPTIONS, folder=tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    whole = file.read_bytes()
    if how == "other":
        measure_reference(real, judge, replace(OPTIONS, crop=8), folder=tmp_path / "more")
        whole = next((tmp_path / "more").iterdir()).read_bytes()
    middle = whole.index(b"scatter.npy") + 160
    broken = {
        "empty": b"",
        "garbage": b"no archive",
        "cut": whole[: len(whole) // 2],
        "flipped": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "other": whole,
    }
    file.write_bytes(broken[how])
    looked = judge.seen
    found = measure_reference(real, judge, OPTIONS, folder=tmp_path / "cache")
    assert judge.seen == looked + 12 and equal(found, first)
    assert "were broken" in found.note and str(file) in found.note
    again = measure_reference(real, judge, OPTIONS, folder=tmp_path / "cache")
    assert judge.seen == looked + 12 and again.note == "" and equal(again, first)


def test_a_cache_that_can_not_be_written_is_said(tmp_path: Path, real: Path, judge: CountingJudge) -> None:
    (tmp_path / "cache").write_text("a file")
    found = measure_reference(real, judge, OPTIONS, folder=tmp_path / "cache")
    assert len(found.features) == 12 and "can't be kept" in found.note


def test_strict_also_holds_for_what_was_kept(tmp_path: Path, real: Path, judge: CountingJudge) -> None:
    (real / "05.png").write_bytes((real / "05.png").read_bytes()[:-90])
    kept = measure_reference(real, judge, OPTIONS, folder=tmp_path / "cache")
    assert kept.facts.used == 11 and "05.png" in kept.facts.skipped[0]
    for folder in ("cache", "none"):
        with pytest.raises(ScoreError, match=r"a broken picture: 05\.png"):
            measure_reference(real, judge, replace(OPTIONS, strict=True), folder=tmp_path / folder)
