"""DM-GAN's and DF-GAN's generators against the published networks."""

import pytest
import torch

from attngan_deploy.train.config import GeneratorConfig
from attngan_deploy.train.df_gan import UpBlock
from attngan_deploy.train.families import build_generator
from attngan_deploy.train.imports.published_names import DF_GAN, DM_GAN
from tests.makers.published import Published

DM_GANS, DF_GANS = ("dmgan_branch2_b1mask", "dmgan_branch3_b3"), ("dfgan_64_b3", "dfgan_256_b2")


def dm_gan_config(published: Published, upsampling: str = "nearest") -> GeneratorConfig:
    sizes = published.sizes
    return GeneratorConfig(
        *("dmgan", sizes["branches"], sizes["ngf"], sizes["z"], sizes["ncf"], sizes["nef"], sizes["residual"]),
        upsampling,
    )


def df_gan_config(published: Published, upsampling: str = "nearest") -> GeneratorConfig:
    sizes = published.sizes
    stages = {64: 1, 128: 2, 256: 3}[sizes["imsize"]]
    return GeneratorConfig("dfgan", stages, sizes["nf"], sizes["nz"], 0, sizes["cond_dim"], 0, upsampling)


@pytest.mark.parametrize("upsampling", ["nearest", "transposed"])
@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("name", DM_GANS)
def test_dm_gan_matches_published(name: str, summed: bool, upsampling: str) -> None:
    published = Published(name)
    generator = build_generator(dm_gan_config(published, upsampling)).eval()
    generator.load_state_dict(published.weights(DM_GAN))
    for stage in generator.later if summed else ():
        stage.residual[0].sum_weights()
    inputs = published.inputs
    with torch.inference_mode():
        made = generator(inputs["sentence"], inputs["words"], ~inputs["mask"], inputs["z"], inputs["eps"])
    for place, image in enumerate(made.images):
        published.check(f"image.{place}", image)
    for place, attention in enumerate(made.attention):
        published.check(f"attention.{place}", attention)
    published.check("mu", made.mu)
    published.check("logvar", made.logvar)
    assert len(made.images) == published.sizes["branches"] == len(made.attention) + 1


@pytest.mark.parametrize("upsampling", ["nearest", "transposed"])
@pytest.mark.parametrize("name", DF_GANS)
def test_df_gan_matches_published(name: str, upsampling: str) -> None:
    published = Published(name)
    generator = build_generator(df_gan_config(published, upsampling)).eval()
    generator.load_state_dict(published.weights(DF_GAN))
    with torch.inference_mode():
        made = generator(published.inputs["sentence"], published.inputs["z"])
    assert len(made.images) == 1 and not made.attention and made.mu.numel() == 0
    published.check("image", made.images[0])


def test_a_memory_is_read_by_each_picture_through_its_own_words() -> None:
    """What is behind a caption's last word changes nothing, whatever its neighbours in the batch have there."""
    published = Published("dmgan_branch3_b3")
    generator = build_generator(dm_gan_config(published)).eval()
    generator.load_state_dict(published.weights(DM_GAN))
    inputs = published.inputs
    words = inputs["words"].masked_fill(inputs["mask"][:, None, :], 5.0)
    with torch.inference_mode():
        made = generator(inputs["sentence"], words, ~inputs["mask"], inputs["z"], inputs["eps"])
    assert inputs["mask"].any()
    published.check("image.1", made.images[1])


def test_a_block_with_as_many_channels_has_no_convolution_on_its_shortcut() -> None:
    config = GeneratorConfig("dfgan", 1, 2, 4, 0, 8, 0)
    parts = [{name.partition(".")[0] for name in UpBlock(4, outputs, config).state_dict()} for outputs in (4, 2)]
    assert parts[1] - parts[0] == {"shortcut"}


def test_a_stage_of_dm_gan_has_a_residual_block() -> None:
    with pytest.raises(ValueError, match="residual block"):
        build_generator(GeneratorConfig("dmgan", 2, 2, 4, 4, 8, 0))
