"""Options of several commands, such as the model and the engine, and how the help of every command shows its own."""

import os
import shlex
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from attngan_deploy.errors import EngineError, T2IError
from attngan_deploy.system.memory import main_memory
from attngan_deploy.system.processor import usable_cores
from attngan_deploy.system.terminal import show

LEAST_THREADS = 64  # that may be asked for anywhere
THREADS_A_CORE = 8  # beyond which more are no mistake of counting
BATCH_PICTURE = 4 * 2**20  # bytes that a picture takes at least while it is made or judged
SCORED_PICTURE = 1000  # bytes that are kept at least of a picture that is scored


# Panels of the help, in their order, and the options of each. Others say how, as most options do.
WHAT, HOW, WHERE, ENGINE = "What", "How", "Where", "Engine"
PANELS = {
    WHAT: "bundle caption captions checkpoint classes column compare damsm data file_format generator kind model "
    "models n reference split_file start target text_encoder variant variants weights",
    HOW: "",
    WHERE: "as_json attention force grid host html keep out output port root runs shard target_output",
    ENGINE: "allow_fallback backend batch batch_size device engine precision shard_size threads workers",
}
ALIASES = {"output": "out", "target-output": "target-out"}  # spellings of earlier versions, which the help leaves out
PANEL_OF = {name: panel for panel, names in PANELS.items() for name in names.split()}


class Command(TyperCommand):
    """A command whose help begins with an example and groups its options into panels."""

    example = ""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.context_settings.setdefault("token_normalize_func", lambda name: ALIASES.get(name, name))
        for parameter in self.by_panel():
            if parameter.param_type_name == "option":
                parameter.rich_help_panel = PANEL_OF.get(parameter.name, HOW)

    def by_panel(self) -> list[Any]:
        """Its arguments and options in the order of the panels."""
        order, parameters = list(PANELS), list[Any](self.params)
        return sorted(parameters, key=lambda each: order.index(PANEL_OF.get(each.name, HOW)))

    def get_help_option(self, ctx: Any) -> Any:
        """`--help`, in a panel like all others."""
        option: Any = super().get_help_option(ctx)
        if option is not None:
            option.rich_help_panel = HOW
        return option

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        told, parameters = self.help, self.params
        self.help, self.params = f"Example: {self.example}\n\n{told}", self.by_panel()
        try:
            super().format_help(ctx, formatter)
        finally:
            self.help, self.params = told, parameters


def example(line: str) -> type[Command]:
    """The class of a command whose help begins with this line."""
    return type("Command", (Command,), {"example": line})


def _note_many(context: typer.Context, threads: int | None) -> int | None:
    """Say in a line that there are not so many cores; those of a Ray cluster are not known here.

    Raises:
        EngineError: many more than any machine like this can use; each takes memory before it is of any use.
    """
    most = max(LEAST_THREADS, THREADS_A_CORE * (os.cpu_count() or 1))
    if threads is not None and threads > most:
        raise EngineError(
            f"--threads {threads} is more than this machine can use",
            expected=f"at most {most}",
            next_step="leave --threads out: all cores that this process may use are then used",
        )
    if threads is not None and threads > (cores := usable_cores()) and context.params.get("engine") != "ray":
        have = "the one core" if cores == 1 else f"the {cores} cores"
        less = f"slower than --threads {cores}"
        show(f"t2i: {threads} threads are more than {have} that this process may use: {less}", error=True)
    return threads


def check_memory(option: str, count: int | None, size: int = BATCH_PICTURE) -> int | None:
    """Return a number of things of `size` bytes; a T2IError where no memory of this machine could hold them."""
    memory = main_memory()
    if count is not None and memory is not None and count * size > memory:
        what = f"{option} {count} needs more memory than this machine has"
        raise T2IError(what, found=f"{memory / 1e9:.1f} GB", expected=f"at most {memory // size:,}")
    return count


def check_batch(option: typer.CallbackParam, count: int | None) -> int | None:
    """Refuse more pictures at once than memory could hold; a T2IError."""
    return check_memory(option.opts[0], count)


def check_scored(option: typer.CallbackParam, count: int | None) -> int | None:
    """Refuse to score more pictures than memory could hold the outputs of; a T2IError."""
    return check_memory(option.opts[0], count, SCORED_PICTURE)


Model = Annotated[str | None, typer.Argument(help="Name or folder of a bundle. (default: the best that ships)")]
Backends = Annotated[
    str, typer.Option(help="auto, onnxruntime, openvino, tensorrt, tensorrt-rtx; several with commas; or all.")
]
Devices = Annotated[str, typer.Option(help="auto, cpu, cuda, gpu, npu; several with commas; or all.")]
Precisions = Annotated[str, typer.Option(help="auto, fp32, fp16, bf16, int8; several with commas; or all.")]
Threads = Annotated[
    int | None, typer.Option(min=1, callback=_note_many, help="CPU threads of an engine. (default: one a core)")
]
Force = Annotated[
    bool, typer.Option("--force", help="Replace a bundle that was made of something else, such as another run.")
]


def typed_again(context: typer.Context, **changed: object) -> str:
    """The line of a command as it was typed, with other values of some options."""
    group = [] if context.parent is None or context.parent.parent is None else [str(context.parent.info_name)]
    words = ["t2i", *group, str(context.info_name)]
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        given = source is not None and source.name == "COMMANDLINE"
        value: Any = changed.get(name, context.params[name] if given else None)
        several = isinstance(value, list | tuple) and parameter.nargs == 1
        for each in value if several else [value] if value is not None else []:
            if parameter.param_type_name == "option":
                words += (parameter.secondary_opts if each is False else parameter.opts)[:1]
            if not isinstance(each, bool):
                words += map(str, each if isinstance(each, list | tuple) else [each])
    return shlex.join(words)


def listed(text: str) -> list[str]:
    """What stands between the commas of an option, each once."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
