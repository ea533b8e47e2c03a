"""`t2i export`: checkpoint to verified bundle, and bundles to other precisions and places to run."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attngan_deploy.cli import app, load_extra
from attngan_deploy.cli.options import Force, example, listed
from attngan_deploy.errors import BundleError, CheckpointError, ParityError
from attngan_deploy.system.terminal import printable, show

if TYPE_CHECKING:
    from attngan_deploy.bundles.bundle import Bundle
    from attngan_deploy.bundles.manifest import Parity, StoredPrecision

RUNS, MODELS = Path("runs"), Path("models")
Variant = StrEnum("Variant", ["attngan", "base", "att1", "att2"])
Weights = StrEnum("Weights", ["mixed", "fp16", "fp32"])


@app.command(cls=example("t2i export --variant base --checkpoint runs/base -o models/base"))
def export(
    variant: Annotated[Variant | None, typer.Option(help="What the checkpoint is a model of.")] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Run or checkpoint folder; runs/VARIANT, or else the bundle that ships, unless given."),
    ] = None,
    bundle: Annotated[
        str | None, typer.Option(help="Name or folder of a finished bundle, instead of a checkpoint; needs no torch.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Bundle folder to make; models/VARIANT or --bundle's own unless given."),
    ] = None,
    weights: Annotated[
        Weights | None,
        typer.Option(
            help="How a checkpoint's weights are stored: mixed, the default, is 8 bits for large ones, fp16 for "
            "others. All compute in fp32."
        ),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="Precisions of the generator, separated by commas: fp32, fp16, bf16, int8.")
    ] = "fp32",
    captions: Annotated[
        Path | None, typer.Option(help="Captions file to calibrate and measure precisions with; built-in ones if none.")
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            help="What to make, separated by commas: onnx (the bundle), tensorrt, tensorrt-rtx, openvino (compiled "
            "for other programs that call import_model; --backend openvino needs none), triton, edge."
        ),
    ] = "onnx",
    target_output: Annotated[
        Path | None,
        typer.Option(
            "--target-out",
            help="Where the target goes; TensorRT's to the cache, others beside the bundle, unless given.",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="What engines are built for: auto, or e.g. sm86,sm89 for tensorrt-rtx.")
    ] = "auto",
    force: Force = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Make a bundle from a trained checkpoint, compared with torch; or add to a finished one.

    The bundle's graphs must make what torch makes, at several batch sizes and caption lengths, and graphs of other
    precisions what the fp32 graph makes, to within their floors; when they don't, no bundle is written.
    """
    precisions, targets = listed(precision), listed(target)
    if (variant is None) == (bundle is None):
        raise typer.BadParameter("give --variant to export a checkpoint, or --bundle to add to a finished bundle")
    of_checkpoints = {"--checkpoint": checkpoint, "--weights": weights}
    if bundle is not None and (unused := [name for name, value in of_checkpoints.items() if value is not None]):
        raise typer.BadParameter(f"{' and '.join(unused)}: of no use with --bundle, whose weights stay as they are")
    if not precisions or not targets:
        raise typer.BadParameter("--precision and --target each name at least one")
    if bundle is not None and output is None and (precisions, targets) == (["fp32"], ["onnx"]):
        raise typer.BadParameter("nothing to make: a bundle has fp32 graphs; add --precision, --target or -o")
    if captions is not None and precisions == ["fp32"]:
        raise typer.BadParameter("--captions calibrates and measures precisions other than fp32: add --precision")
    making = load_extra("attngan_deploy.export.targets.targets", "export")
    if {*precisions} != {"fp32"}:
        writer = load_extra("attngan_deploy.export.precision.writer", "export")
        writer.check_precisions(precisions)
    making.check_targets(targets, precisions, target_output, listed(device))
    from attngan_deploy.bundles.bundle import bundle_folders, copy_bundle, open_bundle

    is_untrained = variant is not None and checkpoint is None and not _has_run(RUNS / variant)
    if variant is not None and is_untrained and (ships := bundle_folders().get(variant)):
        output = _place_of_shipped(variant, ships, output, weights, precisions)
        variant, bundle = None, str(ships)
    before = _precisions_at(output or (None if variant is None else MODELS / variant))
    if variant is not None:
        new = ["fp32", *precisions]
        folder = _from_checkpoint(variant, checkpoint, output, weights or Weights.mixed, precisions, captions, force)
    elif {*precisions} == {"fp32"}:  # needs no package but the runtime's
        new, source = [], open_bundle(str(bundle))
        folder = source.folder if output is None else copy_bundle(source, output, force)
    else:
        new = writer.to_make(open_bundle(str(bundle)), precisions, anew="onnx" in targets)
        folder = writer.extend_bundle(bundle, precisions, output, captions, "onnx" in targets, force)
    opened = open_bundle(folder)
    if gone := [name for name in before if name not in opened.precisions("generator")]:
        path = f"./{folder}" if str(folder) == folder.name else folder  # a lone name means an installed model first
        again = f"t2i export --bundle {path} --precision {','.join(gone)}"
        show(f"{folder} had {','.join(gone)} before and has not now; to add: {again}", error=True)
    products = []
    for name in targets:
        products += making.build_target(opened, name, precisions, target_output, listed(device))
    if as_json:
        facts = {
            "bundle": str(opened.folder),
            "hash": opened.hash,
            "bytes": opened.bytes,
            "parity": opened.manifest.told("parity") or {},
            "precisions": opened.manifest.told("graphs", "generator", "precisions") or {},
            "products": [product.to_json() for product in products],
        }
        print(json.dumps(facts, indent=2))
        return
    if variant is not None and opened.manifest.parity is not None:
        _print_parity(opened.manifest.parity)
    _print_made(opened, new, products)
    if new or output is not None or not products:
        show(f"{opened.folder}  {opened.bytes / 1e6:.2f} MB  {opened.hash[:12]}")


def _has_run(folder: Path) -> bool:
    """True for a run folder with a checkpoint, or for a checkpoint; an empty folder is no run."""
    return any((folder / "checkpoints").glob("*")) or (folder / "checkpoint.json").exists()


def _place_of_shipped(
    variant: str, ships: Path, output: Path | None, weights: Weights | None, precisions: list[str]
) -> Path | None:
    """Where the bundle that ships goes, which is checked, as there is no run; None where none is to be made."""
    from attngan_deploy.generate.pipeline import TextToImage, verify_model

    if weights is not None:
        raise typer.BadParameter(f"--weights: of no use without a run at {RUNS / variant}; --precision says it")
    show(f"there is no run at {RUNS / variant}: this exports the {variant} that ships, {ships}", error=True)
    verified = verify_model(TextToImage.load(ships, backend="onnxruntime", precision="fp32"))
    if not verified.passed:
        raise ParityError(f"{ships} does not make its golden pictures", found=str(verified), next_step="t2i verify")
    show(f"checked: {verified}", error=True)
    place, added = output or MODELS / variant, [name for name in precisions if name != "fp32"]
    if output is None and place.is_dir() and place.samefile(ships):  # in a checkout; what ships is not changed
        return Path("-".join([variant, *added])) if added else None
    return place


def _from_checkpoint(
    variant: str,
    checkpoint: Path | None,
    output: Path | None,
    weights: Weights,
    precisions: list[str],
    captions: Path | None,
    force: bool,
) -> Path:
    source, folder = checkpoint or RUNS / variant, output or MODELS / variant
    if checkpoint is None:
        if not source.is_dir():
            raise CheckpointError(
                f"there is no run at {source}",
                expected="a run folder, or --checkpoint",
                next_step=f"t2i train gan --variant {variant} --data DATA --damsm RUN --out {source}",
            )
        show(f"no --checkpoint: using {source}", error=True)
    writer = load_extra("attngan_deploy.export.bundle_writer", "train")
    deploy = load_extra("attngan_deploy.export.deploy", "train")
    show(f"exporting {source} to {folder}", error=True)
    options = deploy.GraphOptions(weights=weights.value)
    made: Path = writer.export_bundle(
        source, folder, options, variant=str(variant), precisions=precisions, captions=captions, force=force
    )
    return made


def _precisions_at(place: Path | None) -> tuple[str, ...]:
    """Precisions of the bundle that is replaced, if there is one."""
    from attngan_deploy.bundles.bundle import read_manifest
    from attngan_deploy.bundles.manifest import TEXT_TO_IMAGE

    try:
        there = None if place is None else read_manifest(place)
    except BundleError:
        return ()
    return there.precisions("generator") if there and there.kind == TEXT_TO_IMAGE else ()


def _print_made(bundle: "Bundle", new: list[str], products: list[Any]) -> None:
    """What was made: the bundle's files of the precisions `new`, with "fp32" for all that are of none, and products."""
    from rich.console import Console
    from rich.table import Table

    stored = bundle.graph("generator").precisions
    graphs = {graph.file: "fp32" for graph in bundle.manifest.graphs.values()}
    graphs |= {entry.file: precision for precision, entry in stored.items()}
    costs = ("PSNR", "worst pixel", "kept in fp32") if stored.keys() & {*new} else ()
    table = Table("made", "in", "MB", *costs)
    for column in table.columns[:5]:
        column.no_wrap = True
    for file, entry in bundle.manifest.files.items():
        precision = graphs.get(file, "")
        if (precision or "fp32") in new:
            cost = _cost(stored[precision]) if precision in stored else []
            table.add_row(printable(file), precision, f"{entry.bytes / 1e6:.2f}", *map(printable, cost))
    for made in products:
        table.add_row(printable(f"{made.target}: {made.what}"), made.precision, f"{made.bytes / 1e6:.2f}")
    if table.rows:
        Console(markup=False, highlight=False).print(table)
    for made in products:
        took = "" if made.seconds is None else f"  built in {made.seconds:.1f} s"
        show(f"{made.path}{took}")


def _cost(entry: "StoredPrecision") -> list[str]:
    if (parity := entry.parity) is None:
        return []
    psnr = "equal" if parity.psnr_db is None else f"{parity.psnr_db} dB"
    return [psnr, f"{parity.worst_level} of 255", ", ".join(entry.kept) or "none"]


def _print_parity(parity: "Parity") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("output", "worst difference", "tolerance", "pixel values that differ")
    for name, output in parity.outputs.items():
        pixels = "" if output.pixels is None else f"{output.pixels_differ} of {output.pixels}"
        table.add_row(printable(name), f"{output.worst:.2e}", f"{output.tolerance:.0e}", pixels)
    show(f"{parity.engine} against {parity.reference}, the same folded and rounded weights:")
    Console(markup=False, highlight=False).print(table)
    stored = parity.stored_weights
    psnr = "no difference" if stored.psnr_db is None else f"{stored.psnr_db} dB"
    show(
        f"stored weights against trained ones: {psnr}, at most {stored.worst_level} of 255 levels; "
        f"golden pictures: at most {parity.golden_worst_level}"
    )
