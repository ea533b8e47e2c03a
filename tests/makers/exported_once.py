"""Networks of one structure are exported once: the exporter takes seconds, and weights are placed after it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from torch import nn

from attngan_deploy.export.graphs import network as network_graphs

EXPORTER = network_graphs._exported  # what really exports


def structure(network: nn.Module) -> tuple[object, ...]:
    """Everything but the values of its weights that the export of a network depends on."""
    settings = [
        (name, {key: value for key, value in vars(part).items() if isinstance(value, int | float | str | tuple)})
        for name, part in network.named_modules()
    ]
    shapes = [(name, tuple(value.shape)) for name, value in network.state_dict().items()]
    return repr(network), repr(settings), repr(shapes)


@contextmanager
def exported_once() -> Iterator[None]:
    """Let `network_graph` keep what the exporter makes of each structure."""
    kept: dict[tuple[object, ...], Any] = {}

    def export_once(network: nn.Module, inputs: Any, weights: Any) -> Any:
        key = (*structure(network), repr(inputs))
        if key not in kept:
            kept[key] = EXPORTER(network, inputs, weights)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network_graphs, "_exported", export_once)
        yield
