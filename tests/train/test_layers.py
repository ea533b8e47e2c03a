"""Which BatchNorm and which GLU follow a layer is read from the order of a block's parts."""

import pytest
from torch import nn

from attngan_deploy.train.backbones.efficientnet_lite import EfficientNetLite0
from attngan_deploy.train.backbones.inception import InceptionV3
from attngan_deploy.train.config import VARIANTS, GeneratorConfig
from attngan_deploy.train.generator import Generator
from attngan_deploy.train.layers import NORMS, followed_layers


def tiny_generator(variant: str) -> Generator:
    return Generator(GeneratorConfig(variant, 3, 2, 4, 4, 8))


def paths_of(network: nn.Module, kind: type | tuple[type, ...]) -> set[str]:
    return {name for name, part in network.named_modules() if isinstance(part, kind)}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_batch_norm_and_glu_of_a_generator_follows_a_layer(variant: str) -> None:
    generator = tiny_generator(variant)
    followed = list(followed_layers(generator))
    parts = dict(generator.named_modules())
    assert {norm for _, norm, _ in followed} - {None} == paths_of(generator, NORMS)
    assert {glu for _, _, glu in followed} - {None} == paths_of(generator, nn.GLU)
    for layer, norm, _ in followed:
        if norm is not None:
            assert len(parts[layer].weight) == parts[norm].num_features
    assert ("augmentation.linear", None, "augmentation.glu") in followed
    assert ("first.linear", "first.norm", "first.glu") in followed
    assert ("later.0.residual.0.conv", "later.0.residual.0.norm", None) in followed


@pytest.mark.parametrize("network", [EfficientNetLite0(3), InceptionV3(5)], ids=["judge", "inception"])
def test_every_batch_norm_of_a_classifier_follows_a_layer(network: nn.Module) -> None:
    norms = paths_of(network, NORMS)
    assert norms and {norm for _, norm, _ in followed_layers(network)} == norms


def test_what_stands_alone_is_not_found() -> None:
    before = nn.Sequential(nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 4, 1), nn.ReLU(), nn.BatchNorm2d(4), nn.GLU(1))
    assert list(followed_layers(before)) == []
    assert list(followed_layers(nn.Sequential(nn.Conv2d(2, 4, 1), nn.Identity(), nn.GLU(1)))) == [("0", None, "2")]
