"""Colour profiles and PNG chunks of our own making, as cameras, phones and printing presses put them into pictures."""

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

D50 = (0.9642, 1.0, 0.8249)
# Columns of red, green and blue in XYZ, adapted to D50, and the exponent of the channels.
WIDE_SPACES = {
    "Display P3": (((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)), 2.2),
    "Adobe RGB": (((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446)), 2.2),
    "ProPhoto": (((0.7977, 0.2880, 0.0), (0.1352, 0.7119, 0.0), (0.0313, 0.0001, 0.8249)), 1.8),
}
SRGB = np.array([[0.4361, 0.2225, 0.0139], [0.3851, 0.7169, 0.0971], [0.1431, 0.0606, 0.7141]])


def _profile(space: bytes, kind: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    place, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, place + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(
        ">I4sI4s4s4s12s4s", place + len(body), b"", 0x02400000, kind, space, connection, bytes(12), b"acsp"
    )
    head += bytes(28) + _fixed(*D50) + bytes(48)
    return head + struct.pack(">I", len(tags)) + table + body


def _fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def _curve(exponent: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(exponent * 256))


def rgb_profile(space: str) -> bytes:
    """An ICC profile of one of `WIDE_SPACES`."""
    columns, exponent = WIDE_SPACES[space]
    tags = {b"wtpt": b"XYZ " + bytes(4) + _fixed(*D50)}
    for name, column in zip("rgb", columns, strict=True):
        tags[f"{name}XYZ".encode()] = b"XYZ " + bytes(4) + _fixed(*column)
        tags[f"{name}TRC".encode()] = _curve(exponent)
    return _profile(b"RGB ", b"mntr", b"XYZ ", tags)


def grey_profile(exponent: float) -> bytes:
    """An ICC profile of grey pixels."""
    return _profile(b"GRAY", b"mntr", b"XYZ ", {b"wtpt": b"XYZ " + bytes(4) + _fixed(*D50), b"kTRC": _curve(exponent)})


def press_profile() -> bytes:
    """An ICC profile of CMYK pixels whose cyan ink is red, so that no formula without the profile comes near."""
    ramp = bytes(range(256))
    inks = np.array([[53, 80, 67], [60, 94, -61], [97, -22, 94], [0, 0, 0]])  # Lab
    nodes = b""
    for corner in np.ndindex(2, 2, 2, 2):
        lab = np.array([100, 0, 0])
        for ink in np.flatnonzero(corner):
            lab = inks[ink]
        nodes += bytes([round(lab[0] * 2.55), *(lab[1:] + 128)])
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + ramp * 4 + nodes + ramp * 3
    return _profile(b"CMYK", b"prtr", b"Lab ", {b"A2B0": table, b"wtpt": b"XYZ " + bytes(4) + _fixed(*D50)})


def seen_in(space: str, colour: Sequence[int]) -> NDArray[np.float64]:
    """What a colour of a wide space is in sRGB, 0 to 255, by the formulas of both."""
    columns, exponent = WIDE_SPACES[space]
    linear = (np.array(colour) / 255) ** exponent @ np.array(columns) @ np.linalg.inv(SRGB)
    linear = linear.clip(0, 1)
    shown: NDArray[np.float64] = 255 * np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
    )
    return shown


def encoded(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    """The bytes of a picture file."""
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def with_chunk(png: bytes, kind: bytes, body: bytes, before: bytes = b"IDAT") -> bytes:
    """A PNG with one more chunk in front of the first of another kind."""
    place = png.index(before) - 4
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return png[:place] + chunk + png[place:]
