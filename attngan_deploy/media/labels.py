"""Pictures with a line of text below them."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from attngan_deploy.media.images import WHITE

LABEL_HEIGHT = 14


def labelled(picture: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """A picture uint8 [H, W, 3] with a text below it, cut off where it is too long: uint8 [H + 14, W, 3]."""
    tile = np.full((picture.shape[0] + LABEL_HEIGHT, *picture.shape[1:]), WHITE, np.uint8)
    tile[: picture.shape[0]] = picture
    image = Image.fromarray(tile)
    spaced = text.replace(" ", "  ")  # the space of this small font is 2 px, in which words run together
    ImageDraw.Draw(image).text((2, picture.shape[0] + 1), spaced, fill=(0, 0, 0))
    return np.asarray(image)
