"""`t2i train`: the group of training commands, and the options that they share."""

import os

import typer

from attngan_deploy.cli import app, register
from attngan_deploy.errors import T2IError

train_app = typer.Typer(no_args_is_help=True)
app.add_typer(train_app, name="train")


@train_app.callback()
def check_processes(context: typer.Context) -> None:
    """Train the encoders, a generator, or the judge."""
    count, command = os.environ.get("WORLD_SIZE", "1"), context.invoked_subcommand
    if count != "1" and command != "gan":
        raise T2IError(
            f"t2i train {command} is one process",
            found=f"{count} of torchrun",
            expected="several only for t2i train gan",
            next_step="the same command without torchrun",
        )


DATA = typer.Option("--data", help="Folder with train.tar, test.tar and vocabulary.txt, as `t2i data build` makes it.")
OUT = typer.Option("--out", "-o", help="Run folder.")
BACKBONE = typer.Option("--backbone", help="Weights of the image encoder's frozen backbone.")
RESUME = typer.Option("--resume", help="Continue the run in --out.")
DRY_RUN = typer.Option("--dry-run", help="Print the resolved recipe and stop.")

register("train.all", "train.damsm", "train.gan", "train.judge")
