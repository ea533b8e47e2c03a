"""Families of generators, which share a text encoder: AttnGAN, with all that is trained here, DM-GAN and DF-GAN."""

from collections.abc import Callable, Mapping

from torch import Tensor

from attngan_deploy.train.config import ATTNGAN, GeneratorConfig
from attngan_deploy.train.df_gan import FusionGenerator
from attngan_deploy.train.dm_gan import MemoryGenerator
from attngan_deploy.train.generator import Generated, Generator

GeneratorNetwork = Generator | FusionGenerator
FAMILIES: dict[str, Callable[[GeneratorConfig], GeneratorNetwork]] = {
    ATTNGAN: Generator,
    "dmgan": MemoryGenerator,
    "dfgan": FusionGenerator,
}


def generate(generator: GeneratorNetwork, tensors: Mapping[str, Tensor]) -> Generated:
    """Give a generator what it takes of text features and noise, by the names of its `inputs`."""
    made: Generated = generator(*(tensors[name] for name in generator.inputs))
    return made


def build_generator(config: GeneratorConfig) -> GeneratorNetwork:
    """A generator of this configuration, with random weights."""
    return FAMILIES[config.family](config)
