"""`t2i train`: the group of training commands, and the options that they share."""

import typer

from attngan_deploy.cli import app

train_app = typer.Typer(help="Train the encoders, a generator, or the judge.", no_args_is_help=True)
app.add_typer(train_app, name="train")

DATA = typer.Option("--data", help="Folder with train.tar, test.tar and vocabulary.txt, as `t2i data build` makes it.")
OUT = typer.Option("--out", "-o", help="Run folder.")
BACKBONE = typer.Option("--backbone", help="Weights of the image encoder's frozen backbone.")
RESUME = typer.Option("--resume", help="Continue the run in --out.")
DRY_RUN = typer.Option("--dry-run", help="Print the resolved recipe and stop.")
