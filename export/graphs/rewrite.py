"""Exact rewrites of a trained network: BatchNorm folded, weights rounded, GLUs split, upsampling transposed.

Folding and rounding give back a network of the same class, so that torch can run exactly what a graph will hold.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from attngan_deploy.errors import CheckpointError
from attngan_deploy.export.graphs.stored_weights import as_float32, from_rows, to_rows
from attngan_deploy.train.attention import Cbam
from attngan_deploy.train.generator import ConvGlu, FirstStage, Generator, Residual
from attngan_deploy.train.text_encoder import TextEncoder

LARGE = 50_000  # weights: matrices and kernels of this size and more are most of a bundle
Weights = Literal["mixed", "fp16", "fp32"]
Norm = nn.BatchNorm1d | nn.BatchNorm2d
Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class GraphOptions:
    """How a graph is built; none of it changes what a graph of the same weights computes.

    Attributes:
        split_glu: a GLU layer as a value layer times the sigmoid of a gate layer, so that no engine writes and reads
            twice the channels; 1.05 to 1.3 x faster in ONNX Runtime, by machine.
        transposed_upsampling: nearest x2 and a 3x3 convolution as one transposed convolution, 2.25 x less work;
            faster in OpenVINO, and in ONNX Runtime with one thread but not with several.
        weights: "mixed" stores large matrices and kernels in 8 bits with one scale a row and the others in half
            precision, "fp16" stores all of them in half precision; all arithmetic is float32.
    """

    split_glu: bool = True
    transposed_upsampling: bool = False
    weights: Weights = "mixed"


DEFAULT_OPTIONS = GraphOptions()


@dataclass(frozen=True)
class Networks:
    """A text encoder and the generator that was trained with it."""

    text_encoder: TextEncoder
    generator: Generator


def deployed(networks: Networks, options: GraphOptions = DEFAULT_OPTIONS) -> Networks:
    """What graphs are built from: BatchNorms folded, then weights rounded; in eval mode, the originals untouched.

    Raises:
        CheckpointError: a weight is not finite afterwards.
    """
    generator = fold_batch_norms(networks.generator)
    return Networks(round_weights(networks.text_encoder, options.weights), round_weights(generator, options.weights))


def fold(weight: Tensor, norm: Norm, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Weight [out, ...] and bias [out] of the one layer that equals a layer and then a BatchNorm in eval mode.

    Computed in float64 and rounded once: w' = w g / sqrt(var + eps), b' = beta + (b - mean) g / sqrt(var + eps).
    """
    assert norm.running_var is not None and norm.running_mean is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    before = torch.zeros_like(scale) if bias is None else bias.double()
    folded_bias = norm.bias.double() + (before - norm.running_mean.double()) * scale
    folded = weight.double() * scale.view(-1, *[1] * (weight.ndim - 1))
    return folded.to(weight.dtype), folded_bias.to(weight.dtype)


@torch.no_grad()
def fold_into(layer: nn.Linear | nn.Conv2d, norm: Norm) -> None:
    """Fold a BatchNorm into the layer before it, in place, so that it only adds a bias."""
    weight, bias = fold(layer.weight, norm)
    layer.weight.copy_(weight)
    norm.bias.copy_(bias)
    norm.weight.fill_(1.0)
    norm.running_mean.zero_()
    norm.running_var.fill_(1.0)
    norm.eps = 0.0


def fold_batch_norms(generator: Generator) -> Generator:
    """A copy in eval mode whose BatchNorms only add a bias: the rest of each is folded into the layer before it.

    Raises:
        CheckpointError: a folded weight is not finite, as from a negative running variance.
    """
    folded = copy.deepcopy(generator).eval()
    for layer, norm in _layers_with_norms(folded):
        fold_into(layer, norm)
    check_finite(folded, "after folding its BatchNorms")
    return folded


@torch.no_grad()
def round_weights(module: Module, weights: Weights) -> Module:
    """A copy in eval mode whose matrices and kernels hold only values that can be stored so; vectors are kept.

    Raises:
        CheckpointError: a weight is too large for float16.
    """
    rounded = copy.deepcopy(module).eval()
    if weights != "fp32":
        for parameter in rounded.parameters():
            if weights == "mixed" and parameter.ndim > 1 and parameter.numel() >= LARGE:
                parameter.copy_(torch.from_numpy(from_rows(to_rows(as_float32(parameter)))))
            elif parameter.ndim > 1:
                parameter.copy_(parameter.half().to(parameter.dtype))
        check_finite(rounded, "in float16", next_step="add --weights fp32")
    return rounded


def check_finite(module: nn.Module, when: str, next_step: str = "use an earlier checkpoint of this run") -> None:
    """Raise CheckpointError when a weight is not finite."""
    if bad := [name for name, value in module.named_parameters() if not value.isfinite().all()]:
        found = ", ".join(bad[:3])
        raise CheckpointError(f"the network's weights are not finite {when}", found=found, next_step=next_step)


def split_glu(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Weight or bias [2 * out, ...] of a layer before a GLU as those of its value layer and of its gate layer."""
    value, gate = tensor.chunk(2)
    return value, gate


def _layers_with_norms(generator: Generator) -> Iterator[tuple[nn.Linear | nn.Conv2d, Norm]]:
    for module in generator.modules():
        if isinstance(module, (ConvGlu, Residual)):
            yield module.conv, module.norm
        elif isinstance(module, FirstStage):
            yield module.linear, module.norm
        elif isinstance(module, Cbam):
            yield module.spatial, module.norm
