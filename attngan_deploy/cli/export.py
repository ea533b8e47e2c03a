"""`t2i export`: checkpoint to verified bundle, and bundles to other precisions and places to run."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from attngan_deploy.cli import app, load_extra
from attngan_deploy.errors import BundleError, CheckpointError

RUNS, MODELS = Path("runs"), Path("models")


class Variant(StrEnum):
    """The generator's shape."""

    attngan = "attngan"
    base = "base"
    att1 = "att1"
    att2 = "att2"


class Weights(StrEnum):
    """How weights are stored."""

    mixed = "mixed"
    fp16 = "fp16"
    fp32 = "fp32"


@app.command()
def export(
    variant: Annotated[Variant | None, typer.Option(help="What the checkpoint is a model of.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Run or checkpoint folder; runs/VARIANT unless given.")
    ] = None,
    bundle: Annotated[
        str | None, typer.Option(help="Name or folder of a finished bundle, instead of a checkpoint; needs no torch.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Bundle folder to make; models/VARIANT or --bundle's own unless given."),
    ] = None,
    weights: Annotated[
        Weights,
        typer.Option(
            help="How weights are stored: mixed is 8 bits for large ones, fp16 for others. All compute in fp32."
        ),
    ] = Weights.mixed,
    precision: Annotated[
        str, typer.Option(help="Precisions of the generator, separated by commas: fp32, fp16, bf16, int8.")
    ] = "fp32",
    captions: Annotated[
        Path | None, typer.Option(help="Captions file to calibrate and measure precisions with; built-in ones if none.")
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            help="What to make, separated by commas: onnx (the bundle), tensorrt, tensorrt-rtx, openvino, triton, edge."
        ),
    ] = "onnx",
    target_output: Annotated[
        Path | None,
        typer.Option(help="Where the target goes; engines to the cache, others beside the bundle, unless given."),
    ] = None,
    device: Annotated[
        str, typer.Option(help="What engines are built for: auto, or e.g. sm86,sm89 for tensorrt-rtx.")
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Make a bundle from a trained checkpoint, compared with torch; or add to a finished one.

    The bundle's graphs must make what torch makes, at several batch sizes and caption lengths, and graphs of other
    precisions what the fp32 graph makes, to within their floors; when they don't, no bundle is written.
    """
    precisions, targets = _listed(precision), _listed(target)
    if (variant is None) == (bundle is None):
        raise typer.BadParameter("give --variant to export a checkpoint, or --bundle to add to a finished bundle")
    if bundle is not None and checkpoint is not None:
        raise typer.BadParameter("--checkpoint and --bundle exclude each other")
    if not precisions or not targets:
        raise typer.BadParameter("--precision and --target each name at least one")
    if bundle is not None and output is None and (precisions, targets) == (["fp32"], ["onnx"]):
        raise typer.BadParameter("nothing to make: a bundle has fp32 graphs; add --precision, --target or -o")
    making = load_extra("attngan_deploy.export.targets", "export")
    writer = load_extra("attngan_deploy.export.precision_writer", "export")
    writer.check_precisions(precisions)
    making.check_targets(targets, precisions, target_output, _listed(device))
    before = _precisions_at(output or (None if variant is None else MODELS / variant))
    if variant is not None:
        folder = _from_checkpoint(variant, checkpoint, output, weights, precisions, captions)
    else:
        folder = writer.extend_bundle(bundle, precisions, output, captions, anew="onnx" in targets)
    from attngan_deploy.bundle import open_bundle

    opened = open_bundle(folder)
    if gone := [name for name in before if name not in opened.precisions("generator")]:
        _say_what_is_gone(folder, gone)
    products = []
    for name in targets:
        products += making.build_target(opened, name, precisions, target_output, _listed(device))
    _print_result(opened, products, as_json)


def _listed(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _from_checkpoint(
    variant: str,
    checkpoint: Path | None,
    output: Path | None,
    weights: Weights,
    precisions: list[str],
    captions: Path | None,
) -> Path:
    source, folder = checkpoint or _run_of(variant), output or MODELS / variant
    writer = load_extra("attngan_deploy.export.bundle_writer", "train")
    rewrite = load_extra("attngan_deploy.export.rewrite", "train")
    print(f"exporting {source} to {folder}", file=sys.stderr)
    options = rewrite.GraphOptions(weights=weights.value)
    made: Path = writer.export_bundle(
        source, folder, options, variant=str(variant), precisions=precisions, captions=captions
    )
    return made


def _precisions_at(place: Path | None) -> tuple[str, ...]:
    """Precisions of the bundle that is replaced, if there is one."""
    from attngan_deploy.bundle import TEXT_TO_IMAGE, read_manifest

    try:
        there = None if place is None else read_manifest(place)
    except BundleError:
        return ()
    return there.precisions("generator") if there and there.kind == TEXT_TO_IMAGE else ()


def _say_what_is_gone(folder: Path, precisions: list[str]) -> None:
    path = f"./{folder}" if str(folder) == folder.name else folder  # a lone name would mean an installed model first
    names = ",".join(precisions)
    print(
        f"{folder} had {names} before and has not now; to add: t2i export --bundle {path} --precision {names}",
        file=sys.stderr,
    )


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


def _print_result(bundle: Any, products: list[Any], as_json: bool) -> None:
    parity, stored = bundle.manifest.get("parity", {}), bundle.graph("generator").get("precisions", {})
    if as_json:
        facts = {
            "bundle": str(bundle.folder),
            "hash": bundle.hash,
            "bytes": bundle.bytes,
            "parity": parity,
            "precisions": stored,
            "products": [product.to_json() for product in products],
        }
        print(json.dumps(facts, indent=2))
        return
    if parity:
        _print_parity(parity)
    _print_files(bundle, stored, products)
    print(f"{bundle.folder}  {bundle.bytes / 1e6:.2f} MB  {bundle.hash[:12]}")


def _print_files(bundle: Any, stored: dict[str, Any], products: list[Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    graphs = {bundle.graph(key)["file"]: ("fp32", None) for key in bundle.manifest["graphs"]}
    graphs |= {entry["file"]: (precision, entry) for precision, entry in stored.items()}
    table = Table("made", "in", "MB", "PSNR", "worst pixel", "kept in fp32")
    for column in table.columns[:-1]:
        column.no_wrap = True
    for file, entry in bundle.manifest["files"].items():
        precision, facts = graphs.get(file, ("", None))
        table.add_row(file, precision, f"{entry['bytes'] / 1e6:.2f}", *(_cost(facts) if facts else []))
    for made in products:
        table.add_row(f"{made.target}: {made.what}", made.precision, f"{made.bytes / 1e6:.2f}")
    Console().print(table)
    for made in products:
        took = "" if made.seconds is None else f"  built in {made.seconds:.1f} s"
        print(f"{made.path}{took}")


def _cost(entry: dict[str, Any]) -> list[str]:
    parity = entry["parity"]
    psnr = "equal" if parity["psnr_db"] is None else f"{parity['psnr_db']} dB"
    return [psnr, f"{parity['worst_level']} of 255", ", ".join(entry["kept"]) or "none"]


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
