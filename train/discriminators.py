"""Discriminators: an image and a sentence to logits, one network a stage.

`PublishedDiscriminator` is AttnGAN's (64, 128 or 256 px). `OneWayDiscriminator` is DF-GAN's: one conditional output,
smooth by a gradient penalty rather than by batch norm.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attngan_deploy.train.backbones.lite_lens import SCALES as SECOND_SCALES
from attngan_deploy.train.compiled import NormLeaky
from attngan_deploy.train.config import DiscriminatorConfig
from attngan_deploy.train.projected import ProjectedDiscriminator

SECOND_CHANNELS = [channels for channels, _ in SECOND_SCALES.values()]


def _halve(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False), NormLeaky(outputs))


def _mix(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), NormLeaky(outputs))


class StageDiscriminator(nn.Module):
    """A trunk of one size, and a conditional and perhaps an unconditional head on its features."""

    trunk: nn.Module
    joint: nn.Module
    conditional: nn.Module
    unconditional: nn.Module | None

    def features(self, images: Tensor) -> Tensor:
        """Images [N, 3, S, S] to features [N, C, 4, 4]."""
        features: Tensor = self.trunk(images)
        return features

    def conditional_logits(self, features: Tensor, sentence: Tensor) -> Tensor:
        """Features [N, C, 4, 4] and sentences [N, D] to logits [N]."""
        tiled = sentence[:, :, None, None].expand(-1, -1, *features.shape[2:])
        logits: Tensor = self.conditional(self.joint(torch.cat([features, tiled], dim=1)))
        return logits.view(-1)

    def unconditional_logits(self, features: Tensor) -> Tensor | None:
        """Features [N, C, 4, 4] to logits [N], or None where this network has no such head."""
        if self.unconditional is None:
            return None
        logits: Tensor = self.unconditional(features)
        return logits.view(-1)


class PublishedDiscriminator(StageDiscriminator):
    """AttnGAN's discriminator for one size, with an unconditional and a conditional head.

    Its losses are equations (7) and (8) of the paper: `losses.published_generator_loss` and its neighbour.
    """

    def __init__(self, config: DiscriminatorConfig, size: int) -> None:
        super().__init__()
        width, deepest = config.width, config.width * size // 8
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1, bias=False), nn.LeakyReLU(0.2)]
        while width < deepest:
            layers.append(_halve(width, 2 * width))
            width *= 2
        while width > 8 * config.width:
            layers.append(_mix(width, width // 2))
            width //= 2
        self.trunk = nn.Sequential(*layers)  # [N, 8 x width, 4, 4]
        self.joint = _mix(width + config.features, width)
        self.conditional = nn.Conv2d(width, 1, 4, stride=4)
        self.unconditional = nn.Conv2d(width, 1, 4, stride=4) if config.unconditional else None


class _LeakyConv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(super().forward(x), 0.2)


class _ResidualDown(nn.Module):
    """DF-GAN's residual block of a discriminator: two convolutions, a learned residual weight, average pool."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
        self.conv = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        residual = F.leaky_relu(self.conv(F.leaky_relu(self.reduce(x), 0.2)), 0.2)
        shortcut = F.avg_pool2d(self.shortcut(x), 2)
        return shortcut + self.gain * residual


class OneWayDiscriminator(StageDiscriminator):
    """DF-GAN's discriminator: one conditional logit a picture (section 3.3 of DF-GAN).

    Its stem halves the picture, where DF-GAN's first block works at full size: a fifth of the multiplications.
    `config.width` is that of a picture of 64 px; a larger one begins narrower, so that every resolution has the same
    channels in all stages.
    """

    def __init__(self, config: DiscriminatorConfig, size: int) -> None:
        super().__init__()
        width = max(1, config.width * 64 // size)
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        side = size // 2
        while side > 4:
            wider = min(2 * width, 16 * config.width)
            layers.append(_ResidualDown(width, wider))
            width, side = wider, side // 2
        self.trunk = nn.Sequential(*layers)
        self.joint = _LeakyConv2d(width + config.features, 2 * config.width, 3, padding=1, bias=False)
        self.conditional = nn.Conv2d(2 * config.width, 1, 4, bias=False)
        self.unconditional = nn.Conv2d(width, 1, 4, bias=False) if config.two_terms else None


def build_discriminators(
    config: DiscriminatorConfig, sizes: tuple[int, ...], channels: Sequence[int] = ()
) -> nn.ModuleList:
    """One discriminator of the configured kind for each size, then the projected ones, of the last sizes.

    Args:
        channels: of the backbone's features that a projected one looks at, finest scale first.
    """
    kinds = {"published": PublishedDiscriminator, "one_way": OneWayDiscriminator}
    nets: list[nn.Module] = [kinds[config.kind](config, size) for size in sizes] if config.kind in kinds else []
    projected = [ProjectedDiscriminator(config, channels) for _ in projected_sizes(config, sizes)]
    second = [ProjectedDiscriminator(config, SECOND_CHANNELS)] if config.second_lens else []
    return nn.ModuleList([*nets, *projected, *second])


def projected_sizes(config: DiscriminatorConfig, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Those of the sizes whose pictures a projected discriminator looks at."""
    return sizes[-config.projected_stages :] if config.projected else ()
