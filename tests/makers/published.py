"""The published networks' weights, inputs and outputs at small sizes, read from tests/data."""

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attngan_deploy.train.imports.published_names import rename_published
from tests import DATA

EVERY_THIRD = "__stride3"  # ends the names of outputs of which only every third row and column is kept


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
