"""Named colours of pixels, told apart in CIELAB: how much of a picture is red, black, yellow or blue."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.errors import ScoreError


class Bounds(NamedTuple):
    """What a colour's name covers."""

    lightness: tuple[float, float]  # lowest and highest L*, 0 to 100
    chroma: tuple[float, float]  # lowest and highest distance from grey, sqrt(a*^2 + b*^2)
    hue: tuple[float, float] | None = None  # from and to in degrees, counter-clockwise from +a*; None for every hue


BOUNDS = {  # chosen by eye and by rank on 600 pictures of 150 training species, and never on those of the tables
    "red": Bounds((15, 75), (28, 200), (-20, 50)),
    "black": Bounds((0, 25), (0, 10)),
    "yellow": Bounds((40, 100), (35, 200), (76, 104)),
    "blue": Bounds((10, 65), (14, 200), (240, 310)),
}
COLOURS = tuple(BOUNDS)

_LINEAR = np.array([v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in np.arange(256) / 255])
_WHITE = np.array([0.95047, 1.0, 1.08883])  # D65
_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def lab(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """sRGB uint8 [..., 3] as CIELAB f64 [..., 3] with a D65 white (IEC 61966-2-1, CIE 15)."""
    xyz = _LINEAR[pixels] @ (_TO_XYZ / _WHITE[:, None]).T
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def colour_masks(pixels: NDArray[np.uint8], colours: Sequence[str] = COLOURS) -> NDArray[np.bool_]:
    """Which of the named colours, all of `COLOURS`, each pixel of uint8 [..., 3] has: bool [..., colours]."""
    if unknown := [name for name in colours if name not in BOUNDS]:
        raise ScoreError(f"no bounds for the colour '{unknown[0]}'", expected=", ".join(COLOURS))
    lightness, a, b = np.moveaxis(lab(pixels), -1, 0)
    chroma, hue = np.hypot(a, b), np.degrees(np.arctan2(b, a))
    return np.stack([_has(BOUNDS[name], lightness, chroma, hue) for name in colours], axis=-1)


def _has(bounds: Bounds, lightness: NDArray[Any], chroma: NDArray[Any], hue: NDArray[Any]) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (lightness >= bounds.lightness[0]) & (lightness <= bounds.lightness[1])
    inside &= (chroma >= bounds.chroma[0]) & (chroma <= bounds.chroma[1])
    if bounds.hue is not None:
        start, end = bounds.hue
        inside &= (hue - start) % 360 <= end - start
    return inside
