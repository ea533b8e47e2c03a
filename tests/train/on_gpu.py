"""Training with its tensors on another device than the CPU, on a stand-in for a GPU."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.train.config import VARIANTS, GeneratorConfig, gan_recipe
from attngan_deploy.train.imports.from_bundle import check_same_text_encoder, text_encoder_of
from attngan_deploy.train.runs import damsm, gan_step, judge, sampling
from attngan_deploy.train.runs.checkpoint import load_checkpoint
from attngan_deploy.train.runs.damsm import DamsmTraining, train_damsm
from attngan_deploy.train.runs.distributed import Processes
from attngan_deploy.train.runs.gan import GanRun
from attngan_deploy.train.runs.judge import JudgeRecipe, load_judge, train_judge
from tests.makers.pretend_gpu import pretend_gpu
from tests.makers.tiny_training import make_tiny_backbone, make_tiny_shards, tiny_damsm_recipe
from tests.train.test_judge import shard, weights  # noqa: F401

evaluate = DamsmTraining.evaluate
with pretend_gpu():  # torch counts its devices at the first gradient, whichever test is first
    torch.ones(1, requires_grad=True).sum().backward()


@pytest.fixture
def gpu() -> Iterator[torch.device]:
    with pretend_gpu() as device:
        yield device


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards in data/, a backbone.safetensors and a DAMSM in damsm/."""
    folder = tmp_path_factory.mktemp("training")
    make_tiny_shards(folder / "data", size=140)
    make_tiny_backbone(folder / "backbone.safetensors")
    train_damsm(tiny_damsm_recipe(epochs=1), folder / "data", folder / "damsm", folder / "backbone.safetensors")
    return folder


def prepare(folder: Path, out: Path, device: torch.device, recipe: object, **more: object) -> GanRun:
    processes = Processes(device=device)
    return GanRun.prepare(
        recipe,  # type: ignore[arg-type]
        folder / "data",
        folder / "damsm",
        out,
        folder / "backbone.safetensors",
        processes=processes,
        **more,  # type: ignore[arg-type]
    )


def test_the_stand_in_refuses_what_a_gpu_does(gpu: torch.device) -> None:
    there, here = torch.ones(3).to(gpu), torch.ones(3)
    assert there.device == gpu and (there + there).cpu().tolist() == [2, 2, 2]
    with pytest.raises(RuntimeError, match="to be on the same device"):
        there + here
    with pytest.raises(TypeError, match="device type tensor to numpy"):
        there.numpy()


def test_the_text_encoder_of_a_bundle_is_compared_on_any_device(gpu: torch.device, tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    words = bundle.vocabulary.read_text(encoding="utf-8").splitlines()
    check_same_text_encoder(bundle, text_encoder_of(bundle).to(gpu), words)


def test_damsm_is_trained_where_the_gpu_is(
    folder: Path, tmp_path: Path, gpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[DamsmTraining] = []
    monkeypatch.setattr(damsm, "best_device", lambda: gpu)
    monkeypatch.setattr(damsm.DamsmTraining, "evaluate", lambda self: seen.append(self) or evaluate(self))
    found = train_damsm(tiny_damsm_recipe(epochs=1), folder / "data", tmp_path / "run", folder / "backbone.safetensors")
    assert seen[0].text.embedding.weight.device == seen[0].heads.code.weight.device == gpu
    here = load_checkpoint(folder / "damsm")
    assert found == pytest.approx(here.document["r_precision"], abs=0.1)
    theirs = load_checkpoint(tmp_path / "run").tensors("image_encoder")
    for name, value in here.tensors("image_encoder").items():
        torch.testing.assert_close(theirs[name], value, atol=2e-3, rtol=0.0)


def test_the_judge_is_trained_where_the_gpu_is(
    shard: Path,  # noqa: F811
    weights: Path,  # noqa: F811
    tmp_path: Path,
    gpu: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = JudgeRecipe(epochs=1, batch_size=4, size=32)
    train_judge(recipe, [shard], tmp_path / "here", weights)
    monkeypatch.setattr(judge, "best_device", lambda: gpu)
    train_judge(recipe, [shard], tmp_path / "there", weights)
    nets = [load_judge(tmp_path / name)[0].state_dict() for name in ("here", "there")]
    for name, value in nets[0].items():
        torch.testing.assert_close(nets[1][name], value, atol=5e-3, rtol=0.05)


@pytest.mark.parametrize(
    ("name", "variant"), [*(("fast", variant) for variant in VARIANTS), ("paper", "att2"), ("projected", "att1")]
)
def test_every_recipe_and_variant_is_trained(
    folder: Path, tmp_path: Path, gpu: torch.device, monkeypatch: pytest.MonkeyPatch, name: str, variant: str
) -> None:
    monkeypatch.setattr(gan_step, "MEMORY", 4)  # so that it is full after a step
    monkeypatch.setattr(sampling, "GRID_SAMPLES", 1)
    recipe = gan_recipe(name, GeneratorConfig(variant, 2, 2, 4, 4, 16))  # type: ignore[arg-type]
    small = replace(recipe.discriminator, width=2, features=16)
    recipe = replace(
        recipe, pictures=4, batch_size=4, crop=128, discriminator=small, precision="fp32", judge="none", close_up=0.0
    )
    run = prepare(folder, tmp_path / "run", gpu, recipe)
    run.train()
    assert next(run.training.generator.parameters()).device == gpu
    assert all(value.isfinite().all() for value in run.training.generator.state_dict().values())
    if name != "projected":
        return  # it is the one that keeps more than weights and moments
    facts = tmp_path / "run/recipe.json"
    facts.write_text(facts.read_text().replace('"pictures": 4', '"pictures": 8'))  # the run was meant to be longer
    on = prepare(folder, tmp_path / "run", gpu, replace(recipe, pictures=8), resume=True)
    assert on.step == 1
    on.train()
    assert on.step == 2
