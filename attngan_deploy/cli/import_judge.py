"""`t2i import-judge`: a classifier that the user has becomes a judge of `t2i score`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from attngan_deploy.cli import app, load_extra
from attngan_deploy.cli.options import Force, example
from attngan_deploy.errors import BundleError
from attngan_deploy.system.terminal import show


@app.command("import-judge", cls=example("t2i import-judge classifier.onnx --mean 127.5 --std 127.5 -o judge"))
def import_judge(
    file: Annotated[Path, typer.Argument(help="Classifier as .onnx, or Inception-v3 weights as .pth.")],
    output: Annotated[Path, typer.Option("--out", "-o", help="Folder of the judge to make.")],
    size: Annotated[
        int | None, typer.Option(min=1, help="Side of its pictures in pixels, where the file does not say it.")
    ] = None,
    mean: Annotated[
        str, typer.Option(help="Pictures go in as (x - mean) / std, x from 0 to 255: 1 or 3 numbers.")
    ] = "",
    std: Annotated[str, typer.Option(help="See --mean.")] = "",
    classes: Annotated[Path | None, typer.Option(help="Names of the classes, a line each.")] = None,
    drop_output: Annotated[
        list[int] | None,
        typer.Option(min=0, help="An output that is no class, such as 0 of StackGAN's 51; repeatable."),
    ] = None,
    features: Annotated[
        str | None, typer.Option(help="Tensor [N, F] of the features; what the last linear layer reads unless given.")
    ] = None,
    logits: Annotated[
        str | None, typer.Option(help="Tensor [N, C] of the logits, where there are several outputs.")
    ] = None,
    from_probabilities: Annotated[
        bool, typer.Option("--from-probabilities", help="Its output is a softmax: take the logarithm.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name of the judge; its folder's unless given.")] = None,
    licence: Annotated[str | None, typer.Option(help="What the weights may be used for.")] = None,
    force: Force = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Make a judge of a classifier, checked by running it.

    Any ONNX classifier of one picture input works. Of torch files, two are known, and no code in them is run:
    torchvision's inception_v3_google-*.pth, and pt_inception-2015-12-05-*.pth, which FID is defined by. They are
    compared with torch; the project tests them with random weights of these names and shapes, as it ships none.
    """
    is_onnx = file.suffix.lower() == ".onnx"
    room = load_extra("attngan_deploy.export.import_judge", "export" if is_onnx else "train")
    options = room.JudgeOptions(
        name=name,
        size=size,
        mean=_numbers("--mean", mean),
        std=_numbers("--std", std),
        classes=_names(classes),
        drop_outputs=tuple(drop_output or ()),
        logits=logits,
        features=features,
        from_probabilities=from_probabilities,
        force=force,
        **({} if licence is None else {"licence": licence}),
    )
    if is_onnx:
        judge = room.import_onnx_judge(file, output, options)
    else:
        inception = load_extra("attngan_deploy.export.import_inception", "train")
        judge = inception.import_inception_judge(file, output, options)
    fields = judge.fields
    if as_json:
        document = judge.bundle.manifest.document
        facts = {key: document[key] for key in ("name", "network", "classes", "features", "input")}
        facts |= {"drop_outputs": judge.dropped, "hash": judge.hash, "bundle": str(output)}
        facts |= {key: document[key] for key in ("tensors", "parity") if key in document}
        print(json.dumps(facts, indent=2))
        return
    show(f"{judge.name}: {fields.network}")
    show(f"{judge.classes} classes, {fields.features} features, pictures of {judge.size} px")
    if fields.tensors:
        show(f"logits are {fields.tensors['logits']}, features are {fields.tensors['features']}")
    if fields.note:
        show(fields.note)
    show(f"judge       {output}  {judge.bundle.bytes / 1e6:.2f} MB  {judge.hash[:12]}")
    show(f"t2i score PICTURES --judge {output}")


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise BundleError(
            f"{option} is no number",
            found=text[:80],
            expected="127.5, or three with commas",
            next_step="t2i import-judge --help",
        ) from error


def _names(file: Path | None) -> tuple[str, ...]:
    from attngan_deploy.media.caption import split_lines

    if file is None:
        return ()
    try:
        lines = split_lines(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(
            f"the names of classes can't be read from {file}: {error}",
            next_step="a text file in UTF-8, one name a line",
        ) from error
    return tuple(line.strip() for line in lines if line.strip())
