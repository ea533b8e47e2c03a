"""Pictures and captions of shards, decoded once and kept in memory, so that training never waits for a decoder.

They are held once, in memory that the processes of a machine share.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attngan_deploy.errors import DataError
from attngan_deploy.media.decoder import UNREAD_PROFILE, decode, unread_profiles
from attngan_deploy.media.shards import Sample, iter_samples
from attngan_deploy.media.tokenizer import Tokenizer
from attngan_deploy.system.shared_memory import SharedMemory, array_at
from attngan_deploy.system.threads import results_ahead

AHEAD = 64  # pictures that are decoded before they are stored


@dataclass
class PictureSet:
    """Decoded pictures with their captions."""

    pictures: NDArray[np.uint8]  # uint8 [N, S, S, 3]
    classes: NDArray[np.int64]  # int64 [N]
    captions: list[list[str]]  # captions of each picture
    names: list[str]  # name of each picture
    skipped: list[str] = field(default_factory=list)  # "name: reason" of every picture that could not be used
    notes: list[str] = field(default_factory=list)  # on those that could be used
    memory: SharedMemory | None = None  # what holds the pictures, where other processes may look at them too

    def __len__(self) -> int:
        return len(self.names)

    @property
    def remarks(self) -> list[str]:
        """Lines that a person should see."""
        return [*(f"skipped {line}" for line in self.skipped), *self.notes]

    def share(self) -> dict[str, Any] | None:
        """What `shared` makes the same set of in another process of this machine; None where there is no way."""
        if self.memory is None or (place := self.memory.place) is None:
            return None
        facts = {name: getattr(self, name) for name in ("classes", "captions", "names", "skipped", "notes")}
        return facts | {"place": place, "shape": self.pictures.shape}

    @classmethod
    def shared(cls, place: Path, shape: tuple[int, ...], **facts: Any) -> "PictureSet":
        """The set that another process of this machine holds, as its `share` told."""
        return cls(array_at(place, shape), **facts)


def read_pictures(paths: Sequence[Path]) -> PictureSet:
    """Read and decode shards; a broken picture is skipped and listed.

    Args:
        paths: tar files, or folders whose tar files are read in sorted order.

    Raises:
        DataError: nothing usable, or pictures of different sizes.
    """
    skipped: list[str] = []
    samples: Iterable[Sample] = chain.from_iterable(iter_samples(path, skipped) for path in paths)
    kept: list[Sample] = []
    memory, shape = SharedMemory(), None
    unread: list[str] = []
    for sample, (decoded, notes) in results_ahead((partial(_decode, sample) for sample in samples), AHEAD):
        if isinstance(decoded, str):
            skipped.append(f"{sample.name}: {decoded}")
        elif not any(caption.split() for caption in sample.captions):
            skipped.append(f"{sample.name}: no captions")
        elif shape is not None and decoded.shape != shape:
            skipped.append(f"{sample.name}: {decoded.shape[1]} x {decoded.shape[0]} px, unlike the first picture")
        else:
            shape = decoded.shape
            memory.write(decoded)
            unread += [sample.name] * (UNREAD_PROFILE in notes)
            kept.append(replace(sample, picture=b""))
    if shape is None:
        reason = f"; the first was skipped as {skipped[0]}" if skipped else ""
        raise DataError(f"no usable picture in {', '.join(map(str, paths))}{reason}", next_step="t2i data build --help")
    return PictureSet(
        memory.array((len(kept), *shape)),
        np.array([sample.class_id for sample in kept], dtype=np.int64),
        [[caption for caption in sample.captions if caption.split()] for sample in kept],
        [sample.name for sample in kept],
        skipped,
        list(unread_profiles(unread)),
        memory,
    )


def _decode(sample: Sample) -> tuple[Sample, tuple[NDArray[np.uint8] | str, list[str]]]:
    """A sample, its pixels or why there are none, and the notes of the decoder."""
    try:
        image = decode(sample.picture)
    except OSError as error:
        return sample, (f"can't be decoded ({error})", [])
    if image.width != image.height:
        return sample, (f"{image.width} x {image.height} px is not a square", [])
    return sample, (np.asarray(image), image.info["notes"])


class TrainingBatches:
    """Random batches of crops and captions, drawn from a generator whose state can be saved.

    Each epoch visits every picture once, in a new order, with a random crop, a random flip and a random caption.
    """

    def __init__(self, data: PictureSet, tokenizer: Tokenizer, size: int, batch_size: int, max_words: int) -> None:
        self.data, self.size, self.batch_size, self.max_words = data, size, batch_size, max_words
        if data.pictures.shape[1] < size:
            raise DataError(
                "the pictures are too small",
                found=f"{data.pictures.shape[1]} px",
                expected=f"at least {size} px",
                next_step=f"t2i data build PICTURES -o DATA --size {size * 19 // 16}",
            )
        if len(data) < batch_size:
            raise DataError(
                "too few pictures",
                found=str(len(data)),
                expected=f"at least one batch of {batch_size}",
                next_step="more pictures, or a smaller --batch-size",
            )
        encoded = [[tokenizer.encode(caption).ids for caption in captions] for captions in data.captions]
        self.ids = [[ids for ids in captions if ids] for captions in encoded]
        self.usable = np.array([i for i, captions in enumerate(self.ids) if captions])
        if len(self.usable) < batch_size:
            raise DataError(
                "too few pictures have a caption with a known word",
                found=str(len(self.usable)),
                expected=f"at least one batch of {batch_size}",
                next_step="use the vocabulary.txt that was built with these shards",
            )

    def epoch_order(self, seed: int, epoch: int, rank: int = 0, ranks: int = 1) -> NDArray[np.int64]:
        """Picture numbers of one epoch, shuffled, [batches, batch_size]; ranks get different batches."""
        order = np.random.default_rng((seed, epoch)).permutation(self.usable)
        batches = len(order) // (self.batch_size * ranks)
        return order[: batches * ranks * self.batch_size].reshape(batches, ranks, self.batch_size)[:, rank]

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> "TrainingBatch":
        """Crop, flip and caption the given pictures."""
        pictures = np.empty((len(indices), self.size, self.size, 3), np.uint8)
        ids: list[list[int]] = []
        for row, index in enumerate(indices):
            pictures[row] = random_crop(self.data.pictures[index], self.size, rng)
            choice = self.ids[index][rng.integers(len(self.ids[index]))]
            ids.append(shorten(choice, self.max_words, rng))
        captions, lengths = pad_captions(ids)
        return TrainingBatch(
            torch.from_numpy(pictures), captions, lengths, torch.from_numpy(self.data.classes[indices])
        )


@dataclass(frozen=True)
class TrainingBatch:
    """pictures uint8 [N, S, S, 3], captions int64 [N, T], lengths int64 [N], classes int64 [N]."""

    pictures: Tensor
    captions: Tensor
    lengths: Tensor
    classes: Tensor


def centre_crop(pictures: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The middle [N, size, size, 3] of pictures [N, S, S, 3]."""
    edge = (pictures.shape[1] - size) // 2
    return pictures[:, edge : edge + size, edge : edge + size]


def random_crop(picture: NDArray[np.uint8], size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A part [size, size, 3] of a picture [S, S, 3], mirrored half of the time."""
    top, left = rng.integers(0, len(picture) - size + 1, 2)
    crop = picture[top : top + size, left : left + size]
    return crop[:, ::-1] if rng.random() < 0.5 else crop


def shorten(ids: list[int], max_words: int, rng: np.random.Generator) -> list[int]:
    """A caption of more than `max_words` words becomes a random ordered subset of them (training only)."""
    if len(ids) <= max_words:
        return ids
    return [ids[i] for i in np.sort(rng.permutation(len(ids))[:max_words])]


def pad_captions(ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Word numbers to captions int64 [N, T], padded with 0, and lengths int64 [N]."""
    return torch.from_numpy(Tokenizer.pad(ids)), torch.tensor([len(numbers) for numbers in ids])


def to_images(pictures: Tensor) -> Tensor:
    """uint8 [N, S, S, 3] to float [N, 3, S, S] in [-1, 1]."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
