"""Weights in 8 bits a row: exact in the graph, small in the file, and gone when an engine has loaded it."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from attngan_deploy.export.deploy import LARGE, round_weights
from attngan_deploy.export.graphs.graph import GraphBuilder, save_graph
from attngan_deploy.export.graphs.stored_weights import as_exact_rows, from_rows, to_rows
from attngan_deploy.export.graphs.text_encoder import build_text_encoder
from attngan_deploy.train.config import TextEncoderConfig
from attngan_deploy.train.text_encoder import TextEncoder
from tests.makers.tiny_bundle import random_text_encoder

CONFIG = TextEncoderConfig(words=LARGE // 40, embedding=200, features=128)  # embedding and input weights are large


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return round_weights(random_text_encoder(CONFIG), "mixed")


@pytest.mark.parametrize("scale", [1e-30, 1e-4, 1.0, 3e7])
@pytest.mark.parametrize("shape", [(50, 30), (20, 4, 3, 3)])
def test_rows_survive_exactly_once_rounded(shape: tuple[int, ...], scale: float) -> None:
    array = (np.random.default_rng(0).normal(size=shape) * scale).astype(np.float32)
    array[3] = 0.0  # the padding word's row
    rounded = from_rows(to_rows(array))
    largest = np.abs(array).reshape(len(array), -1).max(1)
    assert (np.abs(rounded - array).reshape(len(array), -1).max(1) <= largest / 127 * 0.51).all()
    again = as_exact_rows(rounded)
    assert again is not None and again.codes.dtype == np.uint8
    np.testing.assert_array_equal(from_rows(again), rounded)
    assert as_exact_rows(array) is None


def test_halves_of_rounded_rows_survive_too() -> None:
    rounded = from_rows(to_rows(np.random.default_rng(1).normal(size=(8, 40)).astype(np.float32)))
    assert as_exact_rows(rounded[:4]) is not None  # a GLU's value and gate
    assert as_exact_rows(rounded.reshape(2, 4, 40), row_axes=2) is not None  # the directions of an LSTM


def test_only_large_matrices_lose_bits() -> None:
    encoder = random_text_encoder(CONFIG)
    mixed, half = round_weights(encoder, "mixed"), round_weights(encoder, "fp16")
    assert not torch.equal(mixed.embedding.weight, half.embedding.weight)
    assert torch.equal(mixed.lstm.weight_hh_l0, half.lstm.weight_hh_l0)  # 256 x 64
    assert torch.equal(mixed.lstm.bias_ih_l0, encoder.lstm.bias_ih_l0)


def test_the_graph_computes_what_the_rounded_network_computes(encoder: TextEncoder) -> None:
    model = build_text_encoder(encoder)
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert stored["embedding/codes"] == stored["lstm/input/codes"] == onnx.TensorProto.UINT8
    assert stored["lstm/recurrent/half"] == onnx.TensorProto.FLOAT16
    assert model.ByteSize() < 1.2 * (CONFIG.words * 200 + 2 * 256 * 200 + 2 * 2 * 256 * 64)
    captions = np.random.default_rng(0).integers(1, CONFIG.words, (3, 7))
    lengths = np.array([7, 7, 7])
    session = onnxruntime.InferenceSession(model.SerializeToString())
    words, sentence = session.run(["words", "sentence"], {"captions": captions, "lengths": lengths})
    with torch.no_grad():
        wanted = encoder(torch.from_numpy(captions), torch.from_numpy(lengths))
    np.testing.assert_allclose(words, wanted.words.numpy(), atol=1e-6, rtol=0)
    np.testing.assert_allclose(sentence, wanted.sentence.numpy(), atol=1e-6, rtol=0)


def test_an_engine_folds_everything_but_the_table(encoder: TextEncoder, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimized.onnx"), 3
    onnxruntime.InferenceSession(build_text_encoder(encoder).SerializeToString(), options)
    nodes = [node.name for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert [name for name in nodes if name.startswith("lstm/input") or name.startswith("lstm/recurrent")] == []
    assert "embedding/gather" in nodes


def test_a_builder_picks_the_smallest_exact_type(tmp_path: Path) -> None:
    random = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    graph = GraphBuilder("weights")
    kinds = {"whole": random, "half": random.astype(np.float16).astype(np.float32), "codes": from_rows(to_rows(random))}
    for name, array in kinds.items():
        graph.output(graph.weight(name, array), f"{name}_out", "float32", [4, 6])
    save_graph(graph.finish(), tmp_path / "graph.onnx")
    made = onnxruntime.InferenceSession(tmp_path / "graph.onnx").run(None, {})
    for array, wanted in zip(made, kinds.values(), strict=True):
        np.testing.assert_array_equal(array, wanted)
