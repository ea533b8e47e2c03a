"""`t2i train damsm`: train the text and image encoders that a generator is conditioned on and judged by."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from attngan_deploy.cli import load_extra
from attngan_deploy.cli.train import BACKBONE, DATA, DRY_RUN, OUT, RESUME, train_app


@train_app.command("damsm")
def train_damsm(
    data: Annotated[Path, DATA],
    out: Annotated[Path, OUT],
    backbone: Annotated[Path | None, BACKBONE] = None,
    image_encoder: Annotated[str, typer.Option(help="mobilenet_v2_birds or inception_v3.")] = "mobilenet_v2_birds",
    recipe: Annotated[str, typer.Option(help="fast: 24 epochs. paper: 600 epochs, decay 0.98.")] = "fast",
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the pictures.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Pictures a step.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, order, captions and dropout.")] = 100,
    resume: Annotated[bool, RESUME] = False,
    dry_run: Annotated[bool, DRY_RUN] = False,
) -> None:
    """Train DAMSM; prints R-precision 1 of 100 on unseen species at every epoch and keeps the best."""
    config = load_extra("attngan_deploy.train.config", "train")
    chosen = config.damsm_recipe(recipe, image_encoder)
    given = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
    chosen = replace(chosen, **{name: value for name, value in given.items() if value is not None})
    if dry_run:
        print(json.dumps({"data": str(data), "out": str(out), **asdict(chosen)}, indent=1))
        return
    damsm = load_extra("attngan_deploy.train.damsm", "train")
    precision = damsm.train_damsm(chosen, data, out, backbone, resume=resume)
    print(f"best R-precision {precision:.1%}; next: t2i train gan --damsm {out}", file=sys.stderr)
    print(json.dumps({"r_precision": precision, "run": str(out)}))
