"""Settings of a training process, and how its machine computes best."""

import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import nn

from attngan_deploy.errors import EngineError
from attngan_deploy.system.allocator import keep_freed_memory
from attngan_deploy.train.config import GanRecipe

BF16_FROM = (8, 0)  # compute capability: Ampere; PyTorch emulates it on older GPUs, slowly
Net = TypeVar("Net", bound=nn.Module)


def prepare_process() -> None:
    """Let SIGTERM end a run as Ctrl-C does, and treat denormal numbers as zero."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    torch.set_flush_denormal(True)


def best_device() -> torch.device:
    """The first GPU that PyTorch can use, or the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def prepare_cpu() -> None:
    """Treat denormal numbers as zero, and keep freed memory for the next step; what is computed stays the same.

    Adam's means of weights without gradient (rare words) become denormal, which makes steps several times slower.
    """
    torch.set_flush_denormal(True)
    keep_freed_memory()


def lay_out(net: Net, layout: torch.memory_format, device: torch.device | None = None) -> Net:
    """Put the weights of a network into this layout of memory, and onto a device where one is named."""
    to: Callable[..., Any] = net.to  # torch's types of it leave out the layout
    to(device=device, memory_format=layout)
    return net


def resolve_precision(recipe: GanRecipe, device: torch.device) -> GanRecipe:
    """Replace precision "auto" by bf16 where the GPU has it, and on a CPU by what is faster, measured on a convolution.

    Raises:
        EngineError: bf16 is wanted of a GPU that has it not.
    """
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        has_bf16 = capability >= BF16_FROM
        if recipe.precision == "bf16" and not has_bf16:
            raise EngineError(
                f"{torch.cuda.get_device_name(device)} does not compute in bf16",
                found=f"compute capability {'.'.join(map(str, capability))}",
                expected=f"{'.'.join(map(str, BF16_FROM))} or more",
                next_step="--precision fp32",
            )
        return replace(recipe, precision="bf16" if has_bf16 else "fp32") if recipe.precision == "auto" else recipe
    if recipe.precision != "auto":
        return recipe
    x = torch.randn(16, 64, 32, 32, device=device).contiguous(memory_format=torch.channels_last).requires_grad_()
    conv = lay_out(torch.nn.Conv2d(64, 128, 3, padding=1, device=device), torch.channels_last)

    def seconds(enabled: bool) -> float:
        best = float("inf")
        for _ in range(5):
            started = time.perf_counter()
            for _ in range(4):
                with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
                    y = conv(x)
                float(y.float().sum().detach())
                y.float().square().sum().backward()
            best = min(best, time.perf_counter() - started)
        return best

    return replace(recipe, precision="bf16" if seconds(True) < seconds(False) else "fp32")
