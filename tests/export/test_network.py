"""What torch's exporter makes of a network, placed anew: no shapes are computed, names are module paths."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from attngan_deploy.export.graphs.graph import IR_VERSION, OPSET
from attngan_deploy.export.graphs.network import network_graph

SIZES = ((1, 1), (2, 5), (7, 3))  # batch and words
INPUTS = {"words": ("float32", ["batch", 6, "words"])}


class Flattening(nn.Module):
    """Every word alone through a linear layer: no Reshape finds two dimensions in one."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleList([nn.Linear(6, 4)])

    def forward(self, words: Tensor) -> Tensor:
        n, d, t = words.shape
        rows = self.inner[0](words.transpose(1, 2).reshape(n * t, d))
        return rows.view(n, t, 4).transpose(1, 2)


class Grouped(nn.Module):
    """Features in groups, as heads of attention are, and together again."""

    def forward(self, words: Tensor) -> Tensor:
        n, d, t = words.shape
        groups = words.transpose(1, 2).reshape(n, t, 3, d // 3).softmax(2)
        return groups.permute(0, 2, 3, 1).reshape(n, d, t)


class Deviating(nn.Module):
    """A deviation over words, whose shape the exporter computes."""

    def forward(self, words: Tensor) -> Tensor:
        return words / (words.std(1, keepdim=True) + 1)


class Widening(nn.Module):
    """A mean beside each word: no Reshape makes more of one."""

    def forward(self, words: Tensor) -> Tensor:
        n, d, t = words.shape
        return torch.cat([words, words.mean(2, keepdim=True).expand(n, d, t)], dim=1)


def check(network: nn.Module, channels: int) -> onnx.GraphProto:
    model = network_graph("words", network, INPUTS, {"made": ["batch", channels, "words"]}, lambda made: [made])
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for batch, words in SIZES:
        x = np.random.default_rng(batch).standard_normal((batch, 6, words), np.float32)
        with torch.no_grad():
            wanted = network(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(session.run(None, {"words": x})[0], wanted, atol=1e-6, rtol=1e-6)
    assert (model.opset_import[0].version, model.ir_version) == (OPSET, IR_VERSION)
    assert not model.graph.doc_string and not any(node.doc_string or node.metadata_props for node in model.graph.node)
    return model.graph


def operators(graph: onnx.GraphProto) -> Sequence[str]:
    return [node.op_type for node in graph.node]


@pytest.mark.parametrize(("network", "channels"), [(Grouped(), 6), (Deviating(), 6)], ids=["groups", "deviation"])
def test_no_node_computes_a_shape(network: nn.Module, channels: int) -> None:
    made = operators(check(network, channels))
    assert not {"Shape", "Expand", "Gather"} & set(made) and "Reshape" in made


def test_a_shape_that_has_to_be_computed_is(capfd: pytest.CaptureFixture[str]) -> None:
    assert "Shape" in operators(check(Flattening(), 4))
    assert {"Shape", "Expand"} <= set(operators(check(Widening(), 12)))
    assert capfd.readouterr() == ("", "")  # the exporter talks, and the user need not hear it


def test_names_are_module_paths() -> None:
    graph = check(Flattening(), 4)
    assert {"inner.0.weight", "inner.0.bias"} <= {tensor.name for tensor in graph.initializer}
    assert {"inner.0/Gemm", "Transpose", "Transpose_2", "made/output"} <= {node.name for node in graph.node}
