"""`t2i score`: how good pictures are, and by which judge."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from attngan_deploy.cli import app, load_extra
from attngan_deploy.cli.options import Command, Threads, check_batch, check_scored, listed
from attngan_deploy.cli.typed import check_one


class _ScoreCommand(Command):
    """`t2i score`, whose help lists the metrics there are; they are imported when it is asked for."""

    example = "t2i score birds --metric is"

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        from attngan_deploy.score.metrics.registry import describe_metrics

        options: list[Any] = self.params
        next(option for option in options if option.name == "metric").help = describe_metrics()
        super().format_help(ctx, formatter)


@app.command(cls=_ScoreCommand, context_settings={"allow_extra_args": True})
def score(
    context: typer.Context,
    path: Annotated[Path | None, typer.Argument(help="Folder of pictures, or a .tar of them.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Instead of PATH: score what this model makes, without files.")
    ] = None,
    captions: Annotated[
        Path | None, typer.Option(help="Captions for --model: .txt, .csv, .jsonl, or a shard of t2i data.")
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Their column or field, as for t2i generate. (default: caption, or the only one)")
    ] = None,
    n: Annotated[
        int | None,
        typer.Option(
            "--n", min=1, callback=check_scored, help="Pictures that --model makes. (default: one of each caption)"
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**64 - 1, help="Seed of --model's pictures. (default: 0)")
    ] = None,
    backend: Annotated[str | None, typer.Option(help="Engine of --model, as for t2i generate. (default: auto)")] = None,
    device: Annotated[str | None, typer.Option(help="Where it runs, as for t2i generate. (default: auto)")] = None,
    precision: Annotated[str | None, typer.Option(help="Its precision, as for t2i generate. (default: auto)")] = None,
    judge: Annotated[
        str | None, typer.Option(help="Name or folder of a judge. (default: judge; judge200 with r-precision)")
    ] = None,
    matcher: Annotated[str, typer.Option(help="Name or folder of the encoder that r-precision asks.")] = "matcher",
    metric: Annotated[str, typer.Option(help="Names of metrics, with commas.")] = "is",
    reference: Annotated[
        Path | None,
        typer.Option(help="Real pictures for fid and kid: a folder or a .tar; for fid also an .npz of mu and sigma."),
    ] = None,
    splits: Annotated[
        int | None,
        typer.Option(min=1, help="Splits of the Inception Score. (default: 10, or as there are pictures for)"),
    ] = None,
    crop: Annotated[int | None, typer.Option(min=1, help="Score the centre of this many pixels.")] = None,
    order: Annotated[
        str, typer.Option(help="Order in which splits are cut: manifest, name or stored; auto takes what is there.")
    ] = "auto",
    shuffle: Annotated[
        bool, typer.Option(help="Shuffle that order: pictures sorted by class score far too low.")
    ] = True,
    shuffle_seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of the shuffle; the default is torch-fidelity's.")
    ] = 2020,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, callback=check_batch, help="Pictures made or judged together; changes speed and memory only."
        ),
    ] = None,
    threads: Threads = None,
    strict: Annotated[bool, typer.Option("--strict", help="A broken picture is an error.")] = False,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="BACKEND[:PRECISION]",
            help="Judge --model's engine by another one: same captions, three seeds, pass or fail.",
        ),
    ] = None,
    against_torch: Annotated[
        Path | None, typer.Option(metavar="CHECKPOINT", help="The same, by torch and a checkpoint or run.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="A.json B.json", help="Compare two passports instead.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--out", "-o", help="Also write the JSON to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the passport as JSON.")] = False,
) -> None:
    """Score pictures, or a model straight away, with a passport that says how."""
    check_one(context, "path")
    from attngan_deploy.score.outputs import BATCH_SIZE, ScoreOptions
    from attngan_deploy.score.scoring import ScoreRequest, answer
    from attngan_deploy.score.table import print_answer
    from attngan_deploy.system.files import check_writable, write_atomically
    from attngan_deploy.system.lock import writing

    metrics, seed_of_order = tuple(listed(metric.lower())), shuffle_seed if shuffle else None
    options = ScoreOptions(metrics, splits, crop, order, seed_of_order, batch_size or BATCH_SIZE, threads, strict)
    making = (model, captions, column, n, seed, backend, device, precision, batch_size)
    request = ScoreRequest(options, path, *making, judge, matcher, reference, against, against_torch, compare)
    request.check()
    if output is not None:
        check_writable(output)
    torch_room = "attngan_deploy.export.parity.torch_maker"
    with nullcontext() if output is None else writing(output):
        found = answer(request, lambda path: load_extra(torch_room, "train").torch_maker(path))
        if output is not None:
            write_atomically(output, json.dumps(found.to_json(), indent=2) + "\n")
    if not print_answer(found, as_json):
        raise typer.Exit(1)
