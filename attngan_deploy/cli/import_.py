"""`t2i import`: weights of published code, of AttnGAN, DM-GAN or DF-GAN, to a checkpoint and a bundle."""

import json
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from attngan_deploy.cli import app, load_extra
from attngan_deploy.cli.options import Force, example
from attngan_deploy.system.terminal import show

Family = StrEnum("Family", ["attngan", "dmgan", "dfgan"])


@app.command(
    "import",
    cls=example("t2i import --generator netG.pth --text-encoder text_encoder.pth --captions captions.pickle -o mine"),
)
def import_(
    generator: Annotated[Path, typer.Option(help="netG*.pth or state_epoch_*.pth of the published code.")],
    text_encoder: Annotated[Path, typer.Option(help="text_encoder*.pth that it was trained with.")],
    captions: Annotated[Path, typer.Option(help="captions.pickle: its vocabulary is used.")],
    output: Annotated[Path, typer.Option("--out", "-o", help="Bundle folder to make.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint folder to make; OUT-checkpoint unless given.")
    ] = None,
    stages: Annotated[
        int | None, typer.Option(min=2, max=3, help="2 leaves the 256 px stage out; all of them unless given.")
    ] = None,
    family: Annotated[
        Family | None, typer.Option(help="Whose generator it is, where the names of its weights do not tell.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the bundle; its folder's unless given.")] = None,
    licence: Annotated[str | None, typer.Option(help="What the weights may be used for, for the model card.")] = None,
    force: Force = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Make a checkpoint and a bundle of published weights of AttnGAN, DM-GAN or DF-GAN, both or none.

    No code in the files is run, sizes are read off the weights, and the bundle is compared with torch.
    Its weights stay float32; `t2i export --checkpoint` makes smaller bundles of the checkpoint.
    """
    published = load_extra("attngan_deploy.export.published", "train")
    show(f"importing {generator}, {text_encoder} and {captions}", error=True)
    started = time.perf_counter()
    made = published.import_published(
        generator,
        text_encoder,
        captions,
        output,
        checkpoint,
        stages=stages,
        family=None if family is None else family.value,
        name=name,
        licence=licence,
        force=force,
    )
    from attngan_deploy.bundles.bundle import read_manifest
    from attngan_deploy.system.memory import peak_memory

    seconds, memory = time.perf_counter() - started, peak_memory()
    bundle = read_manifest(made.bundle)
    manifest, sizes, words = bundle.manifest, bundle.manifest.sizes, len(made.model.vocabulary)
    if as_json:
        facts = {
            "bundle": str(made.bundle),
            "checkpoint": str(made.checkpoint),
            "name": bundle.name,
            "hash": bundle.hash,
            "bytes": bundle.bytes,
            "variant": manifest.variant,
            "sizes": manifest.told("sizes"),
            "words": words,
            "truncation": manifest.told("truncation"),
            "parity": manifest.told("parity"),
            "seconds": round(seconds, 1),
            "peak_memory_bytes": memory,
        }
        print(json.dumps(facts, indent=2))
        return
    pixels = ", ".join(str(size) for size in sizes.stages)
    show(f"{manifest.variant}: pictures of {pixels} px, {words} words, {sizes.features} text features")
    show(made.model.description)
    if manifest.parity is not None:
        worst = manifest.parity.outputs[f"image_{sizes.stages[-1]}"].worst
        show(f"compared with torch: pictures differ by at most {worst:.1e} of 2")
    show(f"checkpoint  {made.checkpoint}")
    show(f"bundle      {made.bundle}  {bundle.bytes / 1e6:.2f} MB  {bundle.hash[:12]}")
    held = "" if memory is None else f", at most {memory / 1e6:.0f} MB of memory"
    show(f"took {seconds:.1f} s{held}")
