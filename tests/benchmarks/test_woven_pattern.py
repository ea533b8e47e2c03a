"""The meter of the woven pattern sees it where it is, and not where it is not."""

import numpy as np
import pytest
from woven_pattern import share_above, strengths

from attngan_deploy.errors import DataError


def clouds(count: int, seed: int) -> np.ndarray:
    """Pictures with the spectrum of natural ones: power that falls with the square of the frequency."""
    rng = np.random.default_rng(seed)
    across = np.fft.fftfreq(128)
    radius = np.hypot(across[:, None], across[None]) + 1 / 128
    spectrum = np.fft.fft2(rng.standard_normal((count, 128, 128))) / radius
    grey = np.fft.ifft2(spectrum).real
    grey = 128 + 40 * grey / grey.std((1, 2), keepdims=True)
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=3)


@pytest.mark.parametrize("period", [2, 4])
def test_a_pattern_is_seen(period: int) -> None:
    real, others = clouds(200, 0), clouds(100, 1)
    lines = 8 * np.cos(2 * np.pi / period * np.arange(128))
    woven = (others + np.add.outer(lines, lines)[None, :, :, None]).clip(0, 255).astype(np.uint8)
    assert share_above(others, real) < 0.15
    assert share_above(woven, real) > 0.95
    assert (strengths(woven) > strengths(others)).all()


def test_another_period_is_none_of_it() -> None:
    lines = 8 * np.cos(2 * np.pi / 8 * np.arange(128))
    woven = (clouds(100, 1) + np.add.outer(lines, lines)[None, :, :, None]).clip(0, 255).astype(np.uint8)
    assert share_above(woven, clouds(200, 0)) < 0.15


def test_odd_sizes_are_refused() -> None:
    with pytest.raises(DataError, match="not defined"):
        strengths(np.zeros((1, 100, 100, 3), np.uint8))
