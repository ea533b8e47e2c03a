"""The text encoder's graph against torch, at batch sizes and caption lengths of all kinds."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from attngan_deploy.export.deploy import round_weights
from attngan_deploy.export.graphs.text_encoder import build_text_encoder
from attngan_deploy.train.config import TextEncoderConfig
from attngan_deploy.train.text_encoder import TextEncoder
from tests.makers.tiny_bundle import random_text_encoder

WORDS, FEATURES = 30, 12
CONFIG = TextEncoderConfig(words=WORDS, embedding=7, features=FEATURES)


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return round_weights(random_text_encoder(CONFIG), "fp16")


@pytest.fixture(scope="module")
def session(encoder: TextEncoder) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(build_text_encoder(encoder).SerializeToString())


def captions_of(batch: int, longest: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng([batch, longest])
    lengths = random.integers(1, longest, batch, endpoint=True)
    lengths[-1] = longest
    captions = random.integers(1, WORDS, (batch, longest))
    captions[np.arange(longest) >= lengths[:, None]] = 0
    return captions, lengths


@pytest.mark.parametrize(("batch", "longest"), [(1, 1), (1, 30), (2, 3), (5, 18), (33, 9)])
def test_equals_the_packed_lstm(
    encoder: TextEncoder, session: onnxruntime.InferenceSession, batch: int, longest: int
) -> None:
    captions, lengths = captions_of(batch, longest)
    words, sentence, mask = session.run(["words", "sentence", "mask"], {"captions": captions, "lengths": lengths})
    with torch.no_grad():
        wanted = encoder(torch.from_numpy(captions), torch.from_numpy(lengths))
    np.testing.assert_allclose(words, wanted.words.numpy(), atol=1e-6, rtol=0)
    np.testing.assert_allclose(sentence, wanted.sentence.numpy(), atol=1e-6, rtol=0)
    np.testing.assert_array_equal(mask, wanted.mask.numpy())
    assert np.abs(sentence).max() > 0.1


def test_neighbours_and_padding_change_nothing(session: onnxruntime.InferenceSession) -> None:
    captions, lengths = captions_of(4, 12)
    together = session.run(["words", "sentence"], {"captions": captions, "lengths": lengths})
    for row, length in enumerate(lengths):
        alone = {"captions": captions[row : row + 1, :length], "lengths": lengths[row : row + 1]}
        words, sentence = session.run(["words", "sentence"], alone)
        np.testing.assert_allclose(together[0][row : row + 1, :, :length], words, atol=1e-6, rtol=0)
        np.testing.assert_allclose(together[1][row : row + 1], sentence, atol=1e-6, rtol=0)
        assert not together[0][row, :, length:].any()


def test_tensors_are_those_of_a_bundle(encoder: TextEncoder) -> None:
    graph = build_text_encoder(encoder).graph
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*graph.input, *graph.output]
    }
    assert shapes == {
        "captions": ["batch", "words"],
        "lengths": ["batch"],
        "words": ["batch", FEATURES, "words"],
        "sentence": ["batch", FEATURES],
        "mask": ["batch", "words"],
    }


@pytest.mark.parametrize(("weights", "stored"), [("fp16", onnx.TensorProto.FLOAT16), ("fp32", onnx.TensorProto.FLOAT)])
def test_weights_are_stored_as_they_were_rounded(weights: str, stored: int) -> None:
    model = build_text_encoder(round_weights(random_text_encoder(CONFIG), weights))
    large = [tensor for tensor in model.graph.initializer if np.prod(tensor.dims) > 200]
    assert len(large) == 3  # embedding, input and recurrent weights
    assert {tensor.data_type for tensor in large} == {stored}
