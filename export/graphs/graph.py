"""Building ONNX graphs by hand: names, weights and checks. The layers stand in the files that use this one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from attngan_deploy.export.graphs.stored_weights import ZERO_CODE, as_exact_half, as_exact_rows, as_float32

OPSET = 18
IR_VERSION = 8  # the version that came with opset 18; every runtime since 2023 reads it
FLOAT = TensorProto.FLOAT
DTYPES: dict[str, int] = {"float32": FLOAT, "int64": TensorProto.INT64, "bool": TensorProto.BOOL}


class GraphBuilder:
    """An ONNX graph that grows one node at a time. Every method that makes a tensor returns its name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> str:
        """Declare an input; a dimension given as text is dynamic and has that name."""
        self._inputs.append(helper.make_tensor_value_info(name, DTYPES[dtype], shape))
        return name

    def output(self, tensor: str, name: str, dtype: str, shape: Sequence[int | str]) -> None:
        """Declare `tensor` to be the output `name`."""
        self._nodes.append(helper.make_node("Identity", [tensor], [name], name=f"{name}/output"))
        self._outputs.append(helper.make_tensor_value_info(name, DTYPES[dtype], shape))

    def constant(self, values: ArrayLike, dtype: str) -> str:
        """A small constant, such as a shape or a scale; equal ones are stored once."""
        array = np.asarray(values, dtype)
        key = (dtype, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = self._store(f"constant_{len(self._known)}", array)
        return self._known[key]

    def weight(self, name: str, tensor: Tensor | NDArray[np.float32], row_axes: int = 1, rows: str = "") -> str:
        """A weight in float32, stored in the smallest type that loses nothing (see `deploy.round_weights`).

        An engine folds the Cast, and the Sub and Mul of 8-bit weights, when it loads the graph. A vector stays float32:
        rounding it would save nothing.

        Args:
            row_axes: how many leading axes name a row.
            rows: numbers of the rows to look up, before they are cast, so that a table stays small.
        """

        def store(part: str, array: NDArray[Any], look_up: str = "gather") -> str:
            stored = self._store(f"{name}{part}", array)
            return self.node("Gather", stored, rows, name=f"{name}/{look_up}") if rows else stored

        array = as_float32(tensor)
        if array.ndim > row_axes and (exact := as_exact_rows(array, row_axes)) is not None:
            codes, scales = store("/codes", exact.codes), store("/scale", exact.scales, "gather_scale")
            codes = self.node("Cast", codes, name=f"{name}/cast", to=FLOAT)
            signed = self.node("Sub", codes, self.constant(ZERO_CODE, "float32"), name=f"{name}/signed")
            return self.node("Mul", signed, scales, name=f"{name}/scaled")
        if array.ndim > 1 and (half := as_exact_half(array)) is not None:
            return self.node("Cast", store("/half", half), name=f"{name}/cast", to=FLOAT)
        return store("", array)

    def node(self, operator: str, *inputs: str, name: str, **attributes: Any) -> str:
        """Add a node with one output, which has the node's name; "" stands for an input that is left out."""
        return self.nodes(operator, *inputs, name=name, outputs=1, **attributes)[0]

    def nodes(self, operator: str, *inputs: str, name: str, outputs: int, **attributes: Any) -> list[str]:
        """Add a node with several outputs, named after it and numbered."""
        made = [name] if outputs == 1 else [f"{name}/{place}" for place in range(outputs)]
        self._nodes.append(helper.make_node(operator, list(inputs), made, name=name, **attributes))
        return made

    def finish(self) -> onnx.ModelProto:
        """The finished model, checked in full, its shapes inferred and compared with the declared ones.

        Raises:
            onnx.checker.ValidationError, onnx.shape_inference.InferenceError: the graph is wrong.
        """
        graph = helper.make_graph(
            self._nodes, self._name, self._inputs, self._outputs, list(self._initializers.values())
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="attngan-deploy",
        )
        onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        return model

    def _store(self, name: str, array: NDArray[Any]) -> str:
        if name in self._initializers:
            raise ValueError(f"the graph has two weights called {name}")
        self._initializers[name] = numpy_helper.from_array(array, name)
        return name


def save_graph(model: onnx.ModelProto, path: Path) -> None:
    """Write a model to a file."""
    path.write_bytes(model.SerializeToString(deterministic=True))


def describe_graph(model: onnx.ModelProto) -> dict[str, dict[str, dict[str, Any]]]:
    """Its inputs and outputs as the manifest lists them: name to dtype and shape."""
    return {
        "inputs": {value.name: _describe(value) for value in model.graph.input},
        "outputs": {value.name: _describe(value) for value in model.graph.output},
    }


def _describe(value: onnx.ValueInfoProto) -> dict[str, Any]:
    names = {code: name for name, code in DTYPES.items()}
    tensor = value.type.tensor_type
    return {
        "dtype": names[tensor.elem_type],
        "shape": [dim.dim_param or dim.dim_value for dim in tensor.shape.dim],
    }
