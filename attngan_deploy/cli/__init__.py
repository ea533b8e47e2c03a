"""The `t2i` command: each sub-command parses, calls one function and prints.

Sub-commands live one per file; their heavy imports happen inside the functions, so that `t2i --help` stays fast.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import typer

from attngan_deploy.errors import MissingExtraError, T2IError

app = typer.Typer(
    name="t2i",
    help="Captions to pictures: train, export, generate and score AttnGAN-style models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def load_extra(module: str, extra: str) -> Any:
    """Import a room that needs an optional extra, e.g. `load_extra("attngan_deploy.train.damsm", "train")`.

    Raises:
        MissingExtraError: with the text of the ImportError and the line that installs the extra.
    """
    try:
        return import_module(module)
    except ImportError as error:
        if error.name is None or error.name.startswith("attngan_deploy"):
            raise
        raise MissingExtraError(
            f"this command needs the '{extra}' extra: {error}",
            next_step=f"pip install 'attngan-deploy[{extra}]'",
        ) from error


def register(*names: str) -> None:
    """Import sub-command modules; each adds itself to `app`."""
    for name in names:
        import_module(f"attngan_deploy.cli.{name}")


def report_errors(run: Callable[[], Any]) -> int:
    """Run a command; turn errors that users can meet into one line on standard error and an exit status."""
    try:
        run()
    except T2IError as error:
        print(f"t2i: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("t2i: stopped; what was finished is kept, and the same command continues", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    except OSError as error:
        print(f"t2i: {error.strerror or error}: {error.filename or 'no file named'}", file=sys.stderr)
        return 1
    return 0


def main() -> None:
    """Entry point of the `t2i` script."""
    register("data", "export", "generate", "models", "score", "train", "train_damsm", "train_gan", "train_judge")
    sys.exit(report_errors(lambda: app(standalone_mode=True)))
