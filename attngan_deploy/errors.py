"""Every error that a user can meet, as one tree.

    T2IError
    |-- CaptionError      a captions file or a caption that can't be used
    |-- BundleError       a model folder that is missing, damaged or too new
    |-- CheckpointError   a training checkpoint that is missing, damaged or hostile
    |-- EngineError       a backend, device or precision that can't be had, or a graph that does not run
    |-- DataError         training pictures and captions that can't be used
    |-- OutputError       an output folder that can't be written, or belongs to another run
    |-- ScoreError        pictures or a judge from which no honest score can be made
    |-- ParityError       an export whose outputs differ from the model it came from
    |-- MissingExtraError an optional package that this command needs
    `-- StoppedError      Ctrl-C; what was finished is kept

A message is one line: what was wrong, what was found, what was expected, and what to type next.
"""

from typing import Self

LONGEST = 2000  # characters of what a message says was wrong, and of what was found


class T2IError(Exception):
    """Base of every error that the toolkit raises on purpose.

    Args:
        what: what was wrong, naming the file, line or option.
        found: what was there.
        expected: what should have been there.
        next_step: the command to type, or the thing to change.
    """

    exit_status = 1
    usual_step = ""  # the next step where no better one is known

    def __init__(self, what: str, *, found: str = "", expected: str = "", next_step: str = "") -> None:
        next_step = next_step or self.usual_step
        self.what, self.found, self.expected, self.next_step = what, found, expected, next_step
        parts = [_short(what)]
        if found:
            parts.append(f"found {_short(found)}")
        if expected:
            parts.append(f"expected {expected}")
        message = "; ".join(parts)
        if next_step:
            message += f". Next: {next_step}"
        super().__init__(" ".join(message.split()))

    def advising(self, next_step: str) -> Self:
        """The same error with another next step."""
        return type(self)(self.what, found=self.found, expected=self.expected, next_step=next_step)


def _short(text: str) -> str:
    """A text without its middle where it is long: what a file holds may be a megabyte in the place of a name."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} [...] {text[-LONGEST // 2 :]}"


class CaptionError(T2IError):
    """A captions file or a caption that can't be used."""


class BundleError(T2IError):
    """A model folder that is missing, damaged or too new."""


class CheckpointError(T2IError):
    """A training checkpoint that is missing, damaged or hostile."""

    usual_step = "give another one, or copy it again from where it was made"


class EngineError(T2IError):
    """A backend, device or precision that can't be had, or a graph that does not run."""


class DataError(T2IError):
    """Training pictures and captions that can't be used."""


class OutputError(T2IError):
    """An output folder that can't be written, or that belongs to another run."""


class ScoreError(T2IError):
    """Pictures or a judge from which no honest score can be made."""


class ParityError(T2IError):
    """An export whose outputs differ from the model it came from."""


class MissingExtraError(T2IError):
    """An optional package that this command needs is not installed."""


class StoppedError(T2IError):
    """Ctrl-C; what was finished is kept."""

    exit_status = 130


BRINGS = {"train": "  # with 5.8 GB of CUDA on Linux, unless a CPU build of torch is there"}


def install_line(extra: str) -> str:
    """The command that installs an extra, and what else that brings where it is much."""
    return f"pip install 'attngan-deploy[{extra}]'" + BRINGS.get(extra, "")
