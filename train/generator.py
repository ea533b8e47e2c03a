"""The generator: conditioning augmentation, a first stage at 64 px, and stages that double the size.

One class serves `attngan`, `base`, `att1` and `att2`; a configuration says which blocks it has.
"""

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attngan_deploy.engines.openvino.graph import TRANSPOSED
from attngan_deploy.train.attention import FEATURE_BLOCKS, WORD_BLOCKS, WordAttention
from attngan_deploy.train.compiled import norm_add, norm_glu
from attngan_deploy.train.config import GeneratorConfig

NEAREST_AS_TRANSPOSED = torch.from_numpy(TRANSPOSED)


class Generated(NamedTuple):
    """What a generator returns: images in [-1, 1], smallest first; attention [N, T, h, w] of each later stage.

    Mean and log-variance of the condition are [N, 0] where a family has no conditioning augmentation.
    """

    images: list[Tensor]
    attention: list[Tensor]
    mu: Tensor
    logvar: Tensor


def transposed_weight(weight: Tensor) -> Tensor:
    """Kernel [in, out, 4, 4] of the transposed convolution that equals nearest x2 and then `weight` [out, in, 3, 3]."""
    matrix = NEAREST_AS_TRANSPOSED.to(weight)
    both_sides = torch.kron(matrix, matrix)  # one product of matrices instead of one for each kernel
    kernels: Tensor = (weight.flatten(2) @ both_sides.T).unflatten(2, (4, 4))
    return kernels.transpose(0, 1)


class UpsampledConv2d(nn.Conv2d):
    """Nearest x2, conv 3x3, computed as these two or as one transposed convolution."""

    def __init__(self, inputs: int, outputs: int, upsampling: str, bias: bool = False) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=bias)
        self.upsampling = upsampling

    def forward(self, x: Tensor) -> Tensor:
        """x [N, C, H, W] to [N, outputs, 2H, 2W]."""
        if self.upsampling == "transposed":
            return F.conv_transpose2d(x, transposed_weight(self.weight), self.bias, stride=2, padding=1)
        return super().forward(F.interpolate(x, scale_factor=2, mode="nearest"))


class GatedConv(nn.Module):
    """A convolution without bias, BatchNorm, GLU."""

    compiled = False

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.norm = nn.BatchNorm2d(conv.out_channels)
        self.glu = nn.GLU(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, C, H, W] to [N, outputs, H, W], or to twice the side where the convolution doubles it."""
        if self.compiled:
            return norm_glu(self.norm, self.conv(x), True)
        gated: Tensor = self.glu(self.norm(self.conv(x)))
        return gated


class ConvGlu(GatedConv):
    """Conv 3x3 without bias, BatchNorm, GLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Conv2d(inputs, 2 * outputs, 3, padding=1, bias=False))


class Upsample(GatedConv):
    """Nearest x2, conv 3x3, BatchNorm, GLU."""

    def __init__(self, inputs: int, outputs: int, upsampling: str) -> None:
        super().__init__(UpsampledConv2d(inputs, 2 * outputs, upsampling))


class Residual(nn.Module):
    """Residual block: ConvGlu, conv 3x3, BatchNorm, added to the input."""

    compiled = False

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gated = ConvGlu(channels, channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, C, H, W] to the same shape."""
        return norm_add(self.norm, self.conv(self.gated(x)), x, self.compiled)


class ConditioningAugmentation(nn.Module):
    """Sentence feature to a Gaussian over conditions (section 3.2 of StackGAN); its noise comes from outside."""

    def __init__(self, features: int, condition: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 4 * condition)
        self.glu = nn.GLU(dim=1)

    def forward(self, sentence: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sentence [N, D] and eps [N, condition] to condition, mu and log-variance, each [N, condition]."""
        mu, logvar = self.glu(self.linear(sentence)).chunk(2, dim=1)
        return mu + (0.5 * logvar).exp() * eps, mu, logvar


class FirstStage(nn.Module):
    """Condition and noise to image features at 64 px."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        width = config.width * 16
        self.linear = nn.Linear(config.condition + config.noise, 2 * width * 4 * 4, bias=False)
        self.norm = nn.BatchNorm1d(2 * width * 4 * 4)
        self.glu = nn.GLU(dim=1)
        self.upsample = nn.Sequential(
            *(Upsample(width >> i, width >> (i + 1), config.upsampling) for i in range(4))  # 8, 16, 32, 64 px
        )

    def forward(self, condition: Tensor, z: Tensor) -> Tensor:
        """Condition [N, c] and z [N, noise] to h [N, width, 64, 64]."""
        x = self.glu(self.norm(self.linear(torch.cat([condition, z], dim=1))))
        h: Tensor = self.upsample(x.unflatten(1, (-1, 4, 4)))
        return h


class NextStage(nn.Module):
    """Image features and words to image features of twice the size."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        width = config.width
        self.word_blocks = [name for name in config.blocks if name in WORD_BLOCKS]
        self.feature_blocks = [name for name in config.blocks if name not in ("fuse", *WORD_BLOCKS)]
        for name in self.word_blocks:
            self.add_module(name, WORD_BLOCKS[name](config.features))
        for name in self.feature_blocks:
            self.add_module(name, FEATURE_BLOCKS[name](width))
        self.attention = WordAttention(width, config.features)
        self.fuse = ConvGlu(2 * width, width) if "fuse" in config.blocks else None
        inner = 2 * width if self.fuse is None else width
        self.residual = nn.Sequential(*(Residual(inner) for _ in range(config.residual_blocks)))
        self.upsample = Upsample(inner, width, config.upsampling)

    def forward(self, h: Tensor, words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """h [N, C, S, S], words [N, D, T], mask bool [N, T] to h [N, C, 2S, 2S] and attention [N, T, S, S]."""
        for name in self.word_blocks:
            words = self.get_submodule(name)(words, mask)
        for name in self.feature_blocks:
            h = h + self.get_submodule(name)(h)
        context, attention = self.attention(h, words, mask)
        x = torch.cat([h, context], dim=1)
        if self.fuse is not None:
            x = self.fuse(x)
        return self.upsample(self.residual(x)), attention


class ToImage(nn.Module):
    """Image features to an RGB image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, 3, 3, padding=1, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        """h [N, C, S, S] to an image [N, 3, S, S] in [-1, 1]."""
        image: Tensor = self.conv(h).tanh()
        return image


class Generator(nn.Module):
    """Sentence, words and noise to one image per stage (section 6 of the design; figure 2 of AttnGAN)."""

    inputs: tuple[str, ...] = ("sentence", "words", "mask", "z", "eps")  # of its graph, in the order of `forward`
    next_stage: ClassVar[type[nn.Module]] = NextStage  # what each later stage is

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.augmentation = ConditioningAugmentation(config.features, config.condition)
        self.first = FirstStage(config)
        self.later = nn.ModuleList(self.next_stage(config) for _ in range(config.stages - 1))
        self.to_image = nn.ModuleList(ToImage(config.width) for _ in range(config.stages))

    def forward(self, sentence: Tensor, words: Tensor, mask: Tensor, z: Tensor, eps: Tensor) -> Generated:
        """Generate.

        Args:
            sentence: [N, features].
            words: [N, features, T].
            mask: bool [N, T], True where there is a word.
            z: noise [N, noise].
            eps: noise of conditioning augmentation [N, condition].
        """
        condition, mu, logvar = self.augmentation(sentence, eps)
        h = self.first(condition, z)
        images, maps = [self.to_image[0](h)], []
        for stage, to_image in zip(self.later, self.to_image[1:], strict=True):
            h, attention = stage(h, words, mask)
            images.append(to_image(h))
            maps.append(attention)
        return Generated(images, maps, mu, logvar)
