"""What a bundle says of how near its graphs are to what they were made from."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from attngan_deploy.system.records import JsonObject


@dataclass(frozen=True)
class OutputParity:
    """How far an output of a graph is from torch's, over all cases."""

    worst: float  # largest absolute difference
    tolerance: float  # what it may be
    pixels_differ: int | None = None  # values that differ after rounding to uint8; None for an output that is no image
    pixels: int | None = None  # how many values were rounded


@dataclass(frozen=True)
class Rounding:
    """How far the stored weights move the pictures of the network that was trained, both computed by torch."""

    psnr_db: float | None  # peak signal-to-noise ratio; None when the pictures are equal
    worst_level: int  # largest difference in uint8 levels
    pixels_differ: float  # share of uint8 values that differ


@dataclass(frozen=True)
class Parity:
    """A passed comparison of a text-to-image bundle with torch: each output of a graph, and the effect of rounding."""

    # reference, engine: what was compared, e.g. "torch 2.13.0"
    reference: str
    engine: str
    cases: tuple[Mapping[str, int], ...]  # pictures and words of each
    outputs: Mapping[str, OutputParity]
    stored_weights: Rounding
    golden_worst_level: int = 0  # largest difference of a golden picture, in levels of 255


@dataclass(frozen=True)
class ImageParity:
    """How far an image output is from that of the fp32 graph."""

    psnr_db: float | None  # peak signal-to-noise ratio over all pictures; None when they are equal
    by_batch: Mapping[int, float | None]  # the same by the number of pictures that were made together
    worst: float  # largest absolute difference; the range is 2
    worst_level: int  # largest difference in uint8 levels


@dataclass(frozen=True)
class PrecisionParity:
    """How far a precision is from fp32, over all captions, seeds and batch sizes."""

    outputs: Mapping[str, ImageParity]  # of each image
    pictures: int  # how many were made
    captions: int  # how many captions they show
    batches: tuple[int, ...]  # how many pictures were made together
    measured: str  # what made them

    @property
    def psnr_db(self) -> float | None:
        """That of the worst image; None when all are equal."""
        return _lowest(output.psnr_db for output in self.outputs.values())

    @property
    def lowest_db(self) -> float | None:
        """PSNR of the worst image at the worst batch size; None when all are equal."""
        return _lowest(psnr for output in self.outputs.values() for psnr in output.by_batch.values())

    @property
    def worst_level(self) -> int:
        """Largest difference of any pixel, in uint8 levels."""
        return max(output.worst_level for output in self.outputs.values())

    def manifest(self) -> JsonObject:
        """What `bundle.json` says about it."""
        return {"psnr_db": self.psnr_db, "worst_level": self.worst_level, **asdict(self)}


def _lowest(ratios: Iterable[float | None]) -> float | None:
    return min((ratio for ratio in ratios if ratio is not None), default=None)
