"""What an image encoder asks of the frozen network that it stands on."""

from torch import nn


class Backbone(nn.Module):
    """A frozen network: images [N, 3, S, S] in [-1, 1] to raw regions [N, R, h, w] and a raw pooled vector [N, P].

    Attributes:
        region_channels: R.
        pooled_channels: P.
    """

    region_channels: int
    pooled_channels: int
