"""Pictures of few pixels' worth that ask for much work: refused before it is done; and Ctrl-C while one is decoded."""

import io
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attngan_deploy.errors import DataError
from attngan_deploy.media import picture_work
from attngan_deploy.media.images import decode_picture
from attngan_deploy.media.picture_work import MOST_BLOCKS, MOST_CHUNKS, MOST_SCANS, MOST_SEGMENTS
from attngan_deploy.score.preprocessing import prepare
from attngan_deploy.system.signals import interruptibly
from attngan_deploy.train.data.pictures import prepare_picture, refuse_decompression_bombs
from tests.makers.memory import little_memory


def saved(file_format: str, side: int = 64, **how: object) -> bytes:
    levels = np.arange(side * side * 3, dtype=np.uint32).reshape(side, side, 3)
    stream = io.BytesIO()
    Image.fromarray((levels * 7 % 251).astype(np.uint8)).save(stream, file_format, **how)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def scans(count: int, side: int = 64) -> bytes:
    """A progressive JPEG whose last scan stands there many times."""
    whole = saved("JPEG", side, progressive=True)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * count + whole[-2:]


def pieces_of_png(count: int) -> bytes:
    whole = saved("PNG")
    return whole[:33] + chunk(b"teSt") * count + whole[33:]


def pieces_of_jpeg(piece: bytes, count: int) -> bytes:
    whole = saved("JPEG")
    return whole[:2] + piece * count + whole[2:]


def pieces_of_gif(count: int) -> bytes:
    whole = saved("GIF")
    table = 13 + (3 << (1 + (whole[10] & 7)))
    return whole[:table] + b"\x21\xfe" + b"\x01a" * count + b"\0" + whole[table:]


def packed_bmp() -> bytes:
    """Runs of one pixel each; every one is a turn of a loop in Python."""
    side = 1500
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, 0, 0, 0, 256, 0)
    start = 14 + len(head) + 1024
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, start) + head + bytes(1024) + b"\x01\x07" * (side * side)


def wide_bmp() -> bytes:
    """A row of twenty megapixels of which one is said."""
    head = struct.pack("<IiiHHIIiiII", 40, 20_000_000, 1, 1, 8, 1, 0, 0, 0, 1, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 18 + len(head)) + head + bytes(4) + b"\1\0\0\0"


def tiles(count: int) -> bytes:
    """Tiles of one grey pixel, all of them the same byte."""
    sizes = ((256, 3, 1, count), (257, 3, 1, 1), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1))
    places = ((322, 3, 1, 1), (323, 3, 1, 1), (324, 4, count, 122), (325, 4, count, 122 + 4 * count))
    fields = b"".join(struct.pack("<HHII", *field) for field in (*sizes, *places))
    body = struct.pack("<I", 8) * count + struct.pack("<I", 1) * count
    return b"II*\0" + struct.pack("<IH", 8, len(sizes + places)) + fields + bytes(4) + body


ATTACKS = {
    "scans": scans(1000),
    "scans of many pixels": scans(40, side=4096),
    "chunks": pieces_of_png(MOST_CHUNKS),
    "segments": pieces_of_jpeg(b"\xff\xfe\0\x02", MOST_SEGMENTS),
    "what fills the space between segments": pieces_of_jpeg(b"\xff", 2_000_000),
    "blocks": pieces_of_gif(MOST_BLOCKS),
    "packed bytes": packed_bmp(),
    "packed pixels": wide_bmp(),
    "tiles": tiles(picture_work.MOST_STRIPS + 1),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_work_beyond_the_pixels(tmp_path: Path, attack: str) -> None:
    data = ATTACKS[attack]
    (tmp_path / "a.png").write_bytes(data)
    with little_memory(250 * 2**20, seconds=5):
        with refuse_decompression_bombs(), pytest.raises(DataError, match=r"broken picture; found .* decoded safely"):
            prepare_picture(tmp_path / "a.png", None, 64, 80)
        if attack not in (
            "blocks",
            "packed bytes",
            "packed pixels",
            "tiles",
            "fields",
        ):  # no GIF, BMP or TIFF is scored
            with pytest.raises(OSError, match="too many to be decoded safely"):
                decode_picture(data)
            assert "too many to be decoded safely" in prepare("a", data, 64).reason


@pytest.mark.parametrize(
    "data",
    [
        saved("JPEG", 1500, progressive=True),
        scans(MOST_SCANS - 20),
        pieces_of_png(1000),
        pieces_of_jpeg(b"\xff\xfe\0\x02", 1000),
        pieces_of_gif(10_000),
        saved("GIF", 300),
        saved("BMP", 1500),
        saved("TIFF", 300, compression="jpeg"),
        saved("TIFF", 300),
        saved("TIFF", 300, big_tiff=True),
        tiles(10_000),
        saved("GIF", 64, save_all=True, append_images=[Image.new("RGB", (64, 64))] * 3),
    ],
    ids=[
        "progressive",
        "many scans",
        "PNG",
        "JPEG",
        "comment",
        "GIF",
        "BMP",
        "TIFF",
        "plain TIFF",
        "BigTIFF",
        "tiles",
        "animation",
    ],
)
def test_usual_pictures_are_read(tmp_path: Path, data: bytes, request: pytest.FixtureRequest) -> None:
    (tmp_path / "a.jpg").write_bytes(data)
    with refuse_decompression_bombs():
        prepared = prepare_picture(tmp_path / "a.jpg", None, 64, 80)
    assert ("animated: first frame taken" in prepared.notes) == ("animation" in request.node.name)


@pytest.mark.parametrize("head", [b"", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_not_read_whole(tmp_path: Path, head: bytes) -> None:
    with (tmp_path / "a.jpg").open("wb") as file:
        file.write(head)
        file.truncate(600 * 2**20)
    with little_memory(100 * 2**20), refuse_decompression_bombs(), pytest.raises(DataError, match="broken picture"):
        prepare_picture(tmp_path / "a.jpg", None, 64, 80)


def test_a_slow_picture_is_decoded_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved("JPEG", 200, progressive=True)
    whole = decode_picture(data)
    monkeypatch.setattr("attngan_deploy.media.decoder.SLOW", 1)
    assert np.array_equal(decode_picture(data), whole)
    with pytest.raises(OSError, match=r"truncated|broken"):
        decode_picture(data[:-2000])


def test_ctrl_c_is_heard_while_c_works() -> None:
    """The work is in a thread, and the main one, which hears of signals, only waits for it."""
    released = threading.Event()
    threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGINT)).start()
    begun = time.perf_counter()
    try:
        with pytest.raises(KeyboardInterrupt):
            interruptibly(lambda: released.wait(20))
    finally:
        released.set()
    assert time.perf_counter() - begun < 5
    assert interruptibly(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        interruptibly(lambda: 1 / 0)


STOPPED = """
import os, time
from attngan_deploy import cli
from attngan_deploy.system.threads import results_ahead

def run():
    def slow():
        os.write(1, b"decoding\\n")  # in one piece: four threads write
        time.sleep(60)
    list(results_ahead([slow] * 8, 4, 2))

cli._run = run
cli.main()
"""


def test_ctrl_c_waits_for_no_thread_that_decodes() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "decoding\n"
    process.send_signal(signal.SIGINT)
    begun = time.perf_counter()
    _, told = process.communicate(timeout=30)
    assert (process.returncode, told) == (130, "t2i: stopped\n")
    assert time.perf_counter() - begun < 5


def test_pieces_are_counted_in_any_bytes() -> None:
    """What is cut or changed anywhere is counted, refused or passed on, and nothing else is raised."""
    draw = np.random.default_rng(0)
    for whole in (
        scans(3),
        pieces_of_png(5),
        pieces_of_jpeg(b"\xff\xfe\0\x02", 3),
        pieces_of_gif(9),
    ):
        for _ in range(300):
            data = bytearray(whole[: draw.integers(0, len(whole) + 1)])
            for place in draw.integers(0, max(1, len(data)), 3):
                if data:
                    data[place] = draw.integers(0, 256)
            picture_work.check_pieces(bytes(data))
    for whole in (packed_bmp()[:4000], tiles(3), saved("TIFF", 8, big_tiff=True)):
        for place in draw.integers(0, min(200, len(whole)), 600):
            changed = whole[:place] + bytes([draw.integers(0, 256)]) + whole[place + 1 :]
            for data in (whole[:place], changed):
                with suppress(picture_work.TooMuchWorkError):
                    picture_work.check_pieces(data)
            picture_work.check_scans(bytes(data), 100)
