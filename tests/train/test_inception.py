"""Inception-v3 of both pooling variants, with random weights of the right names and shapes: it ships no real ones."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from attngan_deploy.cli import app, register, report_errors
from attngan_deploy.errors import CheckpointError
from attngan_deploy.score.judge import Judge
from attngan_deploy.train.backbones.inception import InceptionV3, load_inception
from tests import DATA

register("import_judge")
PARAMETERS = 23_834_568  # of torchvision's inception_v3 without its auxiliary classifier


@cache
def random_inception(outputs: int, fid: bool) -> InceptionV3:
    """Weights and statistics that keep activations alive, and are the same wherever they are drawn."""
    random = np.random.RandomState(0)
    with torch.device("meta"):
        net = InceptionV3(outputs, fid)
    state = net.state_dict()
    for name, empty in state.items():
        drawn = random.standard_normal(empty.shape)
        if name.endswith(("conv.weight", "fc.weight")):
            drawn *= (2 / drawn[0].size) ** 0.5
        elif name.endswith("running_var"):
            drawn = random.uniform(0.5, 1.5, empty.shape)
        elif name.endswith(("bias", "running_mean")):
            drawn *= 0.2
        else:  # the factors of batch norm, and how many batches it saw
            drawn = np.ones(empty.shape)
        state[name] = torch.from_numpy(np.asarray(drawn)).to(empty.dtype)
    net.load_state_dict(state, assign=True)
    return net.eval()


def random_pixels(count: int) -> np.ndarray:
    return np.random.RandomState(1).randint(0, 256, (count, 299, 299, 3), np.uint8)


@pytest.fixture(scope="module")
def torchvision_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like torchvision's, with an auxiliary classifier, and 7 outputs in the place of 1000."""
    state = random_inception(7, fid=False).state_dict()
    state |= {"AuxLogits.conv0.conv.weight": torch.zeros(128, 768, 1, 1), "AuxLogits.fc.bias": torch.zeros(1000)}
    path = tmp_path_factory.mktemp("inception") / "inception_v3_google-random.pth"
    torch.save(state, path)
    return path


def run(*arguments: str | Path) -> dict[str, object]:
    result = CliRunner().invoke(app, ["import-judge", *map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def error(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert report_errors(lambda: app(["import-judge", *map(str, arguments)], standalone_mode=False)) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return err


def test_it_has_the_parameters_of_torchvision() -> None:
    with torch.device("meta"):
        net = InceptionV3(1000)
    assert sum(parameter.numel() for parameter in net.parameters()) == PARAMETERS
    assert net.state_dict()["Mixed_7c.branch3x3dbl_3b.conv.weight"].shape == (384, 384, 3, 1)


def test_the_variants_pool_differently() -> None:
    with torch.device("meta"):
        plain, fid = InceptionV3(8), InceptionV3(8, fid=True)
    ones = torch.ones(1, 1, 8, 8)
    for name in ("Mixed_5b", "Mixed_5d", "Mixed_6b", "Mixed_6e", "Mixed_7b", "Mixed_7c"):
        assert getattr(plain, name).pool(ones)[0, 0, 0, 0] == pytest.approx(4 / 9)
        assert torch.equal(getattr(fid, name).pool(ones), ones)
    spot = torch.zeros(1, 1, 8, 8)
    spot[..., 4, 4] = 1
    assert fid.Mixed_7c.pool(spot).sum() == 9 and fid.Mixed_7b.pool(spot).sum() == pytest.approx(1)


def test_torchvisions_file_becomes_a_judge(torchvision_file: Path, tmp_path: Path) -> None:
    facts = run(torchvision_file, "-o", tmp_path / "j", "--drop-output", "0", "--licence", "BSD-3-Clause")
    assert (facts["classes"], facts["features"], facts["drop_outputs"]) == (6, 2048, [0])
    assert facts["network"] == "Inception-v3 of torchvision"
    parity = facts["parity"]
    assert isinstance(parity, dict) and max(parity["logits"], parity["features"]) < 1e-4
    judge = Judge.load(tmp_path / "j", threads=1)
    pixels = random_pixels(2)
    logits, features = judge.look(pixels)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        wanted = random_inception(7, fid=False)(images)
    np.testing.assert_allclose(logits, wanted[0][:, 1:], atol=1e-3)
    np.testing.assert_allclose(features, wanted[1], atol=1e-3)


def test_the_file_of_fid_becomes_a_judge(tmp_path: Path) -> None:
    net = random_inception(1008, fid=True)
    torch.save(net.state_dict(), tmp_path / "pt_inception-2015-12-05-random.pth")
    facts = run(tmp_path / "pt_inception-2015-12-05-random.pth", "-o", tmp_path / "j")
    assert facts["classes"] == 1008 and "Frechet" in str(facts["network"])
    assert facts["input"]["mean"] == [128.0] * 3  # type: ignore[index]
    pixels = random_pixels(1)
    logits, features = Judge.load(tmp_path / "j", threads=1).look(pixels)
    with torch.inference_mode():
        wanted = net((torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 128) / 128)
    np.testing.assert_allclose(features, wanted[1], atol=1e-3)
    np.testing.assert_allclose(logits, wanted[0] - net.fc.bias.detach(), atol=1e-3)


@pytest.fixture(scope="module")
def computed() -> dict[str, torch.Tensor]:
    """What torchvision and torch-fidelity made of `random_pixels(1)` with the weights of `random_inception`."""
    with np.load(DATA / "inception.npz") as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


def test_it_computes_what_torchvision_computes(torchvision_file: Path, computed: dict[str, torch.Tensor]) -> None:
    images = torch.from_numpy(random_pixels(1)).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        logits = load_inception(torchvision_file)(images)[0]
    torch.testing.assert_close(logits, computed["torchvision_logits"], rtol=1e-5, atol=1e-4)


def test_it_computes_what_torch_fidelity_computes(tmp_path: Path, computed: dict[str, torch.Tensor]) -> None:
    file = tmp_path / "weights.pth"
    torch.save(random_inception(1008, fid=True).state_dict(), file)
    images = torch.from_numpy(random_pixels(1)).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        logits, features = load_inception(file)((images - 128) / 128)
    torch.testing.assert_close(features, computed["fidelity_features"], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(logits, computed["fidelity_logits"], rtol=1e-5, atol=1e-4)


def test_other_files_are_refused(torchvision_file: Path, tmp_path: Path) -> None:
    whole = torch.load(torchvision_file, weights_only=True)
    small = {"fc.weight": whole["fc.weight"], "Conv2d_1a_3x3.conv.weight": whole["Conv2d_1a_3x3.conv.weight"]}
    cases = {
        "holds no Inception-v3; found a.weight": {"a.weight": torch.zeros(2, 2)},
        "does not fit Inception-v3 at .* weights; found .*missing": small,
        "does not fit Inception-v3 at 1 weights; found fc.bias": whole | {"fc.bias": torch.zeros(8)},
        "found extra.weight: .*; expected no such weight": whole | {"extra.weight": torch.zeros(8)},
        "not finite; found fc.bias": whole | {"fc.bias": torch.full((7,), torch.nan)},
    }
    for message, state in cases.items():
        torch.save(state, tmp_path / "net.pth")
        with pytest.raises(CheckpointError, match=message):
            load_inception(tmp_path / "net.pth")


def test_errors_are_one_line(torchvision_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = error(capsys, torchvision_file, "-o", tmp_path / "j", "--mean", "0", "--std", "1")
    assert "--mean, --std can't be chosen for Inception-v3" in message
    (tmp_path / "net.pth").write_bytes(b"nothing")
    assert "no file of weights" in error(capsys, tmp_path / "net.pth", "-o", tmp_path / "j")
    assert "can't be read" in error(capsys, tmp_path / "none.pth", "-o", tmp_path / "j")
    assert not (tmp_path / "j").exists()
