"""`t2i score`: how good pictures are, and by which judge."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attngan_deploy.cli import app

if TYPE_CHECKING:
    from attngan_deploy.score.passport import Passport, PictureFacts

LISTED = 10  # lines of skipped or other files that are printed
WIDTH = 140  # where standard output is no terminal


@app.command()
def score(
    path: Annotated[Path, typer.Argument(help="Folder of pictures, or a .tar of them.", show_default=False)],
    judge: Annotated[str, typer.Option(help="Name or folder of a judge.")] = "judge",
    metric: Annotated[
        str, typer.Option(help="is, fid, kid: one, or several with commas. fid and kid need --reference.")
    ] = "is",
    reference: Annotated[
        Path | None, typer.Option(help="Real pictures for fid and kid: a folder or a .tar.", show_default=False)
    ] = None,
    splits: Annotated[int, typer.Option(min=1, help="Splits of the Inception Score.")] = 10,
    crop: Annotated[
        int | None, typer.Option(min=1, help="Score the centre of this many pixels.", show_default=False)
    ] = None,
    order: Annotated[
        str, typer.Option(help="Order in which splits are cut: manifest, name or stored; auto takes what is there.")
    ] = "auto",
    shuffle: Annotated[
        bool, typer.Option(help="Shuffle that order: pictures sorted by class score far too low.")
    ] = True,
    shuffle_seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of the shuffle; the default is torch-fidelity's.")
    ] = 2020,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures judged together.")] = 64,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. [default: one a core]")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="A broken picture is an error.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the passport as JSON.")] = False,
) -> None:
    """Score pictures, with a passport that says how."""
    from attngan_deploy.progress import show_progress
    from attngan_deploy.score.judge import Judge
    from attngan_deploy.score.measure import ScoreOptions, measure_and_score

    metrics = tuple(dict.fromkeys(name.strip().lower() for name in metric.split(",") if name.strip()))
    seed = shuffle_seed if shuffle else None
    options = ScoreOptions(metrics, splits, crop, order, seed, batch_size, threads, strict)
    with show_progress("score", "img") as progress:
        passport = measure_and_score(path, Judge.load(judge, threads=threads), options, reference, progress)
    if as_json:
        print(json.dumps(passport.to_json(), indent=2))
    else:
        _print(passport)
    for warning in passport.warnings:
        print(f"t2i: warning: {warning}", file=sys.stderr)


def _print(passport: "Passport") -> None:
    from rich.console import Console
    from rich.table import Table

    from attngan_deploy.score.passport import NOT_COMPARABLE

    table = Table(show_header=False, title=f"Score of {passport.pictures.source}", title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _score_rows(passport):
        table.add_row(name, value)
    table.add_section()
    judge = passport.judge
    accuracy = "" if judge.accuracy is None else f", right on {judge.accuracy:.1%} of held-out real pictures"
    table.add_row("judge", f"{judge.name} {judge.hash[:12]}, {judge.classes} classes, {judge.size} px{accuracy}")
    table.add_row("engine", judge.engine)
    table.add_section()
    for name, value in _picture_rows(passport.pictures):
        table.add_row(name, value)
    if passport.reference is not None:
        table.add_section()
        for name, value in [("reference", passport.reference.source), *_picture_rows(passport.reference)]:
            table.add_row(name, value)
    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    console.print(table)
    console.print(NOT_COMPARABLE)


def _score_rows(passport: "Passport") -> list[tuple[str, str]]:
    rows = []
    if (facts := passport.scores.get("inception_score")) is not None:
        rows.append(("Inception Score", f"{facts['mean']:.3f} +- {facts['deviation']:.3f}"))
        rows.append(("splits", f"{facts['splits']} of {_range(facts['pictures_per_split'])} pictures, ddof 0"))
        rows.append(("per split", " ".join(f"{value:.3f}" for value in facts["per_split"])))
        rows.append(("as one split", f"{facts['one_split']:.3f}"))
    if (facts := passport.scores.get("frechet_distance")) is not None:
        rows.append(("Frechet distance", f"{facts['value']:.3f}, of this judge's features"))
    if (facts := passport.scores.get("kernel_distance")) is not None:
        subsets = f"{facts['subsets']} subsets of {facts['subset_size']}, seed {facts['seed']}"
        rows.append(("kernel distance", f"{facts['mean']:.5f} +- {facts['deviation']:.5f}, {subsets}"))
    return rows


def _picture_rows(pictures: "PictureFacts") -> list[tuple[str, str]]:
    shuffled = ", kept" if pictures.shuffle_seed is None else f", then shuffled with seed {pictures.shuffle_seed}"
    formats = ", ".join(f"{count} {name}" for name, count in sorted(pictures.formats.items()))
    rows = [
        ("pictures", f"{pictures.used} used of {pictures.found} found: {formats}"),
        ("size", f"{pictures.width} x {pictures.height} px"),
        ("centre crop", "none" if pictures.crop is None else f"{pictures.crop} px"),
        ("resize", pictures.resize),
        ("order", f"{pictures.order}{shuffled}"),
    ]
    rows += _listed("skipped", pictures.skipped)
    return rows + _listed("other files", pictures.other_files)


def _listed(what: str, lines: list[str]) -> list[tuple[str, str]]:
    if not lines:
        return []
    more = [f"and {len(lines) - LISTED} more (all with --json)"] if len(lines) > LISTED else []
    return [(what, "\n".join([str(len(lines)), *lines[:LISTED], *more]))]


def _range(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"
