"""R-precision, by hand and at its ends."""

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from attngan_deploy.errors import ScoreError
from attngan_deploy.score.metrics.r_precision import count_right, draw_wrong, r_precision

NORTH, EAST, UP = np.eye(3, dtype=np.float32)
CLOSE_TO_NORTH = np.array([2.0, 1.0, 0.0], np.float32)


class Written:
    """A matcher whose captions are written as what they mean: "7 12" is a caption of the two words 7 and 12."""

    name = "written"
    real = {"r_precision": 0.4, "candidates": 100}  # noqa: RUF012

    def __init__(self, meanings: dict[tuple[int, ...], NDArray[np.float32]] | None = None, size: int = 16) -> None:
        self.meanings, self.size = meanings, size

    def read(self, caption: str) -> tuple[int, ...]:
        return tuple(int(word) for word in caption.replace(",", " ").split() if word.isdigit())

    def sentences(self, captions: Sequence[str]) -> NDArray[np.float32]:
        read = [self.read(caption) for caption in captions]
        if self.meanings is not None:
            return np.stack([self.meanings[ids] for ids in read])
        return np.stack([np.random.default_rng(ids).standard_normal(self.size).astype(np.float32) for ids in read])


def score(codes: Any, captions: list[str], classes: list[int], matcher: Written, **options: int) -> dict[str, Any]:
    return r_precision(np.array(codes, np.float32), captions, np.array(classes, np.int64), matcher, **options)  # type: ignore[arg-type]


def test_by_hand() -> None:
    matcher = Written({(1,): NORTH, (2,): EAST, (3,): UP})
    codes = [CLOSE_TO_NORTH, CLOSE_TO_NORTH, UP, EAST + UP]  # right; wrong: north is closer; right; a tie
    found = score(codes, ["1", "2", "3", "2"], [0, 1, 2, 1], matcher)
    assert found["value"] == 0.5
    assert found["deviation"] == pytest.approx(sqrt(0.5 * 0.5 / 4))
    assert (found["candidates"], found["chance"]) == (3, 1 / 3)  # of 100: there are no more captions
    assert (found["asked"], found["not_asked"], found["distinct_captions"]) == (4, 0, 3)
    assert found["wrong_captions"] == "other classes"
    assert found["real"] == matcher.real


def test_length_does_not_count() -> None:
    own, wrong = np.array([0]), np.array([[1]])
    assert count_right(CLOSE_TO_NORTH[None] * 1e6, np.stack([NORTH * 1e-3, EAST * 1e3]), own, wrong) == 1


def test_ties_are_misses() -> None:
    same = np.stack([NORTH, NORTH, EAST])
    assert count_right(NORTH[None], same, np.array([0]), np.array([[1, 2]])) == 0
    assert count_right(np.zeros((1, 3), np.float32), same, np.array([0]), np.array([[2, 1]])) == 0  # a dead picture
    assert (
        count_right(np.stack([NORTH] * 200), np.zeros((3, 3), np.float32), np.zeros(200, int), np.ones((200, 1), int))
        == 0
    )


def test_perfect_codes_give_one_and_random_ones_chance() -> None:
    matcher, count = Written(), 3000
    captions = [f"{number} {number % 7}" for number in range(count)]
    classes = [number % 50 for number in range(count)]
    perfect = score(matcher.sentences(captions), captions, classes, matcher)
    assert (perfect["value"], perfect["deviation"]) == (1.0, 0.0)
    assert (perfect["candidates"], perfect["chance"], perfect["asked"]) == (100, 0.01, count)
    random = score(np.random.default_rng(0).standard_normal((count, 16)), captions, classes, matcher)
    assert random["value"] == pytest.approx(0.01, abs=4 * sqrt(0.01 * 0.99 / count))
    opposite = score(-matcher.sentences(captions), captions, classes, matcher)
    assert opposite["value"] == 0.0


def test_twice_is_the_same_and_another_seed_asks_otherwise() -> None:
    own, classes = np.arange(500), np.arange(500) % 5
    first = draw_wrong(own, classes, 20, 0)
    assert np.array_equal(first, draw_wrong(own, classes, 20, 0))
    assert not np.array_equal(first, draw_wrong(own, classes, 20, 1))


def test_the_order_of_pictures_does_not_count() -> None:
    matcher, rng = Written(), np.random.default_rng(0)
    captions, classes = np.array([f"{number} 3" for number in range(400)]), np.arange(400) % 7
    codes = matcher.sentences(list(captions)) + rng.normal(0, 3, (400, 16))
    order = rng.permutation(400)
    for known in (classes, np.full(400, -1)):
        first = score(codes, list(captions), list(known), matcher)
        assert 0.1 < first["value"] < 0.9
        assert score(codes[order], list(captions[order]), list(known[order]), matcher) == first


def test_wrong_captions_are_of_other_classes_and_drawn_once() -> None:
    own = np.array([0, 1, 2, 3, 1])  # caption 1 stands beside pictures of classes 0 and 2
    classes = np.array([0, 0, 1, 1, 2])
    allowed = {0: {2, 3}, 1: {0, 1}, 2: {0, 2, 3}}
    for seed in range(20):
        wrong = draw_wrong(own, classes, 100, seed)
        assert wrong.shape == (5, 2)  # what the class with the fewest has
        for row, kind in zip(wrong.tolist(), classes.tolist(), strict=True):
            assert set(row) <= allowed[kind] and len(set(row)) == len(row)


def test_without_classes_any_other_caption_is_wrong() -> None:
    own = np.array([0, 1, 2, 3, 0])
    seen: set[tuple[int, int]] = set()
    for seed in range(50):
        wrong = draw_wrong(own, None, 3, seed)
        assert wrong.shape == (5, 2) and not (wrong == own[:, None]).any() and wrong.max() < 4
        assert all(len(set(row)) == 2 for row in wrong.tolist())
        seen |= {(number, other) for number, row in zip(own.tolist(), wrong.tolist(), strict=True) for other in row}
    assert seen == {(a, b) for a in range(4) for b in range(4) if a != b}  # every one is possible, no other is
    matcher = Written()
    found = score(matcher.sentences(["1", "2", "3"]), ["1", "2", "3"], [0, -1, 0], matcher)
    assert (found["wrong_captions"], found["value"], found["candidates"]) == ("other captions", 1.0, 3)


def test_captions_that_are_read_alike_are_one() -> None:
    matcher = Written()
    captions = ["1 2", "1, 2", "3 words", "3"]
    found = score(matcher.sentences(captions), captions, [-1] * 4, matcher)
    assert (found["distinct_captions"], found["candidates"], found["value"]) == (2, 2, 1.0)


def test_pictures_without_a_caption_are_not_asked() -> None:
    matcher = Written()
    codes = np.concatenate([matcher.sentences(["1", "2"]), np.zeros((2, 16), np.float32)])
    found = score(codes, ["1", "2", "", "what"], [0, 1, -1, -1], matcher)
    assert (found["asked"], found["not_asked"], found["value"]) == (2, 2, 1.0)
    assert found["wrong_captions"] == "other classes"  # those that are asked have one


@pytest.mark.parametrize(
    ("captions", "classes", "candidates", "message"),
    [
        (["", "no word"], [0, 1], 100, r"needs the captions.*none of 2 with a word that matcher written knows"),
        (["1", "1"], [-1, -1], 100, r"no wrong caption.*1 captions that are read differently"),
        (["1", "2"], [4, 4], 100, r"no wrong caption.*expected captions of two classes"),
        (["1", "2"], [0, 1], 1, r"found 1 candidates; expected two candidates"),
        (["1"], [0], 100, r"2 pictures, 1 captions, 1 classes"),
    ],
)
def test_what_can_not_be_asked_is_refused(
    captions: list[str], classes: list[int], candidates: int, message: str
) -> None:
    with pytest.raises(ScoreError, match=message):
        score(np.ones((2, 16)), captions, classes, Written(), candidates=candidates)
