"""Shards, a backbone and recipes small enough to train on in a test."""

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from attngan_deploy.train.config import (
    DamsmRecipe,
    DiscriminatorConfig,
    GanRecipe,
    GeneratorConfig,
    ImageEncoderConfig,
    gan_recipe,
)
from attngan_deploy.train.image_encoder import BirdMobileNet

COLOURS = {"red": (200, 30, 30), "blue": (30, 30, 200), "yellow": (220, 210, 40), "black": (20, 20, 20)}
FEATURES = 16


def make_tiny_shards(folder: Path, pictures: int = 12, size: int = 72) -> Path:
    """A data folder: train.tar, test.tar and vocabulary.txt, with captions that name the picture's colour."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        with tarfile.open(folder / f"{split}.tar", "w") as tar:
            for number in range(pictures):
                colour = list(COLOURS)[number % len(COLOURS)]
                noise = rng.integers(-20, 20, (size, size, 3))
                stream = io.BytesIO()
                Image.fromarray(np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)).save(stream, "PNG")
                captions = [f"a {colour} bird", f"this small bird is {colour} with a short bill"]
                _add(tar, f"{number:03}.png", stream.getvalue())
                _add(tar, f"{number:03}.json", json.dumps({"class": number % 4, "captions": captions}).encode())
    words = ["<end>", "a", "bird", "this", "small", "is", "with", "short", "bill", *COLOURS]
    (folder / "vocabulary.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return folder


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def make_tiny_backbone(path: Path) -> Path:
    """The bird MobileNetV2 with random weights that keep activations alive."""
    torch.manual_seed(0)
    net = BirdMobileNet()
    for parameter in net.parameters():
        if parameter.dim() > 1:
            torch.nn.init.kaiming_normal_(parameter)
    save_file(net.state_dict(), path)
    return path


def tiny_damsm_recipe(**changes: object) -> DamsmRecipe:
    """Two epochs at batch 4."""
    encoder = ImageEncoderConfig(features=FEATURES, input_size=64)
    return replace(DamsmRecipe(epochs=2, batch_size=4, image_encoder=encoder), **changes)  # type: ignore[arg-type]


def tiny_gan_recipe(name: str = "fast", variant: str = "att1", **changes: object) -> GanRecipe:
    """Six steps at batch 4, one stage unless told otherwise."""
    shape = GeneratorConfig(variant=variant, stages=1, width=2, noise=4, condition=4, features=FEATURES)  # type: ignore[arg-type]
    recipe = gan_recipe(name, shape)
    small = DiscriminatorConfig(recipe.discriminator.kind, 4, FEATURES)
    settings: dict[str, object] = {
        "pictures": 24,
        "batch_size": 4,
        "crop": 64,
        "discriminator": small,
        "precision": "fp32",
        "checkpoint_minutes": 1e9,
        "grid_minutes": 1e9,
        "judge": "none",
    }
    return replace(recipe, **(settings | changes))  # type: ignore[arg-type]
