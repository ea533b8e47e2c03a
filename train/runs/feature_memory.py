"""Pooled features of earlier steps, which `losses.nearest_loss` compares a batch with."""

import torch
from torch import Tensor

MEMORY = 2048  # pictures of either kind


class FeatureMemory:
    """The latest pooled features [M, P] of real and of generated pictures, first in, first out."""

    def __init__(self) -> None:
        self.real, self.generated = torch.empty(0), torch.empty(0)

    def add(self, real: Tensor, generated: Tensor) -> None:
        """Take the features of a batch, and forget the oldest beyond `MEMORY`."""
        self.real, self.generated = (
            torch.cat([kept, new])[-MEMORY:] if len(kept) else new
            for kept, new in ((self.real, real), (self.generated, generated))
        )

    @property
    def is_full(self) -> bool:
        """False at the beginning, when the nearest ones would not be near."""
        return len(self.real) >= MEMORY

    def tensors(self) -> dict[str, Tensor]:
        """What `add` gives back to an empty memory."""
        return {"real": self.real, "generated": self.generated}
