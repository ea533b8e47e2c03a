"""From pictures to what a response says of them: files, JSON, and lines of a stream."""

import base64
import io
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from attngan_deploy.engines.facts import EngineFacts
from attngan_deploy.generate.run_record import EngineRecord
from attngan_deploy.media.images import encode_picture
from attngan_deploy.serve.intake import AcceptedRequest
from attngan_deploy.serve.messages import Attention, PictureResult

UNKNOWN_HEADER = "T2I-Unknown-Words"
MEDIA_TYPES = {"png": "image/png", "webp": "image/webp"}
LINES = "application/x-ndjson"


def picture_file(
    accepted: AcceptedRequest, number: int, result: PictureResult, engine: EngineFacts, file_format: str
) -> bytes:
    """A picture as the bytes of a file; a PNG says what made it, as one of `t2i generate` does."""
    place = accepted.orders[number].place
    caption = next(accepted.run.captions.read(place[0]))
    file = f"{accepted.run.name_of(caption, place[1])}.{file_format}"
    record = EngineRecord(engine.backend, precision=engine.precision)
    return encode_picture(result.picture, file_format, accepted.run.picture_record(place, caption, file, record))


def picture_entry(accepted: AcceptedRequest, number: int, result: PictureResult, engine: EngineFacts) -> dict[str, Any]:
    """A picture as JSON values, see `schemas.Picture`."""
    data = picture_file(accepted, number, result, engine, "png")
    entry = {**_place(accepted, number), "size": result.picture.shape[0], "data": _text(data)}
    return entry if result.attention is None else entry | {"attention": attention_entry(result.attention)}


def preview_line(accepted: AcceptedRequest, number: int, result: PictureResult) -> bytes:
    """The line of a stream with a picture's first stage."""
    assert result.preview is not None
    size = result.preview.shape[0]
    data = _text(encode_picture(result.preview))
    return line({"event": "preview", **_place(accepted, number), "size": size, "data": data})


def picture_line(accepted: AcceptedRequest, number: int, result: PictureResult, engine: EngineFacts) -> bytes:
    return line({"event": "picture", **picture_entry(accepted, number, result, engine)})


def attention_entry(attention: Attention) -> dict[str, Any]:
    """What each word looked at as JSON values, see `schemas.PictureAttention`."""
    side = attention.maps.shape[-1]
    tall = np.ascontiguousarray(attention.maps.reshape(-1, side))
    return {
        "words": attention.words,
        "shares": [round(share, 5) for share in attention.shares],
        "maps": _text(_grey_png(tall)),
    }


def facts(accepted: AcceptedRequest, engine: EngineFacts) -> dict[str, Any]:
    """What is true of all pictures of a request, as JSON values."""
    return {
        "model": accepted.served.name,
        "model_hash": accepted.run.model_hash,
        "engine": str(engine),
        "seed": accepted.request.seed,
        "unknown": accepted.unknown,
    }


def headers(accepted: AcceptedRequest) -> dict[str, str]:
    """What the headers of a single picture say: the words that were left out, percent-encoded."""
    words = [word for words in accepted.unknown for word in words]
    return {UNKNOWN_HEADER: ", ".join(quote(word, safe="") for word in words)[:1000]} if words else {}


def line(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values).encode() + b"\n"


def _place(accepted: AcceptedRequest, number: int) -> dict[str, int]:
    caption, sample = accepted.orders[number].place
    return {"caption": caption, "sample": sample}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _grey_png(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=3)
    return stream.getvalue()
