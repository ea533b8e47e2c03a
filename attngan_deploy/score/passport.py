"""The passport of a score: how it was obtained. Numbers without one can't be compared."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

PASSPORT_VERSION = 2
FEW_PICTURES = 5000
SORTED_BELOW = 0.7  # a mean over unshuffled splits below this share of the one-split score
NOT_COMPARABLE = (
    "Comparable only with scores by the same judge (name and hash), number of pictures, splits, size and order; "
    "not with scores by other judges, those in papers included."
)
LISTED_WORDS = 5
LOSSY = ("jpeg", "lossy webp")


@dataclass(frozen=True)
class JudgeFacts:
    """Who measured.

    Attributes:
        name: the judge's name.
        hash: SHA-256 of its graph.
        classes: number of its classes.
        size: side in pixels at which it looks.
        accuracy: its accuracy on held-out real pictures, where its manifest says so.
        engine: what ran it.
    """

    name: str
    hash: str
    classes: int
    size: int
    accuracy: float | None
    engine: str


@dataclass(frozen=True)
class PictureFacts:
    """What was measured.

    Attributes:
        source: name of the folder or tar, or of the model.
        found: pictures found, broken ones included.
        used: pictures that the judge looked at.
        skipped: "name: reason" of every broken picture.
        other_files: names of other files there.
        width, height: size as found, in pixels.
        crop: side of the centre crop, or None.
        resize: "none", or the filter and the sizes.
        formats: pictures of each file format; "generated" for those that never were files.
        order: "manifest", "name" or "stored": the order in which splits are cut.
        shuffle_seed: seed of numpy's RandomState(seed).permutation put on top of that order, or None.
        captions_sha256: of the captions of all pictures, sorted; "" where they have none.
        generated: what made them, where they came straight from a generator: "model", "model_hash", "engine",
            "captions" (how many), "captions_sha256", "seed" and "unknown_words".
        sha256: of the content of all files, of a reference; "" for other pictures.
    """

    source: str
    found: int
    used: int
    skipped: list[str]
    other_files: list[str]
    width: int
    height: int
    crop: int | None
    resize: str
    formats: Mapping[str, int]
    order: str
    shuffle_seed: int | None
    generated: Mapping[str, Any] | None = None
    captions_sha256: str = ""
    sha256: str = ""

    @property
    def was_upscaled(self) -> bool:
        """Whether the judge saw pictures larger than they were."""
        return "upscaled" in self.resize


@dataclass(frozen=True)
class Passport:
    """Scores, and all that is needed to judge them.

    Attributes:
        scores: by metric, e.g. {"inception_score": {"mean": ..., "deviation": ..., "per_split": [...], ...}}.
        judge: who measured; None where no judge is needed.
        pictures: what was measured.
        reference: the real pictures of a distance, or None.
        matcher: "name" and "hash" of the encoder that R-precision is measured with, or None.
        warnings: why the numbers may mislead.
        version: version of the program.
    """

    scores: Mapping[str, Mapping[str, Any]]
    judge: JudgeFacts | None
    pictures: PictureFacts
    reference: PictureFacts | None = None
    warnings: list[str] = field(default_factory=list)
    version: str = ""
    matcher: Mapping[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """The passport as JSON values."""
        return {"passport": PASSPORT_VERSION, **asdict(self), "note": NOT_COMPARABLE}


def describe_resize(width: int, height: int, crop: int | None, size: int, filter_name: str) -> str:
    """What happens to a picture on its way to a judge that looks at `size` px, e.g. "PIL bilinear 256 -> 128"."""
    side = crop if crop is not None else min(width, height)
    if side == size:
        return "none"
    return f"PIL {filter_name} {side} -> {size}" + (", upscaled" if side < size else "")


def picture_warnings(pictures: PictureFacts, who: str = "") -> list[str]:
    """Why these pictures may give a misleading number.

    Args:
        who: what to call them, e.g. "reference: ".
    """
    warnings = []
    if pictures.used < FEW_PICTURES:
        warnings.append(
            f"{who}only {pictures.used} pictures: small samples bias every score (Inception Score falls, distances "
            "rise); the paper's protocol uses 30,000"
        )
    if lossy := sum(pictures.formats.get(name, 0) for name in LOSSY):
        warnings.append(f"{who}{lossy} of {pictures.used} pictures are JPEG or lossy WebP: compression moves scores")
    if pictures.was_upscaled:
        warnings.append(f"{who}pictures were upscaled for the judge ({pictures.resize}), which blurs them")
    if pictures.skipped:
        warnings.append(f"{who}{len(pictures.skipped)} of {pictures.found} pictures are broken and were skipped")
    if pictures.generated is not None and (words := pictures.generated["unknown_words"]):
        shown = ", ".join(words[:LISTED_WORDS]) + (", ..." if len(words) > LISTED_WORDS else "")
        warnings.append(f"{who}the model does not know {len(words)} words of the captions, left out: {shown}")
    return warnings


def order_warnings(score: Mapping[str, Any], shuffle_seed: int | None) -> list[str]:
    """Whether an Inception Score was spoilt by pictures that are sorted by class, so that each split holds few classes.

    Args:
        score: with "mean" over splits and "one_split".
        shuffle_seed: None where the order was kept.
    """
    if shuffle_seed is not None or score["mean"] >= SORTED_BELOW * score["one_split"]:
        return []
    return [
        f"the mean over splits, {score['mean']:.2f}, is far below the score as one split, {score['one_split']:.2f}: "
        "the pictures seem to be sorted; shuffle them"
    ]


def size_warnings(pictures: PictureFacts, reference: PictureFacts) -> list[str]:
    """Whether pictures and reference came to the judge in different ways, which a distance then measures too."""
    if pictures.resize == reference.resize:
        return []
    return [
        f"the reference is of another size than the pictures ({reference.width} x {reference.height} px, resize: "
        f"{reference.resize}; {pictures.width} x {pictures.height} px, resize: {pictures.resize}): the distance "
        f"includes what that does; --crop {min(pictures.width, pictures.height)} takes the centre of the reference"
    ]
