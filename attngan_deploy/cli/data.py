"""`t2i data`: from people's pictures and captions to training shards."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from attngan_deploy.cli import app, extra
from attngan_deploy.cli.options import example
from attngan_deploy.cli.typed import check_one
from attngan_deploy.system.progress import show_progress
from attngan_deploy.system.terminal import show

group = typer.Typer(help="Training data.", no_args_is_help=True)
app.add_typer(group, name="data")
Kind = StrEnum("Kind", ["cub", "folder", "csv"])


def parse_test_classes(text: str) -> int | float:
    """Parse `--test-classes`: a whole number of classes, or a share between 0 and 1."""
    try:
        share = float(text)
        if text.isdecimal():
            return int(text)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise typer.BadParameter(
            f"{text!r} is neither a whole number of classes nor a share such as 0.25", param_hint="--test-classes"
        )
    return share


@group.callback()
def data() -> None:
    """Training data."""


@group.command(
    cls=example("t2i data build CUB_200_2011 --captions text -o data"), context_settings={"allow_extra_args": True}
)
def build(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="CUB-200-2011 folder, folder of pictures, CSV, or COCO's captions.")],
    output: Annotated[Path, typer.Option("--out", "-o", help="Folder to make.")],
    kind: Annotated[Kind | None, typer.Option(help="What SOURCE is, when looking at it is not enough.")] = None,
    captions: Annotated[Path | None, typer.Option(help="Folder of CUB's caption files (text/).")] = None,
    split_file: Annotated[
        Path | None,
        typer.Option(
            help="Names of test classes or pictures, one a line or pickled, or of training ones in a file that is "
            "called so; or the folder of the published split; or CUB's train_test_split.txt."
        ),
    ] = None,
    test_classes: Annotated[
        str | None,
        typer.Option(
            metavar="N|SHARE", help="Classes for testing, e.g. 50 or 0.25 (the default unless a CSV says); 0 for none."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws the test classes.")] = 0,
    root: Annotated[Path | None, typer.Option(help="Folder outside the CSV's where its pictures may lie.")] = None,
    size: Annotated[int, typer.Option(min=16, max=1024, help="Side of the stored pictures, in pixels.")] = 152,
    quality: Annotated[int, typer.Option(min=1, max=100, help="WebP quality.")] = 80,
    min_count: Annotated[int, typer.Option(min=1, help="Leave rarer words out of the vocabulary.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier build at the output.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json.")] = False,
) -> None:
    """Make training shards, vocabulary and report from pictures and captions.

    A folder has name.txt beside each picture, a caption a line, or a metadata.jsonl or .csv, and sub-folders for
    classes; where all of it lies in train/ and test/, these are the split. A CSV has columns picture and caption, a
    row for each caption, and optionally class and split (train or test), which the pictures' folders say where it
    has no such columns. CUB-200-2011 pictures are cut to a square of 1.5 times the larger side of the bird's box,
    shifted and shrunk to fit into the picture; others to their centre square. What is skipped, and why, is listed
    in report.json.
    """
    check_one(context, "source")
    share = None if test_classes is None else parse_test_classes(test_classes)
    with extra("data"):
        from attngan_deploy.train.data.build import BuildOptions, build
        from attngan_deploy.train.data.split import SplitRule
    split = SplitRule(split_file, share, seed)
    options = BuildOptions(
        source,
        output,
        kind=kind.value if kind else None,
        captions=captions,
        root=root,
        split=split,
        size=size,
        quality=quality,
        min_count=min_count,
        force=force,
    )
    with show_progress("data build", "img") as progress:
        report = build(options, progress)
    show(json.dumps(report, indent=1) if as_json else _summary(report, output), lines=True)


def _summary(report: dict[str, Any], output: Path) -> str:
    train, test = report["train"]["classes"], report["test"]["classes"]
    lines = [f"{output}: split {report['split']}: {train} classes for training, {test} for testing"]
    for split in ("train", "test"):
        part = report[split]
        lines.append(f"  {split}: {part['pictures']} pictures, {part['captions']} captions, {part['classes']} classes")
    lines.append(f"  vocabulary: {report['vocabulary']['words']} words")
    if report["classes_in_both"]:
        lines.append(f"  {len(report['classes_in_both'])} classes are in both train and test")
    if report["skipped"]["count"]:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in report["skipped"]["reasons"].items())
        lines.append(f"  skipped {report['skipped']['count']}, listed in report.json: {reasons}")
    lines += [f"  note: {note} ({count})" for note, count in report["notes"].items()]
    return "\n".join(lines)
