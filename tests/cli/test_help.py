"""The help of every command: an example that can be typed, and panels in one order."""

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from attngan_deploy import cli
from attngan_deploy.cli.options import PANEL_OF, PANELS
from tests.makers.commands import t2i


def below(command: Any) -> Iterator[Any]:
    for each in getattr(command, "commands", {}).values():
        yield from below(each) if hasattr(each, "commands") else [each]


@pytest.fixture(scope="module")
def commands() -> list[Any]:
    for module in cli.pkgutil.walk_packages(cli.__path__, "attngan_deploy.cli."):
        cli.import_module(module.name)
    return list(below(typer.main.get_command(cli.app)))


def test_every_command_has_an_example_that_can_be_typed(commands: list[Any]) -> None:
    assert len(commands) > 15
    for command in commands:
        words = shlex.split(command.example)
        named = words.index(command.name)
        assert words[0] == "t2i" and 1 <= named <= 2, command.example
        command.make_context("t2i", words[named + 1 :])


def test_every_option_has_a_panel(commands: list[Any]) -> None:
    names = set()
    for command in commands:
        names |= {parameter.name for parameter in command.params}
        panels = [each.rich_help_panel for each in command.by_panel() if each.param_type_name == "option"]
        assert panels == sorted(panels, key=list(PANELS).index), command.name
    assert PANEL_OF.keys() <= names
    assert len(PANEL_OF) == sum(len(options.split()) for options in PANELS.values())


def test_help_begins_with_the_example(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert t2i("generate", "--help") == 0
    told = capsys.readouterr().out
    places = [told.index(f" {title} ") for title in ("Example:", "Make pictures", "What", "How", "Where", "Engine")]
    assert places == sorted(places) and told.count("Example:") == 1
    assert " Options " not in told


def test_outputs_have_one_spelling_and_older_ones_work(commands: list[Any]) -> None:
    with_place = 0
    for command in commands:
        spelled = {name for parameter in command.params for name in parameter.opts}
        assert not spelled & {"--output", "--target-output"} and ("-o" in spelled) == ("--out" in spelled), command.name
        with_place += "-o" in spelled
    assert with_place == 14
    export = next(command for command in commands if command.name == "export")
    words = ["--bundle", "base", "--target", "edge"]
    older = export.make_context("t2i", [*words, "--output", "a", "--target-output=b"]).params
    assert older == export.make_context("t2i", [*words, "--out", "a", "--target-out", "b"]).params
    assert (str(older["output"]), str(older["target_output"])) == ("a", "b")
