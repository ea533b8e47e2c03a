"""`t2i export`: checkpoint to verified bundle."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from attngan_deploy.cli import app, load_extra
from attngan_deploy.errors import CheckpointError, T2IError

RUNS, MODELS = Path("runs"), Path("models")
TARGETS = ("onnx",)
PRECISIONS = ("fp32",)


class Variant(StrEnum):
    """The generator's shape."""

    attngan = "attngan"
    base = "base"
    att1 = "att1"
    att2 = "att2"


class Weights(StrEnum):
    """How weights are stored."""

    fp16 = "fp16"
    fp32 = "fp32"


@app.command()
def export(
    variant: Annotated[Variant, typer.Option(help="What the checkpoint is a model of.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="Run or checkpoint folder; runs/VARIANT unless given.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Bundle folder to make; models/VARIANT unless given.")
    ] = None,
    weights: Annotated[
        Weights, typer.Option(help="How weights are stored; they are computed with in fp32.")
    ] = Weights.fp16,
    precision: Annotated[str, typer.Option(help="Precision of the graphs: fp32.")] = "fp32",
    target: Annotated[str, typer.Option(help="What to make: onnx.")] = "onnx",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Make a bundle from a trained checkpoint, and compare it with torch.

    The bundle's graphs must make what torch makes, at several batch sizes and caption lengths; when they don't,
    no bundle is written.
    """
    _check("--target", target, TARGETS)
    _check("--precision", precision, PRECISIONS)
    source = checkpoint or _run_of(variant)
    folder = output or MODELS / variant
    writer = load_extra("attngan_deploy.export.bundle_writer", "train")
    rewrite = load_extra("attngan_deploy.export.rewrite", "train")
    print(f"exporting {source} to {folder}", file=sys.stderr)
    writer.export_bundle(source, folder, rewrite.GraphOptions(weights=weights.value), variant=variant.value)
    _print_result(folder, as_json)


def _check(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise T2IError(f"{option} {value} can't be made yet", expected=" or ".join(known))


def _run_of(variant: str) -> Path:
    folder = RUNS / variant
    if not folder.is_dir():
        raise CheckpointError(
            f"there is no run at {folder}",
            expected="a run folder, or --checkpoint",
            next_step=f"t2i train gan --variant {variant}",
        )
    print(f"no --checkpoint: using {folder}", file=sys.stderr)
    return folder


def _print_result(folder: Path, as_json: bool) -> None:
    from attngan_deploy.bundle import read_manifest

    bundle = read_manifest(folder)
    parity = bundle.manifest["parity"]
    if as_json:
        facts = {"bundle": str(folder), "hash": bundle.hash, "bytes": bundle.bytes, "parity": parity}
        print(json.dumps(facts, indent=2))
        return
    _print_parity(parity)
    for file, entry in bundle.manifest["files"].items():
        print(f"{file:<20} {entry['bytes'] / 1e6:8.2f} MB")
    print(f"{folder}  {bundle.bytes / 1e6:.2f} MB  {bundle.hash[:12]}")


def _print_parity(parity: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("output", "worst difference", "tolerance", "pixel values that differ")
    for name, output in parity["outputs"].items():
        pixels = "" if output["pixels"] is None else f"{output['pixels_differ']} of {output['pixels']}"
        table.add_row(name, f"{output['worst']:.2e}", f"{output['tolerance']:.0e}", pixels)
    print(f"{parity['engine']} against {parity['reference']}, the same folded and rounded weights:")
    Console().print(table)
    stored = parity["stored_weights"]
    psnr = "no difference" if stored["psnr_db"] is None else f"{stored['psnr_db']} dB"
    print(
        f"stored weights against trained ones: {psnr}, at most {stored['worst_level']} of 255 levels; "
        f"golden pictures: at most {parity['golden_worst_level']}"
    )
