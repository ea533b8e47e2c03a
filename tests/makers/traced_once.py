"""Networks of one structure are traced once: the exporter takes seconds, and the weights are placed after it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from torch import nn

from attngan_deploy.export.graphs import traced

EXPORTER = traced._exported  # what really exports


def structure(network: nn.Module) -> tuple[object, ...]:
    """Everything but the values of its weights that a trace of a network depends on."""
    settings = [
        (name, {key: value for key, value in vars(part).items() if isinstance(value, int | float | str | tuple)})
        for name, part in network.named_modules()
    ]
    shapes = [(name, tuple(value.shape)) for name, value in network.state_dict().items()]
    return repr(network), repr(settings), repr(shapes)


@contextmanager
def traced_once() -> Iterator[None]:
    """Let `traced_graph` keep what the exporter makes of each structure."""
    kept: dict[tuple[object, ...], Any] = {}

    def export_once(network: nn.Module, inputs: Any, weights: Any) -> Any:
        key = (*structure(network), repr(inputs))
        if key not in kept:
            kept[key] = EXPORTER(network, inputs, weights)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(traced, "_exported", export_once)
        yield
