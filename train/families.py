"""Families of generators, which share a text encoder: AttnGAN, with all that is trained here, DM-GAN and DF-GAN."""

from collections.abc import Callable

from attngan_deploy.train.config import ATTNGAN, GeneratorConfig
from attngan_deploy.train.df_gan import FusionGenerator
from attngan_deploy.train.dm_gan import MemoryGenerator
from attngan_deploy.train.generator import Generator

GeneratorNetwork = Generator | FusionGenerator
FAMILIES: dict[str, Callable[[GeneratorConfig], GeneratorNetwork]] = {
    ATTNGAN: Generator,
    "dmgan": MemoryGenerator,
    "dfgan": FusionGenerator,
}


def build_generator(config: GeneratorConfig) -> GeneratorNetwork:
    """A generator of this configuration, with random weights."""
    return FAMILIES[config.family](config)
