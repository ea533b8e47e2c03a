"""A judge small enough for tests: it tells colours apart, at 16 px."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from attngan_deploy.bundles.bundle import write_manifest
from attngan_deploy.export.graphs.graph import describe_graph

SIZE, CLASSES, FEATURES = 16, 3, 3


def make_tiny_judge(folder: Path, broken: str = "", **changed: object) -> Path:
    """Write a judge of three colours into `folder`, which is made, and return it.

    Its features are the mean of each channel in [-1, 1]; its logits are eight times that.

    Args:
        broken: "nan" gives logits that are not numbers, "shape" one logit too few.
        changed: manifest fields to change.
    """
    folder.mkdir(parents=True)
    weight = np.eye(CLASSES, dtype=np.float32)[: CLASSES - (broken == "shape")] * 8
    if broken == "nan":
        weight[:] = np.nan
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "weight"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "judge",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(weight)]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", FEATURES]),
        ],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "judge.onnx")
    fields = {
        "kind": "judge",
        "name": "colours",
        "graphs": {"judge": {"file": "judge.onnx", **describe_graph(model)}},
        "input": {"size": SIZE, "mean": [127.5] * 3, "std": [127.5] * 3, "resize": "bilinear"},
        "classes": CLASSES,
        "provenance": {"held_out_accuracy": 0.75},
        "licence": "Apache-2.0",
    }
    write_manifest(folder, {**fields, **changed})
    return folder
