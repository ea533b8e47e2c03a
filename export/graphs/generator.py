"""The generator as an ONNX graph."""

import onnx

from attngan_deploy.export.graphs.network import Inputs, Shape, network_graph
from attngan_deploy.train.generator import Generator
from attngan_deploy.train.layers import followed_layers

FIRST_SIZE = 64  # side of the first stage's map


def generator_graph(generator: Generator) -> onnx.ModelProto:
    """Graph: sentence, words, mask, z, eps to image_64, image_128, image_256 and attention, attention_128.

    There is one image a stage, f32 [N, 3, S, S] in [-1, 1], and one attention a later stage, f32 [N, T, S, S];
    "attention" is that of the second stage. Batch and caption length are dynamic.

    Args:
        generator: as `deploy.deploy` gives it; its weights are taken as they are.

    Raises:
        ValueError: a BatchNorm is not folded.
    """
    if any(norm is not None for _, norm, _ in followed_layers(generator)):
        raise ValueError("the generator's BatchNorms are not folded: use deploy.deploy first")
    config = generator.config
    inputs: Inputs = {
        "sentence": ("float32", ["batch", config.features]),
        "words": ("float32", ["batch", config.features, "words"]),
        "mask": ("bool", ["batch", "words"]),
        "z": ("float32", ["batch", config.noise]),
        "eps": ("float32", ["batch", config.condition]),
    }
    outputs: dict[str, Shape] = {f"image_{size}": ["batch", 3, size, size] for size in config.sizes}
    outputs |= {attention_name(size): ["batch", "words", size, size] for size in config.sizes[:-1]}
    return network_graph("generator", generator, inputs, outputs, lambda made: [*made.images, *made.attention])


def attention_name(size: int) -> str:
    """Name of the output that holds the attention of a map `size` places wide."""
    return "attention" if size == FIRST_SIZE else f"attention_{size}"
