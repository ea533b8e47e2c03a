"""What a run of a generator comes from: the beginning of the same run, other runs, or a bundle."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.bundles.manifest import MANIFEST
from attngan_deploy.errors import CheckpointError
from attngan_deploy.system.records import JsonObject
from attngan_deploy.train.config import GanRecipe
from attngan_deploy.train.imports.from_bundle import check_same_text_encoder, generator_of
from attngan_deploy.train.runs.checkpoint import load_checkpoint
from attngan_deploy.train.runs.gan_step import GanTraining
from attngan_deploy.train.runs.run_folder import recipe_of, training_curve

REMEMBERED = ("generator", "recipe", "pictures", "started_from", "curve")  # of a run that another one started from


@dataclass(frozen=True)
class Progress:
    """How far a run had come when a checkpoint was written: pictures seen, and metrics since the last line of them."""

    pictures: int
    since_last_line: Mapping[str, tuple[float, ...]] | None = None


def computed_as_before(recipe: GanRecipe, out: Path) -> GanRecipe:
    """The recipe with what `recipe.json` of its run says of how it is computed; what is damaged there says nothing."""
    try:
        before = recipe_of(out)
    except (CheckpointError, OSError):
        return recipe  # damaged, which the run's folder says when it is opened
    shape = before.get("generator")
    precision, layout = before.get("precision"), before.get("channels_last")
    upsampling = shape.get("upsampling") if isinstance(shape, dict) else None
    return replace(
        recipe,
        precision=precision if precision in ("fp32", "bf16") else "fp32",
        channels_last=layout if isinstance(layout, bool) else recipe.channels_last,
        generator=replace(recipe.generator, upsampling=upsampling)
        if upsampling in ("nearest", "transposed")
        else recipe.generator,
    )


def start_from(
    path: Path, training: GanTraining, words: Sequence[str], captions: Sequence[Sequence[int]]
) -> JsonObject:
    """Begin with the generator of another run or of a bundle.

    Args:
        path: run folder, checkpoint or bundle.
        captions: word numbers that a bundle's statistics are measured with.

    Returns:
        What is to be remembered of it.
    """
    if not (path / MANIFEST).is_file():
        before = load_checkpoint(path, "gan")
        training.start_from(before)
        told = {name: before.document.get(name) for name in REMEMBERED}
        return told | {"curve": told["curve"] or training_curve(before.folder.parent.parent)}
    training.processes.say("the BatchNorms of a bundle are measured anew")
    bundle = open_bundle(path)
    check_same_text_encoder(bundle, training.text, list(words))
    training.start_with(generator_of(bundle, captions).state_dict())
    kept = {name: bundle.manifest.told("provenance", name) for name in REMEMBERED}
    return {**kept, "bundle": {"name": bundle.name, "hash": bundle.hash}}
