"""The `t2i` command: each sub-command parses, calls one function and prints.

Sub-commands live one per file, of which only the one that is called is imported; their heavy imports happen inside the
functions, so that `t2i --help`, which lists them all, stays fast.
"""

import errno
import io
import os
import pkgutil
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Annotated, Any

import typer

from attngan_deploy.errors import MissingExtraError, StoppedError, T2IError, install_line
from attngan_deploy.system.memory import address_limit, can_start
from attngan_deploy.system.os_errors import FULL, advice, reason
from attngan_deploy.system.processor import limited_threads
from attngan_deploy.system.signals import IN_C
from attngan_deploy.system.terminal import format_warnings, show

# Commands of which nothing but what they print is kept.
PRINTED = {"models", "bench", "score", "--version", "--help", "--show-completion"}
FIRST_STEPS = """\
t2i makes pictures of captions. Three things to do first:

  make pictures    t2i generate --caption "a small red bird with a black head" --n 4 --out birds
  play in a page   t2i serve
  see what is here t2i doctor

t2i --help lists all commands, t2i COMMAND --help tells what one takes, and t2i --install-completion
lets the Tab key complete them in bash, zsh and fish."""
LOOP = "Symlink loop"  # how `Path.resolve` tells of links in a circle, before Python 3.13
USAGE = 2  # exit status of a call that names no command
COMPLETING = "_T2I_COMPLETE"  # what shells set when they ask for what could come next
WIDTHS = ("TERMINAL_WIDTH", "COLUMNS")  # of what typer shows

app = typer.Typer(
    name="t2i",
    help="Captions to pictures: train, export, generate and score AttnGAN-style models.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
)


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Around imports from a room that needs an optional extra, e.g. `with extra("train")`.

    Raises:
        MissingExtraError: with the text of the ImportError and the line that installs the extra.
    """
    try:
        yield
    except ImportError as error:
        if error.name is None or error.name.startswith("attngan_deploy"):
            raise
        name = "cpu" if error.name == "onnxruntime" else name
        raise MissingExtraError(
            f"this command needs the '{name}' extra: {error}", next_step=install_line(name)
        ) from error


@contextmanager
def script_extra(name: str) -> Iterator[None]:
    """As `extra`, around the imports of a script outside the package: it ends in the line that `extra` raises."""
    try:
        with extra(name):
            yield
    except MissingExtraError as error:
        sys.exit(_tell(str(error), error.exit_status))


def load_extra(module: str, name: str) -> Any:
    """Import a module of which the checker of types shall know nothing, as `extra` does."""
    with extra(name):
        return import_module(module)


def register(*names: str) -> None:
    """Import sub-command modules; each adds itself to `app`."""
    for name in names:
        import_module(f"attngan_deploy.cli.{name}")


def _show_version(wanted: bool) -> None:
    if wanted:
        from attngan_deploy import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def every_command(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version and stop.")
    ] = False,
) -> None:
    """Options of `t2i` itself; as a callback it also keeps sub-commands' names where only one is registered."""
    if context.invoked_subcommand is None:
        show(FIRST_STEPS, lines=True)
        raise typer.Exit(USAGE)


def speaks() -> bool:
    """Whether this process speaks for all that `torchrun` started."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def report_errors(run: Callable[[], Any]) -> int:
    """Run a command; turn errors that users can meet into one line on standard error and an exit status."""
    try:
        run()
        sys.stdout.flush()
    except (T2IError, ImportError) as error:
        if _is_interrupt(error.__cause__):
            return _tell("stopped", StoppedError.exit_status)
        if not isinstance(error, T2IError):
            raise
        return _tell(str(error), error.exit_status)
    except SystemExit as stop:  # typer's own end of a command; 130 is Ctrl-C, of which it says nothing
        if stop.code == StoppedError.exit_status:
            _tell("stopped")
        status = stop.code if isinstance(stop.code, int) else 0
        return status or report_errors(sys.stdout.flush)
    except KeyboardInterrupt:
        return _tell("stopped", StoppedError.exit_status)
    except BrokenPipeError:
        return _end_output()
    except OSError as error:
        return _tell(_explained(error))
    except RuntimeError as error:
        if not str(error).startswith(LOOP):
            raise
        return _tell(_explained(OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(error).partition("'")[2][:-1])))
    except MemoryError as error:
        what = " ".join(str(error).split()) or "there is not enough"
        limit = address_limit()
        found, advised = "", "fewer pictures at once, e.g. a smaller --batch-size"
        if limit is not None:
            found, advised = f"; found a limit of {limit // 2**20} MiB", f"ulimit -v unlimited, or {advised}"
        return _tell(f"out of memory: {what}{found}. Next: {advised}")
    return 0


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: a module in C that is being imported makes an ImportError of it."""
    return error is not None and (isinstance(error, KeyboardInterrupt) or _is_interrupt(error.__cause__))


def _tell(line: str, status: int = 1) -> int:
    """Print a line on standard error; names of files may hold what would steer a terminal, which is shown instead."""
    if status == StoppedError.exit_status and not speaks():
        return status
    show(f"t2i: {line}", error=True)
    return status


def _end_output() -> int:
    """Nobody reads standard output any more, so nothing shall be written to it when Python ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _explained(error: OSError) -> str:
    where = f" at {error.filename}" if error.filename else ""
    if sys.stdout is not None and error.filename is None and error.errno in FULL:
        _end_output()  # it may be standard output that is full
    return f"{reason(error)}{where}; nothing was left half-written. Next: {advice(error)}"


def _check_memory() -> None:
    """Raise MemoryError where a command can't start, in the place of what libraries print then."""
    if sys.argv[1:] and not sys.argv[1].startswith("-") and not can_start():
        raise MemoryError("too little may be addressed to start")


def main() -> None:
    """Run `t2i` with the arguments of this process; `attngan_deploy.__main__` is the script's own beginning."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that is no text shall not end a command that only shows it
            stream.reconfigure(errors="backslashreplace")
    format_warnings()
    if (threads := limited_threads()) is not None:  # else torch and numpy start one for every core
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    for name in WIDTHS:  # what is no number ends help in a traceback, and a large one makes lines of gigabytes
        if not re.fullmatch("[0-9]{1,4}", os.environ.get(name, "0")):
            del os.environ[name]
    status = report_errors(_run)
    if not status and getattr(sys.stdout, "lost", False) and not PRINTED.isdisjoint(sys.argv[1:2] or ["--help"]):
        status = _tell("standard output is closed, and the answer would have gone there. Next: open it")
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    if status == StoppedError.exit_status and not all(thread.daemon and thread.name != IN_C for thread in others):
        with suppress(OSError, ValueError, AttributeError):
            sys.stdout.flush()
        os._exit(status)  # a thread in C can't be stopped: Python would wait, or end what it works with
    sys.exit(status)


def _run() -> None:
    """Run the command that is called, which may be none: then all are listed."""
    _check_memory()
    modules = [module.name for module in pkgutil.iter_modules(__path__)]
    if COMPLETING in os.environ:  # an answer is a line: one that is broken at the terminal's width would be two
        os.environ["COLUMNS"] = "1000"
    called = "".join(sys.argv[1:2]).replace("-", "_")
    register(*([name for name in modules if name.rstrip("_") == called] or modules))
    app()
