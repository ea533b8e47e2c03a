"""Inception-v3 of both pooling variants, with random weights of the right names and shapes: it ships no real ones."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from attngan_deploy.cli import app, register, report_errors
from attngan_deploy.errors import CheckpointError
from attngan_deploy.score.judge import Judge
from attngan_deploy.train.backbones.inception import InceptionV3, load_inception

register("import_judge")
PARAMETERS = 23_834_568  # of torchvision's inception_v3 without its auxiliary classifier


def random_inception(outputs: int, fid: bool) -> InceptionV3:
    """Weights and statistics that keep activations alive."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = InceptionV3(outputs, fid)
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.2)
    return net.eval()


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
    pixels = np.random.default_rng(0).integers(0, 256, (2, 299, 299, 3), dtype=np.uint8)
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
    pixels = np.random.default_rng(0).integers(0, 256, (1, 299, 299, 3), dtype=np.uint8)
    logits, features = Judge.load(tmp_path / "j", threads=1).look(pixels)
    with torch.inference_mode():
        wanted = net((torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 128) / 128)
    np.testing.assert_allclose(features, wanted[1], atol=1e-3)
    np.testing.assert_allclose(logits, wanted[0] - net.fc.bias.detach(), atol=1e-3)


def test_it_computes_what_torchvision_computes(torchvision_file: Path) -> None:
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    theirs = models.inception_v3(weights=None, init_weights=False, aux_logits=False, num_classes=7)
    theirs.load_state_dict(random_inception(7, fid=False).state_dict())
    images = torch.rand(1, 3, 299, 299) * 2 - 1
    with torch.inference_mode():
        torch.testing.assert_close(load_inception(torchvision_file)(images)[0], theirs.eval()(images))


def test_it_computes_what_torch_fidelity_computes(tmp_path: Path) -> None:
    room = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3", reason="torch-fidelity can't be used")
    file = tmp_path / "weights.pth"
    torch.save(random_inception(1008, fid=True).state_dict(), file)
    theirs = room.FeatureExtractorInceptionV3(
        "i", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(file)
    )
    pixels = torch.randint(0, 256, (1, 3, 299, 299), dtype=torch.uint8)
    with torch.inference_mode():
        logits, features = load_inception(file)((pixels.float() - 128) / 128)
        wanted = theirs(pixels)
    torch.testing.assert_close(features, wanted[0])
    torch.testing.assert_close(logits, wanted[1])


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
