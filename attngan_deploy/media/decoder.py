"""The one decoder of picture files: upright, 8-bit sRGB, transparency on white. Passports of scores say its name."""

import io
import os
import re
import struct
import zlib
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import lru_cache
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from attngan_deploy.media.images import PNG_HEAD
from attngan_deploy.media.picture_work import SLOW, check_pieces, check_scans
from attngan_deploy.system.signals import interruptibly

DECODER = "upright, 8-bit sRGB, on white"  # what gives other pixels of any picture needs another name
DECODERS = ("PNG", "WEBP", "JPEG")
MAX_PIXELS = 4096 * 4096  # of a picture that is decoded: 48 MB
MAX_PNG_BYTES = 64 * 2**20  # of one whose texts are too large to be read as it is
MAX_PROFILE_BYTES = 4 * 2**20  # of an embedded profile; those of printing presses have up to 3 MB
LEVELS = 2**16  # of 16-bit grey
BITS, MOST = 258, 281  # tags of a TIFF: bits of a value, and the largest one
SRGB_LEVELS = 2  # a profile that moves no colour by more is sRGB itself, of which many versions are about
UNREAD_PROFILE = "colour profile that can't be used: read as sRGB"
# What Pillow raises on damaged and hostile pictures, besides OSError; found by feeding it some.
BAD_PICTURE = (
    *(ValueError, SyntaxError, EOFError, TypeError, IndexError, KeyError, OverflowError, MemoryError),
    *(NotImplementedError, struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning),
)
SCANNED = ("JPEG", "MPO", "TIFF")  # formats whose files hold JPEGs
OTHERS = {  # what is found under the name of a picture, by how it begins
    "AVIF": rb"....ftypavi[fs]",
    "HEIC": rb"....ftyp(he[ivms][cxsm]|mif1|msf1)",
    "a GIF": rb"GIF8",
    "a BMP": rb"BM",
    "a TIFF": rb"II\*\0|MM\0\*",
    "JPEG XL": rb"\xff\n|\0\0\0\x0cJXL ",
    "a web page": rb"\s*<(!doctype|html|\?xml|svg)",
    "a pointer of Git LFS: git lfs pull brings its file": rb"version https://git-lfs",
}
PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")  # chunks that Pillow refuses when they hold much
ORIENTATION_SOURCES = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class TooManyPixelsError(OSError):
    """A picture whose header claims more pixels than are decoded; none of them was."""


def decode(data: bytes) -> Image.Image:
    """The bytes of a picture file as an upright RGB image; its `format` is "PNG", "WEBP" or "JPEG".

    Its `info["notes"]` are those of `to_rgb`.

    Raises:
        OSError: as `load_picture`.
    """
    stored = load_picture(data)
    try:
        image, notes = to_rgb(stored)
        image = turn_upright(image, orientation_of(stored))
    except BAD_PICTURE as error:
        raise OSError(str(error) or type(error).__name__) from error
    image.format, image.info["notes"] = stored.format, notes
    return image


def unread_profiles(names: Sequence[str]) -> tuple[str, ...]:
    """The line that is said of pictures with an `UNREAD_PROFILE`; none where there are no such pictures."""
    if not names:
        return ()
    pictures = "1 picture has a" if len(names) == 1 else f"{len(names)} pictures have a"
    return (f"{pictures} {UNREAD_PROFILE} ({', '.join(names[:3])}{', ...' * (len(names) > 3)})",)


def load_picture(
    source: bytes | Path, formats: tuple[str, ...] = DECODERS, most_pixels: int = MAX_PIXELS, pixels: bool = True
) -> Image.Image:
    """A picture as it is stored, of an animation the first one; its `info["animated"]` says whether it is one.

    Texts and profiles of a PNG that are too large to be read are passed over.

    Args:
        formats: Pillow's names of those that may be read: some of its decoders start programs.
        pixels: False reads the header only.

    Raises:
        OSError: of another format, or broken.
        TooManyPixelsError: more than `most_pixels`.
        TooMuchWorkError: more pieces or scans than its pixels need.
    """
    try:
        try:
            return _load(source, formats, most_pixels, pixels)
        except (ValueError, SyntaxError, UnidentifiedImageError):
            with ExitStack() as held:
                data = source if isinstance(source, bytes) else _mapped(source, held)
                if data[: len(PNG_HEAD)] != PNG_HEAD or len(data) > MAX_PNG_BYTES:
                    raise
                data = bytes(data)
            if len(shorter := without_large_texts(data)) == len(data):
                raise
            image = _load(shorter, formats, most_pixels, pixels)
            if data.count(b"iCCP") > shorter.count(b"iCCP"):
                image.info.setdefault("icc_profile", None)  # as Pillow says of one that it can't unpack
            return image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooManyPixelsError(str(error)) from error
    except UnidentifiedImageError as error:  # whose text holds an address in memory
        *names, last = (name.replace("WEBP", "WebP") for name in formats)
        raise OSError(f"no {', '.join(names)} or {last}{_but(source)}") from error
    except BAD_PICTURE as error:
        raise OSError(str(error) or type(error).__name__) from error


def _but(source: bytes | Path) -> str:
    """What stands in the place of a picture, as far as its first bytes say."""
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream:
        head = stream.read(64)
    kind = next((kind for kind, start in OTHERS.items() if re.match(start, head, re.DOTALL | re.IGNORECASE)), "")
    return f", but {kind}" * bool(kind)


def _load(source: bytes | Path, formats: tuple[str, ...], most_pixels: int, pixels: bool) -> Image.Image:
    with ExitStack() as held:
        data = source if isinstance(source, bytes) else _mapped(source, held)
        check_pieces(data)
        stored = io.BytesIO(source) if isinstance(source, bytes) else source
        image = held.enter_context(Image.open(stored, formats=formats))
        if image.width * image.height > most_pixels:
            raise TooManyPixelsError(f"{image.width} x {image.height} px are too many to be decoded safely")
        animated = image.format != "MPO" and bool(getattr(image, "is_animated", False))  # n_frames reads all of them
        if pixels:
            scanned = check_scans(data, image.width * image.height) if image.format in SCANNED else 0
            if scanned > SLOW:
                interruptibly(image.load)
            else:
                image.load()
        if image.format == "MPO":  # a phone's JPEG with a second view or a depth map behind it
            image.format = "JPEG"
        image.info["animated"] = animated
        image.info["levels"] = _levels_of(image)
        return image


def _levels_of(image: Image.Image) -> int:
    """How many levels of grey a picture of 16 bits has: fewer where a TIFF says so, as microscopes and cameras do."""
    if image.format != "TIFF" or not image.mode.startswith("I;16"):
        return LEVELS
    tags: dict[int, tuple[int, ...]] = getattr(image, "tag_v2", {})
    bits, most = tags.get(BITS, ()), tags.get(MOST, ())
    levels = 1 + most[0] if len(most) == 1 and isinstance(most[0], int) else LEVELS
    if levels.bit_count() > 1:  # the largest value of this picture, not of all that its camera makes
        levels = LEVELS
    return max(256, min(levels, 2 ** bits[0] if len(bits) == 1 else LEVELS))


def _mapped(path: Path, held: ExitStack) -> bytes | mmap:
    """The bytes of a file, which are not read before they are looked at."""
    stream = held.enter_context(path.open("rb"))
    if not os.fstat(stream.fileno()).st_size:
        return b""
    return held.enter_context(mmap(stream.fileno(), 0, access=ACCESS_READ))


def without_large_texts(data: bytes) -> bytes:
    """A PNG without the texts and profiles that Pillow refuses, alone or together; the pixels do not need them."""
    from PIL import PngImagePlugin  # no command needs it to start

    kept, place, budget = [PNG_HEAD], len(PNG_HEAD), PngImagePlugin.MAX_TEXT_MEMORY
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        chunk = data[place : place + 12 + length]
        place += len(chunk)
        if kind in PNG_TEXTS:
            stream = PngImagePlugin.PngStream(io.BytesIO(chunk[8:-4]))
            try:
                if budget <= 0:
                    continue
                stream.call(kind, 0, length)
                budget -= stream.text_memory
            except (OSError, *BAD_PICTURE):
                budget -= PngImagePlugin.MAX_TEXT_CHUNK  # about which has been unpacked, so that many take no hours
                continue
            if budget < 0:
                continue
        kept.append(chunk)
    return b"".join(kept)


def orientation_of(stored: Image.Image) -> int:
    """How a loaded picture lies, 1 to 8 as EXIF has it, and 1 where nothing that can be read says so."""
    if ORIENTATION_SOURCES.isdisjoint(stored.info):
        return 1
    with suppress(OSError, UserWarning, *BAD_PICTURE):  # facts that are broken leave the pixels whole
        told = stored.getexif().get(ExifTags.Base.Orientation)
        return told if told in UPRIGHT else 1
    return 1


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """A picture that lies as `orientation_of` says, upright."""
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def to_rgb(stored: Image.Image) -> tuple[Image.Image, list[str]]:
    """Any mode of Pillow to 8-bit sRGB, and notes on what that took: 16 bits by their upper byte, an embedded profile,
    transparency on white. A profile that can't be used leaves the pixels as they are.

    Raises:
        ValueError: floating-point pixels, which have no agreed range.
    """
    if stored.mode == "F":
        raise ValueError("floating-point pixels")
    clear, grey = stored.has_transparency_data, stored.mode in ("1", "L", "LA")
    image, notes = stored, []
    if stored.mode.startswith("I"):
        levels = np.asarray(stored).astype(np.int64)
        scaled = np.clip(levels * 256 // stored.info.get("levels", LEVELS), 0, 255)
        image, grey, notes = Image.fromarray(scaled.astype(np.uint8)), True, ["16-bit grey"]
        if clear:
            image.putalpha(Image.fromarray(np.where(levels == stored.info["transparency"], 0, 255).astype(np.uint8)))
    image = image.convert("RGBA") if clear else image
    if "icc_profile" in stored.info:
        try:
            in_srgb = _by_profile(image, _profile(stored.info["icc_profile"] or b""), grey)
        except ValueError:
            notes.append(UNREAD_PROFILE)
        else:
            notes += ["colours brought to sRGB"] * (in_srgb is not None)
            image = in_srgb or image
    if clear and image.getchannel("A").getextrema() != (255, 255):
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        notes.append("transparency laid on white")
    return image if image.mode == "RGB" else image.convert("RGB"), notes


def _by_profile(image: Image.Image, profile: "_Profile | None", grey: bool) -> Image.Image | None:
    """A picture in sRGB, RGB or RGBA as it was; None where its profile is sRGB itself. ValueError: it does not fit."""
    if profile is None or (image.mode == "CMYK") != (profile.mode == "CMYK") or (profile.mode == "L" and not grey):
        raise ValueError(UNREAD_PROFILE)
    if profile.transform is None:
        return None
    colours = image.getchannel(0) if profile.mode == "L" else image
    if colours.mode not in ("L", "CMYK"):
        colours = colours.convert("RGB")
    made: Image.Image = profile.transform.apply(colours.convert(profile.mode))
    if image.mode == "RGBA":
        made.putalpha(image.getchannel("A"))
    return made


class _Profile(NamedTuple):
    """The mode of pixels that a profile describes, and what takes them to sRGB; None where that changes nothing."""

    mode: str
    transform: Any


@lru_cache(maxsize=16)
def _profile(data: bytes) -> _Profile | None:
    """An embedded profile; None where it is too large, broken, or of a space that no picture here has."""
    from PIL import ImageCms

    if len(data) > MAX_PROFILE_BYTES:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(data))
        mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}[source.profile.xcolor_space.strip()]
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (OSError, ImageCms.PyCMSError, *BAD_PICTURE):
        return None
    if mode == "RGB":
        colours = _colours()
        moved = np.asarray(transform.apply(Image.fromarray(colours))).astype(int) - colours
        return _Profile(mode, transform if np.abs(moved).max() > SRGB_LEVELS else None)
    return _Profile(mode, transform)


def _colours() -> NDArray[np.uint8]:
    """17 levels of each channel, as a picture uint8 [289, 17, 3]."""
    levels = np.linspace(0, 255, 17).round().astype(np.uint8)
    return np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(289, 17, 3)
