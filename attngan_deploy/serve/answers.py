"""From made pictures to what a response says of them: files, JSON, and lines of a stream."""

import base64
import io
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from attngan_deploy.media.images import encode_picture
from attngan_deploy.serve.intake import Job
from attngan_deploy.serve.messages import Attention, Made, Running

UNKNOWN_HEADER = "T2I-Unknown-Words"
MEDIA_TYPES = {"png": "image/png", "webp": "image/webp"}
LINES = "application/x-ndjson"


def picture_file(job: Job, number: int, made: Made, running: Running, file_format: str) -> bytes:
    """A picture as the bytes of a file; a PNG says what made it, as one of `t2i generate` does."""
    place = job.orders[number].place
    record = job.run.record(place, f"{job.run.name_of(place)}.{file_format}")
    engine = {"backend": running.backend, "precision": running.precision}
    return encode_picture(made.picture, file_format, record | engine)


def picture_entry(job: Job, number: int, made: Made, running: Running) -> dict[str, Any]:
    """A picture as JSON values, see `schemas.Picture`."""
    data = picture_file(job, number, made, running, "png")
    entry = {**_place(job, number), "size": made.picture.shape[0], "data": _text(data)}
    return entry if made.attention is None else entry | {"attention": attention_entry(made.attention)}


def preview_line(job: Job, number: int, made: Made) -> bytes:
    """The line of a stream with a picture's first stage."""
    assert made.preview is not None
    size = made.preview.shape[0]
    data = _text(encode_picture(made.preview))
    return line({"event": "preview", **_place(job, number), "size": size, "data": data})


def picture_line(job: Job, number: int, made: Made, running: Running) -> bytes:
    """The line of a stream with a picture."""
    return line({"event": "picture", **picture_entry(job, number, made, running)})


def attention_entry(attention: Attention) -> dict[str, Any]:
    """What each word looked at as JSON values, see `schemas.PictureAttention`."""
    side = attention.maps.shape[-1]
    tall = np.ascontiguousarray(attention.maps.reshape(-1, side))
    return {
        "words": attention.words,
        "shares": [round(share, 5) for share in attention.shares],
        "maps": _text(_grey_png(tall)),
    }


def facts(job: Job, running: Running) -> dict[str, Any]:
    """What is true of all pictures of a request, as JSON values."""
    return {
        "model": job.served.name,
        "model_hash": job.served.hash,
        "engine": running.description,
        "seed": job.request.seed,
        "unknown": job.unknown,
    }


def headers(job: Job) -> dict[str, str]:
    """What the headers of a single picture say: the words that were left out, percent-encoded."""
    words = [word for words in job.unknown for word in words]
    return {UNKNOWN_HEADER: ", ".join(quote(word, safe="") for word in words)[:1000]} if words else {}


def line(values: Mapping[str, Any]) -> bytes:
    """One line of a stream."""
    return json.dumps(values).encode() + b"\n"


def _place(job: Job, number: int) -> dict[str, int]:
    caption, sample = job.orders[number].place
    return {"caption": caption, "sample": sample}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _grey_png(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=3)
    return stream.getvalue()
