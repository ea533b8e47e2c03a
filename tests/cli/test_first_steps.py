"""What people meet first: `t2i` alone, its version, and what the Tab key answers."""

import os
import shlex
import subprocess
import sys

import pytest
import typer

import attngan_deploy
from attngan_deploy.cli import app, register
from tests.makers.commands import PATIENCE, t2i


def asked(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the `t2i` script in a process of its own, under its own name."""
    code = "import sys; from attngan_deploy.__main__ import main; sys.argv[0] = 't2i'; main()"
    command = [sys.executable, "-c", code, *arguments]
    environment = {**os.environ, **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE)


def test_alone_it_shows_three_things_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert t2i() == 2
    told = capsys.readouterr().out
    examples = [line[19:] for line in told.splitlines() if line.startswith("  ")]
    assert len(examples) == 3 and all(example.startswith("t2i ") for example in examples)
    register("generate", "serve", "doctor")
    command: typer.core.TyperGroup = typer.main.get_command(app)  # type: ignore[assignment]
    for example in examples:
        _, name, *words = shlex.split(example)
        command.commands[name].make_context("t2i", words)
    assert "--help" in told and max(map(len, told.splitlines())) <= 100


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert t2i("--version") == 0
    assert capsys.readouterr().out == f"{attngan_deploy.__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    typed = {"bash": {"COMP_WORDS": "t2i generate --ba", "COMP_CWORD": "2"}}.get(
        shell, {"_TYPER_COMPLETE_ARGS": "t2i generate --ba", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    )
    done = asked(_T2I_COMPLETE=f"complete_{shell}", **typed)
    assert done.returncode == 0 and done.stderr == ""
    assert "--backend" in done.stdout and "--batch-size" in done.stdout and "--caption" not in done.stdout
    if shell == "fish":  # each line is a candidate, so that none may be broken in two
        assert all(line.startswith("--ba") for line in done.stdout.splitlines())
    shown = asked("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert shown.returncode == 0 and f"_T2I_COMPLETE=complete_{shell}" in shown.stdout
