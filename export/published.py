"""Files of the published code of AttnGAN, DM-GAN or DF-GAN to a checkpoint and a bundle."""

import re
from pathlib import Path
from typing import NamedTuple

from attngan_deploy.bundles.bundle import not_ours
from attngan_deploy.errors import OutputError, T2IError
from attngan_deploy.export.bundle_writer import export_bundle
from attngan_deploy.export.deploy import GraphOptions
from attngan_deploy.export.final_names import new_folder
from attngan_deploy.train.imports.published_files import PublishedModel, read_published
from attngan_deploy.train.runs.checkpoint import DESCRIPTION, load_checkpoint

EXACT = GraphOptions(weights="fp32")  # what is imported stays as it was; `t2i export` makes it smaller


class Imported(NamedTuple):
    """What an import made."""

    model: PublishedModel
    checkpoint: Path
    bundle: Path


def import_published(
    generator: Path,
    text_encoder: Path,
    captions: Path,
    out: Path,
    checkpoint: Path | None = None,
    *,
    stages: int | None = None,
    family: str | None = None,
    name: str | None = None,
    licence: str | None = None,
    force: bool = False,
) -> Imported:
    """Make a checkpoint and a verified bundle of published weights: both, or none.

    Args:
        out: an earlier bundle of the same files there is replaced.
        checkpoint: the checkpoint to make, likewise; None for `out` with "-checkpoint" added.
        family: "attngan", "dmgan" or "dfgan"; None where the names of the weights say it.
        name: name of the bundle; None for that of the folder `out`.
        licence: what the weights may be used for; None says that their pictures' terms apply.
        force: replace a bundle and a checkpoint of other files too.

    Raises:
        CheckpointError: weights that can't be used (see `read_published`).
        DataError: a `captions` that can't be used.
        OutputError: `out` or `checkpoint` holds other things, or they are inside one another.
        ParityError: the bundle does not compute what torch does.
    """
    out = out if out.name else out.resolve()
    checkpoint = checkpoint or out.with_name(f"{out.name}-checkpoint")
    _check_places([generator, text_encoder, captions], out, checkpoint)
    name = out.name if name is None else name
    if not re.fullmatch(r"[\w][\w.-]*", name):
        raise T2IError(
            "a bundle can't have this name",
            found=ascii(name)[:80],
            expected="letters, digits, . _ and -",
            next_step="another --name",
        )
    model = read_published(generator, text_encoder, captions, stages, family)
    if not force and (checkpoint / DESCRIPTION).is_file():
        before = load_checkpoint(checkpoint).document
        if before.get("imported") != model.files:
            raise not_ours(checkpoint, f"a checkpoint of kind '{before['kind']}'", ["imported"])
    with new_folder(checkpoint, marker=DESCRIPTION) as folder:
        model.save(folder, licence)
        export_bundle(folder, out, EXACT, name=name, force=force)
    return Imported(model, checkpoint, out)


def _check_places(sources: list[Path], out: Path, checkpoint: Path) -> None:
    bundle, beside = out.resolve(), checkpoint.resolve()
    if bundle.is_relative_to(beside) or beside.is_relative_to(bundle):
        raise OutputError(
            f"the bundle {out} and the checkpoint {checkpoint} are inside one another",
            next_step="choose another --checkpoint",
        )
    for source in sources:
        if any(source.resolve().is_relative_to(place) for place in (bundle, beside)):
            raise OutputError(f"{source} is inside the output, which is replaced", next_step="choose another -o")
