"""A discriminator that looks at the features of a frozen network trained on birds (Projected GAN, 2021)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from attngan_deploy.train.config import DiscriminatorConfig


class ProjectedDiscriminator(nn.Module):
    """Four small heads on randomly mixed features of four strides; together they give logits [N, 64].

    The mixing is fixed: 1x1 convolutions bring every scale to `config.projected` channels, then each takes in the
    coarser ones from above (section 3.2 of Projected GAN, with 1x1 instead of 3x3 kernels). A head halves its map down
    to 4 x 4 and gives each place a logit plus its inner product with the sentence (projection discriminator).

    Args:
        config: `projected` is the width of the mixed features, `features` that of a sentence.
        channels: of the features, finest scale first.
    """

    def __init__(self, config: DiscriminatorConfig, channels: Sequence[int]) -> None:
        super().__init__()
        width = config.projected
        for number, inputs in enumerate(channels):
            self.register_buffer(f"narrow_{number}", torch.randn(width, inputs, 1, 1) * inputs**-0.5)
            self.register_buffer(f"mix_{number}", torch.randn(width, width, 1, 1) * width**-0.5)
        self.heads = nn.ModuleList(_Head(width, config.features, len(channels) - 1 - n) for n in range(len(channels)))

    def mixed(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Features, finest first, to as many maps [N, width, h, w] that each know of the coarser ones."""
        above: Tensor | None = None
        found: list[Tensor] = []
        for number in reversed(range(len(maps))):
            x = F.conv2d(maps[number], self.get_buffer(f"narrow_{number}"))
            if above is not None:
                x = (x + F.interpolate(above, size=x.shape[2:], mode="nearest")) * 0.5**0.5
            above = F.conv2d(x, self.get_buffer(f"mix_{number}"))
            found.append(above)
        return found[::-1]

    def features(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Features of a picture, finest scale first, to maps [N, C, 4, 4], one a head."""
        heads: list[Any] = list(self.heads)
        return [head.trunk(x) for head, x in zip(heads, self.mixed(maps), strict=True)]

    def conditional_logits(self, features: Sequence[Tensor], sentence: Tensor) -> Tensor:
        """Maps [N, C, 4, 4] of each head and sentences [N, D] to logits [N, heads x 16]."""
        return torch.cat([head(x, sentence) for head, x in zip(self.heads, features, strict=True)], dim=1)


class _Head(nn.Module):
    def __init__(self, width: int, features: int, halvings: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = width
        for _ in range(halvings):
            layers += [spectral_norm(nn.Conv2d(inputs, 2 * width, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
            inputs = 2 * width
        layers += [spectral_norm(nn.Conv2d(inputs, 2 * width, 3, padding=1)), nn.LeakyReLU(0.2)]
        self.trunk = nn.Sequential(*layers)
        self.logit = spectral_norm(nn.Conv2d(2 * width, 1, 1))
        self.sentence = spectral_norm(nn.Linear(features, 2 * width, bias=False))

    def forward(self, x: Tensor, sentence: Tensor) -> Tensor:
        matched = torch.einsum("nchw,nc->nhw", x, self.sentence(sentence))
        logits: Tensor = self.logit(x).squeeze(1) + matched
        return logits.flatten(1)
