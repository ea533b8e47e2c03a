"""A discriminator that looks at the features of a frozen network trained on birds (Projected GAN, 2021)."""

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from attngan_deploy.train.config import DiscriminatorConfig

POOLED_CHANNELS = 1280  # of the bird MobileNetV2
POOLED_ROOT_MEAN_SQUARE = 0.9  # over real birds at 128 px
PLACES = 16  # logits of a head


class ProjectedDiscriminator(nn.Module):
    """Four small heads on randomly mixed features of four strides; together they give logits [N, 64].

    The mixing is fixed: 1x1 convolutions bring every scale to `config.projected` channels, then each takes in the
    coarser ones from above (section 3.2 of Projected GAN, with 1x1 instead of 3x3 kernels). A head halves its map down
    to 4 x 4 and gives each place a logit plus its inner product with the sentence (projection discriminator).

    Args:
        config: `projected` is the width of the mixed features, `features` that of a sentence.
    """

    def __init__(self, config: DiscriminatorConfig, channels: Sequence[int]) -> None:
        super().__init__()
        width = config.projected
        for number, inputs in enumerate(channels):
            self.register_buffer(f"narrow_{number}", torch.randn(width, inputs, 1, 1) * inputs**-0.5)
            self.register_buffer(f"mix_{number}", torch.randn(width, width, 1, 1) * width**-0.5)
        self.two_terms = config.two_terms
        heads: list[_Head] = [_MapHead(config, len(channels) - 1 - number) for number in range(len(channels))]
        self.heads = nn.ModuleList([*heads, _PooledHead(config)] if config.pooled else heads)

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
        scales = sum(isinstance(head, _MapHead) for head in self.heads)
        inputs = [*self.mixed(maps[:scales]), *maps[scales:]]  # the pooled vector, where it has a head, comes last
        return [head.trunk(x) for head, x in self._pairs(inputs)]

    def conditional_logits(self, features: Sequence[Tensor], sentence: Tensor) -> Tensor:
        """Features of each head and sentences [N, D] to logits [N, heads x 16].

        With two terms they ask for the match alone; with one term for a real picture too.
        """
        matches = [head.match(x, sentence) for head, x in self._pairs(features)]
        joint = torch.cat(matches, dim=1)
        return joint if self.two_terms else joint + self._logits(features)

    def unconditional_logits(self, features: Sequence[Tensor]) -> Tensor | None:
        """Features of each head to logits [N, heads x 16], or None where there is one term."""
        return self._logits(features) if self.two_terms else None

    def _logits(self, features: Sequence[Tensor]) -> Tensor:
        return torch.cat([head.judge(x) for head, x in self._pairs(features)], dim=1)

    def _pairs(self, features: Sequence[Tensor]) -> "Iterable[tuple[_Head, Tensor]]":
        return zip(cast("Iterable[_Head]", self.heads), features, strict=True)


class _Head(nn.Module):
    """What turns a trunk's output into logits [N, 16]: one for itself, and its inner product with the sentence."""

    def __init__(self, trunk: list[nn.Module], logit: nn.Module, width: int, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*trunk)
        self.logit = spectral_norm(logit)
        self.sentence = spectral_norm(nn.Linear(config.features, width, bias=False))
        self.bias = nn.Parameter(torch.zeros(1)) if config.two_terms else 0.0

    def judge(self, x: Tensor) -> Tensor:
        logits: Tensor = self.logit(x)
        return _repeated(logits.flatten(1))

    def match(self, x: Tensor, sentence: Tensor) -> Tensor:
        matched = torch.einsum("nc...,nc->n...", x, self.sentence(sentence))
        return _repeated(matched.reshape(len(x), -1) + self.bias)


def _repeated(logits: Tensor) -> Tensor:
    return logits.expand(-1, PLACES) if logits.shape[1] == 1 else logits


class _MapHead(_Head):
    """Halves a map of features down to 4 x 4."""

    def __init__(self, config: DiscriminatorConfig, halvings: int) -> None:
        width, inputs = config.projected, config.projected
        layers: list[nn.Module] = []
        for _ in range(halvings):
            layers += [spectral_norm(nn.Conv2d(inputs, 2 * width, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
            inputs = 2 * width
        layers += [spectral_norm(nn.Conv2d(inputs, 2 * width, 3, padding=1)), nn.LeakyReLU(0.2)]
        super().__init__(layers, nn.Conv2d(2 * width, 1, 1), 2 * width, config)


class _PooledHead(_Head):
    """Two layers on the pooled vector; its one logit counts as often as those of a map of 4 x 4."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        width = config.pooled
        layers: list[nn.Module] = []
        for inputs in (POOLED_CHANNELS, width):
            layers += [spectral_norm(nn.Linear(inputs, width)), nn.LeakyReLU(0.2)]
        super().__init__(layers, nn.Linear(width, 1), width, config)


def recoloured(images: Tensor, amount: float) -> Tensor:
    """Images [N, 3, S, S] with another brightness, saturation and contrast each, at random (DiffAugment, 2020)."""
    images = images.float()
    changes = ((torch.rand(3, len(images), 1, 1, 1) * 2 - 1) * amount).to(images)
    brightness, saturation, contrast = changes[0], changes[1], changes[2]
    images = images + brightness
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * (1 + saturation)
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (1 + contrast)


def shifted(images: Tensor, size: int, shift: float, zoom: float = 0.0, close_up: float = 0.0) -> Tensor:
    """Images [N, 3, S, S] at side `size`, each moved by up to `shift` of its side, zoomed and mirrored at random.

    With `close_up`, instead, a part of each: from that share of its side to all of it, anywhere in the picture.

    A network with strides likes some patterns at some places; what moves can't be drawn to please them, and a
    discriminator finds it harder to learn pictures by heart (differentiable augmentation, Zhao et al., 2020).
    """
    n = len(images)
    moves = torch.zeros(n, 2, 3, device=images.device)
    moves[:, 0, 0] = torch.randint(0, 2, (n,)).to(moves) * 2 - 1
    moves[:, 1, 1] = 1
    moves[:, :, 2] = (torch.rand(n, 2) * 2 - 1).to(moves) * 2 * shift
    if close_up:
        shares = close_up + (1 - close_up) * torch.rand(n, 1)
        moves[:, :, :2] *= shares[:, :, None].to(moves)
        moves[:, :, 2] = (torch.rand(n, 2) * 2 - 1).to(moves) * (1 - shares).to(moves)
    elif zoom:
        moves[:, :, :2] *= (1 + zoom * (torch.rand(n, 1, 1) * 2 - 1)).to(moves)
    grid = F.affine_grid(moves, [n, 3, size, size], align_corners=False)
    return F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False)
