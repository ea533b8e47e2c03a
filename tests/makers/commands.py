"""Commands of the toolkit, run in this process; and the processes that they start."""

import os
from pathlib import Path

import pytest

from attngan_deploy.cli import app, register, report_errors


def t2i(*arguments: str) -> int:
    """Run `t2i ARGUMENTS`; returns the exit status."""
    register("bench", "doctor", "export", "generate", "models", "replay", "verify")
    try:
        return report_errors(lambda: app(list(arguments), standalone_mode=True))
    except SystemExit as end:
        return int(end.code or 0)


def children(process: int | None = None) -> set[str]:
    """Processes that a process (this one unless named) started and that still run; skips where nobody lists them."""
    number = process or os.getpid()
    table = Path(f"/proc/{number}/task/{number}/children")
    if not Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").is_file():
        pytest.skip("this system does not list the children of a process")
    return set(table.read_text().split()) if table.is_file() else set()
