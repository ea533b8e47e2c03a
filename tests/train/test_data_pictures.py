"""Decoding, the crop rule, and everything that pictures from the wild do."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin, TiffTags

pytest.importorskip("nltk", reason="needs the train extra")

from attngan_deploy.errors import DataError
from attngan_deploy.train.data.pictures import Box, crop_square, prepare_picture, refuse_decompression_bombs
from tests.makers.data_makers import BLUE, EVERYTHING, GREEN, RED, WHITE, close_to, described, pixels, run


def prepared(path: Path, box: Box | None = None, size: int = 16) -> tuple[np.ndarray[Any, Any], list[str]]:
    with refuse_decompression_bombs():
        result = prepare_picture(path, box, size, 100)
    return pixels(result.data), list(result.notes)


def quadrants() -> Image.Image:
    """Red left top, green right top, blue left bottom, white right bottom."""
    image = Image.new("RGB", (32, 32), WHITE)
    for corner, colour in (((0, 0), RED), ((16, 0), GREEN), ((0, 16), BLUE)):
        image.paste(colour, (*corner, corner[0] + 16, corner[1] + 16))
    return image


def corners(values: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    last = len(values) - 3
    return [values[2:4, 2:4], values[2:4, last : last + 2], values[last : last + 2, 2:4]]


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, (RED, GREEN, BLUE)),
        (2, (GREEN, RED, WHITE)),
        (3, (WHITE, BLUE, GREEN)),
        (6, (BLUE, RED, WHITE)),
        (8, (GREEN, WHITE, RED)),
        (99, (RED, GREEN, BLUE)),
    ],
)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_an_exif_rotation_is_applied_once(tmp_path: Path, orientation: int, expected: Any, suffix: str) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    quadrants().save(tmp_path / f"a.{suffix}", exif=exif)
    values, _ = prepared(tmp_path / f"a.{suffix}", size=32)
    assert all(close_to(corner, colour) for corner, colour in zip(corners(values), expected, strict=True))


def test_a_box_is_measured_before_the_rotation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    quadrants().save(tmp_path / "a.png", exif=exif)
    values, notes = prepared(tmp_path / "a.png", (20.0, 4.0, 8.0, 8.0))
    assert close_to(values, GREEN)
    assert notes == ["enlarged", "turned upright"]


@pytest.mark.parametrize(
    ("mode", "colour", "suffix", "expected"),
    [
        ("L", 90, "png", (90, 90, 90)),
        ("1", 1, "png", WHITE),
        ("LA", (90, 255), "png", (90, 90, 90)),
        ("CMYK", (0, 255, 255, 0), "jpg", (254, 0, 0)),
        ("RGBA", (0, 0, 255, 0), "png", WHITE),
        ("RGBA", (0, 0, 255, 128), "webp", (127, 127, 255)),
        ("RGBA", (0, 0, 255, 255), "png", BLUE),
        ("I;16", 128 * 256, "png", (128, 128, 128)),
    ],
)
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, colour: Any, suffix: str, expected: Any) -> None:
    Image.new(mode, (32, 32), colour).save(tmp_path / f"a.{suffix}")
    assert close_to(prepared(tmp_path / f"a.{suffix}")[0], expected)


def test_a_transparent_palette_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (32, 32), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.paste(1, (16, 0, 32, 32))
    image.save(tmp_path / "a.png", transparency=b"\x00\xff")
    values, notes = prepared(tmp_path / "a.png")
    assert close_to(values[:, :6], WHITE) and close_to(values[:, 10:], RED)
    assert notes == ["transparency laid on white"]


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_the_first_frame_of_an_animation_is_taken(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in (RED, BLUE)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], duration=100)
    values, notes = prepared(tmp_path / f"a.{suffix}")
    assert close_to(values, RED)
    assert notes == ["animated: first frame taken"]


def test_floating_point_pixels_and_other_formats_are_skipped(tmp_path: Path) -> None:
    Image.new("F", (32, 32), 0.5).save(tmp_path / "a.tif")
    Image.new("RGB", (32, 32)).save(tmp_path / "b.jpg", "PPM")
    for name in ("a.tif", "b.jpg"):
        with pytest.raises(DataError, match="broken picture"):
            prepared(tmp_path / name)


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)

    for name, side in (("large", 10_000), ("huge", 60_000)):
        header = side.to_bytes(4) * 2 + bytes([8, 2, 0, 0, 0])
        content = (
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
        )
        described(tmp_path / f"in/x/{name}.png").write_bytes(content)
    described(tmp_path / "in/x/good.png")
    limit = Image.MAX_IMAGE_PIXELS
    report = run(tmp_path / "in", tmp_path / "out", split=EVERYTHING)
    assert report["skipped"]["reasons"] == {"too many pixels": 2}
    assert report["train"]["pictures"] == 1
    assert limit == Image.MAX_IMAGE_PIXELS


def test_nothing_personal_travels_with_a_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[315] = "somebody"
    quadrants().save(tmp_path / "a.jpg", exif=exif, icc_profile=b"profile", comment=b"somewhere")
    with refuse_decompression_bombs():
        data = prepare_picture(tmp_path / "a.jpg", None, 16, 80).data
    assert not any(word in data for word in (b"somebody", b"profile", b"somewhere", b"EXIF", b"ICCP"))


@pytest.mark.parametrize(
    ("box", "square", "notes"),
    [
        (None, (25, 0, 75, 50), []),
        ((40.0, 20.0, 10.0, 10.0), (38, 18, 53, 33), []),
        ((40.0, 20.0, 20.0, 4.0), (35, 7, 65, 37), []),
        ((0.0, 0.0, 20.0, 20.0), (0, 0, 30, 30), []),  # shifted back inside
        ((90.0, 40.0, 10.0, 10.0), (85, 35, 100, 50), []),
        ((10.0, 5.0, 80.0, 40.0), (25, 0, 75, 50), ["square shrunk to the picture's shorter side"]),
        ((95.0, 45.0, 10.0, 10.0), (85, 35, 100, 50), ["box partly outside picture"]),
        ((10.0, 10.0, 0.2, 0.2), (10, 10, 11, 11), []),
    ],
)
def test_the_crop_rule(box: Any, square: tuple[int, ...], notes: list[str]) -> None:
    assert crop_square(100, 50, box) == (square, notes)


@pytest.mark.parametrize(
    "box", [(100, 0, 5, 5), (0, 50, 5, 5), (-9, 0, 9, 9), (5, 5, 0, 5), (5, 5, 5, -1), (float("nan"), 0, 5, 5)]
)
def test_a_box_outside_the_picture_is_refused(box: Any) -> None:
    with pytest.raises(DataError, match="box outside picture"):
        crop_square(100, 50, box)


def test_a_tiff_of_twelve_bits_is_as_light_as_its_levels_say(tmp_path: Path) -> None:
    grey = Image.fromarray(np.full((32, 32), 2048, np.uint16))
    for most, light in ((None, 8), (4095, 128), (2500, 8)):
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        if most is not None:
            tags.tagtype[281], tags[281] = TiffTags.SHORT, most
        grey.save(tmp_path / "a.tif", tiffinfo=tags)
        assert abs(int(prepared(tmp_path / "a.tif")[0][8, 8, 0]) - light) <= 1
