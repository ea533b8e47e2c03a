"""`t2i train all`: DAMSM, first stage, a second stage for each variant, and their bundles."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from attngan_deploy.cli import extra
from attngan_deploy.cli.options import Force, example, listed
from attngan_deploy.cli.train import BACKBONE, DATA, DRY_RUN, RESUME, train_app
from attngan_deploy.system.terminal import show

FIRST_PICTURES, SECOND_PICTURES = 600_000, 200_000


@train_app.command("all", cls=example("t2i train all --data data --out runs --models models"))
def train_all(
    data: Annotated[Path, DATA],
    runs: Annotated[Path, typer.Option("--out", "-o", help="Folder for the run folders.")] = Path("runs"),
    models: Annotated[Path, typer.Option(help="Folder for the bundles.")] = Path("models"),
    variants: Annotated[str, typer.Option(help="Variants, separated by commas.")] = "base,att1,att2",
    recipe: Annotated[str, typer.Option(help="fast: learns on two CPU cores. paper: Table 1.")] = "fast",
    backbone: Annotated[Path | None, BACKBONE] = None,
    image_encoder: Annotated[str, typer.Option(help="mobilenet_v2_birds or inception_v3.")] = "mobilenet_v2_birds",
    epochs: Annotated[int | None, typer.Option(min=1, help="Of DAMSM.")] = None,
    first_pictures: Annotated[int, typer.Option(min=1, help="Real pictures of the first stage.")] = FIRST_PICTURES,
    second_pictures: Annotated[int, typer.Option(min=1, help="Of each second stage.")] = SECOND_PICTURES,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Pictures a step.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16, or auto: the faster one here.")] = None,
    judge: Annotated[str | None, typer.Option(help="Judge that scores on the way, or none.")] = None,
    data_name: Annotated[str, typer.Option(help="What the pictures are, for the model cards.")] = "",
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Seed of everything that is trained.")] = 100,
    resume: Annotated[bool, RESUME] = False,
    force: Force = False,
    dry_run: Annotated[bool, DRY_RUN] = False,
) -> None:
    """Train and export everything from the shards. Ctrl-C saves; the same with --resume continues."""
    with extra("train"):
        from attngan_deploy.export import everything
        from attngan_deploy.train import config
    names = listed(variants)
    shapes = [config.generator_config(name, 2) for name in names]  # refuses unknown names before anything is trained
    if not shapes:
        raise typer.BadParameter("name at least one variant", param_hint="--variants")
    gan = config.with_settings(
        config.gan_recipe(recipe, shapes[0]),
        batch_size=batch_size,
        precision=precision,
        judge=judge,
        data_name=data_name,
        seed=seed,
    )
    damsm = config.with_settings(config.damsm_recipe(recipe, image_encoder), epochs=epochs, seed=seed)
    pictures = (first_pictures, second_pictures)
    plan = everything.make_plan(data, backbone, runs, models, damsm, gan, names, pictures)
    if dry_run:
        print(json.dumps(asdict(plan), indent=1, default=str))
        return
    bundles = everything.make_everything(plan, resume=resume, force=force)
    show(f"next: t2i generate captions.txt --model {bundles[0]}", error=True)
    print(json.dumps({"bundles": [str(bundle) for bundle in bundles]}))
