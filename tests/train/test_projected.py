"""The discriminator that looks through a frozen backbone, and what moves pictures before it looks."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from attngan_deploy.train.config import DiscriminatorConfig
from attngan_deploy.train.image_encoder import SCALES, BirdMobileNet, padded_as_in_tensorflow
from attngan_deploy.train.losses import hinge_discriminator_loss
from attngan_deploy.train.projected import ProjectedDiscriminator, shifted
from tests.makers.tiny_training import make_tiny_backbone

CHANNELS = [channels for channels, _ in SCALES.values()]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> BirdMobileNet:
    return BirdMobileNet.load(make_tiny_backbone(tmp_path_factory.mktemp("backbone") / "net.safetensors"))


def make_net() -> ProjectedDiscriminator:
    torch.manual_seed(0)
    return ProjectedDiscriminator(DiscriminatorConfig("none", features=8, projected=4), CHANNELS)


def test_one_pass_gives_four_scales_and_what_damsm_reads(backbone: BirdMobileNet) -> None:
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    scales = backbone.scales(images)
    assert [tuple(x.shape[1:]) for x in scales.maps] == [(24, 16, 16), (32, 8, 8), (96, 4, 4), (320, 2, 2)]
    regions, pooled = backbone(images)
    assert torch.equal(regions, scales.regions) and torch.equal(pooled, scales.pooled)


@pytest.mark.parametrize("side", [8, 11])
def test_strided_depthwise_convolutions_and_their_gradients_are_torchs(backbone: BirdMobileNet, side: int) -> None:
    """They are computed with stride 1 where gradients flow: neither values nor gradients may notice."""
    conv = backbone.features[2].depthwise
    assert conv.stride == (2, 2) and conv.groups > 1
    before, after = (0, 1) if side % 2 == 0 else (1, 1)
    wanted_input = torch.randn(2, conv.in_channels, side, side).requires_grad_()
    found_input = wanted_input.detach().clone().requires_grad_()
    wanted, found = (
        conv(F.pad(wanted_input, (before, after, before, after))),
        padded_as_in_tensorflow(found_input, conv),
    )
    torch.testing.assert_close(found, wanted)
    weights = torch.randn_like(wanted)
    (wanted * weights).sum().backward()
    (found * weights).sum().backward()
    torch.testing.assert_close(found_input.grad, wanted_input.grad)


def test_logits_of_every_head_know_the_sentence_and_the_picture(backbone: BirdMobileNet) -> None:
    net = make_net()
    maps = backbone.scales(torch.rand(3, 3, 128, 128) * 2 - 1).maps
    sentence = torch.randn(3, 8)
    logits = net.conditional_logits(net.features(maps), sentence)
    assert logits.shape == (3, 4 * 16)
    other = net.conditional_logits(net.features(maps), sentence.roll(1, 0))
    assert ((logits - other).abs().amax(0) > 0).all()
    assert ((logits[0] - logits[1]).abs() > 0).all()


def test_it_learns_to_tell_two_sets_apart_while_its_mixing_stays_fixed(backbone: BirdMobileNet) -> None:
    net = make_net()
    sentence = torch.randn(4, 8)
    with torch.no_grad():
        real, fake = (
            backbone.scales(images).maps for images in (torch.rand(4, 3, 128, 128), -torch.ones(4, 3, 128, 128))
        )
    fixed = {name: value.clone() for name, value in net.named_buffers() if name.startswith(("narrow", "mix"))}
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for _ in range(15):
        loss = hinge_discriminator_loss(net, real, fake, sentence)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(torch.equal(value, net.get_buffer(name)) for name, value in fixed.items()) and len(fixed) == 8


def test_pictures_move_by_at_most_the_shift_and_may_be_mirrored() -> None:
    torch.manual_seed(0)
    spot = torch.zeros(64, 3, 32, 32)
    spot[:, :, 8:10, 20:22] = 1
    moved = shifted(spot, 64, 1 / 16)
    columns = (moved.sum((1, 2)) * torch.arange(64)).sum(1) / moved.sum((1, 2, 3))
    rows = (moved.sum((1, 3)) * torch.arange(64)).sum(1) / moved.sum((1, 2, 3))
    straight = columns > 32
    assert 10 < straight.sum() < 54
    assert (columns[straight] - 41.5).abs().max() <= 4.1 and (columns[~straight] - 21.5).abs().max() <= 4.1
    assert (rows - 17.5).abs().max() <= 4.1 and rows.std() > 1


def test_without_a_shift_it_only_resizes() -> None:
    images = torch.rand(8, 3, 16, 16)
    wanted = F.interpolate(images, size=(32, 32), mode="bilinear")
    found = shifted(images, 32, 0.0)
    errors = torch.stack([(found - wanted).abs().amax((1, 2, 3)), (found.flip(3) - wanted).abs().amax((1, 2, 3))])
    assert errors.amin(0).max() < 1e-5


def test_a_close_up_is_a_part_of_the_picture_at_least_so_large() -> None:
    torch.manual_seed(0)
    across = torch.linspace(-1, 1, 64).expand(256, 3, 64, 64)
    found = shifted(across, 64, 1 / 16, zoom=0.1, close_up=0.5)
    left, right = found[..., 0].mean((1, 2)), found[..., -1].mean((1, 2))
    shares = (right - left).abs() / 2
    assert 0.48 < shares.min() < 0.55 and 0.95 < shares.max() <= 1
    assert (left < -0.9).any() and (right > 0.9).any()  # anywhere: up to both edges


def test_no_discriminator_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="no discriminator"):
        DiscriminatorConfig("none")


def test_a_missing_file_is_no_backbone(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no backbone can be read"):
        BirdMobileNet.load(tmp_path / "absent.safetensors")
