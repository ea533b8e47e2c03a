"""What reaches a terminal: names and texts of others may hold what would steer it, which is shown instead of done."""

import sys
import warnings
from pathlib import Path

PACKAGE = __name__.partition(".")[0]


def printable(text: str, lines: bool = False) -> str:
    r"""A text whose characters can all be seen: others are written as Python does, e.g. an escape as \x1b.

    Args:
        lines: leave ends of lines and tabs as they are.
    """
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(letter if letter.isprintable() or letter in kept else ascii(letter)[1:-1] for letter in text)


def at_terminal() -> bool:
    """Whether a person is looking: standard error is a terminal."""
    return sys.stderr.isatty()


def show(text: object = "", error: bool = False, lines: bool = False) -> None:
    """Print what may hold texts of others: a line on standard output, or on standard error, or several lines.

    What standard error can't take, as on a full disk, is a note less, and nothing that a command should end for.
    """
    try:
        print(printable(str(text), lines), file=sys.stderr if error else sys.stdout, flush=True)
    except BrokenPipeError:  # the usual end of a command whose reader left
        raise
    except OSError:
        if not error:
            raise


def format_warnings() -> None:
    """Let Python show each warning as a line of ours, instead of its place in a file and that file's line."""
    warnings.formatwarning = _warning


def _warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """One of a library has the place behind it that its authors would ask for."""
    text = printable(" ".join(str(message).split()))
    if category.__module__.partition(".")[0] == PACKAGE:
        return f"t2i: {text}\n"
    return f"t2i: a library warns: {text} ({category.__name__} in {printable(Path(filename).name)}, line {lineno})\n"
