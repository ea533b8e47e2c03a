"""Options of several commands: which model, and which engine."""

import os
import shlex
from typing import Annotated, Any

import typer

from attngan_deploy.errors import EngineError, T2IError
from attngan_deploy.system.memory import main_memory
from attngan_deploy.system.processor import usable_cores
from attngan_deploy.system.terminal import show

LEAST_THREADS = 64  # that may be asked for anywhere
THREADS_A_CORE = 8  # beyond which more are no mistake of counting
BATCH_PICTURE = 4 * 2**20  # bytes that a picture takes at least while it is made or judged
SCORED_PICTURE = 1000  # bytes that are kept at least of a picture that is scored


def _note_many(context: typer.Context, threads: int | None) -> int | None:
    """Say in a line that there are not so many cores; those of a Ray cluster are not known here.

    Raises:
        EngineError: many more than any machine like this can use; each takes memory before it is of any use.
    """
    most = max(LEAST_THREADS, THREADS_A_CORE * (os.cpu_count() or 1))
    if threads is not None and threads > most:
        raise EngineError(f"--threads {threads} is more than this machine can use", expected=f"at most {most}")
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
