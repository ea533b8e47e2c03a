"""The process that holds the engines and makes batches; it ends when the server's end of its pipe is closed."""

import os
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from typing import IO

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.errors import T2IError
from attngan_deploy.generate.features import Stages, TextFeatures
from attngan_deploy.generate.pipeline import TextToImage, UnknownWordWarning
from attngan_deploy.media.images import to_uint8
from attngan_deploy.serve.messages import (
    HEAD,
    Attention,
    BatchOrder,
    BatchResult,
    Failure,
    Load,
    LoadResult,
    Message,
    Order,
    PictureResult,
    pack,
    unpack,
)
from attngan_deploy.system.files import write_all
from attngan_deploy.system.terminal import format_warnings, show

UNSOUND = 70  # exit status of a worker whose engine fails at everything
TOGETHER = 4  # pictures with a preview or attention; an engine keeps the memory of the most, 30 MB for each more


def main() -> None:
    """Load what the first message says, then answer batches until standard input ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they may reach the whole group; the server ends its worker itself
        signal.signal(number, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    format_warnings()
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    load = _receive(sys.stdin.buffer)
    if not isinstance(load, Load):
        return
    try:
        models = load_models(load)
    except T2IError as error:
        write_all(answers, pack(Failure(str(error))))
        return
    write_all(answers, pack(LoadResult({name: model.facts for name, model in models.items()})))
    while isinstance(batch := _receive(sys.stdin.buffer), BatchOrder):
        result = answer(models, batch)
        if isinstance(result, Failure) and not is_sound(models[batch.model]):
            show(f"t2i serve: the worker leaves, as its engine fails at everything: {result.why}", error=True)
            os._exit(UNSOUND)  # what a library does at its end may hang on such a GPU
        write_all(answers, pack(result))


def load_models(load: Load) -> dict[str, TextToImage]:
    """Load every model, and make one picture with each, as the first run of an engine makes plans."""
    models = {}
    for name, folder in load.folders.items():
        model = TextToImage.load_on(folder, load.engine)
        make(model, [_first_order(model)])
        models[name] = model
    return models


def is_sound(model: TextToImage) -> bool:
    """Whether a model still makes the picture that it made when it was loaded.

    After some errors of a GPU all that a process asks of it fails, until the process has ended.
    """
    try:
        make(model, [_first_order(model)])
    except T2IError:
        return False
    return True


def _first_order(model: TextToImage) -> Order:
    return Order(model.tokenizer.words[1], 0, (0, 0))


def answer(models: dict[str, TextToImage], batch: BatchOrder) -> BatchResult | Failure:
    """Make a batch; an error of the toolkit becomes its text."""
    start = time.perf_counter()
    try:
        pictures = make(models[batch.model], batch.orders) if batch.orders else []
    except T2IError as error:
        return Failure(str(error))
    return BatchResult(pictures, time.perf_counter() - start)


def make(model: TextToImage, orders: Sequence[Order]) -> list[PictureResult]:
    """Make pictures of several requests together, each from its own seed and place; errors are the model's."""
    captions = list(dict.fromkeys(order.caption for order in orders))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownWordWarning)  # the request was told
        features = model.encode(captions)
    row_of = {caption: row for row, caption in enumerate(captions)}
    alone = [place for place, order in enumerate(orders) if not (order.preview or order.attention)]
    beside = [place for place, order in enumerate(orders) if order.preview or order.attention]
    made: dict[int, PictureResult] = {}
    for places in [alone, *(beside[first : first + TOGETHER] for first in range(0, len(beside), TOGETHER))]:
        if not places:
            continue
        part = [orders[place] for place in places]
        rows = [row_of[order.caption] for order in part]
        spread = TextFeatures(features.words[rows], features.sentence[rows], features.mask[rows])
        noise = [model.noise(order.seed, [order.place], order.shared_noise) for order in part]
        z, eps = np.concatenate([z for z, _ in noise]), np.concatenate([eps for _, eps in noise])
        if places is alone:
            results = [PictureResult(picture, None, None) for picture in model.decode_pictures(spread, z, eps)]
        else:
            results = _with_what_is_beside(model, part, model.decode(spread, z, eps))
        made |= zip(places, results, strict=True)
    return [made[place] for place in range(len(orders))]


def _with_what_is_beside(model: TextToImage, orders: Sequence[Order], stages: Stages) -> list[PictureResult]:
    """Pictures with the previews and attention that are asked for."""
    pictures, maps = to_uint8(stages.images[model.picture_size]), stages.attention
    first = stages.images[model.stage_sizes[0]]
    return [
        PictureResult(
            pictures[row],
            to_uint8(first[row : row + 1])[0] if order.preview else None,
            _attention(model, order.caption, maps[row]) if order.attention and maps is not None else None,
        )
        for row, order in enumerate(orders)
    ]


def _attention(model: TextToImage, caption: str, maps: NDArray[np.float32]) -> Attention:
    words = [model.tokenizer.words[number] for number in model.tokenizer.encode(caption).ids]
    maps = maps[: len(words)]
    peaks = np.maximum(maps.max(axis=(1, 2), keepdims=True), np.finfo(np.float32).tiny)
    return Attention(words, [float(each.mean()) for each in maps], np.rint(maps / peaks * 255).astype(np.uint8))


def _receive(stream: IO[bytes]) -> Message | None:
    """The next message; None where the pipe was closed."""
    head = stream.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    (size,) = HEAD.unpack(head)
    data = stream.read(size)
    return unpack(data) if len(data) == size else None
