"""The published networks' weights, inputs and outputs at small sizes, read from tests/data."""

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attngan_deploy.train.imports.published_names import rename_published
from attngan_deploy.train.losses import Gammas, matching_loss, sentence_similarities, word_similarities
from tests import DATA

# names of weights in networks that the toolkit does not import
IMAGE_HEADS = ((r"emb_features\.", "regions."), (r"emb_cnn_code\.", "code."))
DISCRIMINATOR = (
    (r"img_code_s16\.0\.", "trunk.0."),
    (r"img_code_s16\.2\.", "trunk.2.0."),
    (r"img_code_s16\.3\.", "trunk.2.1."),
    (r"img_code_s16\.5\.", "trunk.3.0."),
    (r"img_code_s16\.6\.", "trunk.3.1."),
    (r"img_code_s16\.8\.", "trunk.4.0."),
    (r"img_code_s16\.9\.", "trunk.4.1."),
    (r"img_code_s32\.", "trunk.5."),
    (r"img_code_s32_1\.", "trunk.6."),
    (r"img_code_s64\.", "trunk.6."),
    (r"img_code_s64_1\.", "trunk.7."),
    (r"img_code_s64_2\.", "trunk.8."),
    (r"COND_DNET\.jointConv\.", "joint."),
    (r"COND_DNET\.outlogits\.0\.", "conditional."),
    (r"UNCOND_DNET\.outlogits\.0\.", "unconditional."),
)

EVERY_THIRD = "__stride3"  # ends the names of outputs of which only every third row and column is kept


def words_loss(
    regions: Tensor, words: Tensor, mask: Tensor, gammas: Gammas, classes: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Word-level DAMSM loss of N matching pairs, both directions."""
    return matching_loss(word_similarities(regions, words, mask, gammas), gammas.gamma3, classes)


def sentence_loss(codes: Tensor, sentences: Tensor, gamma3: float, classes: Tensor | None) -> tuple[Tensor, Tensor]:
    """Sentence-level DAMSM loss of N matching pairs, both directions."""
    return matching_loss(sentence_similarities(codes, sentences), gamma3, classes)


class Published:
    """One file of tests/data: `weights(table)`, `inputs[...]`, `outputs[...]` and `sizes`.

    Attributes:
        state: the weights under the published names, without `num_batches_tracked`, as torch 0.3 had it.
    """

    def __init__(self, name: str) -> None:
        with np.load(DATA / f"{name}.npz") as archive:
            arrays = {key: archive[key] for key in archive.files}
        meta = json.loads(str(arrays.pop("meta")))
        self.sizes: dict[str, Any] = meta["cfg"] | meta["hparams"]
        self._shapes = meta["shapes"]
        tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
        self.inputs = {key[3:]: value for key, value in tensors.items() if key.startswith("in/")}
        self.outputs = {key[4:]: value for key, value in tensors.items() if key.startswith("out/")}
        self.state = {key[3:]: value for key, value in tensors.items() if key.startswith("sd/")}

    def weights(self, names: tuple[tuple[str, str], ...], prefix: str = "") -> dict[str, Tensor]:
        """Weights under our names; `prefix` picks one of several networks in the file."""
        chosen = {name[len(prefix) :]: value for name, value in self.state.items() if name.startswith(prefix)}
        return rename_published(chosen, names)

    def check(self, name: str, ours: Tensor, atol: float = 1e-5, rtol: float = 1e-5) -> None:
        """Assert that an output equals the published one; of large ones every third row and column is compared."""
        if name in self._shapes:
            assert list(ours.shape) == self._shapes[name]
            name, ours = name + EVERY_THIRD, ours[..., ::3, ::3]
        torch.testing.assert_close(ours, self.outputs[name], atol=atol, rtol=rtol)
