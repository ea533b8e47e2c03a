"""The `t2i` command: each sub-command parses, calls one function and prints.

Sub-commands live one per file; their heavy imports happen inside the functions, so that `t2i --help` stays fast.
"""

import errno
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any

import typer

from attngan_deploy.errors import MissingExtraError, StoppedError, T2IError

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


@app.callback()
def every_command(
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="Print the version and stop.")] = False,
) -> None:
    """Options of `t2i` itself; as a callback it also keeps sub-commands' names where only one is registered."""
    if version:
        from attngan_deploy import __version__

        print(__version__)
        raise typer.Exit


def report_errors(run: Callable[[], Any]) -> int:
    """Run a command; turn errors that users can meet into one line on standard error and an exit status."""
    try:
        run()
    except T2IError as error:
        print(f"t2i: {error}", file=sys.stderr)
        return error.exit_status
    except SystemExit as stop:  # typer's own end of a command; 130 is Ctrl-C, of which it says nothing
        if stop.code == StoppedError.exit_status:
            print("t2i: stopped", file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        print("t2i: stopped", file=sys.stderr)
        return StoppedError.exit_status
    except BrokenPipeError:
        return 1
    except OSError as error:
        print(f"t2i: {_explained(error)}", file=sys.stderr)
        return 1
    return 0


def _explained(error: OSError) -> str:
    where = f" at {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        next_step = "free some space there, or choose another place for the output"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        next_step = "permissions that allow it, or another place"
    else:
        next_step = "another file or place"
    return f"{error.strerror or error}{where}; nothing was left half-written. Next: {next_step}"


def main() -> None:
    """Entry point of the `t2i` script."""
    sys.exit(report_errors(_run))


def _run() -> None:
    commands = (
        "bench",
        "data",
        "doctor",
        "export",
        "generate",
        "import_",
        "import_judge",
        "models",
        "replay",
        "report",
        "score",
        "serve",
        "train",
        "train_all",
        "train_damsm",
        "train_gan",
        "train_judge",
        "verify",
    )
    register(*commands)
    app()
