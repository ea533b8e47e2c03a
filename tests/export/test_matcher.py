"""A tiny matcher, from shards and a judge to a bundle: training, exporting, and what is refused on the way."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner

from attngan_deploy.bundles.bundle import read_manifest, write_manifest
from attngan_deploy.cli import app, register
from attngan_deploy.errors import BundleError, CheckpointError, OutputError, ParityError
from attngan_deploy.export import matcher as export
from attngan_deploy.export.everything import make_plan
from attngan_deploy.export.graphs.graph import save_graph
from attngan_deploy.export.graphs.text_encoder import build_text_encoder
from attngan_deploy.media.images import resize_pictures
from attngan_deploy.media.shards import iter_samples
from attngan_deploy.score.judge import Judge
from attngan_deploy.score.matcher import Matcher
from attngan_deploy.score.measure import ScoreOptions
from attngan_deploy.score.preprocessing import prepare
from attngan_deploy.score.scoring import measure_and_score
from attngan_deploy.score.verify import verify_matcher
from attngan_deploy.system.files import sha256_of
from attngan_deploy.train import config
from attngan_deploy.train.backbones.judge_backbone import JudgeBackbone
from attngan_deploy.train.config import DamsmRecipe, ImageEncoderConfig, TextEncoderConfig
from attngan_deploy.train.image_encoder import ImageEncoderHeads
from attngan_deploy.train.runs.checkpoint import checkpoints_of, load_checkpoint
from attngan_deploy.train.runs.damsm import load_damsm, load_encoders, train_damsm
from attngan_deploy.train.runs.gan import GanRun
from attngan_deploy.train.text_encoder import TextEncoder
from tests.makers.tiny_judge import FEATURES, SIZE, make_tiny_judge
from tests.makers.tiny_training import make_tiny_shards, tiny_damsm_recipe, tiny_gan_recipe

LARGEST_BUNDLE = 6_000_000


def tiny_matcher_recipe(epochs: int = 10) -> DamsmRecipe:
    encoder = ImageEncoderConfig(backbone="judge", features=16, input_size=64)
    return tiny_damsm_recipe(epochs=epochs, image_encoder=encoder, seed=7, learning_rate=0.05)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_shards(tmp_path_factory.mktemp("data"), pictures=24)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_judge(tmp_path_factory.mktemp("judges") / "judge")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path, judge: Path) -> Path:
    """A finished run. Shared: copy it before changing it."""
    out = tmp_path_factory.mktemp("runs") / "matcher"
    train_damsm(tiny_matcher_recipe(), data, out, judge, data_name="CUB-like squares")
    return out


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, data: Path, judge: Path, run: Path) -> Path:
    """Its bundle. Shared: copy it before changing it."""
    out = tmp_path_factory.mktemp("models") / "mine"
    export.export_matcher(run, data, out, Judge.load(judge), "mine")
    return out


def test_a_judge_is_a_backbone(judge: Path) -> None:
    backbone = JudgeBackbone.load(str(judge))
    pictures = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1
    regions, pooled = backbone(images)
    _, features = Judge.load(judge).look(resize_pictures(pictures, SIZE))
    np.testing.assert_array_equal(pooled.numpy(), features)
    assert regions.shape == (3, FEATURES, 1, 1) and backbone.region_channels == FEATURES
    with pytest.raises(CheckpointError, match="can't teach a generator: its backbone is a judge"):
        backbone(images.requires_grad_())


def test_pictures_are_resized_as_for_a_score(data: Path) -> None:
    sample = next(iter_samples(data / "test.tar"))
    whole, small = (prepare(sample.name, sample.picture, size).pixels for size in (72, SIZE))
    assert whole is not None and small is not None
    np.testing.assert_array_equal(resize_pictures(whole[None], SIZE)[0], small)
    pictures = whole[None]
    assert resize_pictures(pictures, 72) is pictures  # nothing to do


def test_a_run_says_which_judge_it_was_made_with(run: Path, judge: Path) -> None:
    facts = load_checkpoint(run, "damsm").document
    assert facts["judge"] == {"name": "colours", "hash": read_manifest(judge).hash}
    assert (facts["data"], facts["pictures"], facts["recipe"]["seed"]) == ("CUB-like squares", 24, 7)


def test_it_learns(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["loss/sentence"] < rows[0]["loss/sentence"]
    assert rows[-1]["r_precision"] > 0.5  # four colours


def test_another_judge_can_not_continue_or_export_it(tmp_path: Path, data: Path, run: Path) -> None:
    other = _other(tmp_path)
    shutil.copytree(run, tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"trained on another judge; found other \w{12}; expected colours"):
        train_damsm(tiny_matcher_recipe(), data, tmp_path / "run", other, resume=True)
    with pytest.raises(CheckpointError, match="trained on another judge"):
        export.export_matcher(run, data, tmp_path / "bundle", Judge.load(other))
    assert not (tmp_path / "bundle").exists()


def test_a_generator_can_not_learn_from_it(tmp_path: Path, data: Path, judge: Path, run: Path) -> None:
    for backbone in (None, judge):
        with pytest.raises(CheckpointError, match=r"is a matcher, and can't teach a generator.*no gradient") as told:
            load_damsm(run, backbone)
        assert "\n" not in str(told.value) and "--image-encoder mobilenet_v2_birds" in str(told.value)
    with pytest.raises(CheckpointError, match="can't teach a generator"):
        GanRun.prepare(tiny_gan_recipe(), data, run, tmp_path / "gan", judge)
    assert not (tmp_path / "gan").exists()
    with pytest.raises(CheckpointError, match="--image-encoder judge can't teach a generator"):
        make_plan(data, judge, tmp_path, tmp_path, tiny_matcher_recipe(), tiny_gan_recipe(), ["base"], (4, 4))


def test_a_judge_must_be_named_and_be_one(tmp_path: Path, data: Path, run: Path) -> None:
    with pytest.raises(CheckpointError, match=r"needs the judge that is its backbone.*--backbone judge"):
        train_damsm(tiny_matcher_recipe(), data, tmp_path / "run", None)
    with pytest.raises(BundleError, match="no bundle at"):
        train_damsm(tiny_matcher_recipe(), data, tmp_path / "run", tmp_path / "nowhere")
    assert not (tmp_path / "run").exists()


def test_the_bundle_computes_what_torch_computes(bundle: Path, judge: Path, run: Path) -> None:
    matcher = Matcher.load(bundle)
    matcher.check_judge(Judge.load(judge))
    verify_matcher(matcher)
    heads = ImageEncoderHeads(FEATURES, FEATURES, 16)
    text, words = load_encoders(load_checkpoint(run, "damsm"), heads)
    features = np.random.default_rng(0).uniform(-1, 1, (5, FEATURES)).astype(np.float32)
    stored = export.Encoders(text.eval(), heads.code).rounded()
    ids = [matcher.read("a red bird"), matcher.read("this small bird is blue with a short bill")]
    inputs = {
        "captions": torch.from_numpy(matcher.tokenizer.pad(ids)),
        "lengths": torch.tensor([len(row) for row in ids]),
        "features": torch.from_numpy(features),
    }
    wanted = stored.outputs(inputs)
    np.testing.assert_allclose(matcher.codes(features), wanted["codes"], atol=1e-5)
    sentences = matcher.sentences(["A red bird!", "this small bird is blue, with a short bill"])
    np.testing.assert_allclose(sentences, wanted["sentence"], atol=1e-5)
    assert matcher.tokenizer.words == words


def test_the_manifest_says_what_real_pictures_get(bundle: Path, data: Path, judge: Path) -> None:
    facts, matcher = read_manifest(bundle).manifest.document, Matcher.load(bundle)
    assert (facts["kind"], facts["name"], facts["judge"]) == ("matcher", "mine", read_manifest(judge).hash)
    real = facts["real"]
    assert real == export.measure_real(matcher, Judge.load(judge), data / "test.tar", 64) == dict(matcher.real)
    passport = measure_and_score(
        data / "test.tar", Judge.load(judge), ScoreOptions(("r-precision",), crop=64), matcher=matcher
    )
    assert passport.scores["r_precision"]["value"] == real["r_precision"]  # what t2i score says
    assert (real["pictures"], real["candidates"], real["wrong_captions"]) == (24, 4, "other classes")
    assert real["r_precision"] > 0.5 and len(real["data"]["sha256"]) == 64
    assert "CUB" in facts["licence"] and facts["provenance"]["judge"]["name"] == "colours"
    assert facts["provenance"]["recipe"]["seed"] == 7
    assert max(facts["parity"]["worst"].values()) <= export.TOLERANCE
    card = (bundle / "README.md").read_text()
    assert f"**{real['r_precision']:.1%}**" in card and "CUB-like squares" in card and "non-commercial" in card


def test_pictures_that_the_judge_never_saw_are_measured_apart(tmp_path: Path, bundle: Path, data: Path) -> None:
    seen = {"data": [{"sha256": sha256_of(data / "test.tar")}], "recipe": {"held_out": 0.5}}
    judge = Judge.load(make_tiny_judge(tmp_path / "judge", provenance=seen))
    real = export.measure_real(Matcher.load(bundle), judge, data / "test.tar", 64)
    assert (real["pictures"], real["held_out"]["pictures"], real["held_out"]["candidates"]) == (24, 12, 4)
    other = export.measure_real(Matcher.load(bundle), judge, data / "train.tar", 64)
    assert "held_out" not in other


def test_a_matcher_of_full_size_is_small(tmp_path: Path) -> None:
    torch.manual_seed(0)
    full = export.Encoders(TextEncoder(TextEncoderConfig(words=5450)).eval(), torch.nn.Linear(1280, 256)).rounded()
    save_graph(build_text_encoder(full.text), tmp_path / "text.onnx")
    save_graph(export.picture_graph(full.picture), tmp_path / "picture.onnx")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < LARGEST_BUNDLE / 2


@pytest.mark.parametrize(("name", "value"), [("TOLERANCE", -1.0), ("ROUNDING_FLOOR", 1.1)])
def test_a_graph_that_differs_leaves_no_bundle(
    tmp_path: Path, data: Path, judge: Path, run: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: float
) -> None:
    monkeypatch.setattr(export, name, value)
    with pytest.raises(ParityError, match="of the matcher's graph are not torch's with 1 captions of 1 words"):
        export.export_matcher(run, data, tmp_path / "bundle", Judge.load(judge))
    assert list(tmp_path.iterdir()) == []


def test_only_a_matcher_becomes_one_and_nothing_else_is_replaced(
    tmp_path: Path, data: Path, judge: Path, run: Path
) -> None:
    checkpoint = checkpoints_of(run)[-1]
    other = Path(shutil.copytree(checkpoint, tmp_path / "other"))
    facts = json.loads((other / "checkpoint.json").read_text())
    facts["image_encoder"]["backbone"] = "mobilenet_v2_birds"
    (other / "checkpoint.json").write_text(json.dumps(facts))
    with pytest.raises(CheckpointError, match="is no matcher; found image encoder mobilenet_v2_birds"):
        export.export_matcher(other, data, tmp_path / "bundle", Judge.load(judge))
    place = Path(shutil.copytree(judge, tmp_path / "place"))
    with pytest.raises(OutputError, match="is left alone; found a bundle of kind 'judge'"):
        export.export_matcher(run, data, place, Judge.load(judge))
    assert read_manifest(place).kind == "judge"


def test_the_command_trains_and_exports(
    tmp_path: Path, data: Path, judge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register("train.damsm")
    monkeypatch.setattr(config, "damsm_recipe", lambda recipe, backbone: replace(tiny_matcher_recipe(), seed=0))
    options = ["--data", data, "--out", tmp_path / "run", "--image-encoder", "judge", "--backbone", judge]
    options += ["--seed", "7", "--epochs", "1", "--bundle", tmp_path / "mine"]
    result = CliRunner().invoke(app, ["train", "damsm", *map(str, options)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["real"]["pictures"] == 24
    assert Matcher.load(tmp_path / "mine").name == "mine"
    monkeypatch.setattr("attngan_deploy.train.runs.damsm.DamsmTraining", None)  # what is finished is not trained again
    again = CliRunner().invoke(app, ["train", "damsm", *map(str, options), "--resume"], catch_exceptions=False)
    assert again.exit_code == 0, again.output


def test_only_a_matcher_has_a_bundle(tmp_path: Path) -> None:
    register("train.damsm")
    options = ["--data", tmp_path, "--out", tmp_path / "run", "--bundle", tmp_path / "mine"]
    result = CliRunner().invoke(app, ["train", "damsm", *map(str, options)])
    assert result.exit_code == 2 and "writes a matcher" in " ".join(result.output.split())


def _other(folder: Path) -> Path:
    """Another judge: its graph has other bytes."""
    made = make_tiny_judge(folder / "judge-of-others", name="other")
    graph = onnx.load(made / "judge.onnx")
    graph.producer_name = "another"
    onnx.save(graph, made / "judge.onnx")
    fields = json.loads((made / "bundle.json").read_text())
    write_manifest(made, {key: value for key, value in fields.items() if key not in ("schema", "files")})
    return made
