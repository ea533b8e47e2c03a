"""`t2i train critic`: what ranks the candidates of `t2i generate --best-of`."""

from pathlib import Path
from typing import Annotated

import typer

from attngan_deploy.cli import extra
from attngan_deploy.cli.options import Force, example
from attngan_deploy.cli.train import BACKBONE, DATA, train_app
from attngan_deploy.system.terminal import show


@train_app.command(
    "critic", cls=example("t2i train critic --data data --backbone backbone.safetensors --out models/critic")
)
def train_critic(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the bundle.")],
    data: Annotated[Path, DATA],
    backbone: Annotated[Path, BACKBONE],
    clusters: Annotated[int, typer.Option(min=2, help="Kinds of pictures that are told apart.")] = 256,
    seed: Annotated[int, typer.Option(min=-(2**63), max=2**64 - 1, help="Seed of the clusters.")] = 0,
    force: Force = False,
) -> None:
    """Find the kinds of real pictures, so that generated ones can be ranked by their likeness to them."""
    with extra("train"):
        from attngan_deploy.export import critic
    made = critic.train_critic(data, backbone, out, clusters, seed, force)
    show(f"critic {made.bundle.name} {made.bundle.hash[:12]}: {out}")
