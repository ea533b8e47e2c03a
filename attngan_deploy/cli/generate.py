"""`t2i generate`: captions to a folder of pictures."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from attngan_deploy.cli import app


class Format(StrEnum):
    """What pictures are written as."""

    PNG = "png"
    WEBP = "webp"
    JPG = "jpg"
    TAR = "tar"


@app.command()
def generate(
    captions: Annotated[
        str | None, typer.Argument(help="A .txt, .csv or .jsonl file, or - for standard input.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.")] = Path("out"),
    caption: Annotated[
        list[str] | None, typer.Option(help="A caption, instead of a file; may be repeated.", show_default=False)
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(help="Column of a .csv or field of a .jsonl file. (default: caption, or the only one)"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Name or folder of a bundle: see t2i models. (default: the best that ships)"),
    ] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Pictures of each caption.")] = 1,
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Same seed, same pictures.")] = 0,
    shared_noise: Annotated[
        bool, typer.Option("--shared-noise", help="Same noise for every caption, so that words alone differ.")
    ] = False,
    file_format: Annotated[
        Format, typer.Option("--format", help="png and webp are lossless; tar holds 1000 png a shard.")
    ] = Format.PNG,
    grid: Annotated[bool, typer.Option("--grid", help="Also write grid.png.")] = False,
    attention: Annotated[
        bool, typer.Option("--attention", help="Also write what each word looked at, into attention/.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="An unknown word is an error, not a warning.")] = False,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Pictures made together; changes speed, not pictures.")
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            help="onnxruntime, openvino, tensorrt or tensorrt-rtx; auto measures what is installed, once, and keeps "
            "the fastest whose pictures are good."
        ),
    ] = "auto",
    device: Annotated[
        str,
        typer.Option(
            help="cpu; cuda (onnxruntime, tensorrt, tensorrt-rtx); gpu or npu (openvino); tensorrt or tensorrt-rtx as "
            "providers of onnxruntime; or auto."
        ),
    ] = "auto",
    precision: Annotated[
        str, typer.Option(help="fp32, fp16, bf16 or int8, of the generator; auto is the fastest that is good enough.")
    ] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. (default: one a core)")] = None,
    allow_fallback: Annotated[
        bool,
        typer.Option(
            "--allow-fallback", help="Use onnxruntime on the CPU in fp32 where what was asked for can't be had."
        ),
    ] = False,
) -> None:
    """Make pictures of captions. A rerun makes only what is missing."""
    if (captions is None) == (not caption):
        raise typer.BadParameter("give either a captions file or --caption TEXT", param_hint="CAPTIONS")
    from attngan_deploy.bundle import DEFAULT_MODEL, open_bundle
    from attngan_deploy.captions import describe_unknown, from_texts, read_captions, tokenize
    from attngan_deploy.errors import CaptionError, StoppedError
    from attngan_deploy.generation import Options, check_output, generate_folder
    from attngan_deploy.pipeline import TextToImage
    from attngan_deploy.progress import show_progress

    items = from_texts(caption or []) if captions is None else read_captions(captions, column)
    if not items:
        raise CaptionError("no captions were given", expected="--caption TEXT with a text")
    options = Options(seed, n, shared_noise, batch_size, file_format.value, grid, attention)
    bundle = open_bundle(DEFAULT_MODEL if model is None else model)
    check_output(bundle, items, out, options)
    network = TextToImage.load(bundle.folder, backend, precision, threads, device, allow_fallback)
    for word, line in tokenize(items, network.tokenizer, strict).unknown.items():
        print(f"t2i: line {line}: left out {describe_unknown(word, network.tokenizer)}", file=sys.stderr)
    print(f"t2i: model {network.bundle.name} {network.bundle.hash[:12]}, {network.description}", file=sys.stderr)
    try:
        with show_progress("generate", "img") as progress:
            report = generate_folder(network, items, out, options, progress)
    except KeyboardInterrupt:
        kept = f"what is done is kept in {out}, and the same command continues" if out.exists() else "nothing was made"
        raise StoppedError(f"stopped; {kept}") from None
    speed = f" at {report.made / report.seconds:.1f} img/s" if report.made else ""
    skipped = f", skipped {report.skipped} that were there" if report.skipped else ""
    print(f"made {report.made} {'picture' if report.made == 1 else 'pictures'}{speed}{skipped}: {out}")
    if 0 < report.gridded < len(items) * n:
        print(f"grid.png shows the first {report.gridded} of {len(items) * n}")
