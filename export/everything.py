"""From shards to bundles in one go: DAMSM, the shared first stage, a second stage for each variant, exports."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from attngan_deploy.export.bundle_writer import check_place, export_bundle
from attngan_deploy.export.deploy import DEFAULT_OPTIONS
from attngan_deploy.train.backbones.judge_backbone import no_gradient
from attngan_deploy.train.config import DamsmRecipe, GanRecipe
from attngan_deploy.train.runs.checkpoint import checkpoints_of, load_checkpoint, newest_whole
from attngan_deploy.train.runs.damsm import train_damsm
from attngan_deploy.train.runs.gan import GanRun
from attngan_deploy.train.runs.progress import say

DAMSM, FIRST = "damsm", "first"


@dataclass(frozen=True)
class Plan:
    """Everything that one command trains. Second stages differ by their variant alone, so that they can be compared."""

    data: Path  # folder with train.tar, test.tar and vocabulary.txt
    backbone: Path | None  # weights of the image encoder's backbone
    runs: Path  # folder for the run folders `damsm`, `first` and one a variant
    models: Path  # folder for the bundles
    damsm: DamsmRecipe  # recipe of the encoders
    first: GanRecipe  # recipe of the first stage, shared by all variants
    seconds: Sequence[GanRecipe]  # recipe of each variant's second stage, which starts from `first`


def make_plan(
    data: Path,
    backbone: Path | None,
    runs: Path,
    models: Path,
    damsm: DamsmRecipe,
    gan: GanRecipe,
    variants: Sequence[str],
    pictures: tuple[int, int],
) -> Plan:
    """The plan of one recipe: a first stage alone, then second stages on top of it while it stays as it is.

    Args:
        variants: of the second stages.
        pictures: real pictures of the first stage and of each second stage.

    Raises:
        CheckpointError: the image encoder has no gradient for a generator to learn from.
    """
    if damsm.image_encoder.backbone == "judge":
        raise no_gradient("--image-encoder judge")
    first = replace(gan, generator=replace(gan.generator, variant="base", stages=1), pictures=pictures[0])
    seconds = [
        replace(
            gan,
            generator=replace(gan.generator, variant=variant, stages=2),
            pictures=pictures[1],
            freeze_first_stage=True,
        )
        for variant in variants
    ]
    return Plan(data, backbone, runs, models, damsm, first, seconds)


def make_everything(plan: Plan, *, resume: bool = False, force: bool = False) -> list[Path]:
    """Train and export all of it. What is finished is not done again; what was begun is continued with `resume`.

    Args:
        force: replace bundles of other runs.

    Returns:
        The bundles' folders.

    Raises:
        OutputError: a run is there and `resume` is False, or a bundle that other runs ended in and `force` is.
        StoppedError: Ctrl-C or SIGTERM; the same with `resume` continues.
    """
    for recipe in plan.seconds:  # now, not after hours
        variant = recipe.generator.variant
        begun, _ = newest_whole(plan.runs / variant)
        run = load_checkpoint(begun) if begun else None
        check_place(plan.models / variant, variant, DEFAULT_OPTIONS, run, force)
    say("== DAMSM")
    damsm = plan.runs / DAMSM
    if not _finished(damsm, plan.damsm.epochs):
        train_damsm(plan.damsm, plan.data, damsm, plan.backbone, resume=resume and bool(checkpoints_of(damsm)))
    first = plan.runs / FIRST
    _train(plan, plan.first, first, resume, start=())
    bundles = []
    for recipe in plan.seconds:
        variant = recipe.generator.variant
        _train(plan, recipe, plan.runs / variant, resume, start=(first,))
        say(f"== export of {variant}")
        made = export_bundle(plan.runs / variant, plan.models / variant, DEFAULT_OPTIONS, variant=variant, force=force)
        bundles.append(made)
    return bundles


def _train(plan: Plan, recipe: GanRecipe, out: Path, resume: bool, start: tuple[Path, ...]) -> None:
    say(f"== {out.name}: {recipe.pictures} pictures")
    if _finished(out, -(-recipe.pictures // recipe.batch_size)):
        return
    begun = bool(checkpoints_of(out))
    run = GanRun.prepare(recipe, plan.data, plan.runs / DAMSM, out, plan.backbone, start=start, resume=resume and begun)
    run.train()


def _finished(run: Path, steps: int) -> bool:
    found, _ = newest_whole(run)
    return found is not None and load_checkpoint(found).step >= steps
