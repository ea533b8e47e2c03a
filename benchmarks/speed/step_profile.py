"""Where the time of a training step goes, how much arithmetic it has, and how fast the machine could do it."""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

OPTIMIZER, BACKWARD = "Optimizer.step", "autograd::engine::evaluate_function"


def flops(step: Callable[[], Any]) -> float:
    """Floating point operations of the products and convolutions of a step (a multiply-add is two)."""
    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())


def peak(kind: torch.dtype, side: int = 2048, repeats: int = 5) -> float:
    """Floating point operations a second of a large product of matrices: the best of some."""
    a, b = torch.randn(side, side).to(kind), torch.randn(side, side).to(kind)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def parts(training: Any, step: Callable[[], Any]) -> dict[str, float]:
    """Seconds of a step by the network that they belong to; a backward pass counts for the network of its forward.

    Args:
        training: has `generator`, `discriminators` (modules) and the frozen encoders.
        step: makes a step.
    """
    encoders = getattr(training, "encoders", training)
    labels = {"generator": [training.generator], "discriminators": list(training.discriminators.modules())}
    labels |= {"text encoder": [encoders.text], "image encoder": list(encoders.image.modules())}
    hooks = []
    for label, modules in labels.items():
        for module in modules:
            hooks += _labelled(module, label)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        step()
    for hook in hooks:
        hook.remove()
    events = list(found.events())
    known = set(labels)
    forward = {
        event.sequence_nr: label
        for event in events
        if event.sequence_nr >= 0 and (label := _ancestor(event, known)) is not None
    }
    seconds: dict[str, float] = defaultdict(float)
    for event in events:
        seconds[_part(event, known, forward)] += event.self_cpu_time_total / 1e6
    return dict(seconds)


def _labelled(module: torch.nn.Module, label: str) -> list[Any]:
    ranges: list[Any] = []

    def begin(*_: Any) -> None:
        ranges.append(record_function(label))
        ranges[-1].__enter__()

    def end(*_: Any) -> None:
        ranges.pop().__exit__(None, None, None)

    return [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]


def _ancestor(event: Any, known: set[str]) -> str | None:
    while event is not None:
        if event.name in known:
            return str(event.name)
        event = event.cpu_parent
    return None


def _part(event: Any, known: set[str], forward: dict[int, str]) -> str:
    while event is not None:
        if event.name in known:
            return str(event.name)
        if event.name.startswith(OPTIMIZER):
            return "optimizers"
        if event.name.startswith(BACKWARD):
            return forward.get(event.sequence_nr, "losses and the rest")
        event = event.cpu_parent
    return "losses and the rest"
