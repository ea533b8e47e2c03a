"""Named colours: CIELAB against published values, and what each name covers."""

from collections.abc import Sequence

import numpy as np
import pytest

from attngan_deploy.errors import ScoreError
from attngan_deploy.score.metrics.colours import COLOURS, colour_masks, lab

NAMED = {"red": (200, 30, 30), "black": (12, 12, 12), "yellow": (240, 215, 40), "blue": (40, 70, 170)}
NAMELESS = {
    "white": (250, 250, 250),
    "grey": (128, 128, 128),
    "brown": (110, 75, 45),
    "green": (70, 140, 50),
    "orange": (240, 140, 30),
    "pale sky": (190, 215, 240),
}


def painted(colour: tuple[int, int, int], size: int = 8) -> np.ndarray:
    return np.full((1, size, size, 3), colour, np.uint8)


def colour_shares(pictures: np.ndarray, colours: Sequence[str] = COLOURS) -> np.ndarray:
    shares: np.ndarray = colour_masks(pictures, colours).mean(axis=(1, 2))
    return shares


@pytest.mark.parametrize(
    ("pixel", "expected"),  # of the sRGB primaries, with a D65 white
    [
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((255, 255, 0), (97.14, -21.55, 94.48)),
        ((255, 255, 255), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
    ],
)
def test_lab_is_cielab(pixel: tuple[int, int, int], expected: tuple[float, float, float]) -> None:
    assert lab(np.array(pixel, np.uint8)) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("name", COLOURS)
def test_a_painted_picture_has_its_colour_only(name: str) -> None:
    shares = colour_shares(painted(NAMED[name]))
    assert shares.tolist() == [[float(other == name) for other in COLOURS]]


@pytest.mark.parametrize("colour", NAMELESS.values(), ids=NAMELESS)
def test_other_colours_have_no_name(colour: tuple[int, int, int]) -> None:
    assert colour_shares(painted(colour)).sum() == 0


def test_shares_are_of_the_picture_and_in_the_order_asked_for() -> None:
    picture = painted(NAMED["red"])
    picture[0, :2] = NAMED["blue"]
    both = np.concatenate([picture, painted(NAMED["black"])])
    assert colour_shares(both, ["blue", "red"]).tolist() == [[0.25, 0.75], [0, 0]]
    assert colour_shares(both).dtype == np.float64


def test_no_pixel_has_two_colours() -> None:
    steps = np.arange(0, 256, 5, dtype=np.uint8)
    every = np.stack(np.meshgrid(steps, steps, steps), axis=-1)
    masks = colour_masks(every)
    assert masks.sum(axis=-1).max() == 1
    assert masks.reshape(-1, len(COLOURS)).any(axis=0).all()


def test_an_unknown_colour_is_refused() -> None:
    with pytest.raises(ScoreError, match=r"mauve.*red, black"):
        colour_shares(painted((0, 0, 0)), ["red", "mauve"])
