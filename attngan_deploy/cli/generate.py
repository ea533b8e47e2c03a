"""`t2i generate`: captions to a folder of pictures."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attngan_deploy.cli import app
from attngan_deploy.cli.options import Threads, check_batch, example, typed_again
from attngan_deploy.cli.typed import check_captions
from attngan_deploy.system.filesystems import is_url
from attngan_deploy.system.terminal import at_terminal, show

if TYPE_CHECKING:
    from attngan_deploy.generate.generation import Report
    from attngan_deploy.generate.plan import Share
    from attngan_deploy.generate.run import Run
    from attngan_deploy.media.captions import Captions


Format = StrEnum("Format", ["png", "webp", "jpg", "tar"])
Runner = StrEnum("Runner", ["local", "ray"])


@app.command(cls=example("t2i generate captions.txt --n 4 --out birds"), context_settings={"allow_extra_args": True})
def generate(
    context: typer.Context,
    captions: Annotated[
        str | None,
        typer.Argument(
            help="A .txt, .csv, .tsv, .jsonl, .json or .parquet file, here or at a URL such as s3://..., a folder of "
            "pictures with their captions, or - for standard input."
        ),
    ] = None,
    out: Annotated[str, typer.Option("--out", "-o", help="Folder for the pictures; with --shard also a URL.")] = "out",
    caption: Annotated[list[str] | None, typer.Option(help="A caption, instead of a file; may be repeated.")] = None,
    column: Annotated[
        str | None,
        typer.Option(help="Column of a table or field of a JSON file. (default: caption, else text, or the only one)"),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Name or folder of a bundle: see t2i models. (default: the best that ships)")
    ] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Pictures of each caption.")] = 1,
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Same seed, same pictures.")] = 0,
    shared_noise: Annotated[
        bool, typer.Option("--shared-noise", help="Same noise for every caption, so that words alone differ.")
    ] = False,
    truncation: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Scale of the noise z, whose numbers beyond 2 are drawn anew: less is safer and more alike; 1 leaves "
            "the noise as it is. (default: the model's)",
        ),
    ] = None,
    best_of: Annotated[
        int,
        typer.Option(min=1, max=64, help="Make so many candidates of each picture, keep the one most like a bird."),
    ] = 1,
    file_format: Annotated[
        Format | None,
        typer.Option(
            "--format", help="png and webp are lossless; tar holds 1000 png a shard. (default: png; in parts tar)"
        ),
    ] = None,
    grid: Annotated[
        bool, typer.Option("--grid", help="Also write grid.png: a row a caption where --n is 2 or more.")
    ] = False,
    attention: Annotated[
        bool, typer.Option("--attention", help="Also write what each word looked at, into attention/.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="An unknown word is an error, not a warning.")] = False,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, callback=check_batch, help="Pictures made together; changes speed, not pictures."),
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
            help="cpu; cuda, or cuda:1 and so on (onnxruntime, tensorrt, tensorrt-rtx); gpu or npu (openvino); "
            "tensorrt or tensorrt-rtx as providers of onnxruntime; or auto."
        ),
    ] = "auto",
    precision: Annotated[
        str, typer.Option(help="fp32, fp16, bf16 or int8, of the generator; auto is the fastest that is good enough.")
    ] = "auto",
    threads: Threads = None,
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
        ),
    ] = None,
    engine: Annotated[
        Runner,
        typer.Option(
            "--engine", is_eager=True, help="local is this process; ray is a Ray cluster, or all of this machine."
        ),
    ] = Runner.local,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="With --engine ray: engines at once. (default: one a GPU or core)"),
    ] = None,
    shard_size: Annotated[
        int,
        typer.Option(min=1, max=1_000_000, help="With --shard or --engine ray: pictures that are made as a whole."),
    ] = 1000,
) -> None:
    """Make pictures of captions. A rerun makes only what is missing."""
    check_captions(context, captions, caption or [])
    on_ray = engine is Runner.ray
    in_parts = on_ray or shard is not None
    if in_parts and (captions is None or grid or attention):
        raise typer.BadParameter(
            "parts of a run are made of a captions file, without --grid and --attention",
            param_hint="--shard, --engine ray",
        )
    from attngan_deploy.bundles.bundle import DEFAULT_MODEL, open_bundle
    from attngan_deploy.engines.request import EngineRequest
    from attngan_deploy.errors import OutputError, T2IError
    from attngan_deploy.generate.plan import Share
    from attngan_deploy.generate.run import Run
    from attngan_deploy.system.files import ANOTHER_FOLDER

    if on_ray and shard is not None:
        raise T2IError(
            "--shard and --engine ray are two ways to do the same",
            expected="one of them",
            next_step="leave one of them out",
        )
    if not on_ray and workers is not None:
        raise T2IError(
            "--workers goes with --engine ray", next_step="--shard i/n in several processes, or --engine ray"
        )
    share = Share.parse(shard or "0/1")
    with _opened(captions, column, caption or [], in_parts) as source:
        run = Run.of(
            open_bundle(DEFAULT_MODEL if model is None else model),
            source,
            seed,
            shared_noise,
            truncation,
            file_format=(file_format or (Format.tar if in_parts else Format.png)).value,
            samples=n,
            shard_size=shard_size if in_parts else None,
            engine=EngineRequest(backend, device, precision, threads, allow_fallback),
            batch_size=batch_size,
            strict=strict,
            grid=grid,
            attention=attention,
            best_of=best_of,
        )
        try:
            report = _generate(run, out, share, on_ray, workers)
        except OutputError as error:
            if error.next_step != ANOTHER_FOLDER:
                raise
            raise error.advising(f"{ANOTHER_FOLDER}: {typed_again(context, out=_free(out))}") from error
    speed = f" at {report.made / report.seconds:.1f} img/s" if report.made else ""
    skipped = f", skipped {report.skipped} that were there" if report.skipped else ""
    show(f"made {report.made} {'picture' if report.made == 1 else 'pictures'}{speed}{skipped}: {out}")
    if in_parts:
        show(f"{report.done} of {report.shards} shards of the run are there")
    if 0 < report.gridded < run.pictures:
        show(f"grid.png shows the first {report.gridded} of {run.pictures}")
    if at_terminal():
        from attngan_deploy.generate.what_next import what_next

        others = typed_again(context, seed=(seed + 1) % 2**64, out=_free(out))
        for line in what_next(out, others, report.engine):
            show(f"t2i: {line}", error=True)


@contextmanager
def _opened(source: str | None, column: str | None, texts: list[str], in_parts: bool) -> "Iterator[Captions]":
    """Yield the captions of a file, or those that were typed."""
    from attngan_deploy.media.captions import CaptionFile, CaptionList, from_texts, open_captions

    if source is None:
        yield CaptionList(from_texts(texts))
    elif in_parts:
        yield CaptionFile.measure(_everywhere(source), column)
    else:
        with open_captions(source, column) as file:
            yield file


def _generate(run: "Run", out: str, share: "Share", on_ray: bool, workers: int | None) -> "Report":
    """Make pictures, with progress; says what is kept where they are stopped."""
    from attngan_deploy.errors import StoppedError
    from attngan_deploy.generate.generation import check_ray, generate, say_to_person
    from attngan_deploy.system.allocator import return_freed_memory
    from attngan_deploy.system.progress import show_progress

    return_freed_memory()
    if run.shard_size is not None and not share.of(run.plan.shards):
        shards = "1 shard" if run.plan.shards == 1 else f"{run.plan.shards} shards"
        say_to_person(
            f"part {share} has nothing to make: all {run.pictures} pictures are {shards}; "
            "a smaller --shard-size makes more"
        )
    try:
        with show_progress("generate", "img") as progress:
            if on_ray:
                check_ray()
                from attngan_deploy.generate.ray_engine import make_on_ray

                return make_on_ray(run, _everywhere(out), workers, progress, say_to_person)
            return generate(run, out, share, progress)
    except KeyboardInterrupt:
        kept = "what is done" if run.shard_size is None else "whole shards"
        kept = f"{kept} {'is' if run.shard_size is None else 'are'} kept in {out}, and the same command continues"
        raise StoppedError(f"stopped; {kept if is_url(out) or Path(out).exists() else 'nothing was made'}") from None


def _free(out: str) -> str:
    """A name like that of a folder, at which nothing is."""
    names = (f"{out.rstrip('/')}-{number}" for number in count(2))
    return next(name for name in names if is_url(name) or not os.path.lexists(name))


def _everywhere(path: str) -> str:
    """A path that is the same in whatever folder a worker runs; standard input and URLs stay."""
    return path if path == "-" or is_url(path) else str(Path(path).absolute())
