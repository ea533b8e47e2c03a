"""One decoder: what cameras, phones and editors write is decoded alike wherever a picture is read."""

import io
import json
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from attngan_deploy.media.decoder import UNREAD_PROFILE, decode, unread_profiles, without_large_texts
from attngan_deploy.media.images import decode_picture, encode_picture
from attngan_deploy.score.preprocessing import prepare
from tests.makers.odd_pictures import (
    WIDE_SPACES,
    encoded,
    grey_profile,
    press_profile,
    rgb_profile,
    seen_in,
    with_chunk,
)

SIDE = 32
RNG = np.random.default_rng(0)
BIRD = np.kron(RNG.integers(0, 256, (4, 4, 3), np.uint8), np.ones((8, 8, 1), np.uint8))  # patches, no two sides alike
PLAIN = encode_picture(BIRD)
MUCH = RNG.integers(97, 123, 3 * 2**20, np.uint8).tobytes()


def pack(data: bytes, suffix: str, shard: Path) -> Path:
    """A shard of one picture."""
    with tarfile.open(shard, "w") as tar:
        for name, content in ((f"a{suffix}", data), ("a.json", json.dumps({"captions": ["a bird"]}).encode())):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return shard


def every_reader(data: bytes, suffix: str, folder: Path) -> dict[str, NDArray[np.uint8]]:
    """What score, training and the data build read from one file."""
    found = {"decode": decode_picture(data), "score": prepare("a", data, SIDE).pixels}
    pytest.importorskip("nltk", reason="needs the train extra")
    from attngan_deploy.train.data.picture_set import read_pictures
    from attngan_deploy.train.data.pictures import prepare_picture, refuse_decompression_bombs

    found["training"] = read_pictures([pack(data, suffix, folder / "a.tar")]).pictures[0]
    (folder / f"a{suffix}").write_bytes(data)
    with refuse_decompression_bombs():
        made = prepare_picture(folder / f"a{suffix}", None, SIDE, 100).data
    found["data build"] = decode_picture(made)
    return {name: pixels for name, pixels in found.items() if pixels is not None}


def assert_read(data: bytes, expected: NDArray[np.integer] | NDArray[np.floating], folder: Path, near: int = 1) -> None:
    """Every reader gives these pixels; a data build stores them as WebP, which moves them."""
    suffix = ".png" if data.startswith(b"\x89PNG") else ".jpg" if data.startswith(b"\xff\xd8") else ".webp"
    found = every_reader(data, suffix, folder)
    assert len(found) == 4
    for name, pixels in found.items():
        difference = np.abs(pixels.astype(float) - expected)
        assert difference.mean() < near + 8, name  # WebP halves the colours
        assert name == "data build" or difference.max() <= near, name


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright(tmp_path: Path, orientation: int) -> None:
    turned = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # what undoes it, as Pillow numbers it
    image = Image.fromarray(BIRD)
    lying = image if turned is None else image.transpose(Image.Transpose(turned))
    exif = Image.Exif()
    exif[274] = orientation
    assert_read(encoded(lying, exif=exif), BIRD, tmp_path)
    for file_format, options in (("JPEG", {"quality": 100, "subsampling": 0}), ("WEBP", {"lossless": True})):
        made = decode_picture(encoded(lying, file_format, exif=exif.tobytes(), **options))
        assert np.abs(made.astype(int) - BIRD).mean() < 3


def test_an_orientation_that_is_broken_or_only_in_xmp(tmp_path: Path) -> None:
    assert_read(with_chunk(PLAIN, b"eXIf", b"nonsense"), BIRD, tmp_path)
    xmp = b"XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation='3'/>".replace(b"'", b'"')
    assert_read(with_chunk(PLAIN, b"iTXt", xmp), BIRD[::-1, ::-1], tmp_path)


def transparent(mode: str) -> tuple[Image.Image, NDArray[np.int64]]:
    """A grey or coloured picture whose left half is clear, and what it is on white."""
    image = Image.fromarray(BIRD).convert("L" if mode == "LA" else "RGB")
    seen = np.asarray(image.convert("RGB")).astype(np.int64)
    seen[:, : SIDE // 2] = 255
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (0, 0, SIDE // 2, SIDE))
    image.putalpha(alpha)
    return image, seen


@pytest.mark.parametrize(("mode", "file_format"), [("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "WEBP")])
def test_transparency_lies_on_white(tmp_path: Path, mode: str, file_format: str) -> None:
    image, seen = transparent(mode)
    assert_read(encoded(image, file_format, **({"lossless": True} if file_format == "WEBP" else {})), seen, tmp_path)


def test_a_transparent_colour_lies_on_white(tmp_path: Path) -> None:
    palette = Image.new("P", (SIDE, SIDE), 0)
    palette.putpalette([0, 0, 0, 200, 0, 0])
    palette.paste(1, (SIDE // 2, 0, SIDE, SIDE))
    seen = np.full((SIDE, SIDE, 3), 255)
    seen[:, SIDE // 2 :] = (200, 0, 0)
    assert_read(encoded(palette, transparency=b"\x00\xff"), seen, tmp_path)
    assert_read(encoded(palette.convert("RGB"), transparency=(0, 0, 0)), seen, tmp_path)
    grey = np.where(np.arange(SIDE) < SIDE // 2, 0, 40000).astype(np.uint16) * np.ones((SIDE, 1), np.uint16)
    seen = np.where(np.arange(SIDE) < SIDE // 2, 255, 156)[None, :, None] * np.ones((SIDE, 1, 3), int)
    assert_read(with_chunk(encoded(Image.fromarray(grey)), b"tRNS", b"\0\0"), seen, tmp_path)


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    grey = Image.fromarray(BIRD).convert("L")
    wide = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    assert_read(encoded(wide), np.asarray(grey.convert("RGB")), tmp_path)
    png = encoded(Image.new("RGB", (SIDE, SIDE)))
    rows = np.zeros((SIDE, 1 + 6 * SIDE), np.uint8)
    rows[:, 1:] = np.repeat(BIRD.reshape(SIDE, -1), 2, axis=1)
    head = png[16:24] + bytes([16, 2, 0, 0, 0])
    made = with_chunk(PLAIN[:8] + PLAIN[-12:], b"IHDR", head, b"IEND")
    assert_read(with_chunk(made, b"IDAT", zlib.compress(rows.tobytes()), b"IEND"), BIRD, tmp_path)


@pytest.mark.parametrize("space", WIDE_SPACES)
def test_wide_colours_become_srgb(tmp_path: Path, space: str) -> None:
    colours = np.array([(200, 90, 60), (70, 140, 60), (60, 80, 170), (128, 128, 128)], np.uint8)
    image = Image.fromarray(np.kron(colours.reshape(2, 2, 3), np.ones((SIDE // 2, SIDE // 2, 1), np.uint8)))
    seen = np.stack([seen_in(space, colour) for colour in colours]).reshape(2, 2, 3)
    seen = np.kron(seen, np.ones((SIDE // 2, SIDE // 2, 1)))
    assert np.abs(seen - np.asarray(image)).max() > 10
    profile = rgb_profile(space)
    assert_read(encoded(image, icc_profile=profile), seen, tmp_path, 2)
    assert_read(encoded(image, "JPEG", quality=100, subsampling=0, icc_profile=profile), seen, tmp_path, 5)
    clear = image.convert("RGBA")
    clear.putpixel((0, 0), (0, 0, 0, 0))
    made = decode_picture(encoded(clear, "WEBP", lossless=True, icc_profile=profile))
    assert made[0, 0].tolist() == [255] * 3 and np.abs(made[1:] - seen[1:]).max() <= 2


def test_profiles_of_grey_and_of_a_press_are_used(tmp_path: Path) -> None:
    grey = Image.new("L", (SIDE, SIDE), 128)
    linear = np.full((SIDE, SIDE, 3), 255 * (1.055 * (128 / 255) ** (1 / 2.4) - 0.055))
    assert_read(encoded(grey, icc_profile=grey_profile(1.0)), linear, tmp_path, 2)
    wide = Image.fromarray(np.full((SIDE, SIDE), 128 * 257, np.uint16))
    assert_read(encoded(wide, icc_profile=grey_profile(1.0)), linear, tmp_path, 2)
    cyan = Image.new("CMYK", (SIDE, SIDE), (255, 0, 0, 0))
    red = decode_picture(encoded(cyan, "JPEG", quality=100, icc_profile=press_profile()))
    assert red[..., 0].min() > 200 and red[..., 1:].max() < 60
    plain = decode_picture(encoded(cyan, "JPEG", quality=100))
    assert plain[..., 0].max() < 10 and plain[..., 1:].min() > 240


@pytest.mark.parametrize(
    "profile", [b"", b"profile", press_profile(), grey_profile(2.2), rgb_profile("Adobe RGB")[:200]]
)
def test_a_profile_that_does_not_fit_changes_nothing(profile: bytes) -> None:
    assert np.array_equal(decode_picture(encoded(Image.fromarray(BIRD), icc_profile=profile)), BIRD)


def in_pieces(profile: bytes, of: int) -> bytes:
    """A JPEG whose profile says that it is in so many pieces."""
    data = bytearray(encoded(Image.fromarray(BIRD), "JPEG", quality=100, subsampling=0, icc_profile=profile))
    data[data.find(b"ICC_PROFILE\0") + 13] = of
    return bytes(data)


WIDE = rgb_profile("Display P3")
UNUSABLE = {
    "broken": encoded(Image.fromarray(BIRD), icc_profile=b"profile"),
    "cut": encoded(Image.fromarray(BIRD), "WEBP", lossless=True, icc_profile=WIDE[:200]),
    "of grey": encoded(Image.fromarray(BIRD), icc_profile=grey_profile(2.2)),
    "of a press": encoded(Image.fromarray(BIRD), icc_profile=press_profile()),
    "in fewer pieces": in_pieces(WIDE, 3),
    "not packed": with_chunk(PLAIN, b"iCCP", b"wide\0\0" + WIDE),
    "too large": with_chunk(PLAIN, b"iCCP", b"wide\0\0" + zlib.compress(MUCH)),
}


@pytest.mark.parametrize("data", UNUSABLE.values(), ids=UNUSABLE)
def test_a_profile_that_can_not_be_used_is_told_by_every_reader(tmp_path: Path, data: bytes) -> None:
    assert decode(data).info["notes"] == [UNREAD_PROFILE] == list(prepare("a", data, SIDE).notes)
    assert np.abs(decode_picture(data).astype(int) - BIRD).max() <= 5
    pytest.importorskip("nltk", reason="needs the train extra")
    from attngan_deploy.train.data.picture_set import read_pictures
    from attngan_deploy.train.data.pictures import prepare_picture, refuse_decompression_bombs

    told = read_pictures([pack(data, ".png", tmp_path / "a.tar")]).remarks
    assert told == [f"1 picture has a {UNREAD_PROFILE} (a)"]
    (tmp_path / "a.png").write_bytes(data)
    with refuse_decompression_bombs():
        assert prepare_picture(tmp_path / "a.png", None, SIDE, 80).notes == [UNREAD_PROFILE]


def test_a_profile_of_srgb_changes_nothing() -> None:
    from PIL import ImageCms

    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(decode_picture(encoded(Image.fromarray(BIRD), icc_profile=srgb)), BIRD)
    grey = Image.fromarray(BIRD).convert("L")
    assert np.array_equal(decode_picture(encoded(grey, icc_profile=srgb))[..., 0], np.asarray(grey))
    assert decode(encoded(grey, icc_profile=srgb)).info["notes"] == decode(PLAIN).info["notes"] == []
    assert unread_profiles([]) == ()


def test_a_picture_of_a_phone_counts_as_jpeg(tmp_path: Path) -> None:
    image = Image.fromarray(BIRD)
    stream = io.BytesIO()
    image.save(stream, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))], quality=100, subsampling=0)
    assert Image.open(stream).format == "MPO"
    made = prepare("a.jpg", stream.getvalue(), SIDE)
    assert made.file_format == "jpeg" and made.pixels is not None
    from attngan_deploy.train.data.pictures import prepare_picture, refuse_decompression_bombs

    (tmp_path / "a.jpg").write_bytes(stream.getvalue())
    with refuse_decompression_bombs():
        assert prepare_picture(tmp_path / "a.jpg", None, SIDE, 80).notes == []


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"tEXt", b"Comment\0" + MUCH),
        (b"zTXt", b"Comment\0\0" + zlib.compress(MUCH)),
        (b"iTXt", b"Comment\0\1\0en\0\0" + zlib.compress(MUCH)),
        (b"iTXt", b"Comment\0\0\0en\0\0" + MUCH),
        (b"iCCP", b"wide\0\0" + zlib.compress(MUCH)),
        (b"zTXt", b"Comment\0\7" + MUCH),
    ],
    ids=["tEXt", "zTXt", "packed iTXt", "iTXt", "iCCP", "unknown packing"],
)
def test_large_texts_and_profiles_leave_the_pixels(tmp_path: Path, kind: bytes, body: bytes, before: bytes) -> None:
    exif = Image.Exif()
    exif[274] = 3
    lying = encoded(Image.fromarray(BIRD[::-1, ::-1]), exif=exif)
    assert_read(with_chunk(lying, kind, body, before), BIRD, tmp_path)


def test_what_is_small_beside_a_large_text_is_kept() -> None:
    small = with_chunk(PLAIN, b"tEXt", b"t2i\0{}")
    both = with_chunk(small, b"zTXt", b"Comment\0\0" + zlib.compress(MUCH))
    assert without_large_texts(both) == small
    many = b"Comment\0\0" + zlib.compress(bytes(2**20 - 1))
    for _ in range(80):
        small = with_chunk(small, b"zTXt", many)
    assert np.array_equal(decode_picture(small), BIRD)


def test_our_own_pictures_keep_every_byte() -> None:
    for file_format in ("png", "webp"):
        data = encode_picture(BIRD, file_format, {"caption": "a red bird"})
        with Image.open(io.BytesIO(data)) as image:
            before = np.asarray(image.convert("RGB"))
        assert np.array_equal(decode_picture(data), before) and np.array_equal(before, BIRD)
        assert decode(data).format == file_format.upper()
