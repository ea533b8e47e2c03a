"""The page of commands, made of the commands themselves whenever the site is built: `python docs/site/commands.py`."""

import inspect
import pkgutil
from collections.abc import Iterator
from enum import Enum
from typing import Any

import typer

from attngan_deploy import cli

HEAD = "# Commands\n\nMade of what `t2i COMMAND --help` shows. `t2i --help` lists them all."


def commands() -> Iterator[tuple[str, Any]]:
    """Every command and group that is not hidden, by the words that call it, in the order of their names."""
    cli.register(*(module.name for module in pkgutil.iter_modules(cli.__path__) if module.name != "__main__"))
    yield from _below("t2i", typer.main.get_command(cli.app))


def options(command: Any) -> list[Any]:
    """The options and arguments of a command that its help shows, in the order of its panels."""
    shown = command.by_panel() if hasattr(command, "by_panel") else command.params
    return [each for each in shown if not getattr(each, "hidden", False)]


def page() -> str:
    """The whole page, in Markdown."""
    return "\n\n".join([HEAD, *(_section(words, command) for words, command in commands())]) + "\n"


def _below(words: str, command: Any) -> Iterator[tuple[str, Any]]:
    for name, each in sorted(getattr(command, "commands", {}).items()):
        if not each.hidden:
            yield f"{words} {name}", each
            yield from _below(f"{words} {name}", each)


def _section(words: str, command: Any) -> str:
    example = f"```bash\n{command.example}\n```" if hasattr(command, "example") else ""
    parts = [f"## {words}", example, inspect.cleandoc(command.help or "").replace("\b", "").replace("\f", "")]
    if shown := options(command):
        rows = [f"| {_names(each)} | {_told(each)} |" for each in shown]
        parts.append("\n".join(["| option | |", "|---|---|", *rows]))
    return "\n\n".join(filter(None, parts))


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or parameter.name.upper()}`"
    spelled = ", ".join(f"`{name}`" for name in sorted(parameter.opts, key=len, reverse=True))
    return spelled + "".join(f", `{name}`" for name in parameter.secondary_opts)


def _told(parameter: Any) -> str:
    choices = ", ".join(f"`{each}`" for each in _choices(parameter))
    one_of = f"One of {choices}." if choices else ""
    return " ".join(filter(None, [_cell(getattr(parameter, "help", None) or ""), one_of, _default(parameter)]))


def _choices(parameter: Any) -> list[str]:
    kind = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)  # newer typer
    if inspect.isclass(kind) and issubclass(kind, Enum):
        return [str(each.value) for each in kind]
    return list(getattr(getattr(parameter, "type", None), "choices", ()))


def _default(parameter: Any) -> str:
    value = parameter.default
    if parameter.required:
        return "(required)"
    is_plain = isinstance(value, str | int | float) and not isinstance(value, bool) and value != ""
    return f"(default: `{value}`)" if is_plain else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    print(page(), end="")
