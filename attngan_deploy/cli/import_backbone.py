"""`t2i import-backbone`: the published bird MobileNetV2 becomes the weights that `--backbone` names."""

from pathlib import Path
from typing import Annotated

import typer

from attngan_deploy.cli import app, extra
from attngan_deploy.cli.options import example
from attngan_deploy.system.terminal import show


@app.command("import-backbone", cls=example("t2i import-backbone mobilenet_v2_1.0_224_inat_bird_quant.tflite"))
def import_backbone(
    file: Annotated[
        Path, typer.Argument(help="mobilenet_v2_1.0_224_inat_bird_quant.tflite, as the README links to it.")
    ],
    output: Annotated[Path, typer.Option("--out", "-o", help="File to write.")] = Path(
        "mobilenet_v2_inat_birds.safetensors"
    ),
) -> None:
    """Convert the backbone of the image encoder, which is frozen: dequantised, batch norm folded. No code is run."""
    with extra("train"):
        from attngan_deploy.train.backbones.tflite import convert_backbone
    show(f"{file}: SHA-256 {convert_backbone(file, output)}", error=True)
    show(output)
