"""The published networks' weights, inputs and outputs at small sizes, read from the shared fixtures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attngan_deploy.train.imports.published_names import rename_published


class Published:
    """One fixture: `weights(table)`, `inputs[...]`, `outputs[...]` and `sizes`."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as archive:
            arrays = {name: archive[name] for name in archive.files}
        meta = json.loads(str(arrays.pop("meta")))
        self.sizes: dict[str, Any] = meta["cfg"] | meta["hparams"]
        tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
        self.inputs = {name[3:]: value for name, value in tensors.items() if name.startswith("in/")}
        self.outputs = {name[4:]: value for name, value in tensors.items() if name.startswith("out/")}
        self._weights = {name[3:]: value for name, value in tensors.items() if name.startswith("sd/")}

    def weights(self, names: tuple[tuple[str, str], ...], prefix: str = "") -> dict[str, Tensor]:
        """Weights under our names; `prefix` picks one of several networks in the file."""
        chosen = {name[len(prefix) :]: value for name, value in self._weights.items() if name.startswith(prefix)}
        return rename_published(chosen, names)

    def check(self, name: str, ours: Tensor) -> None:
        """Assert that an output equals the published one at 1e-5; strided fixtures hold every third pixel."""
        strided = name + "__stride3"
        if strided in self.outputs:
            torch.testing.assert_close(ours[..., ::3, ::3], self.outputs[strided], atol=1e-5, rtol=1e-5)
        else:
            torch.testing.assert_close(ours, self.outputs[name], atol=1e-5, rtol=1e-5)
