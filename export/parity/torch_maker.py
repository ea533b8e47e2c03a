"""Pictures of a checkpoint by torch, with the noise of the runtime: what engines are judged against."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch

from attngan_deploy.errors import EngineError
from attngan_deploy.export.bundle_writer import load_networks
from attngan_deploy.export.deploy import Networks
from attngan_deploy.generate.features import Batch
from attngan_deploy.generate.pipeline import DEFAULT_BATCH_SIZE
from attngan_deploy.media.caption import Caption
from attngan_deploy.media.tokenizer import Tokenizer, tokenize
from attngan_deploy.train.runs.checkpoint import load_checkpoint
from attngan_deploy.train.runs.sampling import sample_pictures


class TorchMaker:
    """A checkpoint that torch runs on the CPU in float32; a `PictureMaker` of `score.regression`."""

    def __init__(self, networks: Networks, tokenizer: Tokenizer, source: str) -> None:
        self.networks, self.tokenizer, self._source = networks, tokenizer, source

    @property
    def description(self) -> str:
        """What runs it."""
        return f"torch {torch.__version__} on cpu, fp32, {self._source}"

    def stream(
        self,
        captions: Sequence[str],
        seed: int = 0,
        *,
        batch_size: int | None = None,
        places: Iterable[tuple[int, int]] | None = None,
    ) -> Iterator[Batch]:
        """Pictures of places (caption, sample), a batch at a time; of one sample of every caption where None.

        Raises:
            CaptionError: a caption without a known word, or a long one; line n is the nth caption.
        """
        ids = tokenize([Caption(text, line) for line, text in enumerate(captions, start=1)], self.tokenizer).ids
        size = DEFAULT_BATCH_SIZE if batch_size is None else batch_size
        if size < 1:
            raise EngineError("batch_size must be 1 or more")
        left = iter(((caption, 0) for caption in range(len(ids))) if places is None else places)
        while group := list(islice(left, size)):
            chosen, networks = [ids[caption] for caption, _ in group], self.networks
            pictures = sample_pictures(networks.generator, networks.text_encoder, chosen, group, seed)
            yield Batch(pictures, group)


def torch_maker(checkpoint: Path) -> TorchMaker:
    """Open a checkpoint or run folder.

    Raises:
        CheckpointError: missing, damaged, or no generator.
    """
    loaded = load_checkpoint(checkpoint, "gan")
    networks = load_networks(loaded)
    return TorchMaker(networks, Tokenizer(loaded.vocabulary(networks.text_encoder.config.words)), loaded.folder.name)
