"""Pictures as arrays and as files."""

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from attngan_deploy.media.attention import attention_sheet, heat_overlay
from attngan_deploy.media.images import decode_picture, encode_picture, is_complete, make_grid, to_uint8

PICTURE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)


def test_to_uint8_rounds_and_clips() -> None:
    values = np.array([-1.5, -1.0, -0.9963, 0.0, 0.9963, 1.0, 1.5], np.float32)
    images = np.broadcast_to(values[:, None, None, None], (7, 3, 2, 2)).copy()
    images[3, 1] = 1.0
    pictures = to_uint8(images)
    assert pictures.shape == (7, 2, 2, 3)
    assert pictures[:, 0, 0, 0].tolist() == [0, 0, 0, 128, 255, 255, 255]
    assert pictures[3, 1, 1].tolist() == [128, 255, 128]


def test_grid() -> None:
    pictures = np.stack([np.full((4, 6, 3), value, np.uint8) for value in (10, 20, 30)])
    grid = make_grid(pictures, columns=2, gap=1)
    assert grid.shape == (11, 15, 3)
    assert grid[1, 1, 0] == 10
    assert grid[4, 13, 0] == 20
    assert grid[6, 1, 0] == 30
    assert (grid[6:, 8:] == 255).all()
    assert (grid[0] == 255).all()
    assert make_grid(pictures, gap=0).shape == (8, 12, 3)


@pytest.mark.parametrize("file_format", ["png", "webp", "jpg"])
def test_encode(file_format: str) -> None:
    data = encode_picture(PICTURE, file_format)
    assert Image.open(io.BytesIO(data)).format == {"png": "PNG", "webp": "WEBP", "jpg": "JPEG"}[file_format]
    if file_format == "jpg":
        assert decode_picture(data).shape == PICTURE.shape
    else:
        assert np.array_equal(decode_picture(data), PICTURE)
    assert is_complete(data[:12], data[-12:], len(data), file_format)
    for cut in (0, 4, len(data) // 2, len(data) - 1):
        assert not is_complete(data[:cut][:12], data[:cut][-12:], cut, file_format)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (3, 4), (128, 128)])
def test_png_of_any_size_is_lossless(shape: tuple[int, int]) -> None:
    dice = np.random.default_rng(0)
    for picture in (dice.integers(0, 256, (*shape, 3), np.uint8), np.full((*shape, 3), 7, np.uint8)):
        data = encode_picture(picture, "png", {"caption": "caf\u00e9 \u2603"})
        assert np.array_equal(decode_picture(data), picture)
        with Image.open(io.BytesIO(data)) as image:
            image.verify()  # the checksum of every chunk
    sheet = np.zeros((4, 8, 3), np.uint8)[:, ::2]  # not contiguous
    assert np.array_equal(decode_picture(encode_picture(sheet)), sheet)


def test_png_without_isal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isal", None)
    plain = encode_picture(PICTURE)
    assert np.array_equal(decode_picture(plain), PICTURE)
    monkeypatch.undo()
    assert encode_picture(PICTURE) != plain


def test_png_carries_metadata() -> None:
    record = {"caption": "a naïve 鳥", "seed": 3}
    with Image.open(io.BytesIO(encode_picture(PICTURE, "png", record))) as image:
        assert json.loads(image.info["t2i"]) == record


def test_heat_marks_the_place_that_was_looked_at() -> None:
    grey = np.full((16, 16, 3), 100, np.uint8)
    attention = np.zeros((4, 4), np.float32)
    attention[0, 0] = 0.3
    overlay = heat_overlay(grey, attention)
    assert overlay[0, 0, 0] > 150
    assert overlay[0, 0, 2] < 60
    assert np.array_equal(overlay[8:], grey[8:])
    assert np.array_equal(heat_overlay(grey, np.zeros((4, 4), np.float32)), grey)


def test_attention_sheet_has_a_tile_a_word() -> None:
    attention = np.random.default_rng(1).random((9, 4, 4)).astype(np.float32)
    two = attention_sheet(PICTURE, attention, ["red", "bird"])
    eight = attention_sheet(PICTURE, attention, ["word"] * 8)
    assert two.shape[1] < eight.shape[1]
    assert two.shape[0] < eight.shape[0]
    assert np.array_equal(two[2:18, 2:18], PICTURE)
