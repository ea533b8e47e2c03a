"""A network as an ONNX graph: `torch.onnx.export`, then every node placed anew by the `GraphBuilder`.

The exporter says which nodes there are. Their names and those of the weights are the module paths of the network;
weights are stored small and cast on load; nothing in the graph tells when and where it was made.
"""

import ast
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import onnx
import onnx_ir as ir
import onnxscript.optimizer
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import Tensor, nn

from attngan_deploy.export.final_names import errors_alone
from attngan_deploy.export.graphs.graph import OPSET, GraphBuilder
from attngan_deploy.train.families import GeneratorNetwork
from attngan_deploy.train.layers import followed_layers

SMALLEST_EXAMPLE = 2  # of a dynamic dimension: torch takes 0 and 1 for sizes that stay
FIRST_SIZE = 64  # side of the first stage's map
SCOPES = "pkg.torch.onnx.name_scopes"  # where the exporter keeps the modules that a node is inside of
Shape = Sequence[int | str]
Inputs = Mapping[str, tuple[str, Shape]]


class _Selection(nn.Module):
    """A network that returns its graph's outputs alone."""

    def __init__(self, network: nn.Module, select: Callable[[Any], Sequence[Tensor]]) -> None:
        super().__init__()
        self.network, self.select = network, select

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.select(self.network(*inputs)))


def network_graph(
    name: str,
    network: nn.Module,
    inputs: Inputs,
    outputs: Mapping[str, Shape],
    select: Callable[[Any], Sequence[Tensor]] = tuple,
) -> onnx.ModelProto:
    """Graph of a network that is ready to be exported, see `deploy.deploy`.

    Args:
        inputs: dtype and shape of each input, in the order of the network's arguments. A dimension given as text is
            dynamic and has that name.
        outputs: shape of each output, float32.
        select: takes the outputs, in their order, from what the network returns.

    Raises:
        onnx.checker.ValidationError, onnx.shape_inference.InferenceError: the graph is wrong.
    """
    builder, state = GraphBuilder(name), network.state_dict()
    weights = {f"network.{key}": value for key, value in state.items() if value.is_floating_point()}
    model = _exported(_Selection(network, select).eval(), inputs, weights.keys())
    tensors: dict[ir.Value | None, str] = {None: ""}  # what each value is called in the new graph
    for value, (input_name, (dtype, shape)) in zip(model.graph.inputs, inputs.items(), strict=False):
        tensors[value] = builder.input(input_name, dtype, shape)
    path, titles = "", Counter[str]()
    for node in model.graph:
        for source in node.inputs:
            if source not in tensors:
                tensors[source] = _stored(builder, source, weights)
        path = _module_path(node, path)
        title = f"{path}/{node.op_type}".lstrip("/")
        titles[title] += 1
        results = builder.nodes(
            node.op_type,
            *(tensors[source] for source in node.inputs),
            name=title if titles[title] == 1 else f"{title}_{titles[title]}",
            outputs=len(node.outputs),
            **{key: attribute.value for key, attribute in node.attributes.items()},
        )
        tensors |= zip(node.outputs, results, strict=True)
    for value, (output_name, shape) in zip(model.graph.outputs, outputs.items(), strict=True):
        builder.output(tensors[value], output_name, "float32", shape)
    return builder.finish()


def generator_graph(generator: GeneratorNetwork) -> onnx.ModelProto:
    """Graph: sentence, words, mask, z, eps to image_64, image_128, image_256 and attention, attention_128.

    There is one image a stage, f32 [N, 3, S, S] in [-1, 1], and one attention a later stage, f32 [N, T, S, S];
    "attention" is that of the second stage. Batch and caption length are dynamic. A generator may take less, and give
    one image alone.

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
    inputs = {name: inputs[name] for name in generator.inputs}
    outputs: dict[str, Shape] = {f"image_{size}": ["batch", 3, size, size] for size in config.sizes}
    outputs |= {attention_name(size): ["batch", "words", size, size] for size in config.sizes[:-1]}
    return network_graph("generator", generator, inputs, outputs, lambda made: [*made.images, *made.attention])


def attention_name(size: int) -> str:
    """Name of the output that holds the attention of a map `size` places wide."""
    return "attention" if size == FIRST_SIZE else f"attention_{size}"


def _exported(network: nn.Module, inputs: Inputs, weights: Collection[str]) -> ir.Model:
    """The exporter's graph, simplified; its weights are inputs, so that nothing is computed from their values."""
    names = dict.fromkeys(size for _, shape in inputs.values() for size in shape if isinstance(size, str))
    sizes = {name: SMALLEST_EXAMPLE + place for place, name in enumerate(names)}
    dimensions = {name: torch.export.Dim(name) for name in names}
    examples = tuple(
        torch.ones([sizes[size] if isinstance(size, str) else size for size in shape], dtype=getattr(torch, dtype))
        for dtype, shape in inputs.values()
    )
    dynamic = tuple(
        {place: dimensions[size] for place, size in enumerate(shape) if isinstance(size, str)}
        for _, shape in inputs.values()
    )
    with errors_alone("torch.onnx"), warnings.catch_warnings():  # the rest is for the exporter's developers
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            examples,
            dynamo=True,
            dynamic_shapes=(dynamic,),
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
        if node.op_type not in ("Reshape", "Expand"):
            continue
        source = node.inputs[0]
        while source is not None and (maker := source.producer()) is not None and maker.op_type == "Reshape":
            source = maker.inputs[0]
        before, after = _shape(source), _shape(node.outputs[0])
        sizes = [
            size if isinstance(size, int) else 0 if before[place : place + 1] == [size] else -1
            for place, size in enumerate(after)
        ]
        keeps_elements = node.op_type == "Reshape" or _without_ones(before) == _without_ones(after)
        if None not in after and sizes.count(-1) <= 1 and keeps_elements:
            node.op_type = "Reshape"
            node.attributes.clear()
            node.replace_input_with(0, source)
            node.replace_input_with(1, ir.Value(name=f"{node.name}/sizes", const_value=ir.tensor(sizes)))
    RemoveUnusedNodesPass()(model)


def _shape(value: ir.Value | None) -> list[int | str | None]:
    """Its sizes: dynamic ones by name, and None for what the exporter does not know."""
    if value is None or value.shape is None:
        return [None]
    return [size if isinstance(size, int) else size.value for size in value.shape]


def _without_ones(shape: list[int | str | None]) -> list[int | str | None]:
    return [size for size in shape if size != 1]


def _stored(builder: GraphBuilder, value: ir.Value | None, weights: Mapping[str, Tensor]) -> str:
    """Place a weight or a constant."""
    assert value is not None
    if value.const_value is None:
        return builder.weight(_inside(str(value.name)), weights[str(value.name)])
    constant = value.const_value.numpy()
    return builder.constant(constant, constant.dtype.name)


def _module_path(node: ir.Node, before: str) -> str:
    """The module that a node is directly inside of; a node that the exporter added is where the one before it is."""
    if SCOPES not in node.metadata_props:
        return before
    return _inside(ast.literal_eval(node.metadata_props[SCOPES])[-2])


def _inside(path: str) -> str:
    """A path in a `_Selection` as one in its network."""
    return path.partition(".")[2]
