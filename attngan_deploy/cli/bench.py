"""`t2i bench`: engines side by side."""

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attngan_deploy.cli import app
from attngan_deploy.cli.options import Backends, Devices, Model, Precisions, Threads, check_memory, example
from attngan_deploy.system.terminal import printable, show

if TYPE_CHECKING:
    from attngan_deploy.generate.bench.rounds import BenchReport

WIDTH = 150  # where standard output is no terminal


def parse_batches(text: str) -> tuple[int, ...]:
    """Parse `--batch`: whole numbers with commas, e.g. "1,16"."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < 5 and int(part) for part in parts):
        raise typer.BadParameter(f"{text!r} is not a list of numbers from 1 to 9999 such as 1,16", param_hint="--batch")
    check_memory("--batch", max(map(int, parts)))
    return tuple(sorted({int(part) for part in parts}))


@app.command(cls=example("t2i bench base --batch 1,16"))
def bench(
    model: Model = None,
    backend: Backends = "all",
    device: Devices = "auto",
    precision: Precisions = "auto",
    batch: Annotated[str, typer.Option(metavar="N,N", help="Pictures made together, several with commas.")] = "1,16",
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Turns of each engine at each batch size.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.01, max=600, help="Length of a turn, at least.")] = 0.5,
    threads: Threads = None,
    html: Annotated[
        Path | None, typer.Option(help="Also write a page with the pictures that each engine made.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure engines side by side, in one run.

    Each engine has a process of its own, and in each round every engine has its turn, so that whatever else the
    machine does disturbs all of them alike. Where one of --backend, --device and --precision names several, auto in
    the others means all.
    """
    batches = parse_batches(batch)
    from attngan_deploy.bundles.bundle import DEFAULT_MODEL, open_bundle
    from attngan_deploy.engines.request import parse_requests
    from attngan_deploy.generate.bench.page import page
    from attngan_deploy.generate.bench.rounds import Schedule, run_rounds
    from attngan_deploy.system.files import check_writable, write_atomically
    from attngan_deploy.system.lock import writing
    from attngan_deploy.system.progress import show_progress

    with ExitStack() as held:
        if html is not None:
            check_writable(html)
            held.enter_context(writing(html))
        requests = parse_requests(backend, device, precision)
        bundle = open_bundle(DEFAULT_MODEL if model is None else model)
        schedule = Schedule(batches, rounds, seconds, threads)

        def tell(line: str) -> None:
            show(f"t2i: {line}", error=True)

        with show_progress("bench", "turns") as progress:
            report = run_rounds(bundle, requests, schedule, tell, progress)
        if html is not None:
            write_atomically(html, page(report))
    if as_json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        _print(report)
    if not any(row.speeds for row in report.rows):
        raise typer.Exit(1)


def _print(report: "BenchReport") -> None:
    from rich.console import Console
    from rich.table import Table

    from attngan_deploy.engines.request import refusal_lines
    from attngan_deploy.generate.bench.page import HEADINGS, TEXT_COLUMNS, cells, notes

    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    console.print(printable(f"{report.bundle.name} {report.bundle.hash[:12]} on {report.machine}"))
    if report.rows:
        table = Table()
        for place, heading in enumerate(HEADINGS):
            table.add_column(heading, justify="left" if place < TEXT_COLUMNS else "right", overflow="fold")
        for row, after in zip(report.rows, [*report.rows[1:], report.rows[-1]], strict=True):
            table.add_row(*map(printable, cells(row)), end_section=after.batch != row.batch)
        console.print(table)
        for line in notes(report):
            console.print(printable(line))
    for line in refusal_lines(report.refused, [row.request for row in report.rows]):
        console.print(printable(line))
