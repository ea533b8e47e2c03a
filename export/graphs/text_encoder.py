"""The text encoder as an ONNX graph: one bidirectional LSTM node with `sequence_lens`.

Built by hand, because the exporters of torch freeze the batch size or the caption length of a packed LSTM.
"""

import onnx
import torch
from torch import Tensor, nn

from attngan_deploy.export.graphs.graph import GraphBuilder
from attngan_deploy.train.text_encoder import TextEncoder

DIRECTIONS = ("", "_reverse")


def build_text_encoder(encoder: TextEncoder) -> onnx.ModelProto:
    """Graph: captions int64 [N, T], lengths int64 [N] to words [N, D, T], sentence [N, D], mask bool [N, T].

    Batch and caption length are dynamic. Lengths are 1 to T; words behind a caption's end come out as zeros.
    """
    graph = GraphBuilder("text_encoder")
    captions = graph.input("captions", "int64", ["batch", "words"])
    lengths = graph.input("lengths", "int64", ["batch"])
    features = encoder.config.features

    embedded = graph.weight("embedding", encoder.embedding.weight, rows=captions)
    states, last = graph.nodes(
        "LSTM",
        graph.node("Transpose", embedded, name="time_first", perm=[1, 0, 2]),  # [T, N, E]
        graph.weight("lstm/input", _lstm_tensor(encoder.lstm, "weight_ih"), row_axes=2),
        graph.weight("lstm/recurrent", _lstm_tensor(encoder.lstm, "weight_hh"), row_axes=2),
        graph.weight("lstm/bias", torch.cat([_lstm_tensor(encoder.lstm, f"bias_{of}") for of in ("ih", "hh")], dim=1)),
        graph.node("Cast", lengths, name="lstm/lengths", to=onnx.TensorProto.INT32),
        name="lstm",
        outputs=2,
        hidden_size=encoder.lstm.hidden_size,
        direction="bidirectional",
    )  # [T, 2, N, D / 2] and [2, N, D / 2]
    words = graph.node("Transpose", states, name="words_by_direction", perm=[2, 1, 3, 0])
    words = graph.node("Reshape", words, graph.constant([0, features, -1], "int64"), name="words_last")
    sentence = graph.node("Transpose", last, name="sentence_by_direction", perm=[1, 0, 2])
    sentence = graph.node("Reshape", sentence, graph.constant([0, features], "int64"), name="both_directions")

    graph.output(words, "words", "float32", ["batch", features, "words"])
    graph.output(sentence, "sentence", "float32", ["batch", features])
    graph.output(_mask(graph, captions, lengths), "mask", "bool", ["batch", "words"])
    return graph.finish()


def _mask(graph: GraphBuilder, captions: str, lengths: str) -> str:
    total = graph.node("Shape", captions, name="mask/total", start=1, end=2)
    total = graph.node("Squeeze", total, name="mask/words")
    place = graph.node("Range", graph.constant(0, "int64"), total, graph.constant(1, "int64"), name="mask/place")
    ends = graph.node("Unsqueeze", lengths, graph.constant([1], "int64"), name="mask/ends")
    return graph.node("Less", place, ends, name="mask/inside")


def _lstm_tensor(lstm: nn.LSTM, name: str) -> Tensor:
    """Both directions of a parameter [4H, ...] as [2, 4H, ...], gates i, f, g, o of torch as i, o, f, g of ONNX."""
    directions = []
    for suffix in DIRECTIONS:
        i, f, g, o = getattr(lstm, f"{name}_l0{suffix}").chunk(4)
        directions.append(torch.cat([i, o, f, g]))
    return torch.stack(directions)
