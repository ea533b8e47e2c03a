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


class Runner(StrEnum):
    """Who makes the pictures."""

    LOCAL = "local"
    RAY = "ray"


@app.command()
def generate(
    captions: Annotated[
        str | None,
        typer.Argument(
            help="A .txt, .csv, .jsonl or .parquet file, here or at a URL such as s3://..., or - for standard input.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[str, typer.Option("--out", "-o", help="Folder for the pictures; with --shard also a URL.")] = "out",
    caption: Annotated[
        list[str] | None, typer.Option(help="A caption, instead of a file; may be repeated.", show_default=False)
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(help="Column of a table or field of a .jsonl file. (default: caption, or the only one)"),
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
        Format | None,
        typer.Option(
            "--format", help="png and webp are lossless; tar holds 1000 png a shard. (default: png; in parts tar)"
        ),
    ] = None,
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
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            help="Make part i of n of one run, written i/n and counted from 0: 0/4 to 3/4. Others may make the rest at "
            "once, into the same folder or URL.",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        Runner, typer.Option("--engine", help="local is this process; ray is a Ray cluster, or all of this machine.")
    ] = Runner.LOCAL,
    workers: Annotated[
        int | None, typer.Option(min=1, help="With --engine ray: engines at once. (default: one a GPU or core)")
    ] = None,
    shard_size: Annotated[
        int, typer.Option(min=1, help="With --shard or --engine ray: pictures that are made as a whole.")
    ] = 1000,
) -> None:
    """Make pictures of captions. A rerun makes only what is missing."""
    if (captions is None) == (not caption):
        raise typer.BadParameter("give either a captions file or --caption TEXT", param_hint="CAPTIONS")
    if shard is not None or engine is Runner.RAY:
        from attngan_deploy.cli.generate_parts import Asked, generate_parts

        if captions is None or grid or attention:
            raise typer.BadParameter(
                "parts of a run are made of a captions file, without --grid and --attention",
                param_hint="--shard, --engine ray",
            )
        kind = (file_format or Format.TAR).value
        request = Asked(captions, column, out, model, n, seed, shared_noise, strict, shard, workers, shard_size, kind)
        generate_parts(request, engine is Runner.RAY, (backend, device, precision, threads, allow_fallback, batch_size))
        return
    from attngan_deploy.bundles.bundle import DEFAULT_MODEL, open_bundle
    from attngan_deploy.cli.generate_parts import made_line
    from attngan_deploy.errors import CaptionError, OutputError, StoppedError
    from attngan_deploy.generate.generation import Options, check_output, generate_folder
    from attngan_deploy.generate.pipeline import TextToImage
    from attngan_deploy.media.captions import describe_unknown, from_texts, read_captions, tokenize
    from attngan_deploy.system.allocator import return_freed_memory
    from attngan_deploy.system.filesystems import is_url
    from attngan_deploy.system.progress import show_progress

    if is_url(out):
        raise OutputError(f"{out} is no folder of this machine", next_step="add --shard 0/1, which writes to URLs too")
    return_freed_memory()
    folder = Path(out)
    items = from_texts(caption or []) if captions is None else read_captions(captions, column)
    if not items:
        raise CaptionError("no captions were given", expected="--caption TEXT with a text")
    options = Options(seed, n, shared_noise, batch_size, (file_format or Format.PNG).value, grid, attention)
    bundle = open_bundle(DEFAULT_MODEL if model is None else model)
    check_output(bundle, items, folder, options)
    network = TextToImage.load(bundle.folder, backend, precision, threads, device, allow_fallback)
    tokenized = tokenize(items, network.tokenizer, strict)
    for word, line in tokenized.unknown.items():
        print(f"t2i: line {line}: left out {describe_unknown(word, network.tokenizer)}", file=sys.stderr)
    print(f"t2i: model {network.bundle.name} {network.bundle.hash[:12]}, {network.description}", file=sys.stderr)
    try:
        with show_progress("generate", "img") as progress:
            report = generate_folder(network, items, folder, options, progress, tokenized)
    except KeyboardInterrupt:
        kept = (
            f"what is done is kept in {folder}, and the same command continues"
            if folder.exists()
            else "nothing was made"
        )
        raise StoppedError(f"stopped; {kept}") from None
    print(made_line(report.made, report.skipped, report.seconds, folder))
    if 0 < report.gridded < len(items) * n:
        print(f"grid.png shows the first {report.gridded} of {len(items) * n}")
