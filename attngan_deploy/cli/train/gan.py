"""`t2i train gan`: train a generator against its discriminators and a frozen DAMSM."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from attngan_deploy.cli import extra, speaks
from attngan_deploy.cli.options import example
from attngan_deploy.cli.train import BACKBONE, DATA, DRY_RUN, OUT, RESUME, train_app
from attngan_deploy.system.terminal import show


@train_app.command("gan", cls=example("t2i train gan --data data --damsm runs/damsm --out runs/base"))
def train_gan(
    data: Annotated[Path, DATA],
    damsm: Annotated[Path, typer.Option("--damsm", help="Run folder or checkpoint of `t2i train damsm`.")],
    out: Annotated[Path, OUT],
    variant: Annotated[str, typer.Option(help="base, att1, att2 or attngan.")] = "base",
    recipe: Annotated[
        str, typer.Option(help="paper: Table 1. fast: learns on two CPU cores. projected: goes on from there.")
    ] = "fast",
    backbone: Annotated[Path | None, BACKBONE] = None,
    stages: Annotated[int, typer.Option(min=1, max=3, help="1: 64 px alone. 2: 128 px. 3: 256 px.")] = 2,
    start: Annotated[
        list[Path] | None,
        typer.Option(
            "--start", help="Run or bundle whose generator this one begins with; given again, a later one goes first."
        ),
    ] = None,
    freeze_first: Annotated[bool, typer.Option("--freeze-first", help="Keep the first stage of --start.")] = False,
    discriminator: Annotated[
        str | None, typer.Option(help="published, one_way, projected or one_way+projected.")
    ] = None,
    pictures: Annotated[int | None, typer.Option(min=1, help="Real pictures to see.")] = None,
    head_start: Annotated[
        int | None, typer.Option(min=0, help="Pictures that discriminators see before the generator learns.")
    ] = None,
    decay: Annotated[
        int | None, typer.Option(min=0, help="Pictures at the end over which learning rates fall to zero.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Pictures a step and process.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16, or auto: the faster one here.")] = None,
    checkpoint_minutes: Annotated[float | None, typer.Option(min=0, help="Minutes between checkpoints.")] = None,
    grid_minutes: Annotated[float | None, typer.Option(min=0, help="Minutes between sample grids.")] = None,
    judge: Annotated[
        str | None, typer.Option(help="Judge that scores on the way: a name, a folder, or none.", show_default="judge")
    ] = None,
    data_name: Annotated[
        str, typer.Option(help="What the pictures are, for the model card, e.g. CUB-200-2011, 150 species.")
    ] = "",
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Seed of weights, order, captions and noise.")] = 100,
    resume: Annotated[bool, RESUME] = False,
    dry_run: Annotated[bool, DRY_RUN] = False,
) -> None:
    """Train a generator. Ctrl-C saves; --resume continues exactly. Runs under torchrun on several processes."""
    with extra("train"):
        from attngan_deploy.train import config
    shape = config.generator_config(variant, stages)
    chosen = config.with_settings(
        config.gan_recipe(recipe, shape),
        pictures=pictures,
        head_start=head_start,
        decay=decay,
        batch_size=batch_size,
        precision=precision,
        checkpoint_minutes=checkpoint_minutes,
        grid_minutes=grid_minutes,
        judge=judge,
        data_name=data_name,
        seed=seed,
        freeze_first_stage=freeze_first,
    )
    if discriminator is not None:
        chosen = replace(chosen, **config.named_discriminator(discriminator, chosen.discriminator))
    chosen = config.checked(chosen)
    if dry_run:
        if speaks():
            print(json.dumps({"data": str(data), "out": str(out), **asdict(chosen)}, indent=1))
        return
    with extra("train"):
        from attngan_deploy.train.runs.gan import GanRun
    run = GanRun.prepare(chosen, data, damsm, out, backbone, start=start or (), resume=resume)
    folder = run.train()
    if speaks():
        show(f"next: t2i export --variant {variant} --checkpoint {folder}", error=True)
        print(json.dumps({"run": str(folder), "pictures": run.seen}))
