"""Batch norm together with what follows it, as one function that torch.compile makes one pass over memory.

On a CPU torch's own backward of batch norm costs more than the convolutions around it: in bf16 on [16, 64, 128, 128],
with its GLU, more than ten times this form, which also rounds less, as nothing in between is stored.
"""

import os
import shutil
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SHAPES = 64  # a function is compiled for so many shapes before torch gives up; three stages have a dozen


def norm_glu(norm: nn.BatchNorm2d, x: Tensor, compiled: bool = False) -> Tensor:
    """Batch norm, then GLU over channels: x [N, 2C, H, W] to [N, C, H, W]."""
    if not compiled:
        return F.glu(norm(x), dim=1)
    return _once(_norm_glu)(x, *_of(norm))


def norm_add(norm: nn.BatchNorm2d, x: Tensor, other: Tensor, compiled: bool = False) -> Tensor:
    """Batch norm of x [N, C, H, W], added to another tensor of its shape."""
    if not compiled:
        normalised: Tensor = norm(x)
        return other + normalised
    return _once(_norm_add)(other, x, *_of(norm))


def norm_leaky(norm: nn.BatchNorm2d, x: Tensor, compiled: bool = False) -> Tensor:
    """Batch norm, then a leaky ReLU of slope 0.2: x [N, C, H, W] to the same shape."""
    if not compiled:
        return F.leaky_relu(norm(x), 0.2)
    return _once(_norm_leaky)(x, *_of(norm))


class NormLeaky(nn.BatchNorm2d):
    """Batch norm and a leaky ReLU as one module, with the weights of the batch norm alone."""

    compiled = False

    def forward(self, x: Tensor) -> Tensor:
        """x [N, C, H, W] to the same shape."""
        if not self.compiled:
            return F.leaky_relu(super().forward(x), 0.2)
        return norm_leaky(self, x, True)


def why_not_compiled() -> str | None:
    """None where functions can be compiled for this CPU, or what is missing, after trying a small one."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return f"there is no C++ compiler ({compiler})"
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import CppCompileError

    try:
        norm_leaky(nn.BatchNorm2d(2), torch.zeros(2, 2, 2, 2), compiled=True)
    except (TorchDynamoException, CppCompileError) as error:
        return f"{compiler} can't compile for torch ({str(error).splitlines()[0]})"
    return None


def use_compiled(net: nn.Module) -> None:
    """Let every part of a network that has a compiled form (an attribute `compiled`) use it from now on."""
    for module in net.modules():
        if hasattr(module, "compiled"):
            setattr(module, "compiled", True)  # noqa: B010  torch types what it does not know of a module as a tensor


@cache
def _once(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    from torch import _dynamo  # takes a second, so only where it is used

    _dynamo.config.recompile_limit = SHAPES
    return torch.compile(function, dynamic=False)


Norm = tuple[Tensor | None, Tensor | None, Tensor, Tensor, bool, float, float]  # the arguments of F.batch_norm after x


def _of(norm: nn.BatchNorm2d) -> Norm:
    if norm.training and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    momentum = 0.1 if norm.momentum is None else norm.momentum
    return norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.training, momentum, norm.eps


def _norm_glu(x: Tensor, *norm: *Norm) -> Tensor:
    return F.glu(F.batch_norm(x, *norm), dim=1)


def _norm_add(other: Tensor, x: Tensor, *norm: *Norm) -> Tensor:
    return other + F.batch_norm(x, *norm)


def _norm_leaky(x: Tensor, *norm: *Norm) -> Tensor:
    return F.leaky_relu(F.batch_norm(x, *norm), 0.2)
