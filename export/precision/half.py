"""Half-precision graphs: fp16 and bf16 from the fp32 graph that a bundle holds. Needs no torch.

The graph is strongly typed, as TensorRT asks since version 11: weights are stored once in the low type, and a Cast
stands wherever a tensor passes between types. Inputs and outputs stay float32. `keep` names layers that stay in fp32.

Few engines on a CPU compute in these types: ONNX Runtime casts back to fp32 and drops casts on its way. So parity is
measured on an `emulated` graph, which computes in fp32 and rounds the weights and the result of every node to the low
type: what a device does that multiplies in the low type and adds in fp32.
"""

import re
from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference, version_converter
from onnx.reference import ReferenceEvaluator

from attngan_deploy.bundles.graph_file import read_graph

FLOAT = TensorProto.FLOAT
TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
BF16_OPSET, BF16_IR = 22, 10  # the first with bfloat16 convolutions
FLOAT32_INPUTS = {"Resize": (1, 2)}  # places of inputs that are float32 in every type: region and scales
ROUNDED = "/rounded"
LAYER = re.compile(r"((first|later\.\d+)\.)?[^.]+(\.\d+)?")  # a part of the network, or of a stage of it
EARLIER_STAGE = re.compile(r"first|stage\d+")


def load_plain(path: Path) -> ModelProto:
    """The graph with every stored weight as one float32 initializer: its casts and scales folded away.

    Raises as `read_graph`.
    """
    return fold_constants(read_graph(path))


def fold_constants(model: ModelProto) -> ModelProto:
    """A copy without nodes whose inputs are all constant: their values become initializers."""
    graph = model.graph
    constant = {tensor.name for tensor in graph.initializer} | {""}
    folded, others = [], []
    for node in graph.node:
        if constant.issuperset(node.input):
            constant.update(node.output)
            folded.append(node)
        else:
            others.append(node)
    used = {name for node in others for name in node.input}
    wanted = [name for node in folded for name in node.output if name in used]
    initializers = [tensor for tensor in graph.initializer if tensor.name in used]
    if wanted:
        outputs = [onnx.ValueInfoProto(name=name) for name in wanted]
        constants = helper.make_graph(folded, "constants", [], outputs, list(graph.initializer))
        values = ReferenceEvaluator(helper.make_model(constants, opset_imports=model.opset_import)).run(None, {})
        initializers += [
            numpy_helper.from_array(np.asarray(each), name) for name, each in zip(wanted, values, strict=True)
        ]
    return _with_graph(model, others, initializers)


def layer_of(node: str) -> str:
    """The layer that a node or weight belongs to, by its name: "later.0.residual.0.gated.conv.gate/Conv" is of
    "later.0.residual.0", and in graphs that were built by hand "stage2/residual0/gated/sigmoid" of "stage2/residual0".
    """
    parts = node.split("/")
    if len(parts) > 2 and EARLIER_STAGE.fullmatch(parts[0]):
        return "/".join(parts[:2])
    found = LAYER.match(parts[0])
    return found[0] if found else parts[0]


def layers(model: ModelProto) -> list[str]:
    """Layers with arithmetic in them, in the graph's order."""
    outputs = {output.name for output in model.graph.output}
    return list(dict.fromkeys(layer_of(node.name) for node in model.graph.node if not outputs & set(node.output)))


def convert(model: ModelProto, precision: str, keep: Collection[str] = ()) -> ModelProto:
    """The graph in "fp16" or "bf16".

    Args:
        model: a float32 graph as `load_plain` gives it.
        keep: layers (`layer_of`) that stay in fp32.
    """
    if precision == "bf16":
        model = version_converter.convert_version(model, BF16_OPSET)
        model.ir_version = BF16_IR
    made = _Conversion(model, TYPES[precision], keep, emulate=False).run()
    onnx.checker.check_model(made, full_check=True)
    return made


def emulated(model: ModelProto, precision: str, keep: Collection[str] = ()) -> ModelProto:
    """A graph that computes in fp32 and rounds to what `convert` would have: the arguments are the same."""
    return _Conversion(model, TYPES[precision], keep, emulate=True).run()


class _Conversion:
    """One pass over the nodes, in order; names of tensors stay, a copy in another type has the type in its name."""

    def __init__(self, model: ModelProto, low: int, keep: Collection[str], emulate: bool) -> None:
        self.model, self.low, self.emulate = model, low, emulate
        self.keep = set(keep) | {layer_of(output.name) for output in model.graph.output}
        inferred = shape_inference.infer_shapes(model, strict_mode=True)
        known = [*inferred.graph.value_info, *inferred.graph.input]
        self.floats = {value.name for value in known if value.type.tensor_type.elem_type == FLOAT}
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.weights: dict[str, TensorProto] = {}
        self.types: dict[str, int] = dict.fromkeys(self.floats, FLOAT)  # in which each tensor stands under its own name
        self.nodes: list[NodeProto] = []
        self.casts: dict[tuple[str, int], str] = {}

    def run(self) -> ModelProto:
        outputs = {output.name for output in self.model.graph.output}
        for node in self.model.graph.node:
            kept = layer_of(node.name) in self.keep or bool(outputs & set(node.output))
            self._place(node, FLOAT if kept else self.low)
        return _with_graph(self.model, self.nodes, list(self.weights.values()))

    def _place(self, node: NodeProto, wanted: int) -> None:
        placed = NodeProto()
        placed.CopyFrom(node)
        for place, name in enumerate(node.input):
            own = FLOAT if place in FLOAT32_INPUTS.get(node.op_type, ()) else wanted
            placed.input[place] = self._input(name, own)
        self.nodes.append(placed)
        floats = [place for place, name in enumerate(node.output) if name in self.floats]
        if wanted == FLOAT:
            return
        for place in floats:
            name = node.output[place]
            if self.emulate:
                placed.output[place] = f"{name}/exact"
                self._round(f"{name}/exact", name)
            else:
                self.types[name] = wanted

    def _input(self, name: str, wanted: int) -> str:
        if name in self.initializers:
            return self._weight(self.initializers[name], wanted)
        if name not in self.floats or self.types[name] == wanted:
            return name
        if (name, wanted) not in self.casts:
            self.casts[name, wanted] = made = f"{name}/{TensorProto.DataType.Name(wanted).lower()}"
            if self.emulate:
                self._round(name, made)
            else:
                self._cast(name, made, wanted)
        return self.casts[name, wanted]

    def _weight(self, tensor: TensorProto, wanted: int) -> str:
        if tensor.data_type != FLOAT:
            self.weights[tensor.name] = tensor
            return tensor.name
        name = tensor.name if wanted == FLOAT else f"{tensor.name}/{TensorProto.DataType.Name(wanted).lower()}"
        if name not in self.weights:
            value = numpy_helper.to_array(tensor)
            if wanted != FLOAT:
                value = value.astype(helper.tensor_dtype_to_np_dtype(wanted))
                value = value.astype(np.float32) if self.emulate else value
            self.weights[name] = numpy_helper.from_array(value, name)
        return name

    def _round(self, name: str, made: str) -> None:
        self._cast(name, f"{made}{ROUNDED}", self.low)
        self._cast(f"{made}{ROUNDED}", made, FLOAT)

    def _cast(self, name: str, made: str, wanted: int) -> None:
        self.nodes.append(helper.make_node("Cast", [name], [made], name=f"{made}/cast", to=wanted))


def _with_graph(model: ModelProto, nodes: list[NodeProto], initializers: list[TensorProto]) -> ModelProto:
    graph = helper.make_graph(nodes, model.graph.name, model.graph.input, model.graph.output, initializers)
    return helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version, producer_name=model.producer_name
    )
