"""What reaches a terminal: names and texts of others may hold what would steer it, which is shown instead of done."""

import sys


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
