"""Options of several commands: which model, and which engine."""

from typing import Annotated

import typer

Model = Annotated[str | None, typer.Argument(help="Name or folder of a bundle. (default: the best that ships)")]
Backends = Annotated[
    str, typer.Option(help="auto, onnxruntime, openvino, tensorrt, tensorrt-rtx; several with commas; or all.")
]
Devices = Annotated[str, typer.Option(help="auto, cpu, cuda, gpu, npu; several with commas; or all.")]
Precisions = Annotated[str, typer.Option(help="auto, fp32, fp16, bf16, int8; several with commas; or all.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads of an engine. (default: one a core)")]


def listed(text: str) -> list[str]:
    """What stands between the commas of an option, each once."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
