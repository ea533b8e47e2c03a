"""Compare every engine and precision that runs here with ONNX Runtime in fp32, and print a Markdown page.

    t2i export --bundle base --precision fp16,bf16,int8 -o base-all
    python benchmarks/paper/parity.py base-all > docs/parity.md

256 pictures of real captions, in batches of 1, 8 and 33. What can't run here says why. What the export measured for
precisions that need other hardware stands below, and then DM-GAN and DF-GAN against the published networks.
"""

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from attngan_deploy.bundles.bundle import Bundle, open_bundle
from attngan_deploy.bundles.manifest import PrecisionParity, StoredPrecision
from attngan_deploy.cli import report_errors, script_extra
from attngan_deploy.engines.facts import GENERATOR
from attngan_deploy.engines.load import load_engine
from attngan_deploy.engines.request import ANY_ENGINE, REFERENCE, EngineRequest
from attngan_deploy.errors import T2IError
from attngan_deploy.system.machine import this_machine

sys.path.insert(0, str(Path(__file__).parents[2]))
with script_extra("train"):
    from attngan_deploy.export.precision import writer
    from attngan_deploy.export.precision.parity import (
        PICTURES,
        SEED,
        SIZES,
        Reference,
        make_reference,
        measure,
    )
    from attngan_deploy.export.precision.sample_inputs import sample_batches, sample_captions
    from attngan_deploy.export.published import import_published
    from tests.makers.published import EVERY_THIRD, Published
    from tests.makers.published_model import PublishedFiles

FAMILIES = {"DM-GAN": "dmgan_branch2_b1mask", "DF-GAN": "dfgan_64_b3"}
PRECISIONS = ("fp16", "bf16", "int8")


@dataclass(frozen=True)
class Row:
    """What became of an engine.

    Attributes:
        engine: backend and device.
        precision: what it was asked to compute in.
        parity: its distance from the reference; None where it did not run.
        why: why it did not run.
    """

    engine: str
    precision: str
    parity: PrecisionParity | None = None
    why: str = ""


def compare_engines(bundle: Bundle, captions: Path | None = None, threads: int | None = None) -> list[Row]:
    """Every engine and precision of this toolkit against the reference.

    Raises:
        T2IError: the reference itself does not run.
    """
    ids = sample_captions(bundle, captions)
    engine = load_engine(bundle, GENERATOR, replace(REFERENCE, threads=threads))
    reference = make_reference(engine, sample_batches(bundle, ids, SIZES, SEED), len(ids))
    return [
        _compare(bundle, reference, replace(request, threads=threads))
        for request in ANY_ENGINE.candidates()
        if request != REFERENCE
    ]


def compare_families() -> list[tuple[str, ...]]:
    """Of each family the difference of the last image from the published one, and PSNR of precisions against fp32."""
    rows = []
    for family, network in FAMILIES.items():
        with TemporaryDirectory() as name:
            files = PublishedFiles(folder := Path(name), network)
            made = import_published(files.generator, files.text_encoder, files.captions, folder / "bundle").bundle
            bundle = open_bundle(writer.extend_bundle(str(made), PRECISIONS, folder / "all"))
            worst = [f"{_difference(bundle, Published(network), each):.0e}" for each in ("onnxruntime", "openvino")]
            stored = bundle.graph(GENERATOR).precisions
            rows.append((family, *worst, *(_psnr(stored[precision].parity) for precision in PRECISIONS)))
    return rows


def as_markdown(bundle: Bundle, rows: list[Row], families: list[tuple[str, ...]]) -> str:
    """The page."""
    ran = [_measured(row.engine, row.precision, bundle, row.parity) for row in rows if row.parity is not None]
    stored = bundle.graph(GENERATOR).precisions.items()
    exported = [_exported(precision, entry, bundle) for precision, entry in stored]
    refused = [(row.engine, row.precision, row.why) for row in rows if row.parity is None]
    here = this_machine()
    return f"""# Parity

How far pictures of other engines and precisions are from those of ONNX Runtime in fp32 on the CPU, which the export
compared with torch. Made by `python benchmarks/paper/parity.py` with model `{bundle.name}` ({bundle.hash[:12]}) on
{here.cpu}, {here.cores} cores, Python {here.python}.

{PICTURES} pictures, each with noise of its own, in batches of 1, 8 and 33; every value was finite. PSNR is over all
pictures, of the output where it is lowest; 64 and 128 px are both compared. Below its floor, a precision is not
exported, and not chosen by `--precision auto`.

## Engines that run here

{_table(("engine", "precision", "PSNR", "floor", "worst pixel", "captions"), ran)}

## Graphs as the export measured them

fp16 and bf16 graphs are for GPUs. They were measured on a CPU in fp32, with the weights and the result of every node
rounded to the precision.

{_table(("precision", "PSNR", "floor", "worst pixel", "layers kept in fp32", "measured with"), exported)}

## What did not run here

{_table(("engine", "precision", "why"), refused)}

## DM-GAN and DF-GAN

Networks of the published code with random weights (`tests/data`, 128 and 64 px), imported. First the largest difference
of the last image from what that code made, of 2 from darkest to brightest; then PSNR of {PICTURES} pictures against
fp32, as above.

{_table(("", "ONNX Runtime fp32", "OpenVINO fp32", *PRECISIONS), families)}
"""


def _difference(bundle: Bundle, published: Published, backend: str) -> float:
    inputs = {name: value.numpy() for name, value in published.inputs.items()}
    if "mask" in inputs:
        inputs["mask"] = ~inputs["mask"]
    made = load_engine(bundle, GENERATOR, EngineRequest(backend, precision="fp32")).run(inputs)
    name = sorted(name for name in published.outputs if name.startswith("image"))[-1]
    image = made[f"image_{bundle.manifest.sizes.stages[-1]}"]
    wanted = published.outputs[name].numpy()
    return float(np.abs((image[..., ::3, ::3] if name.endswith(EVERY_THIRD) else image) - wanted).max())


def _compare(bundle: Bundle, reference: Reference, request: EngineRequest) -> Row:
    name, precision = f"{request.backend} on {request.device}", request.precision
    print(f"{name}, {precision}", file=sys.stderr, flush=True)
    try:
        engine = load_engine(bundle, GENERATOR, request)
        return Row(engine.facts.short, precision, measure(engine, reference, precision, engine.facts.short))
    except T2IError as error:
        return Row(name, precision, why=str(error))


def _measured(engine: str, precision: str, bundle: Bundle, parity: PrecisionParity) -> tuple[str, ...]:
    worst, floor = f"{parity.worst_level} of 255", _floor(bundle, precision)
    return engine.rpartition(",")[0], precision, _psnr(parity), floor, worst, str(parity.captions)


def _exported(precision: str, stored: StoredPrecision, bundle: Bundle) -> tuple[str, ...]:
    if (parity := stored.parity) is None:
        return precision, _psnr(parity), _floor(bundle, precision), "", "", ""
    kept = ", ".join(f"`{layer}`" for layer in stored.kept) or "none"
    return precision, _psnr(parity), _floor(bundle, precision), f"{parity.worst_level} of 255", kept, parity.measured


def _psnr(parity: PrecisionParity | None) -> str:
    if parity is None:
        return "not measured"
    return "equal" if parity.psnr_db is None else f"{parity.psnr_db} dB"


def _floor(bundle: Bundle, precision: str) -> str:
    return f"{bundle.manifest.floors[precision]:g} dB" if precision in bundle.manifest.floors else ""


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return "None."
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Parse, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", nargs="?", default="base", help="name or folder of a bundle")
    parser.add_argument("--captions", type=Path, help="captions file; built-in captions unless given")
    parser.add_argument("--threads", type=int, help="CPU threads; one a core unless given")
    options = parser.parse_args()
    bundle = open_bundle(options.model)
    rows = compare_engines(bundle, options.captions, options.threads)
    print(as_markdown(bundle, rows, compare_families()), end="")


if __name__ == "__main__":
    sys.exit(report_errors(main))
