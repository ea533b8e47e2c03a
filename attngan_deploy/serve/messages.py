"""What the server and its worker process say to each other, and how it travels: a length, then a pickle.

Both ends are this package, and the pipe is private to them, so that a pickle is safe here.
"""

import pickle
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.engines.facts import EngineFacts
from attngan_deploy.engines.request import ANY_ENGINE, EngineRequest

HEAD = struct.Struct("<Q")


@dataclass(frozen=True)
class Load:
    """The first message to the worker: which models to load, by name and folder of the bundle, and on what."""

    folders: dict[str, Path]
    engine: EngineRequest = ANY_ENGINE


@dataclass(frozen=True)
class Order:
    """One picture to make."""

    caption: str
    seed: int
    # the caption's place in its request, and the sample number: with the seed, what the noise comes from
    place: tuple[int, int]
    shared_noise: bool = False
    preview: bool = False  # also bring the first stage's picture
    attention: bool = False  # also bring what each word looked at


@dataclass(frozen=True)
class Attention:
    """What each word of a picture looked at."""

    words: list[str]  # that the model saw, T of them
    shares: list[float]  # of the picture's attention; they sum to 1
    maps: NDArray[np.uint8]  # uint8 [T, A, A]; the highest value of each word's map is 255


@dataclass(frozen=True)
class PictureResult:
    """One picture, uint8 [S, S, 3]; where they were ordered, the first stage's, uint8 [s, s, 3], and its attention."""

    picture: NDArray[np.uint8]
    preview: NDArray[np.uint8] | None = None
    attention: Attention | None = None


@dataclass(frozen=True)
class BatchOrder:
    """Pictures of one model to make together; none, to hear whether the worker is well."""

    model: str
    orders: list[Order]


@dataclass(frozen=True)
class LoadResult:
    """The worker's first answer: what runs each model."""

    engines: dict[str, EngineFacts]


@dataclass(frozen=True)
class BatchResult:
    """The pictures of a batch, in its order, and the seconds that they took."""

    pictures: list[PictureResult]
    seconds: float


@dataclass(frozen=True)
class Failure:
    """An error of the toolkit, in words; for the first answer, why the worker can't start."""

    why: str


Command = Load | BatchOrder
Answer = LoadResult | BatchResult | Failure
Message = Command | Answer


def pack(message: Message) -> bytes:
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return HEAD.pack(len(data)) + data


def unpack(data: bytes) -> Message:
    """The message of bytes without their head; raise TypeError where they hold something else."""
    message = pickle.loads(data)
    if not isinstance(message, Message):
        raise TypeError(f"a message is no {type(message).__name__}")
    return message
