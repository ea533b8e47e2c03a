"""Precisions of a bundle: each becomes a graph beside the fp32 one, measured against it. Needs no torch."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from onnx import ModelProto

from attngan_deploy.bundles.bundle import Bundle, check_replaceable, open_bundle, write_manifest
from attngan_deploy.bundles.manifest import TEXT_TO_IMAGE
from attngan_deploy.engines.golden import load_golden
from attngan_deploy.engines.load import load_engine
from attngan_deploy.engines.request import REFERENCE
from attngan_deploy.errors import OutputError, T2IError
from attngan_deploy.export.cards.model_card import CARD, write_card
from attngan_deploy.export.final_names import new_folder
from attngan_deploy.export.precision import parity as measuring
from attngan_deploy.export.precision.half import TYPES, convert, emulated, layers, load_plain
from attngan_deploy.export.precision.parity import PICTURES, SEED, SIZES, Reference, choose_kept
from attngan_deploy.export.precision.quantize import CALIBRATION, PERCENTILE, Quantizer, quantizable
from attngan_deploy.export.precision.quantize import SEED as CALIBRATION_SEED
from attngan_deploy.export.precision.sample_inputs import sample_batches, sample_captions
from attngan_deploy.system.records import JsonObject
from attngan_deploy.train.runs.progress import say

PRECISIONS = ("fp32", *TYPES, "int8")
CHOOSING = 32  # pictures that say which layers stay in fp32; the parity of the result is measured with all


def extend_bundle(
    name_or_folder: str,
    precisions: Sequence[str],
    out: Path | None = None,
    captions: Path | None = None,
    anew: bool = True,
    force: bool = False,
) -> Path:
    """Give a finished bundle other precisions.

    Args:
        precisions: of `PRECISIONS`; fp32 is there already.
        out: where the bundle goes; None to change it where it is.
        captions: a captions file to calibrate and measure with; None for built-in ones.
        anew: make those again that are there.
        force: replace a bundle of another origin at `out` too.

    Returns:
        Where the bundle is. On failure nothing is left, and a bundle that was there stays as it was.

    Raises:
        BundleError: not found, damaged, or no text-to-image model.
        CaptionError: the captions can't be used.
        ParityError: a precision is below its floor, or the bundle makes values that are not finite.
        OutputError: something else is at `out`.
    """
    bundle = open_bundle(name_or_folder)
    missing = to_make(bundle, precisions, anew)
    if captions is not None and not missing:
        raise T2IError(
            "--captions has no use here: no precision is made",
            found=f"{', '.join(bundle.precisions('generator'))} in {bundle.folder}",
            next_step="leave it out, or add --precision",
        )
    if not missing and out is None:
        return bundle.folder
    if out is None and bundle.folder != Path(name_or_folder):
        raise OutputError(
            f"-o is needed: {bundle.name} was named, and an installed model is not changed",
            next_step=f"add -o {bundle.name}-{'-'.join(missing)}",
        )
    place = out or bundle.folder
    check_replaceable(place, TEXT_TO_IMAGE, None if out is None else bundle.manifest.document, force)
    with new_folder(place) as folder:
        for file in bundle.manifest.files:
            shutil.copyfile(bundle.path(file), folder / file)
        write_precisions(Bundle(folder, bundle.manifest), missing, captions)
    return place


def to_make(bundle: Bundle, precisions: Sequence[str], anew: bool = True) -> list[str]:
    """Those of `precisions` that `extend_bundle` makes."""
    there = () if anew else bundle.precisions("generator")
    return [precision for precision in precisions if precision != "fp32" and precision not in there]


def write_precisions(bundle: Bundle, precisions: Sequence[str], captions: Path | None = None) -> None:
    """Write graphs of other precisions into a bundle that is being made, and what they cost into its manifest and card.

    Raises:
        CaptionError, ParityError: as `extend_bundle`.
    """
    manifest, floors = bundle.manifest, bundle.manifest.floors
    if not (wanted := [precision for precision in dict.fromkeys(precisions) if precision != "fp32"]):
        write_manifest(bundle.folder, manifest.document)
        return
    made: dict[str, JsonObject] = {}
    plain = load_plain(bundle.graph_path("generator"))
    ids = sample_captions(bundle, captions)
    say(f"fp32: {PICTURES} pictures of {len(ids)} captions to compare with")
    engine = load_engine(bundle, "generator", REFERENCE)
    reference = measuring.make_reference(engine, sample_batches(bundle, ids, SIZES, SEED), len(ids))
    for precision in wanted:
        say(f"{precision}: which layers stay in fp32, and {PICTURES} pictures")
        if precision == "int8":
            model, entry = _int8(bundle, plain, ids, reference)
        else:
            model, entry = _half(plain, precision, reference, floors[precision])
        file = f"generator.{precision}.onnx"
        (bundle.folder / file).write_bytes(model.SerializeToString(deterministic=True))
        made[precision] = {"file": file, **entry}
    fields = json.loads(json.dumps(manifest.document)) | {"floors": floors}
    fields["graphs"]["generator"].setdefault("precisions", {}).update(made)
    manifest = write_manifest(bundle.folder, fields)
    if manifest.golden is not None and manifest.told("card", "text") == CARD:
        write_card(bundle.folder / CARD, manifest, load_golden(bundle).captions[:2])
        write_manifest(bundle.folder, manifest.document)


def _half(plain: ModelProto, precision: str, reference: Reference, floor: float) -> tuple[ModelProto, JsonObject]:
    kept = choose_kept(
        layers(plain), lambda keep: emulated(plain, precision, keep), reference.part(CHOOSING), precision, floor
    )
    how = f"{measuring.ONNX_RUNTIME}, in fp32 with weights and results of every node rounded to {precision}"
    parity = measuring.measure_model(emulated(plain, precision, kept), reference, precision, how)
    measuring.check_floor(parity, precision, floor)
    model = convert(plain, precision, kept)
    if precision == "fp16":  # ONNX Runtime has no bf16 convolution on the CPU
        measuring.check_floor(
            measuring.measure_model(model, reference.part(CHOOSING), precision, measuring.ONNX_RUNTIME),
            precision,
            floor,
        )
    return model, {"kept": kept, "parity": parity.manifest()}


def _int8(
    bundle: Bundle, plain: ModelProto, ids: Sequence[list[int]], reference: Reference
) -> tuple[ModelProto, JsonObject]:
    floor, candidates = bundle.manifest.floors["int8"], quantizable(plain)
    calibration = sample_batches(bundle, ids, CALIBRATION, CALIBRATION_SEED)
    with TemporaryDirectory() as folder:
        quantizer = Quantizer(plain, calibration, Path(folder))
        kept = choose_kept(candidates, quantizer.quantize, reference.part(CHOOSING), "int8", floor)
        model = quantizer.quantize(kept)
    parity = measuring.measure_model(model, reference, "int8", measuring.ONNX_RUNTIME)
    measuring.check_floor(parity, "int8", floor)
    how = {"pictures": sum(CALIBRATION), "percentile": PERCENTILE}
    return model, {"kept": kept, "calibration": how, "parity": parity.manifest()}


def check_precisions(precisions: Sequence[str]) -> None:
    """Raise T2IError when an export can't make a precision."""
    if "auto" in precisions:
        raise T2IError(
            "--precision auto means nothing in an export: it is chosen on the device that runs the bundle",
            expected=", ".join(PRECISIONS),
            next_step="t2i export --help",
        )
    if unknown := [precision for precision in precisions if precision not in PRECISIONS]:
        raise T2IError(
            f"--precision {unknown[0]} can't be made", expected=", ".join(PRECISIONS), next_step="t2i export --help"
        )
