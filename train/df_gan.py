"""DF-GAN's generator (Tao et al., "DF-GAN: A Simple and Effective Baseline for Text-to-Image Synthesis", CVPR 2022).

One stage from noise to the picture. Sentence and noise together scale and shift the features of every block; words are
not looked at, and no noise is drawn for the condition.
"""

from itertools import pairwise
from math import log2

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attngan_deploy.train.config import GeneratorConfig
from attngan_deploy.train.generator import Generated, UpsampledConv2d

SLOPE = 0.2  # of every leaky ReLU
FIRST_SIZE, WIDEST = 4, 8  # side of the first map, and its channels in widths


class Affine(nn.Module):
    """Features scaled and shifted, channel by channel, by what two perceptrons say of the condition."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.scale = _perceptron(condition, channels)
        self.shift = _perceptron(condition, channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x [N, C, H, W] and condition [N, K] to the same shape as x."""
        scaled: Tensor = self.scale(condition)[:, :, None, None] * x
        shift: Tensor = self.shift(condition)[:, :, None, None]
        return scaled + shift


class Fusion(nn.Module):
    """Deep fusion of text and image: two affine layers, each with a leaky ReLU."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.first = Affine(channels, condition)
        self.second = Affine(channels, condition)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x [N, C, H, W] and condition [N, K] to the same shape as x."""
        x = F.leaky_relu(self.first(x, condition), SLOPE)
        return F.leaky_relu(self.second(x, condition), SLOPE)


class UpBlock(nn.Module):
    """An up-block: nearest x2, and a residual block of two fusions, each with a convolution.

    The published code doubles the map first. What works on each place alone, the first fusion and the convolution of
    1 x 1 on the shortcut, gives the same before that with a quarter of the work.
    """

    def __init__(self, inputs: int, outputs: int, config: GeneratorConfig) -> None:
        super().__init__()
        condition = config.noise + config.features
        self.fuse1 = Fusion(inputs, condition)
        self.conv1 = UpsampledConv2d(inputs, outputs, config.upsampling, bias=True)
        self.fuse2 = Fusion(outputs, condition)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x [N, C, S, S] and condition [N, K] to [N, outputs, 2S, 2S]."""
        straight = F.interpolate(self.shortcut(x), scale_factor=2, mode="nearest")
        bent: Tensor = self.conv2(self.fuse2(self.conv1(self.fuse1(x, condition)), condition))
        return straight + bent


class FusionGenerator(nn.Module):
    """Sentence and noise to one image; `inputs` is what its graph takes."""

    inputs: tuple[str, ...] = ("sentence", "z")

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        widths = block_widths(config)
        self.linear = nn.Linear(config.noise, widths[0] * FIRST_SIZE**2)
        self.blocks = nn.ModuleList(UpBlock(*pair, config) for pair in pairwise(widths))
        self.to_image = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, sentence: Tensor, z: Tensor) -> Generated:
        """Generate from sentence [N, features] and z [N, noise]."""
        condition = torch.cat([z, sentence], dim=1)
        x = self.linear(z).unflatten(1, (-1, FIRST_SIZE, FIRST_SIZE))
        for block in self.blocks:
            x = block(x, condition)
        image = self.to_image(F.leaky_relu(x, SLOPE)).tanh()
        nothing = condition[:, :0]
        return Generated([image], [], nothing, nothing)


def block_widths(config: GeneratorConfig) -> list[int]:
    """Channels before the first block and behind each: 8 widths until they are halved to one."""
    blocks = round(log2(config.sizes[-1] // FIRST_SIZE))
    return [config.width * min(WIDEST, 2**left) for left in range(blocks, -1, -1)]


def _perceptron(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(), nn.Linear(outputs, outputs))
