"""A trained network as it is exported: BatchNorms folded, weights rounded, GLUs split, upsampling transposed.

What comes out is a network again, so that torch runs exactly what a graph will hold. Blocks are known by the layers
that they are made of (`train.layers`), not by name.
"""

import copy
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from attngan_deploy.errors import CheckpointError
from attngan_deploy.export.graphs.stored_weights import as_float32, from_rows, to_rows
from attngan_deploy.train.generator import Generator, UpsampledConv2d
from attngan_deploy.train.layers import Norm, followed_layers
from attngan_deploy.train.text_encoder import TextEncoder

LARGE = 50_000  # weights: matrices and kernels of this size and more are most of a bundle
EARLIER_CHECKPOINT = "use an earlier checkpoint of this run"
Weights = Literal["mixed", "fp16", "fp32"]
Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class GraphOptions:
    """How a graph is built; none of it changes what a graph of the same weights computes."""

    # a GLU layer as a value layer times the sigmoid of a gate layer, so that no engine writes and reads twice the
    # channels; 1.05 to 1.3 x faster in ONNX Runtime, by machine
    split_glu: bool = True
    # nearest x2 and a 3x3 convolution as one transposed convolution, 2.25 x less work; faster in OpenVINO, and in ONNX
    # Runtime with one thread but not with several
    transposed_upsampling: bool = False
    # "mixed" stores large matrices and kernels in 8 bits with one scale a row and the others in half precision, "fp16"
    # stores all of them in half precision; all arithmetic is float32
    weights: Weights = "mixed"


DEFAULT_OPTIONS = GraphOptions()


@dataclass(frozen=True)
class Networks:
    """A text encoder and the generator that was trained with it."""

    text_encoder: TextEncoder
    generator: Generator


class GatedLayer(nn.Module):
    """A layer and the GLU behind it, as a value layer times the sigmoid of a gate layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.value, self.gate = _half(layer, 0), _half(layer, 1)

    def forward(self, x: Tensor) -> Tensor:
        """What GLU(layer(x)) is."""
        gated: Tensor = self.value(x) * self.gate(x).sigmoid()
        return gated


def deployed(networks: Networks, options: GraphOptions = DEFAULT_OPTIONS) -> Networks:
    """What graphs are made from, in eval mode; the originals stay as they are.

    Raises:
        CheckpointError: a weight is not finite afterwards.
    """
    text_encoder = round_weights(networks.text_encoder, options.weights)
    return Networks(text_encoder, deploy(networks.generator, options))


def deploy(network: Module, options: GraphOptions = DEFAULT_OPTIONS) -> Module:
    """A copy of a network, ready to be exported, in eval mode.

    Raises:
        CheckpointError: a weight is not finite afterwards.
    """
    ready = round_weights(fold_batch_norms(network), options.weights)  # halves of rounded rows are rounded rows
    if options.split_glu:
        for layer, _, glu in list(followed_layers(ready)):
            if glu is not None:
                ready.set_submodule(layer, GatedLayer(ready.get_submodule(layer)))
                ready.set_submodule(glu, nn.Identity())
    for part in ready.modules():
        if isinstance(part, UpsampledConv2d):
            part.upsampling = "transposed" if options.transposed_upsampling else "nearest"
    return ready


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
def fold_batch_norms(network: Module, next_step: str = EARLIER_CHECKPOINT) -> Module:
    """A copy in eval mode without the BatchNorms that follow a layer: each is part of its layer.

    Raises:
        CheckpointError: a folded weight is not finite, as from a negative running variance.
    """
    folded = copy.deepcopy(network).eval()
    for path, norm, _ in list(followed_layers(folded)):
        if norm is not None:
            layer: Any = folded.get_submodule(path)
            weight, bias = fold(layer.weight, cast(Norm, folded.get_submodule(norm)), layer.bias)
            layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
            folded.set_submodule(norm, nn.Identity())
    check_finite(folded, "after folding its BatchNorms", next_step)
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


def check_finite(module: nn.Module, when: str, next_step: str = EARLIER_CHECKPOINT) -> None:
    """Raise CheckpointError when a weight is not finite."""
    if bad := [name for name, value in module.named_parameters() if not value.isfinite().all()]:
        found = ", ".join(bad[:3])
        raise CheckpointError(f"the network's weights are not finite {when}", found=found, next_step=next_step)


def _half(layer: nn.Module, which: int) -> nn.Module:
    """The layer of the first or second half of a layer's outputs."""
    half: Any = copy.deepcopy(layer)
    half.weight = nn.Parameter(half.weight.detach().chunk(2)[which].clone())
    if half.bias is not None:
        half.bias = nn.Parameter(half.bias.detach().chunk(2)[which].clone())
    size = "out_features" if isinstance(layer, nn.Linear) else "out_channels"
    setattr(half, size, getattr(half, size) // 2)
    return half  # type: ignore[no-any-return]
