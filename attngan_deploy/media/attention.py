"""What each word looked at: attention maps as pictures."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from attngan_deploy.media.images import make_grid
from attngan_deploy.media.labels import labelled

LEGEND = "word, share of attention"  # what the labels of the other tiles are
COLUMNS = 6
HEAT = np.array([255.0, 64.0, 0.0])  # what a fully attended place is tinted with
STRENGTH = 0.7


def heat_overlay(picture: NDArray[np.uint8], attention: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Tint a picture uint8 [S, S, 3] where a word's attention f32 [A, A] is high; the word's maximum counts as 1."""
    size = picture.shape[0]
    peak = float(attention.max())
    relative = attention / peak if peak > 0 else attention
    heat = np.asarray(Image.fromarray(relative.astype(np.float32)).resize((size, size), Image.Resampling.BILINEAR))
    weight = STRENGTH * heat.clip(0, 1)[:, :, None]
    grey = picture.mean(axis=2, keepdims=True)
    tinted: NDArray[np.float64] = grey * (1 - weight) + HEAT * weight
    return np.rint(tinted).clip(0, 255).astype(np.uint8)


def attention_sheet(
    picture: NDArray[np.uint8], attention: NDArray[np.float32], words: Sequence[str]
) -> NDArray[np.uint8]:
    """One sheet: the picture, then one overlay a word, each with its word and share of the attention below.

    Args:
        picture: uint8 [S, S, 3].
        attention: f32 [T, A, A] with T at least the number of words; padding is ignored.
        words: the words that the model saw, in order.
    """
    tiles = [labelled(picture, LEGEND)]
    for word, weights in zip(words, attention, strict=False):
        tiles.append(labelled(heat_overlay(picture, weights), f"{word} {100 * float(weights.mean()):.0f}%"))
    return make_grid(np.stack(tiles), columns=min(COLUMNS, len(tiles)))
