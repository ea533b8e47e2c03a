"""How far a precision is from fp32, and which layers it needs in fp32, measured on real captions. Needs no torch."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from attngan_deploy.bundles.manifest import ImageParity, PrecisionParity
from attngan_deploy.engines.facts import Engine, Tensors
from attngan_deploy.engines.golden import psnr_db
from attngan_deploy.engines.onnxruntime.engine import OnnxRuntimeEngine
from attngan_deploy.errors import ParityError
from attngan_deploy.media.images import to_uint8

BATCHES = (33, 8, 1)  # pictures that are made together: none of them what a graph was built for
SIZES = (33,) * 6 + (8,) * 6 + (1,) * 10
PICTURES = sum(SIZES)  # 256
SEED = 1
MARGIN_DB = 5.0  # by which the layers in fp32 are chosen above the floor: other captions are a little worse
EQUAL_DB = 200.0  # stands for equal pictures, where PSNR has no value
ONNX_RUNTIME = f"onnxruntime {onnxruntime.__version__}, cpu"


@dataclass(frozen=True)
class Reference:
    """Inputs, and what the fp32 graph makes of them."""

    batches: list[Tensors]  # inputs of the generator
    images: list[Tensors]  # its images for each of them
    captions: int  # how many captions they show

    def part(self, pictures: int) -> "Reference":
        """The first batches, up to a number of pictures and at least one: enough to choose by."""
        total, count = 0, 0
        while count < len(self.batches) and (total < pictures or not count):
            total, count = total + len(self.batches[count]["z"]), count + 1
        return Reference(self.batches[:count], self.images[:count], min(self.captions, total))


def make_reference(engine: Engine, batches: Sequence[Tensors], captions: int) -> Reference:
    """Run the fp32 graph on inputs.

    Raises:
        ParityError: it makes values that are not finite.
    """
    return Reference(list(batches), [_images(engine, batch, "fp32") for batch in batches], captions)


def measure(engine: Engine, reference: Reference, precision: str, measured: str) -> PrecisionParity:
    """Compare an engine with the reference.

    Raises:
        ParityError: it makes values that are not finite.
    """
    found = [_images(engine, batch, precision) for batch in reference.batches]
    counts = [len(batch["z"]) for batch in reference.batches]
    outputs = {}
    for name in found[0]:
        pairs = [(ours[name], wanted[name]) for ours, wanted in zip(found, reference.images, strict=True)]
        by_batch = {
            size: _psnr([pair for pair, count in zip(pairs, counts, strict=True) if count == size])
            for size in sorted(set(counts))
        }
        worst = max(float(np.abs(ours - wanted).max()) for ours, wanted in pairs)
        level = max(int(np.abs(to_uint8(ours).astype(np.int16) - to_uint8(wanted)).max()) for ours, wanted in pairs)
        outputs[name] = ImageParity(_psnr(pairs), by_batch, round(worst, 6), level)
    return PrecisionParity(outputs, sum(counts), reference.captions, tuple(sorted(set(counts))), measured)


def check_floor(parity: PrecisionParity, precision: str, floor: float) -> None:
    """Raise ParityError when pictures are below the floor at any batch size."""
    if parity.lowest_db is not None and not parity.lowest_db >= floor:
        raise ParityError(
            f"{precision} changes the pictures too much",
            found=f"{parity.lowest_db} dB, at most {parity.worst_level} of 255 levels",
            expected=f"at least {floor:g} dB",
            next_step="leave it out of --precision",
        )


def measure_model(model: ModelProto, reference: Reference, precision: str, measured: str) -> PrecisionParity:
    """`measure` of a graph in ONNX Runtime on the CPU."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"generator.{precision}.onnx"
        path.write_bytes(model.SerializeToString())
        return measure(OnnxRuntimeEngine(path), reference, precision, measured)


def choose_kept(
    layers: Sequence[str],
    build: Callable[[Collection[str]], ModelProto],
    reference: Reference,
    precision: str,
    floor: float,
) -> list[str]:
    """Layers to keep in fp32: none where the floor is cleared by `MARGIN_DB`, or else the costliest until it is.

    What a layer costs is measured with all other layers in fp32.

    Args:
        build: makes the graph to measure, from the layers that stay in fp32.
        floor: PSNR in dB.

    Raises:
        ParityError: it would take all of them.
    """

    def psnr(kept: Collection[str]) -> float:
        try:
            found = measure_model(build(kept), reference, precision, "")
        except ParityError:  # overflow
            return -EQUAL_DB
        return EQUAL_DB if found.psnr_db is None else found.psnr_db

    kept: list[str] = []
    if psnr(kept) >= floor + MARGIN_DB:
        return kept
    costs = {layer: psnr([other for other in layers if other != layer]) for layer in layers}
    for layer in sorted(costs, key=costs.__getitem__)[:-1]:
        kept.append(layer)
        if psnr(kept) >= floor + MARGIN_DB:
            return [layer for layer in layers if layer in kept]
    raise ParityError(
        f"{precision} changes the pictures too much in every layer",
        found=f"{psnr(kept):.1f} dB with all but one in fp32",
        expected=f"at least {floor:g} dB and {MARGIN_DB:g} to spare",
        next_step="leave it out of --precision",
    )


def _psnr(pairs: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> float | None:
    ours, wanted = (np.concatenate(images) for images in zip(*pairs, strict=True))
    return psnr_db(ours, wanted)


def _images(engine: Engine, batch: Tensors, precision: str) -> dict[str, NDArray[np.float32]]:
    made = engine.run(batch)
    images = {name: np.asarray(value, np.float32) for name, value in made.items() if name.startswith("image")}
    if bad := [name for name, value in images.items() if not np.isfinite(value).all()]:
        raise ParityError(
            f"output {', '.join(bad)} of the generator in {precision} has values that are not finite",
            expected="numbers from -1 to 1",
            next_step="export the bundle again from an earlier checkpoint" if precision == "fp32" else "",
        )
    return images
