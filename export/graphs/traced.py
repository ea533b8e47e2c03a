"""A network as an ONNX graph: `torch.onnx.export`, then every node placed anew by the `GraphBuilder`.

The exporter says which nodes there are. Their names and those of the weights are the module paths of the network;
weights are stored small and cast on load; nothing in the graph tells when and where it was made.
"""

import ast
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import onnx
import onnx_ir as ir
import onnxscript.optimizer
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import Tensor, nn

from attngan_deploy.export.graphs.graph import OPSET, GraphBuilder

SMALLEST_EXAMPLE = 2  # of a dynamic dimension: torch takes 0 and 1 for sizes that stay
SCOPES = "pkg.torch.onnx.name_scopes"  # where the exporter keeps the modules that a node is inside of
RESHAPING = ("Reshape", "Expand")
Shape = Sequence[int | str]


class _Selected(nn.Module):
    """A network that gives only what its graph gives."""

    def __init__(self, network: nn.Module, select: Callable[[Any], Sequence[Tensor]]) -> None:
        super().__init__()
        self.network, self.select = network, select

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.select(self.network(*inputs)))


def traced_graph(
    name: str,
    network: nn.Module,
    inputs: Mapping[str, tuple[str, Shape]],
    outputs: Mapping[str, Shape],
    select: Callable[[Any], Sequence[Tensor]] = tuple,
) -> onnx.ModelProto:
    """Graph of a network that is ready to be exported, see `deploy.deploy`.

    Args:
        name: name of the graph.
        network: its weights are taken as they are.
        inputs: dtype and shape of each input, in the order of the network's arguments. A dimension given as text is
            dynamic and has that name.
        outputs: shape of each output, float32.
        select: takes the outputs, in their order, from what the network returns.

    Raises:
        onnx.checker.ValidationError, onnx.shape_inference.InferenceError: the graph is wrong.
    """
    graph, weights = GraphBuilder(name), _weights(network)
    model = _exported(_Selected(network, select).eval(), inputs, weights.keys())
    placed: dict[ir.Value | None, str] = {None: ""}
    for value, (given, (dtype, shape)) in zip(model.graph.inputs, inputs.items(), strict=False):
        placed[value] = graph.input(given, dtype, shape)
    path, used = "", Counter[str]()
    for node in model.graph:
        for used_value in node.inputs:
            if used_value not in placed:
                placed[used_value] = _stored(graph, used_value, weights)
        path = _module_path(node, path)
        title = f"{path}/{node.op_type}".lstrip("/")
        used[title] += 1
        made = graph.nodes(
            node.op_type,
            *(placed[value] for value in node.inputs),
            name=title if used[title] == 1 else f"{title}_{used[title]}",
            outputs=len(node.outputs),
            **{key: attribute.value for key, attribute in node.attributes.items()},
        )
        placed |= zip(node.outputs, made, strict=True)
    for value, (given, shape) in zip(model.graph.outputs, outputs.items(), strict=True):
        graph.output(placed[value], given, "float32", shape)
    return graph.finish()


def _stored(graph: GraphBuilder, value: ir.Value | None, weights: Mapping[str, Tensor]) -> str:
    """Place a weight or a constant."""
    assert value is not None
    if value.const_value is None:
        return graph.weight(_inside(str(value.name)), weights[str(value.name)])
    constant = value.const_value.numpy()
    return graph.constant(constant, constant.dtype.name)


def _weights(network: nn.Module) -> dict[str, Tensor]:
    """Weights of a network by their names in what is exported."""
    return {f"network.{name}": value for name, value in network.state_dict().items() if value.is_floating_point()}


def _exported(network: nn.Module, inputs: Mapping[str, tuple[str, Shape]], weights: Collection[str]) -> ir.Model:
    """The exporter's graph, simplified; its weights are inputs, so that nothing is computed from their values."""
    dynamic = dict.fromkeys(size for _, shape in inputs.values() for size in shape if isinstance(size, str))
    sizes = {size: SMALLEST_EXAMPLE + place for place, size in enumerate(dynamic)}
    examples = tuple(
        torch.ones([sizes[size] if isinstance(size, str) else size for size in shape], dtype=getattr(torch, dtype))
        for dtype, shape in inputs.values()
    )
    axes = {size: torch.export.Dim(size) for size in dynamic}
    dynamic_shapes = tuple(
        {place: axes[size] for place, size in enumerate(shape) if isinstance(size, str)} for _, shape in inputs.values()
    )
    with _silence():
        program = torch.onnx.export(
            network,
            examples,
            dynamo=True,
            dynamic_shapes=(dynamic_shapes,),
            opset_version=OPSET,
            optimize=False,
            verbose=False,
        )
        assert program is not None
        model = program.model
        for name in [name for name in model.graph.initializers if name in weights]:
            weight = model.graph.initializers.pop(name)
            weight.const_value = None
            model.graph.inputs.append(weight)
        onnxscript.optimizer.optimize(model)
    _fix_shapes(model)
    return model


def _fix_shapes(model: ir.Model) -> None:
    """Let no node compute a shape: a Reshape copies a size where it is given 0, and finds the one given as -1."""
    for node in model.graph:
        if node.op_type not in RESHAPING:
            continue
        source = node.inputs[0]
        while source is not None and (maker := source.producer()) is not None and maker.op_type == "Reshape":
            source = maker.inputs[0]
        before, after = _shape(source), _shape(node.outputs[0])
        sizes = [
            size if isinstance(size, int) else 0 if before[place : place + 1] == [size] else -1
            for place, size in enumerate(after)
        ]
        only_ones = [size for size in before if size != 1] == [size for size in after if size != 1]
        if sizes.count(-1) <= 1 and (node.op_type == "Reshape" or only_ones):
            node.op_type = "Reshape"
            node.attributes.clear()
            node.replace_input_with(0, source)
            node.replace_input_with(1, ir.Value(name=f"{node.name}/sizes", const_value=ir.tensor(sizes)))
    RemoveUnusedNodesPass()(model)


def _shape(value: ir.Value | None) -> list[int | str | None]:
    """Its sizes, by name where they are dynamic, and None where the exporter does not know them."""
    assert value is not None and value.shape is not None, value
    return [size if isinstance(size, int) else size.value for size in value.shape]


def _module_path(node: ir.Node, before: str) -> str:
    """The module that a node is directly inside of; nodes that the exporter made later are where those before are."""
    if SCOPES not in node.metadata_props:
        return before
    return _inside(ast.literal_eval(node.metadata_props[SCOPES])[-2])


def _inside(path: str) -> str:
    """A path in `_Selected` as one in its network."""
    return path.partition(".")[2]


@contextmanager
def _silence() -> Iterator[None]:
    """Keep from the user what the exporter tells its developers."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
