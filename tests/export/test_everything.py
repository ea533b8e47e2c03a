"""Everything in one go: trained, exported, stopped on the way, continued."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.cli import app, register
from attngan_deploy.errors import OutputError, StoppedError
from attngan_deploy.export import everything
from attngan_deploy.export.everything import Plan, make_everything, make_plan
from attngan_deploy.train.config import DiscriminatorConfig
from attngan_deploy.train.runs.checkpoint import load_checkpoint
from tests.makers.tiny_training import (
    FEATURES,
    make_tiny_backbone,
    make_tiny_shards,
    tiny_damsm_recipe,
    tiny_gan_recipe,
)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("everything")
    data = make_tiny_shards(folder / "data", pictures=8, size=140)
    backbone = make_tiny_backbone(folder / "backbone.safetensors")
    nets = DiscriminatorConfig("one_way", 4, FEATURES, projected=4)
    gan = tiny_gan_recipe(crop=128, discriminator=nets, shift=1 / 16)
    runs, models = folder / "runs", folder / "models"
    return make_plan(data, backbone, runs, models, tiny_damsm_recipe(epochs=1), gan, ["base", "att1"], (8, 4))


def test_a_stopped_run_of_everything_continues_where_it_was(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = replace(plan, runs=tmp_path / "runs", models=tmp_path / "models")
    train, seen = everything.GanRun.train, []

    def stops_at_the_second_variant(run: everything.GanRun) -> Path:
        seen.append(run.folder.path.name)
        if seen[-1] == "att1" and seen.count("att1") == 1:
            raise StoppedError("stopped")
        return train(run)

    monkeypatch.setattr(everything.GanRun, "train", stops_at_the_second_variant)
    with pytest.raises(StoppedError):
        make_everything(plan)
    bundles = make_everything(plan, resume=True)
    assert seen == ["first", "base", "att1", "att1"]
    assert [open_bundle(folder).manifest.variant for folder in bundles] == ["base", "att1"]
    first = load_checkpoint(plan.runs / "first").tensors("generator")["first.linear.weight"]
    for variant in ("base", "att1"):
        checkpoint = load_checkpoint(plan.runs / variant)
        assert checkpoint.document["pictures"] == 4
        assert checkpoint.tensors("generator")["first.linear.weight"].equal(first)


def test_a_run_that_is_there_is_continued_only_when_told(plan: Plan) -> None:
    make_everything(plan, resume=True)
    longer = replace(plan, first=replace(plan.first, pictures=40))
    with pytest.raises(OutputError, match="--resume"):
        make_everything(longer)


def test_the_command_says_what_it_would_do(tmp_path: Path) -> None:
    register("train", "train.all")
    options = ["train", "all", "--data", str(tmp_path), "--variants", "att2", "--first-pictures", "64", "--dry-run"]
    shown = json.loads(CliRunner().invoke(app, options).stdout)
    assert shown["first"]["pictures"] == 64 and shown["first"]["generator"]["stages"] == 1
    assert [second["generator"]["variant"] for second in shown["seconds"]] == ["att2"]
    assert shown["seconds"][0]["freeze_first_stage"] is True
