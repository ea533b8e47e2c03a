"""The image encoder of DAMSM: a frozen backbone, and two linear maps into the space of the text features."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from attngan_deploy.errors import CheckpointError, MissingExtraError
from attngan_deploy.train.backbones.efficientnet_lite import same_padding
from attngan_deploy.train.backbones.inception import load_inception
from attngan_deploy.train.backbones.judge_backbone import Backbone, JudgeBackbone
from attngan_deploy.train.config import ImageEncoderConfig

# output channels and stride of the inverted residual blocks of MobileNetV2 (table 2 of its paper), block 1 to 17
MOBILENET_BLOCKS = (
    [(16, 1), (24, 2), (24, 1), (32, 2), (32, 1), (32, 1), (64, 2)]
    + [(64, 1)] * 3
    + [(96, 1)] * 3
    + [(160, 2), (160, 1), (160, 1), (320, 1)]
)
IMPORT = "t2i import-backbone mobilenet_v2_1.0_224_inat_bird_quant.tflite"  # the README says where it comes from
REGION_BLOCK = 14  # the last one of stride 16, of which regions are the expansion

# blocks after which a scale ends (strides 4, 8, 16, 32): channels, and the root mean square over real birds at 128 px
SCALES = {3: (24, 5.5), 6: (32, 5.6), 13: (96, 4.9), 17: (320, 2.0)}


class Scales(NamedTuple):
    """What one pass of a backbone gives.

    maps: features of strides 4, 8, 16 and 32, each of mean square about 1; regions and pooled: what DAMSM reads.
    """

    maps: list[Tensor]
    regions: Tensor
    pooled: Tensor


class EncodedImages(NamedTuple):
    """regions [N, features, h, w] and one code [N, features] a picture."""

    regions: Tensor
    codes: Tensor


def padded_as_in_tensorflow(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """TensorFlow's "same" padding: a stride-2 convolution on an even side pads right and bottom only."""
    y: Tensor
    if conv.stride[0] == 1:
        y = conv(x)
        return y
    if conv.groups > 1 and x.requires_grad and torch.is_grad_enabled():
        # every other place of the same convolution with stride 1: what is thrown away costs less than torch's backward
        # of a depthwise convolution with stride 2 (on a CPU, seven eighths of the whole backbone's)
        every = F.conv2d(x, conv.weight, conv.bias, padding=conv.kernel_size[0] // 2, groups=conv.groups)
        return every[:, :, (x.shape[2] + 1) % 2 :: 2, (x.shape[3] + 1) % 2 :: 2]
    top, left = (same_padding(side, conv.kernel_size[0], 2) for side in x.shape[2:])
    y = conv(F.pad(x, (*left, *top)))
    return y


def _conv3(inputs: int, outputs: int, stride: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=0 if stride == 2 else 1, groups=groups)


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = nn.Conv2d(inputs, hidden, 1) if expansion > 1 else None
        self.depthwise = _conv3(hidden, hidden, stride, groups=hidden)
        self.project = nn.Conv2d(hidden, outputs, 1)
        self.adds = stride == 1 and inputs == outputs

    def widen(self, x: Tensor) -> Tensor:
        return x if self.expand is None else F.relu6(self.expand(x))

    def forward(self, x: Tensor, widened: Tensor | None = None) -> Tensor:
        hidden = self.widen(x) if widened is None else widened
        y: Tensor = self.project(F.relu6(padded_as_in_tensorflow(hidden, self.depthwise)))
        return x + y if self.adds else y


class BirdMobileNet(Backbone):
    """MobileNetV2 trained on birds, batch norm folded (Apache-2.0).

    Regions are the expansion of `REGION_BLOCK`; the pooled vector is what its classifier reads.
    """

    region_channels = 576
    pooled_channels = 1280

    def __init__(self) -> None:
        super().__init__()
        channels, blocks = 32, []
        for index, (outputs, stride) in enumerate(MOBILENET_BLOCKS):
            blocks.append(_Block(channels, outputs, stride, 1 if index == 0 else 6))
            channels = outputs
        self.features = nn.ModuleList([_conv3(3, 32, 2), *blocks, nn.Conv2d(320, 1280, 1)])

    @classmethod
    def load(cls, path: Path) -> "BirdMobileNet":
        """Read the backbone's safetensors file, frozen and in evaluation mode.

        Raises:
            CheckpointError: the file is missing, damaged, or of another network.
        """
        net = cls()
        try:
            state = load_file(path)
            net.load_state_dict({name: value.float() for name, value in state.items() if "classifier" not in name})
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"no backbone can be read from {path}: {error}",
                expected="mobilenet_v2_inat_birds.safetensors",
                next_step=IMPORT,
            ) from error
        except RuntimeError as error:
            raise CheckpointError(f"{path} is not the bird MobileNetV2: {error}") from error
        return net.requires_grad_(False).eval()

    def scales(self, images: Tensor) -> Scales:
        """Images [N, 3, S, S] in [-1, 1] to everything that is read from this network, in one pass."""
        x = images * (127.5 / 128) - 0.5 / 128  # (uint8 - 128) / 128
        layers: list[Any] = list(self.features)
        stem, *blocks, last = layers
        x = F.relu6(padded_as_in_tensorflow(x, stem))
        seen = []
        for number, block in enumerate(blocks, start=1):
            if number == REGION_BLOCK:
                regions = block.widen(x)
            x = block(x, regions) if number == REGION_BLOCK else block(x)
            if number in SCALES:
                seen.append(x / SCALES[number][1])
        return Scales(seen, regions, F.relu6(last(x)).mean((2, 3)))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images [N, 3, S, S] in [-1, 1] to regions [N, 576, S/16, S/16] and pooled [N, 1280]."""
        scales = self.scales(images)
        return scales.regions, scales.pooled


class InceptionBackbone(Backbone):
    """Inception-v3 to Mixed_6e and its pooled end, the published choice; torchvision downloads its weights."""

    region_channels = 768
    pooled_channels = 2048

    def __init__(self, weights: Path | None = None) -> None:
        super().__init__()
        if weights is None:
            try:
                from torchvision.models import Inception_V3_Weights
            except ImportError as error:
                raise MissingExtraError(
                    f"the Inception-v3 image encoder needs torchvision: {error}",
                    next_step="pip install torchvision, or train with --image-encoder mobilenet_v2_birds",
                ) from error
            Inception_V3_Weights.IMAGENET1K_V1.get_state_dict(progress=True)  # into the cache of torch.hub
            weights = Path(torch.hub.get_dir(), "checkpoints", Path(Inception_V3_Weights.IMAGENET1K_V1.url).name)
        self.net = load_inception(weights)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images [N, 3, S, S] in [-1, 1], resized to 299, to regions [N, 768, 17, 17] and pooled [N, 2048]."""
        images = F.interpolate(images, size=(299, 299), mode="bilinear", align_corners=True)
        regions, last = self.net.maps(images)
        return regions, last.mean((2, 3))


class ImageEncoderHeads(nn.Module):
    """The two trained maps: raw regions and raw pooled vectors into the text space."""

    def __init__(self, region_channels: int, pooled_channels: int, features: int) -> None:
        super().__init__()
        self.regions = nn.Conv2d(region_channels, features, 1, bias=False)
        self.code = nn.Linear(pooled_channels, features)
        nn.init.uniform_(self.regions.weight, -0.1, 0.1)  # as published
        nn.init.uniform_(self.code.weight, -0.1, 0.1)

    def forward(self, regions: Tensor, pooled: Tensor) -> EncodedImages:
        """Raw regions [N, R, h, w] and pooled [N, P] to features."""
        return EncodedImages(self.regions(regions), self.code(pooled))


class ImageEncoder(nn.Module):
    """Backbone and heads together: images to regions and codes."""

    def __init__(self, config: ImageEncoderConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.heads = ImageEncoderHeads(backbone.region_channels, backbone.pooled_channels, config.features)

    def forward(self, images: Tensor) -> EncodedImages:
        """Images [N, 3, S, S] in [-1, 1], any S, resized to the configured side, to regions and codes."""
        size = self.config.input_size
        if images.shape[-1] != size:
            images = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
        encoded: EncodedImages = self.heads(*self.backbone(images))
        return encoded


def load_backbone(config: ImageEncoderConfig, weights: Path | None) -> Backbone:
    """The configured frozen backbone.

    Args:
        weights: file of its weights; name or folder of a judge.

    Raises:
        CheckpointError: no weights were named, or they can't be used.
        BundleError: the judge is missing or damaged.
        MissingExtraError: the backbone needs a package that is not installed.
    """
    if config.backbone == "inception_v3":
        return InceptionBackbone(weights)
    if weights is None:
        is_judge = config.backbone == "judge"
        raise CheckpointError(
            f"the image encoder needs {'the judge that is' if is_judge else 'the weights of'} its backbone",
            found="no --backbone",
            expected="a judge's name or folder" if is_judge else "mobilenet_v2_inat_birds.safetensors",
            next_step="add --backbone judge" if is_judge else f"{IMPORT}, then add --backbone FILE",
        )
    if config.backbone == "judge":
        return JudgeBackbone.load(str(weights))
    return BirdMobileNet.load(weights)
