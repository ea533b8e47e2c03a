"""How much work the pieces of a picture file make, before any of it is done: pixels alone do not tell.

Each scan of a progressive JPEG goes over all pixels, and each chunk, segment or block is a turn of a loop of Pillow's,
however few bytes it has.
"""

import re
import struct
from mmap import mmap

Data = bytes | mmap
MOST_SCANS = 100  # of a JPEG; encoders make some 10
MOST_SCANNED = 2**29  # pixels times scans, beyond the first scan: 12 scans of 48 megapixels
MOST_SEGMENTS = 10_000  # of a JPEG before its first scan; a profile of 4 MB has 64
MOST_CHUNKS = 65_536  # of a PNG; usual ones have 8 kB
MOST_BLOCKS = 500_000  # of a GIF up to its second picture; usual ones have 255 bytes
MOST_RUNS_BYTES = 4 * 2**20  # of a BMP that is packed, whose runs Pillow unpacks in Python
MOST_RUNS_PIXELS = 8 * 2**20  # of such a one, whatever its bytes: what no run says is filled in Python too
MOST_STRIPS = 20_000  # or tiles, of a TIFF, each a turn of a loop in Python; with one a row, that many rows
SLOW = 2**26  # pixels times scans that take a good part of a second
SCAN = re.compile(rb"\xff\xda")
FILLING = re.compile(rb"\xff+")
STANDALONE = (0x01, *range(0xD0, 0xD9))  # markers of a JPEG without a length
TIFF_STRIPS = (273, 279, 324, 325)  # where strips and tiles are, and how long
GIF_PICTURE, GIF_EXTENSION = 0x2C, 0x21


class TooMuchWorkError(OSError):
    """A picture whose file asks for much more work than its pixels need; none of it was done."""


def check_pieces(data: Data) -> None:
    """Refuse a file of too many pieces, as its first bytes say what it is; a TooMuchWorkError."""
    head = bytes(data[:4])
    if head.startswith(b"\xff\xd8"):
        _refuse("segments", _segments(data), MOST_SEGMENTS)
    elif head == b"\x89PNG":
        _refuse("chunks", _chunks(data), MOST_CHUNKS)
    elif head == b"GIF8":
        _refuse("blocks", _blocks(data), MOST_BLOCKS)
    elif head.startswith(b"BM") and data[30:34] in (b"\1\0\0\0", b"\2\0\0\0"):
        _refuse("packed bytes", len(data), MOST_RUNS_BYTES)
        _refuse("packed pixels", _pixels_of_bmp(data), MOST_RUNS_PIXELS)
    elif head[:2] in (b"II", b"MM"):
        _refuse("strips, tiles or fields", _strips(data), MOST_STRIPS)


def check_scans(data: Data, pixels: int) -> int:
    """Refuse a JPEG, or a file that holds some, with too many scans for its pixels; returns pixels times scans.

    Raises:
        TooMuchWorkError: as it says.
    """
    scans = 0
    for scans, _ in enumerate(SCAN.finditer(data), start=1):
        if scans > MOST_SCANS or pixels * (scans - 1) > MOST_SCANNED:
            raise TooMuchWorkError(f"{scans} scans or more of {pixels:,} px are too many to be decoded safely")
    return pixels * max(1, scans)


def _refuse(what: str, count: int, most: int) -> None:
    if count > most:
        raise TooMuchWorkError(f"more than {most:,} {what} are too many to be decoded safely")


def _segments(data: Data) -> int:
    """Segments of a JPEG before its first scan, and what fills the space between them."""
    place, count = 2, 0
    while count <= MOST_SEGMENTS and (filling := FILLING.match(data, place)):
        count += 1 + (filling.end() - place) // 16
        place = filling.end() + 1
        marker = data[place - 1 : place]
        if not marker or marker[0] == 0xDA:
            break
        if marker[0] not in STANDALONE:
            place += max(2, int.from_bytes(data[place : place + 2], "big"))
    return count


def _chunks(data: Data) -> int:
    place, count = 8, 0
    while count <= MOST_CHUNKS and place + 8 <= len(data):
        place += 12 + int(struct.unpack_from(">I", data, place)[0])
        count += 1
    return count


def _pixels_of_bmp(data: Data) -> int:
    size, width, height = struct.unpack_from("<Iii", data, 14)
    return 0 if size < 40 else abs(width * height)  # of 12 bytes are headers that can't say that it is packed


def _strips(data: Data) -> int:
    """Strips or tiles of a first picture in a TIFF, or fields where they are too many; BigTIFF as Pillow tells it."""
    order, is_big = "<" if data[:2] == b"II" else ">", data[2:3] == b"\x2b"
    offset, number, entry = ("Q", "Q", "HHQ8x") if is_big else ("I", "H", "HHI4x")
    strips = 0
    try:
        (place,) = struct.unpack_from(order + offset, data, 8 if is_big else 4)
        (entries,) = struct.unpack_from(order + number, data, place)
        if entries > MOST_STRIPS:
            return int(entries)
        place += struct.calcsize(order + number)
        step = struct.calcsize(order + entry)
        for start in range(place, min(place + entries * step, len(data) - step + 1), step):
            tag, _, count = struct.unpack_from(order + entry, data, start)
            if tag in TIFF_STRIPS:
                strips = max(strips, int(count))
    except (struct.error, OverflowError):  # it ends before that, and is no picture
        pass
    return strips


def _blocks(data: Data) -> int:
    """Blocks of a GIF up to the second of its pictures, which tells whether it is an animation."""
    place, count, pictures = 13, 0, 0
    if len(data) > 10 and data[10] & 0x80:
        place += 3 << (1 + (data[10] & 7))
    while count <= MOST_BLOCKS and place < len(data):
        kind = data[place]
        count += 1
        if kind == GIF_PICTURE:
            pictures += 1
            if pictures == 2 or place + 10 > len(data):
                break
            place += 11 + ((3 << (1 + (data[place + 9] & 7))) if data[place + 9] & 0x80 else 0)
        elif kind == GIF_EXTENSION:
            place += 2
        else:  # what is none is passed over, a byte at a time
            place += 1
            continue
        while count <= MOST_BLOCKS and place < len(data) and data[place]:
            place += 1 + data[place]
            count += 1
        place += 1
    return count
