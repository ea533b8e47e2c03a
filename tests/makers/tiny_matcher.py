"""A matcher for the tiny judge: it knows three colours, and ignores every other word."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from attngan_deploy.bundles.bundle import read_manifest, write_manifest
from tests.makers.tiny_judge import FEATURES

WORDS = ["<end>", "red", "green", "blue", "bird"]


def make_tiny_matcher(folder: Path, judge: Path, /, weight: float = 1.0, **changed: object) -> Path:
    """Write a matcher of `judge`, which `make_tiny_judge` made, into `folder`, which is made, and return it.

    A sentence is the sum of its colours, a code is the judge's features: mean red, green and blue in [-1, 1].

    Args:
        weight: what features are multiplied with.
        changed: manifest fields to change; None leaves one out.
    """
    folder.mkdir(parents=True)
    table = np.zeros((len(WORDS), FEATURES), np.float32)
    table[1:4] = np.eye(3)
    text = [
        helper.make_node("Gather", ["table", "captions"], ["words"]),
        helper.make_node("ReduceSum", ["words", "time"], ["sentence"], keepdims=0),
    ]
    ids = [_tensor("captions", ["N", "T"], TensorProto.INT64), _tensor("lengths", ["N"], TensorProto.INT64)]
    _save(
        folder / "text_encoder.onnx",
        text,
        ids,
        _tensor("sentence", ["N", FEATURES]),
        {"table": table, "time": np.array([1])},
    )
    picture = [helper.make_node("Gemm", ["features", "weight"], ["codes"])]
    code = {"weight": np.eye(FEATURES, dtype=np.float32) * np.float32(weight)}
    _save(
        folder / "picture_encoder.onnx",
        picture,
        [_tensor("features", ["N", FEATURES])],
        _tensor("codes", ["N", FEATURES]),
        code,
    )
    (folder / "vocabulary.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    facts = {
        "text_encoder": ({"captions": ("int64", ["N", "T"]), "lengths": ("int64", ["N"])}, {"sentence": ["N", 3]}),
        "picture_encoder": ({"features": ("float32", ["N", FEATURES])}, {"codes": ["N", FEATURES]}),
    }
    fields = {
        "kind": "matcher",
        "name": "three colours",
        "judge": read_manifest(judge).hash,
        "sizes": {"words": len(WORDS)},
        "graphs": {
            key: {
                "file": f"{key}.onnx",
                "inputs": {name: {"dtype": dtype, "shape": shape} for name, (dtype, shape) in inputs.items()},
                "outputs": {name: {"dtype": "float32", "shape": shape} for name, shape in outputs.items()},
            }
            for key, (inputs, outputs) in facts.items()
        },
        "vocabulary": "vocabulary.txt",
        "real": {"r_precision": 0.5, "candidates": 100, "pictures": 2933, "data": {"file": "test.tar"}},
        "provenance": {"judge": {"name": "colours"}},
        "licence": "Apache-2.0",
    }
    kept = {key: value for key, value in {**fields, **changed}.items() if value is not None}
    write_manifest(folder, kept)
    return folder


def _tensor(name: str, shape: list[object], dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    output: onnx.ValueInfoProto,
    constants: dict[str, np.ndarray],
) -> None:
    stored = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, path.stem, inputs, [output], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
