"""`t2i train`: the group of training commands."""

import typer

from attngan_deploy.cli import app

train_app = typer.Typer(help="Train the encoders, a generator, or the judge.", no_args_is_help=True)
app.add_typer(train_app, name="train")
