"""A picture as a judge looks at it: decoded, cut to its centre, and resized."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from attngan_deploy.errors import ScoreError
from attngan_deploy.media.decoder import MAX_PIXELS, TooManyPixelsError, decode
from attngan_deploy.media.shards import NO_CLASS


class CropError(ScoreError):
    """Pictures that are no squares, of several sizes, or smaller than the crop: another `--crop` makes them alike."""


@dataclass(frozen=True, slots=True)
class PreparedPicture:
    """A picture at the judge's size, or why there is none."""

    name: str
    pixels: NDArray[np.uint8] | None = None  # uint8 [S, S, 3]; None when broken
    size: tuple[int, int] = (0, 0)  # width and height as found
    file_format: str = ""  # "png", "webp", "lossy webp" or "jpeg"; "generated" where it never was a file
    reason: str = ""  # why there are no pixels
    caption: str = ""  # what it shows, or ""
    class_id: int = NO_CLASS  # its class, or -1
    notes: tuple[str, ...] = ()  # of its decoder


def prepare(name: str, data: bytes, size: int, crop: int | None = None) -> PreparedPicture:
    """Decode a picture, cut out its centre, and resize it (PIL, bilinear) where it is not `size` px already.

    A broken picture comes back without pixels.

    Args:
        crop: side of the centre crop in pixels; None takes the whole picture, which must be a square.

    Raises:
        ScoreError: too large to be decoded safely, not a square, or smaller than the crop.
    """
    try:
        image = decode(data)
    except TooManyPixelsError as error:
        raise _too_large(name, str(error)) from error
    except OSError as error:
        return PreparedPicture(name, reason=f"can't be decoded ({one_line(error)})")
    check_shape(name, *image.size, crop)
    file_format, notes = _format_of(data, image.format or ""), tuple(image.info["notes"])
    return PreparedPicture(name, fit(image, size, crop), image.size, file_format, notes=notes)


def fit(image: Image.Image, size: int, crop: int | None = None) -> NDArray[np.uint8]:
    """A picture as uint8 [size, size, 3]: its centre of `crop` px, or all of it, resized (PIL, bilinear) if need be."""
    width, height = image.size
    if crop is not None and (width, height) != (crop, crop):
        left, top = (width - crop) // 2, (height - crop) // 2
        image = image.crop((left, top, left + crop, top + crop))
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def check_shape(name: str, width: int, height: int, crop: int | None) -> None:
    """Refuse, by a ScoreError, pictures that are too large, no square, or smaller than the crop."""
    if width * height > MAX_PIXELS:
        raise _too_large(name, f"{width} x {height} px")
    if crop is not None and crop > min(width, height):
        raise CropError(
            f"{name} is smaller than the crop",
            found=f"{width} x {height} px",
            expected=f"at least {crop} px",
            next_step="lower --crop, or leave it out",
        )
    if crop is None and width != height:
        raise CropError(
            f"{name} is not a square",
            found=f"{width} x {height} px",
            expected="as wide as high",
            next_step=f"add --crop {min(width, height)}",
        )


def _too_large(name: str, found: str) -> ScoreError:
    return ScoreError(
        f"{name} is too large to be decoded safely", found=found, expected=f"at most {MAX_PIXELS} pixels a picture"
    )


def _format_of(data: bytes, decoder: str) -> str:
    if decoder == "WEBP" and b"VP8 " in (data[12:16], data[30:34]):  # the first chunk, or after an extended header
        return "lossy webp"
    return decoder.lower()


def one_line(error: Exception) -> str:
    """What an error says, in a line of at most 80 letters."""
    return " ".join(str(error).split())[:80] or type(error).__name__
