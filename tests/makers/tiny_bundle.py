"""A bundle small enough for tests: a real export of a checkpoint with random weights."""

from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from attngan_deploy.export.bundle_writer import export_bundle
from attngan_deploy.media.tokenizer import PADDING
from attngan_deploy.train.config import GeneratorConfig, TextEncoderConfig
from attngan_deploy.train.families import GeneratorNetwork, build_generator
from attngan_deploy.train.runs.checkpoint import save_checkpoint
from attngan_deploy.train.text_encoder import TextEncoder

torch.set_num_threads(1)  # threads cost tiny networks more than they bring, much more on a busy machine

WORDS = [
    *("a", "the", "this", "bird", "is", "has", "with", "and", "red", "blue", "black", "yellow", "white"),
    *("small", "large", "bright", "short", "long", "wings", "bill", "belly", "head"),
]
CONTRAST = {"attngan": 4.0, "dmgan": 1.0, "dfgan": 2.0}  # what an image's weights are multiplied with
SIGHT = {"attngan": 1.0, "dmgan": 5.0, "dfgan": 2.0}  # and those that look at captions and noise
FEATURES, NOISE, WIDTH, EMBEDDING = 8, 4, 2, 6


def make_tiny_bundle(folder: Path, variant: str = "base", name: str = "tiny") -> Path:
    """Export a tiny random checkpoint as the bundle `folder`, and return it."""
    with TemporaryDirectory() as place:
        return export_bundle(make_tiny_checkpoint(Path(place) / "checkpoint", variant), folder, name=name)


def make_tiny_checkpoint(folder: Path, variant: str = "base", stages: int = 2) -> Path:
    """Write a checkpoint of kind "gan" with random weights as `folder`, and return it."""
    text_config = TextEncoderConfig(words=len(WORDS) + 1, embedding=EMBEDDING, features=FEATURES)
    config = GeneratorConfig(variant, stages, WIDTH, NOISE, NOISE, FEATURES)
    if variant == "dfgan":
        config = replace(config, condition=0, residual_blocks=0)
    text_encoder, generator = random_text_encoder(text_config), random_generator(config)
    description = {
        "kind": "gan",
        "generator": asdict(config),
        "text_encoder": asdict(text_config),
        "recipe": {"name": "none"},
        "pictures": 0,
        "step": 0,
        "data": "none: random weights made by the tests",
    }
    tensors = {"generator": generator.state_dict(), "text_encoder": text_encoder.state_dict()}
    save_checkpoint(folder, description, tensors, [PADDING, *WORDS])
    return folder


def random_text_encoder(config: TextEncoderConfig, seed: int = 0) -> TextEncoder:
    """A text encoder in eval mode whose words differ clearly."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = TextEncoder(config).eval()
        nn.init.normal_(encoder.embedding.weight)
    return encoder


def random_generator(config: GeneratorConfig, seed: int = 0) -> GeneratorNetwork:
    """A generator in eval mode with statistics and affines of a trained one, and pictures of strong contrast."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        generator = build_generator(config).eval()
        for module in generator.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.running_mean.normal_(0.0, 0.3)
                module.running_var.uniform_(0.3, 1.0)
                module.weight.normal_(1.2, 0.3)
                module.bias.normal_(0.0, 0.3)
        for name, module in generator.named_modules():
            if name.startswith("to_image") and isinstance(module, nn.Conv2d):
                module.weight.mul_(CONTRAST[config.family])
            if isinstance(module, (nn.Linear, nn.Conv1d)):
                module.weight.mul_(SIGHT[config.family])
    return generator
