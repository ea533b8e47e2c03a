"""What goes from the text encoder to the generator and what comes out, as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.bundles.bundle import Bundle
from attngan_deploy.engines.facts import Tensors
from attngan_deploy.errors import EngineError
from attngan_deploy.media.caption import Caption

Sheets = Sequence[NDArray[np.uint8]]  # pictures of attention, one for each picture of a batch


@dataclass(frozen=True)
class TextFeatures:
    """What the text encoder makes of captions; may be built by hand."""

    words: NDArray[np.float32]  # f32 [N, D, T], a feature for each word
    sentence: NDArray[np.float32]  # f32 [N, D], a feature for each caption
    mask: NDArray[np.bool_]  # bool [N, T], True where there is a word; at least one in every row

    def __len__(self) -> int:
        return len(self.sentence)


@dataclass(frozen=True)
class Stages:
    """What the generator makes of text features and noise."""

    images: dict[int, NDArray[np.float32]]  # picture size to f32 [N, 3, size, size] in [-1, 1], one entry a stage
    # f32 [N, T, A, A]: how much each place of the picture looked at each word; sums to 1 over words
    attention: NDArray[np.float32]


@dataclass(frozen=True)
class Batch:
    """Pictures that were made together."""

    pictures: NDArray[np.uint8]  # uint8 [N, S, S, 3]
    places: list[tuple[int, int]]  # the caption's place in the input and the sample number of each picture
    attention: NDArray[np.float32] | None = None  # f32 [N, T, A, A] of the last stage; None where it was not asked for
    captions: list[Caption] = field(default_factory=list, repr=False)


def collate(features: list[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> TextFeatures:
    """Text features of single captions as one batch, padded to the longest."""
    longest = max(words.shape[1] for words, _ in features)
    mask = np.zeros((len(features), longest), np.bool_)
    padded = np.zeros((len(features), features[0][0].shape[0], longest), np.float32)
    for row, (words, _) in enumerate(features):
        padded[row, :, : words.shape[1]] = words
        mask[row, : words.shape[1]] = True
    return TextFeatures(padded, np.stack([sentence for _, sentence in features]), mask)


def check_features(bundle: Bundle, inputs: Tensors) -> None:
    """Raise EngineError where a generator can't take arrays: other shapes, or a caption without a word in its mask."""
    sizes, mask = bundle.manifest.sizes, inputs["mask"]
    count, words = mask.shape if mask.ndim == 2 else (-1, -1)
    expected = {
        "words": (count, sizes.features, words),
        "sentence": (count, sizes.features),
        "mask": (count, words),
        "z": (count, sizes.z),
        "eps": (count, sizes.eps),
    }
    for name, shape in expected.items():
        if (found := inputs[name].shape) != shape:
            raise EngineError(f"{name} does not fit model {bundle.name}", found=str(found), expected=str(shape))
    if not mask.any(axis=1).all():
        raise EngineError("a caption has no word in its mask", expected="at least one True in every row")
