"""What a generator learns from: pictures and captions in memory, in an order that depends on the seed alone."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.errors import DataError
from attngan_deploy.media.tokenizer import Tokenizer
from attngan_deploy.train.config import GanRecipe
from attngan_deploy.train.data.picture_set import PictureSet, TrainingBatch, TrainingBatches, read_pictures
from attngan_deploy.train.runs.distributed import Processes
from attngan_deploy.train.runs.sampling import GRID_CAPTIONS


class GanData:
    """The training shard of a run.

    Args:
        folder: holds `train.tar`.
        tokenizer: of the text encoder's vocabulary.

    Attributes:
        captions: word numbers of the first caption of each picture that has one.
    """

    def __init__(self, folder: Path, recipe: GanRecipe, tokenizer: Tokenizer, processes: Processes) -> None:
        processes.say("reading pictures")
        pictures = self._read(folder / "train.tar", processes)
        for line in pictures.skipped:
            processes.say(f"skipped {line}")
        self.recipe, self.tokenizer, self.processes = recipe, tokenizer, processes
        first = (tokenizer.encode(captions[0]).ids for captions in pictures.captions)
        self.captions = [ids for ids in first if ids]
        self.batches = TrainingBatches(pictures, tokenizer, recipe.crop, recipe.batch_size, recipe.max_words)

    @staticmethod
    def _read(shard: Path, processes: Processes) -> PictureSet:
        """The pictures, which the first process of every machine reads for all of them where memory can be shared."""
        own = read_pictures([shard]) if processes.place == 0 else None
        told = processes.from_first_here(None if own is None else own.share())
        if own is not None:
            return own
        return read_pictures([shard]) if told is None else PictureSet.shared(**told)

    def __len__(self) -> int:
        return len(self.batches.data)

    def grid_captions(self) -> list[list[int]]:
        """Captions of the grid: the usual ones, or the first pictures' own where birds are not the subject."""
        usual = [self.tokenizer.encode(caption) for caption in GRID_CAPTIONS]
        if all(len(encoded.unknown) < 3 for encoded in usual):
            return [encoded.ids for encoded in usual]
        return self.captions[: len(GRID_CAPTIONS)]

    def steps(self, first: int, last: int) -> Iterator[tuple[int, TrainingBatch, np.random.Generator]]:
        """Number, batch and source of randomness of each step in [first, last), of this process.

        The order depends on (seed, epoch) alone, and all else on (seed, step, rank).

        Raises:
            DataError: too few pictures for one step of all processes.
        """
        seed, rank = self.recipe.seed, self.processes.rank
        per_epoch = len(self._order(0))
        if not per_epoch:
            raise DataError(
                "a step of all processes needs more pictures than there are",
                found=f"{self.recipe.batch_size * self.processes.count} pictures a step",
                expected=f"at most {self.batches.usable.size}",
                next_step="--batch-size, or fewer processes",
            )
        for epoch in range(first // per_epoch, -(-last // per_epoch)):
            order = self._order(epoch)
            for number in range(max(first, epoch * per_epoch), min(last, (epoch + 1) * per_epoch)):
                rng = np.random.default_rng((seed, number, rank))
                yield number, self.batches.batch(order[number - epoch * per_epoch], rng), rng

    def _order(self, epoch: int) -> NDArray[np.int64]:
        return self.batches.epoch_order(self.recipe.seed, epoch, self.processes.rank, self.processes.count)
