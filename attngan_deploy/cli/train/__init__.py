"""`t2i train`: the group of training commands, and the options that they share."""

import os
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

import typer

from attngan_deploy.cli import app, register
from attngan_deploy.errors import DataError, T2IError

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


def check_data(data: Path) -> Path:
    """The folder of shards; a DataError where it is a shard of one, or pictures that no shard was made of yet."""
    if data.suffix.lower() == ".tar" and data.is_file():
        raise DataError(f"{data} is a shard", expected="its folder", next_step=f"--data {quote(str(data.parent))}")
    is_raw = data.is_file() or (data.is_dir() and not (data / "train.tar").exists() and any(_pictures_in(data)))
    if is_raw:
        raise DataError(
            f"{data} holds no shards",
            expected="a folder with train.tar, test.tar and vocabulary.txt",
            next_step=f"t2i data build {quote(str(data))} -o data, and then --data data",
        )
    return data


def _pictures_in(folder: Path) -> Iterator[Path]:
    from attngan_deploy.media.shards import PICTURE_SUFFIXES

    return (path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)


DATA = typer.Option(
    "--data",
    callback=check_data,
    help="Folder with train.tar, test.tar and vocabulary.txt, as `t2i data build` makes it.",
)
OUT = typer.Option("--out", "-o", help="Run folder.")
BACKBONE = typer.Option("--backbone", help="Weights of the image encoder's frozen backbone.")
RESUME = typer.Option("--resume", help="Continue the run in --out.")
DRY_RUN = typer.Option("--dry-run", help="Print the resolved recipe and stop.")

register("train.all", "train.critic", "train.damsm", "train.gan", "train.judge")
