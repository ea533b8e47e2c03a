"""DM-GAN's and DF-GAN's published weights to a bundle that answers as the published networks do."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from attngan_deploy import TextFeatures, TextToImage
from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.bundles.truncation import Truncation
from attngan_deploy.cli import app, register
from attngan_deploy.engines.load import load_engine
from attngan_deploy.engines.request import EngineRequest
from attngan_deploy.errors import CheckpointError
from attngan_deploy.export.published import import_published
from attngan_deploy.train.config import GeneratorConfig
from attngan_deploy.train.imports.published_files import PublishedModel, read_published
from tests.makers.published import Published
from tests.makers.published_model import PublishedFiles

register("import_", "models")  # a lone command would need no name

NETWORKS = ("dmgan_branch2_b1mask", "dmgan_branch3_b3", "dfgan_64_b3", "dfgan_256_b2")
CONFIGS = {
    "dmgan_branch3_b3": GeneratorConfig("dmgan", 3, 4, 12, 16, 32, 2),
    "dfgan_256_b2": GeneratorConfig("dfgan", 3, 4, 12, 0, 32, 0),
}
TOLERANCE = 1e-4

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def bundle_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Import a network of tests/data, once."""
    made: dict[str, Path] = {}

    def bundle(network: str) -> Path:
        if network not in made:
            folder = tmp_path_factory.mktemp(network)
            files = PublishedFiles(folder, network)
            made[network] = import_published(
                files.generator, files.text_encoder, files.captions, folder / network
            ).bundle
        return made[network]

    return bundle


def read(folder: Path, network: str, change: Callable[[Any], Any] = lambda state: state, **how: Any) -> PublishedModel:
    files = PublishedFiles(folder, network)
    torch.save(change(Published(network).state), files.generator)
    return read_published(files.generator, files.text_encoder, files.captions, **how)


def tensors_of(published: Published) -> Mapping[str, np.ndarray]:
    inputs = {name: value.numpy() for name, value in published.inputs.items()}
    return inputs | {"mask": ~inputs["mask"]} if "mask" in inputs else inputs


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_graph_answers_as_the_published_generator(
    bundle_of: Callable[[str], Path], network: str, backend: str
) -> None:
    """Also one picture at a time, and with words of padding: batch and caption length are dynamic."""
    bundle, published = open_bundle(bundle_of(network)), Published(network)
    tensors = tensors_of(published)
    engine = load_engine(bundle, "generator", EngineRequest(backend, precision="fp32"))
    whole = engine.run(tensors)
    alone = [
        engine.run({name: array[row : row + 1] for name, array in tensors.items()}) for row in range(len(tensors["z"]))
    ]
    longer = engine.run(
        {
            name: np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, 4 * (name in ("words", "mask")))])
            for name, array in tensors.items()
        }
    )
    names = {
        "image": f"image_{published.sizes.get('imsize')}",
        "attention.0": "attention",
        "attention.1": "attention_128",
    }
    names |= {f"image.{place}": f"image_{64 * 2**place}" for place in range(3)}
    for name in published.outputs:
        theirs = name.removesuffix("__stride3")
        if theirs not in names:
            continue  # mu and logvar are not in the graph
        ours = names[theirs]
        words = tensors["words"].shape[2] if "words" in tensors else None
        for found in (
            whole[ours],
            np.concatenate([each[ours] for each in alone]),
            longer[ours][:, :words] if ours.startswith("attention") else longer[ours],
        ):
            published.check(theirs, torch.from_numpy(found), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_bundle_says_what_its_generator_takes_and_gives(bundle_of: Callable[[str], Path], network: str) -> None:
    manifest = open_bundle(bundle_of(network)).manifest
    graph, sizes = manifest.graphs["generator"], manifest.sizes
    if network.startswith("dmgan"):
        assert [*graph.inputs] == ["sentence", "words", "mask", "z", "eps"]
        assert (sizes.eps, sizes.attention, manifest.truncation, manifest.told("schema")) == (16, 64, None, 1)
    else:
        assert [*graph.inputs] == ["sentence", "z"]
        assert [*graph.outputs] == [f"image_{sizes.stages[-1]}"]
        assert (sizes.eps, sizes.attention, len(sizes.stages)) == (0, 0, 1)
        assert (manifest.truncation, manifest.told("schema")) == (Truncation(2.0, 0.88), 2)
        assert not {"eps", "attention"} & manifest.document["sizes"].keys()


@pytest.mark.parametrize("network", ["dmgan_branch2_b1mask", "dfgan_64_b3"])
def test_pictures_can_be_made_from_features_built_by_hand(bundle_of: Callable[[str], Path], network: str) -> None:
    model = TextToImage.load(bundle_of(network), backend="onnxruntime", precision="fp32")
    z, eps = model.noise(0, [(0, 0), (1, 0)])
    assert eps.shape == (2, model.eps_size)
    features = TextFeatures(np.ones((2, 32, 3), np.float32), np.ones((2, 32), np.float32), np.ones((2, 3), np.bool_))
    stages = model.decode(features, z, eps)
    assert (stages.attention is None) == network.startswith("dfgan")
    if not model.eps_size:
        np.testing.assert_array_equal(model.decode(features, z).images[64], stages.images[64])


def test_the_command_says_what_it_read(tmp_path: Path) -> None:
    files = PublishedFiles(tmp_path, "dfgan_64_b3")
    arguments = ["import", *files.arguments, "-o", str(tmp_path / "df")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    assert "dfgan: pictures of 64 px, 60 words, 32 text features" in result.stdout
    assert "DF-GAN of width 4, noise 12, made for noise cut at 2, times 0.88" in result.stdout
    assert "took " in result.stdout
    facts = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert (facts["variant"], facts["truncation"]) == ("dfgan", {"clip": 2.0, "scale": 0.88})
    assert facts["seconds"] > 0
    assert "times 0.88" in (tmp_path / "df" / "README.md").read_text()


@pytest.mark.parametrize("network", CONFIGS)
@pytest.mark.parametrize(
    "change",
    [
        lambda state: {"netG": state},
        lambda state: {"model": {"netG": state, "netD": {"conv_img.weight": torch.zeros(1)}}, "epoch": 3},
        lambda state: {"state_dict": state, "arguments": {"lr": 0.1}},
        lambda state: {"netG": {name: value + 1 for name, value in state.items()}, "netG_ema": state},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {f"_orig_mod.module.{name}": value for name, value in state.items()},
        lambda state: {"netG": {f"module._orig_mod.{name}": value for name, value in state.items()}},
        lambda state: {name: value.double() for name, value in state.items()},
        lambda state: dict(reversed(state.items())),
    ],
    ids=["netG", "model", "state_dict", "averaged", "module", "compiled", "all", "float64", "order"],
)
def test_wrappers_are_undone(tmp_path: Path, network: str, change: Callable[[Any], Any]) -> None:
    model, plain = read(tmp_path, network, change), read(tmp_path, network)
    assert model.generator == CONFIGS[network]
    for name, value in plain.tensors["generator"].items():
        torch.testing.assert_close(model.tensors["generator"][name], value, atol=0, rtol=0)


@pytest.mark.parametrize("network", CONFIGS)
def test_half_precision_is_read_as_float32(tmp_path: Path, network: str) -> None:
    model = read(tmp_path, network, lambda state: {name: value.half() for name, value in state.items()})
    floats = [value for value in model.tensors["generator"].values() if value.is_floating_point()]
    assert {value.dtype for value in floats} == {torch.float32}
    assert model.generator == CONFIGS[network]


def test_two_of_three_stages(tmp_path: Path) -> None:
    model = read(tmp_path, "dmgan_branch3_b3", stages=2)
    assert model.generator == GeneratorConfig("dmgan", 2, 4, 12, 16, 32, 2)
    assert not [name for name in model.tensors["generator"] if name.startswith(("later.1.", "to_image.2."))]


def parameters(state: State) -> list[Tensor]:
    """As `netG.parameters()` gives them: in the order of the state, without statistics of batch norm."""
    return [value for name, value in state.items() if not name.endswith(("running_mean", "running_var"))]


@pytest.mark.parametrize("network", CONFIGS)
@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state, means: {"netG": state, "avg_param_G": means},
        lambda state, means: {"model": {"netG": state, "netD": {}}, "ema": {"decay": 0.999, "shadow_params": means}},
        lambda state, means: {"state_dict": state, "optimizer": {"moments": means[:3]}, "averages": (*means,)},
    ],
    ids=["published", "torch_ema", "tuple"],
)
def test_a_list_of_averages_beside_the_weights_is_what_is_read(
    tmp_path: Path, network: str, wrapped: Callable[[State, list[Tensor]], Any]
) -> None:
    """Averages have no names; statistics of batch norm are those of the weights beside them, as in published files."""
    made = read(tmp_path, network, lambda state: wrapped(state, [value + 1 for value in parameters(state)]))
    for name, value in read(tmp_path, network).tensors["generator"].items():
        averaged = not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        torch.testing.assert_close(made.tensors["generator"][name], value + averaged, atol=0, rtol=0)


def test_a_state_of_averages_is_taken_before_a_list(tmp_path: Path) -> None:
    def change(state: State) -> Any:
        return {"netG": state, "avg_param_G": [value + 1 for value in parameters(state)], "netG_ema": state}

    made, plain = read(tmp_path, "dfgan_64_b3", change), read(tmp_path, "dfgan_64_b3")
    torch.testing.assert_close(made.tensors["generator"], plain.tensors["generator"], atol=0, rtol=0)


def without(*starts: str) -> Callable[[State], State]:
    return lambda state: {name: value for name, value in state.items() if not name.startswith(starts)}


@pytest.mark.parametrize(
    ("network", "change", "message"),
    [
        (
            "dmgan_branch3_b3",
            lambda state: state | {f"h_net2.extra{place}.weight": torch.zeros(1) for place in range(4)},
            "a weight that DM-GAN's generator has not; found 'h_net2.extra0.weight', 'h_net2.extra1.weight', 'h_net2.e",
        ),
        ("dmgan_branch3_b3", without("h_net3.A."), "'later.1.word_importance.weight' does not fit the other weights"),
        ("dmgan_branch3_b3", without("h_net2.residual.", "h_net3.residual."), "without a residual block"),
        (
            "dfgan_64_b3",
            lambda state: state | {"GBlocks.0.extra.weight": torch.zeros(1)},
            "a weight that DF-GAN's generator has not; found 'GBlocks.0.extra.weight'",
        ),
        ("dfgan_64_b3", without("GBlocks.3."), "found 3 blocks; expected no --stages, and 4, 5 or 6 blocks"),
        ("dfgan_64_b3", without("fc.weight"), "'linear.weight' is missing"),
        (
            "dfgan_64_b3",
            lambda state: state | {"fc.weight": torch.zeros(512, 44)},
            "its blocks do not fit its noise; found 0 text features",
        ),
        (
            "dfgan_64_b3",
            lambda state: state | {"GBlocks.2.c1.weight": torch.zeros(8, 9, 3, 3)},
            "'blocks.2.conv1.weight' does not fit the other weights; found (8, 9, 3, 3); expected (8, 16, 3, 3)",
        ),
        (
            "dfgan_64_b3",
            lambda state: {name.replace("GBlocks.", "block"): value for name, value in state.items()},
            "is no generator of the published code; found 'fc.weight', 'fc.bias', 'block0.c1.weight'; expected a "
            "generator, as in netG_epoch_N.pth; nearest is DF-GAN, which has no 'block0.c1.weight', 'block0.c1.bias', ",
        ),
        ("dfgan_64_b3", lambda state: {"conv_img.weight": state["fc.weight"]}, "found a discriminator"),
        ("dfgan_64_b3", lambda state: [*state.values()], "holds 154 tensors without names; found a list, as an avera"),
        (
            "dmgan_branch3_b3",
            lambda state: {"avg_param_G": parameters(state), "epoch": 3},
            "statistics of batch norm are not in it; expected a state dict: names and tensors. Next: load_params(netG,",
        ),
        (
            "dmgan_branch3_b3",
            lambda state: {"netG": state, "avg_param_G": parameters(state)[::-1]},
            "list of averaged parameters is not in the order of its weights; found (3, 4, 3, 3) in the place of ",
        ),
        (
            "dfgan_64_b3",
            lambda state: state | {"fc.bias": torch.full([512], torch.inf)},
            "not finite; found linear.bias",
        ),
    ],
)
def test_what_is_no_generator_is_told_from_the_nearest(
    tmp_path: Path, network: str, change: Callable[[State], Any], message: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path, network, change)
    assert message in str(caught.value)


def test_a_family_that_is_asked_for_is_the_one_that_is_compared(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a weight that DM-GAN's generator has not; found 'fc.weight'"):
        read(tmp_path, "dfgan_64_b3", family="dmgan")
    with pytest.raises(CheckpointError, match="found 1 stage; expected no --stages"):
        read(tmp_path, "dfgan_64_b3", stages=2)


def test_a_text_encoder_of_other_features_is_refused(tmp_path: Path) -> None:
    def wider(state: State) -> State:
        grown = {name: value for name, value in state.items() if value.ndim != 2 or value.shape[1] != 44}
        return grown | {name: torch.zeros(len(state[name]), 45) for name in state.keys() - grown.keys()}

    with pytest.raises(CheckpointError, match="32 text features; expected 33"):
        read(tmp_path, "dfgan_64_b3", wider)


def test_a_cycle_of_wrappers_ends(tmp_path: Path) -> None:
    loop: dict[str, Any] = {}
    loop["model"] = loop
    with pytest.raises(CheckpointError, match="holds other things than weights"):
        read(tmp_path, "dfgan_64_b3", lambda state: loop)
