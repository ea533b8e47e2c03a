"""Figures 6 to 9 of the paper: ten pictures of one caption, and one caption in four colours."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.media.attention import attention_sheet
from attngan_deploy.media.images import make_grid
from attngan_deploy.score.metrics.colours import COLOURS

CAPTION_1 = (
    "this small bird has a bright fiery red breast tapering down to a yellow tail that is contrasted by a completely "
    "black head"
)
CAPTION_2 = (
    "this smaller bird has a gray belly and breast with {colour} speckles, a {colour} crown, and a short pointy bill"
)
SAMPLES = 10
COLOUR_SAMPLES = 5


@dataclass(frozen=True)
class Figures:
    """What one model makes of the paper's captions."""

    samples: NDArray[np.uint8]  # Figure 6, uint8 [H, W, 3]: ten pictures of caption 1 in two rows
    # Figures 7 to 9: caption 2 in a colour, to a row of pictures; the same noise in every colour
    colours: Mapping[str, NDArray[np.uint8]]
    # the first picture of Figure 6, and what each word looked at; None of a model that looks at no words
    attention: NDArray[np.uint8] | None


def draw_figures(model: TextToImage, seed: int = 0) -> Figures:
    """Make the figures of one model."""
    samples = list(model.stream([CAPTION_1], seed, SAMPLES, SAMPLES))
    pictures = np.concatenate([batch.pictures for batch in samples])
    maps = samples[0].attention
    words = [model.tokenizer.words[number] for number in model.tokenizer.encode(CAPTION_1).ids]
    return Figures(
        make_grid(pictures, SAMPLES // 2),
        {
            colour: make_grid(
                model.generate([CAPTION_2.format(colour=colour)], seed, COLOUR_SAMPLES, COLOUR_SAMPLES), COLOUR_SAMPLES
            )
            for colour in COLOURS
        },
        None if maps is None else attention_sheet(pictures[0], maps[0], words),
    )
