"""`t2i report`: the paper's table and figures, from the models that are here."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer

from attngan_deploy.cli import app
from attngan_deploy.cli.options import Threads, check_scored, example
from attngan_deploy.system.terminal import show


@app.command(cls=example("t2i report --data data --out report --quick"))
def report(
    data: Annotated[
        Path, typer.Option(help="Folder with test.tar, whose captions are drawn; train.tar is scored beside it.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for report.html, report.md and passports.json.")],
    models: Annotated[
        list[str] | None,
        typer.Option("--models", help="Name or folder of a model; may be repeated. (default: base, att1 and att2)"),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="3,000 pictures of each model instead of 30,000.")] = False,
    n: Annotated[int | None, typer.Option("--n", min=1, callback=check_scored, help="Pictures of each model.")] = None,
    splits: Annotated[
        int | None,
        typer.Option(min=1, help="Splits of the Inception Score. (default: 10, or as there are pictures for)"),
    ] = None,
    crop: Annotated[int, typer.Option(min=1, help="Side of the centre crop of the real pictures.")] = 128,
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Same seed, same report.")] = 0,
    backend: Annotated[str, typer.Option(help="Engine of the models, as for t2i generate.")] = "onnxruntime",
    device: Annotated[str, typer.Option(help="Where it runs.")] = "cpu",
    precision: Annotated[str, typer.Option(help="Its precision.")] = "fp32",
    matcher: Annotated[str, typer.Option(help="Matcher for R-precision, or none.")] = "matcher",
    keep: Annotated[
        bool, typer.Option("--record", help="Also write the scores into each model's bundle.json.")
    ] = False,
    threads: Threads = None,
) -> None:
    """Make the paper's Table 2 and Figures 6 to 9 from models that are here, with real pictures by the same judges.

    The same models, data, seed and engine give the same files again.
    """
    from attngan_deploy.engines.request import EngineRequest
    from attngan_deploy.score.report.collect import COUNT, QUICK, ReportOptions, collect, record
    from attngan_deploy.score.report.page import markdown, page
    from attngan_deploy.system.files import check_writable, inside, make_folder, write_atomically
    from attngan_deploy.system.lock import writing
    from attngan_deploy.system.progress import show_progress

    count = n if n is not None else QUICK if quick else COUNT
    chosen = None if matcher == "none" else matcher
    options = ReportOptions(count, splits, crop, seed, EngineRequest(backend, device, precision, threads), chosen)
    make_folder(out)
    check_writable(inside(out, "report.html"))
    names = models or ["base", "att1", "att2"]

    def show_step(step: str) -> AbstractContextManager[Callable[[int, int], None]]:
        show(f"t2i: report, {step}", error=True)
        return show_progress(f"report, {step}", "img")

    with writing(out):
        results = collect(names, data, options, show_step)
        passports = {
            row.name: [passport.to_json() for passport in row.passports] for row in [*results.models, *results.real]
        }
        text = markdown(results)
        write_atomically(inside(out, "report.html"), page(results))
        write_atomically(inside(out, "report.md"), text)
        write_atomically(inside(out, "passports.json"), json.dumps(passports, indent=1) + "\n")
        if keep:
            record(names, results)
    show(text, lines=True)
    show(f"t2i: {out / 'report.html'}", error=True)
