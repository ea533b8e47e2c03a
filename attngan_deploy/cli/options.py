"""Options of several commands: which model, and which engine."""

import shlex
from typing import Annotated

import typer

Model = Annotated[str | None, typer.Argument(help="Name or folder of a bundle. (default: the best that ships)")]
Backends = Annotated[
    str, typer.Option(help="auto, onnxruntime, openvino, tensorrt, tensorrt-rtx; several with commas; or all.")
]
Devices = Annotated[str, typer.Option(help="auto, cpu, cuda, gpu, npu; several with commas; or all.")]
Precisions = Annotated[str, typer.Option(help="auto, fp32, fp16, bf16, int8; several with commas; or all.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads of an engine. (default: one a core)")]
Force = Annotated[
    bool, typer.Option("--force", help="Replace a bundle that was made of something else, such as another run.")
]


def typed_again(context: typer.Context, **changed: object) -> str:
    """The line of a command as it was typed, with other values of some options."""
    words = ["t2i", str(context.info_name)]
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        given = source is not None and source.name == "COMMANDLINE"
        value = changed.get(name, context.params[name] if given else None)
        for each in value if isinstance(value, list | tuple) else [value] if value is not None else []:
            words += [parameter.opts[0]] if parameter.param_type_name == "option" else []
            words += [] if each is True else [str(each)]
    return shlex.join(words)


def listed(text: str) -> list[str]:
    """What stands between the commas of an option, each once."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
