"""Every command that a message tells to type is complete: none of its options is missing, and all are known."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from attngan_deploy import cli
from attngan_deploy.cli import app

ROOT = Path(__file__).resolve().parents[2]
SENTENCES = ("data build made", "data build did not make")
COMMAND = re.compile(r"t2i ((?:data|train) )?([a-z-]+)([^;,:`()]*)")


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Texts of a file that are no docstrings, with X for what is filled in."""
    tree = ast.parse(path.read_text())
    nodes = list(ast.walk(tree))
    passed = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    passed |= {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    passed |= {id(node.value) for node in nodes if isinstance(node, ast.keyword) and node.arg == "help"}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in passed:
            yield node.lineno, node.value


def hints() -> Iterator[tuple[str, str]]:
    """Commands in the texts of the code, and where each stands."""
    for folder in ("attngan_deploy", "train", "export"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for line, text in strings(path):
                for found in COMMAND.finditer(text):
                    yield f"{path.relative_to(ROOT)}:{line}", found.group(0).removeprefix("t2i ")


@pytest.fixture(scope="module")
def commands() -> Any:
    for module in cli.pkgutil.walk_packages(cli.__path__, "attngan_deploy.cli."):
        cli.import_module(module.name)
    return typer.main.get_command(app)


def problem(command: Any, words: list[str]) -> str:
    """What a command lacks, or does not know; other words after it are those of a sentence."""
    while hasattr(command, "commands") and words:
        if words[0] not in command.commands:
            return ""  # a sentence
        command, words = command.commands[words[0]], words[1:]
    if hasattr(command, "commands") or not words:
        return ""  # only the name of a command
    try:
        command.make_context("t2i", list(words))
    except Exception as error:
        # typer brings a copy of click, or click itself, by its version
        return str(error.format_message()) if type(error).__name__ in ("MissingParameter", "NoSuchOption") else ""
    return ""


def test_hints_are_complete(commands: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = list(hints())
    assert len(found) > 50
    asked = [(place, text) for place, text in found if text not in SENTENCES]
    wrong = {(place, text): said for place, text in asked if (said := problem(commands, shlex.split(text)))}
    assert wrong == {}


def test_what_is_missing_is_seen(commands: Any) -> None:
    assert "Missing option '--data'" in problem(commands, ["train", "gan", "--damsm", "X"])
    assert "Missing argument" in problem(commands, ["data", "build", "--force"])
    assert "No such option" in problem(commands, ["score", "--nothing"])
    assert problem(commands, ["generate", "captions.txt", "-o", "out/"]) == ""
