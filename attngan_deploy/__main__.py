"""Where `t2i` begins. It imports nothing slow, so that Ctrl-C ends it in a line while the rest is being imported.

As the first process of a container, which the system spares the signals that it does nothing about, it takes SIGTERM
(`docker stop`) for Ctrl-C.
"""

import io
import os
import signal
import sys
from types import FrameType

STOPPED = 130
FIRST = 1  # number of a container's first process


def main() -> None:
    """Entry point of the `t2i` script and of `python -m attngan_deploy`."""
    _open_closed_streams()
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:  # else the shell, or nohup, told it to ignore Ctrl-C
        signal.signal(signal.SIGINT, _stop)
    contained = os.getpid() == FIRST and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if contained:
        signal.signal(signal.SIGTERM, _stop)
    from attngan_deploy.cli import main as run

    if ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if contained:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run()
    except KeyboardInterrupt:  # between two lines of this file
        _stop()
    finally:
        if contained:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        while ours:
            try:
                signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own end would show a traceback
                break
            except KeyboardInterrupt:  # one more, while the first one is being dealt with
                continue


class ClosedOutput(io.TextIOWrapper):
    """Standard output where it is closed; it knows whether something was printed."""

    lost = False

    def write(self, text: str, /) -> int:
        self.lost = True
        return super().write(text)


def _open_closed_streams() -> None:
    """Lead standard streams that were closed (`>&-`) nowhere: else the next file that is opened would take their place,
    and get what is printed."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        opened = os.open(os.devnull, os.O_RDWR)
        try:
            os.fstat(number)
        except OSError:
            os.dup2(opened, number)
        os.set_inheritable(opened, opened == number)
        raw = io.FileIO(opened, "rb" if number == 0 else "wb")
        buffer = io.BufferedReader(raw) if number == 0 else io.BufferedWriter(raw)
        setattr(sys, name, (ClosedOutput if number == 1 else io.TextIOWrapper)(buffer, "utf-8", "backslashreplace"))


def _stop(number: int = signal.SIGINT, frame: FrameType | None = None) -> None:
    """End at once: nothing was begun that would have to be kept."""
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"t2i: stopped\n")
    os._exit(STOPPED)


if __name__ == "__main__":
    main()
