"""How the parts of a block follow each other: which BatchNorm and which GLU take the output of which layer.

A block declares its parts in the order in which they run: a BatchNorm declared directly after a linear layer or a
convolution takes its output, and a GLU declared directly after one of them takes that. Export and training on from a
bundle read this order, and so need to know no block by name.
"""

from collections.abc import Iterator
from typing import NamedTuple

from torch import nn

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
Norm = nn.BatchNorm1d | nn.BatchNorm2d


class FollowedLayer(NamedTuple):
    """Where a layer stands in its network, and the BatchNorm and the GLU that follow it; None for one that does not."""

    layer: str
    norm: str | None
    glu: str | None


def followed_layers(network: nn.Module) -> Iterator[FollowedLayer]:
    """Every layer of a network that a BatchNorm or a GLU follows."""
    for path, block in network.named_modules():
        parts = [
            (f"{path}.{name}".lstrip("."), part)
            for name, part in block.named_children()
            if not isinstance(part, nn.Identity)
        ]
        for place, (layer, kind) in enumerate(parts):
            if isinstance(kind, LAYERS):
                after = parts[place + 1 : place + 3]
                norm = after.pop(0)[0] if after and isinstance(after[0][1], NORMS) else None
                glu = after[0][0] if after and isinstance(after[0][1], nn.GLU) else None
                if norm or glu:
                    yield FollowedLayer(layer, norm, glu)
