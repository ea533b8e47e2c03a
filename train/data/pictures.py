"""From a picture file to the square that a shard stores: decode, flatten, crop, resize, turn upright, encode.

The crop rule: with a box, a square of `BOX_MARGIN` times the larger box side, centred on the box; without one, the
largest square, centred. A square that leaves the picture is shifted back inside it, and one larger than the picture's
shorter side shrinks to that side. Nothing is padded and no proportion changes, so no made-up pixel reaches training.
"""

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from attngan_deploy.errors import DataError
from attngan_deploy.media.decoder import (
    BAD_PICTURE,
    TooManyPixelsError,
    load_picture,
    orientation_of,
    to_rgb,
    turn_upright,
)

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MAX_PIXELS = 89_478_485  # Pillow's own limit, at which it warns of a decompression bomb
BOX_MARGIN = 1.5

Box = tuple[float, float, float, float]  # left, top, width, height in stored pixels, before any EXIF rotation


class PreparedPicture(NamedTuple):
    """A picture as it goes into a shard: encoded WebP, and what had to be done to it, for the report."""

    data: bytes
    notes: list[str]


@contextmanager
def refuse_decompression_bombs() -> Iterator[None]:
    """Make Pillow raise on a picture of more than `MAX_PIXELS`, and keep its other warnings quiet, also in threads."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MAX_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def prepare_picture(path: Path, box: Box | None, size: int, quality: int) -> PreparedPicture:
    """Read one picture file and make its square of `size` pixels; call it inside `refuse_decompression_bombs`.

    Colours, transparency and orientation are the decoder's; of an animation the first frame is taken. The picture is
    turned after the crop, as boxes are measured on the stored pixels.

    Raises:
        DataError: `what` is the reason to skip the picture: broken, too many pixels, or its box outside it.
    """
    try:
        picture = load_picture(path, FORMATS, MAX_PIXELS)  # which turns a TIFF upright, and forgets its orientation
        orientation = orientation_of(picture)
        square, limits = crop_square(picture.width, picture.height, box)
        rgb, colours = to_rgb(picture.crop(square))
        notes = ["animated: first frame taken"] * picture.info["animated"] + limits + colours
        if rgb.width < size:
            notes.append("enlarged")
        resized = turn_upright(rgb.resize((size, size), Image.Resampling.LANCZOS), orientation)
        if orientation != 1:
            notes.append("turned upright")
        resized.info.clear()  # no colour profile, comment or place goes along
        encoded = io.BytesIO()
        resized.save(encoded, "WEBP", quality=quality, method=4, exif=b"", xmp=b"")
    except TooManyPixelsError as error:
        raise DataError("too many pixels", found=str(error)) from error
    except (OSError, *BAD_PICTURE) as error:
        raise DataError("broken picture", found=f"{error}".replace(str(path), path.name)) from error
    return PreparedPicture(encoded.getvalue(), notes)


def crop_square(width: int, height: int, box: Box | None) -> tuple[tuple[int, int, int, int], list[str]]:
    """Place the square of the crop rule.

    Returns:
        Left, top, right and bottom in pixels, always inside the picture, and notes on what the edges changed.

    Raises:
        DataError: a box with no area, or with none of it inside the picture.
    """
    if box is None:
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        return (left, top, left + side, top + side), []
    box_left, box_top, box_width, box_height = box
    usable = all(math.isfinite(number) for number in box) and box_width > 0 and box_height > 0
    if not usable or box_left >= width or box_top >= height or box_left + box_width <= 0 or box_top + box_height <= 0:
        raise DataError("box outside picture", found=f"box {box} in a picture of {width} x {height}")
    notes = []
    if box_left < 0 or box_top < 0 or box_left + box_width > width or box_top + box_height > height:
        notes.append("box partly outside picture")
    wanted = max(1, round(BOX_MARGIN * max(box_width, box_height)))
    side = min(wanted, width, height)
    if side < wanted:
        notes.append("square shrunk to the picture's shorter side")
    left = round(box_left + box_width / 2 - side / 2)
    top = round(box_top + box_height / 2 - side / 2)
    left, top = min(max(left, 0), width - side), min(max(top, 0), height - side)
    return (left, top, left + side, top + side), notes
