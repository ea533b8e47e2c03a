"""The comparison of graphs with torch: what it measures, and what it refuses."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper

from attngan_deploy.errors import ParityError
from attngan_deploy.export.deploy import GraphOptions, Networks, deployed
from attngan_deploy.export.graphs.graph import save_graph
from attngan_deploy.export.graphs.network import generator_graph
from attngan_deploy.export.graphs.text_encoder import build_text_encoder
from attngan_deploy.export.parity.parity import CASES, check_parity
from attngan_deploy.train.config import GeneratorConfig, TextEncoderConfig
from tests.makers.tiny_bundle import random_generator, random_text_encoder

FEATURES = 8
PIXELS = sum(pictures for pictures, _ in CASES) * 3 * 128 * 128


@pytest.fixture(scope="module")
def trained() -> Networks:
    text_encoder = random_text_encoder(TextEncoderConfig(words=20, embedding=6, features=FEATURES))
    return Networks(text_encoder, random_generator(GeneratorConfig("base", 2, 2, 4, 4, FEATURES)))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Networks], dict[str, Path]]:
    def write_graphs(networks: Networks) -> dict[str, Path]:
        models = {
            "text_encoder": build_text_encoder(networks.text_encoder),
            "generator": generator_graph(networks.generator),
        }
        for key, model in models.items():
            save_graph(model, tmp_path / f"{key}.onnx")
        return {key: tmp_path / f"{key}.onnx" for key in models}

    return write_graphs


def change_weight(path: Path, name: str, value: float) -> None:
    """Set one value of an initializer in a graph file."""
    model = onnx.load(path)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    array = numpy_helper.to_array(tensor).copy()
    array.flat[0] = value
    tensor.CopyFrom(numpy_helper.from_array(array, name))
    save_graph(model, path)


def test_every_output_is_measured(trained: Networks, write: Callable[[Networks], dict[str, Path]]) -> None:
    networks = deployed(trained)
    parity = check_parity(write(networks), networks, trained)
    assert list(parity.outputs) == ["words", "sentence", "mask", "image_64", "image_128", "attention"]
    picture = parity.outputs["image_128"]
    assert 0 < picture.worst < picture.tolerance == 1e-4
    assert picture.pixels == PIXELS and picture.pixels_differ is not None and picture.pixels_differ < PIXELS / 1000
    assert parity.outputs["mask"].worst == 0
    assert parity.outputs["sentence"].pixels is None
    assert parity.stored_weights.psnr_db is not None and 40 < parity.stored_weights.psnr_db < 90
    assert parity.stored_weights.worst_level >= 1


def test_unrounded_weights_move_no_picture(trained: Networks, write: Callable[[Networks], dict[str, Path]]) -> None:
    networks = deployed(trained, GraphOptions(weights="fp32"))
    rounding = check_parity(write(networks), networks, trained).stored_weights
    assert rounding.psnr_db is None or rounding.psnr_db > 100


@pytest.mark.parametrize(
    ("graph", "weight", "output"),
    [
        ("text_encoder", "lstm/recurrent/half", "words"),
        ("generator", "to_image.0.conv.weight/half", "image_64"),
        ("generator", "later.0.upsample.conv.value.bias", "image_128"),
    ],
)
def test_another_weight_is_noticed(
    trained: Networks, write: Callable[[Networks], dict[str, Path]], graph: str, weight: str, output: str
) -> None:
    networks = deployed(trained)
    graphs = write(networks)
    change_weight(graphs[graph], weight, 3.0)
    with pytest.raises(
        ParityError, match=rf"output {output} of ONNX Runtime .*found a difference of .*expected at most"
    ):
        check_parity(graphs, networks, trained)


def test_a_graph_that_makes_nan_is_refused(trained: Networks, write: Callable[[Networks], dict[str, Path]]) -> None:
    networks = deployed(trained)
    graphs = write(networks)
    change_weight(graphs["generator"], "to_image.1.conv.weight/half", float("nan"))
    with pytest.raises(ParityError, match="output image_128 of ONNX Runtime has values that are not finite"):
        check_parity(graphs, networks, trained)


def test_a_network_that_makes_infinities_is_refused(
    trained: Networks, write: Callable[[Networks], dict[str, Path]]
) -> None:
    networks = deployed(trained)
    with torch.no_grad():
        linear = networks.generator.augmentation.linear
        linear.value.bias.fill_(1e4)  # its exponential overflows
        linear.gate.bias.fill_(1e4)
    with pytest.raises(ParityError, match="of torch has values that are not finite"):
        check_parity(write(networks), networks, trained)


def test_rounding_that_costs_too_much_is_refused(
    trained: Networks, write: Callable[[Networks], dict[str, Path]]
) -> None:
    networks = deployed(trained)
    other = replace(trained, generator=random_generator(trained.generator.config, seed=1))
    with pytest.raises(ParityError, match=r"rounding the weights changes .* expected at least 40 dB.*--weights fp32"):
        check_parity(write(networks), networks, other)
