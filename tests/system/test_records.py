"""Records are decoded from JSON in one step, and what does not fit is named."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import pytest

from attngan_deploy.system.records import RecordError, decode, look_up


@dataclass(frozen=True)
class Part:
    size: int
    kind: Literal["round", "square"] = "round"


@dataclass(frozen=True)
class Whole:
    name: str
    weight: float
    parts: tuple[Part, ...]
    scores: Mapping[int, float | None]
    best: Part | None = None
    corner: tuple[int, int] = (0, 0)


WHOLE = Whole("a", 2, (Part(1), Part(2, "square")), {8: 0.5, 33: None}, Part(3), (1, 2))
VALUES = json.loads(json.dumps(asdict(WHOLE)))


def test_what_was_written_is_read() -> None:
    assert decode(Whole, VALUES, exact=True) == WHOLE
    assert decode(Whole, VALUES | {"more": 1}) == WHOLE
    assert decode(Part, {"size": 1}) == Part(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 3}, "name is a int; expected str"),
        ({"weight": True}, "weight is a bool; expected float"),
        ({"parts": {}}, "parts is a dict"),
        ({"parts": [{"size": "1"}]}, "parts.size is a str; expected int"),
        ({"parts": [{"size": 1, "kind": "oval"}]}, "parts.kind is 'oval'; expected round or square"),
        ({"scores": {"8": "x"}}, "scores.8 is a str; expected float"),
        ({"scores": {"x": 1.0}}, "the key 'x'; expected int"),
        ({"best": {}}, "no best.size; expected a value"),
        ({"corner": [1]}, "corner is a list"),
        ({"m\nore": 1}, r"unknown fields m\\nore; expected name, weight"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(RecordError) as caught:
        decode(Whole, VALUES | change, exact=True)
    assert message.replace("\\\\", "\\") in str(caught.value)


def test_looking_up() -> None:
    assert look_up(VALUES, "best", "size") == 3
    assert look_up(VALUES, "name", "size") is None and look_up(None, "x") is None
