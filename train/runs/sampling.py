"""Pictures of a generator while it trains: fixed captions and fixed noise, so that runs can be compared by eye."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from attngan_deploy.generate.noise import noise_batch
from attngan_deploy.media.images import make_grid, to_uint8
from attngan_deploy.media.labels import labelled
from attngan_deploy.train.data.picture_set import pad_captions
from attngan_deploy.train.families import GeneratorNetwork, generate
from attngan_deploy.train.generator import Generator
from attngan_deploy.train.text_encoder import TextEncoder

PAPER_CAPTIONS = (
    "this small bird has a bright fiery red breast tapering down to a yellow tail that is contrasted by a completely "
    "black head.",
    "this smaller bird has a gray belly and breast with red speckles, a red crown, and a short pointy bill.",
)
GRID_CAPTIONS = (
    *PAPER_CAPTIONS,
    "a small yellow bird with black wings and a short pointed beak",
    "this bird is blue with white and has a very short beak",
    "a large white bird with gray wings and a long orange bill",
    "the bird is brown with a white belly and a spotted breast",
)
GRID_SAMPLES = 6


@torch.inference_mode()
def sample_pictures(
    generator: GeneratorNetwork,
    text: TextEncoder,
    ids: Sequence[Sequence[int]],
    places: Sequence[tuple[int, int]],
    seed: int = 0,
) -> NDArray[np.uint8]:
    """Pictures of the last stage.

    Args:
        generator: put into evaluation mode.
        text: in evaluation mode, on the same device.
        ids: word numbers of N captions.
        places: (caption's place, sample number) of each, and
        seed: for the noise.

    Returns:
        uint8 [N, S, S, 3].
    """
    device = next(generator.parameters()).device
    generator.eval()
    config = generator.config
    noise = noise_batch(seed, places, config.noise, config.condition, truncation=config.truncation)
    z, eps = (torch.from_numpy(value).to(device) for value in noise)
    encoded = text(*(value.to(device) for value in pad_captions(ids)))
    made = generate(generator, {**encoded._asdict(), "z": z, "eps": eps})
    return to_uint8(made.images[-1].float().cpu().numpy())


def sample_grid(
    generator: Generator, text: TextEncoder, ids: Sequence[Sequence[int]], words: Sequence[str]
) -> NDArray[np.uint8]:
    """One picture of all captions: a row a caption, `GRID_SAMPLES` samples each, with its known words below.

    Args:
        ids: word numbers of the captions.
        words: the vocabulary.
    """
    rows = [
        sample_pictures(generator, text, [caption] * GRID_SAMPLES, [(row, sample) for sample in range(GRID_SAMPLES)])
        for row, caption in enumerate(ids)
    ]
    lines = [" ".join(words[number] for number in caption) for caption in ids]
    return np.concatenate([labelled(make_grid(row, GRID_SAMPLES), line) for row, line in zip(rows, lines, strict=True)])
