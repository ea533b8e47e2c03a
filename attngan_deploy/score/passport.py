"""The passport of a score: how it was obtained. Numbers without one can't be compared."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePath
from typing import Any

from attngan_deploy.errors import ScoreError
from attngan_deploy.media.shards import OTHER_SUFFIXES
from attngan_deploy.system.records import RecordError, decode, look_up

PASSPORT_VERSION = 2
VERSIONS = (1, PASSPORT_VERSION)  # that can be read
FEW_PICTURES = 5000
NOT_COMPARABLE = (
    "Comparable only with scores by the same judge (name and hash), number of pictures, splits, size and order; "
    "not with scores by other judges, those in papers included."
)
LISTED_WORDS = 5
NEXT_STEP = "t2i score ... --json > passport.json"
LOSSY = ("jpeg", "lossy webp")


@dataclass(frozen=True)
class JudgeFacts:
    """Who measured."""

    name: str = ""  # the judge's name
    hash: str = ""  # SHA-256 of its graph
    classes: int = 0  # number of its classes
    size: int = 0  # side in pixels at which it looks
    accuracy: float | None = None  # its accuracy on held-out real pictures, where its manifest says so
    engine: str = ""  # what ran it


@dataclass(frozen=True)
class MatcherFacts:
    """The encoder that R-precision was measured with: its name, and the SHA-256 of its graphs and vocabulary."""

    name: str = ""
    hash: str = ""


@dataclass(frozen=True)
class GeneratedFacts:
    """What made pictures that came straight from a generator."""

    # model, model_hash: the model's name and hash
    model: str = ""
    model_hash: str = ""
    engine: str = ""  # what ran it
    captions: int = 0  # how many
    captions_sha256: str = ""  # of them, in their order
    seed: int = 0  # of the noise
    unknown_words: tuple[str, ...] = ()  # words of the captions that the model does not know
    truncation: float | None = None  # of the noise; None where it is as it is


@dataclass(frozen=True)
class PictureFacts:
    """What was measured."""

    source: str = ""  # name of the folder or tar, or of the model
    found: int = 0  # pictures found, broken ones included
    used: int = 0  # pictures that the judge looked at
    skipped: tuple[str, ...] = ()  # "name: reason" of every broken picture
    other_files: tuple[str, ...] = ()  # names of other files there
    # width, height: size as found, in pixels
    width: int = 0
    height: int = 0
    crop: int | None = None  # side of the centre crop, or None
    resize: str = ""  # "none", or the filter and the sizes
    # pictures of each file format; "generated" for those that never were files
    formats: Mapping[str, int] = field(default_factory=dict)
    order: str = ""  # "manifest", "name" or "stored": the order in which splits are cut
    shuffle_seed: int | None = None  # seed of numpy's RandomState(seed).permutation put on top of that order, or None
    generated: GeneratedFacts | None = None  # what made them, where they came straight from a generator
    captions_sha256: str = ""  # of the captions of all pictures, sorted; "" where they have none
    sha256: str = ""  # of the content of all files, of a reference; "" for other pictures
    decoder: str = ""  # what the decoder of their files makes of them; "" where they never were files, or long ago
    notes: tuple[str, ...] = ()  # what was found of other programs, and how it was read
    best_of: int = 1  # candidates that each picture was chosen from, where `run.json` says it

    @property
    def was_upscaled(self) -> bool:
        """Whether the judge saw pictures larger than they were."""
        return "upscaled" in self.resize


@dataclass(frozen=True)
class Passport:
    """Scores, and all that is needed to judge them."""

    # by metric, e.g. {"inception_score": {"mean": ..., "deviation": ..., "per_split": [...], ...}}
    scores: Mapping[str, Mapping[str, object]]
    judge: JudgeFacts | None = None  # who measured; None where no judge is needed
    pictures: PictureFacts = field(default_factory=PictureFacts)  # what was measured
    reference: PictureFacts | None = None  # the real pictures of a distance, or None
    warnings: tuple[str, ...] = ()  # why the numbers may mislead
    version: str = ""  # version of the program
    matcher: MatcherFacts | None = None  # the encoder that R-precision is measured with, or None
    passport: int = PASSPORT_VERSION  # version of this record

    @classmethod
    def from_json(cls, document: object, where: str, needed: Iterable[str] = ()) -> "Passport":
        """Decode and check what `to_json` gave; what an older version did not say has its default.

        Args:
            where: what to call it in errors.
            needed: paths of fields that must be there, with dots.

        Raises:
            ScoreError: no passport, one of an unknown version, or a field that is missing or of another type.
        """
        if not isinstance(document, Mapping) or "passport" not in document:
            raise ScoreError(
                f"{where} is no passport of a score",
                found=f"the fields {', '.join(map(str, document))}"[:80]
                if isinstance(document, Mapping)
                else describe_value(document),
                expected='"passport", "scores", "judge" and "pictures"',
                next_step=NEXT_STEP,
            )
        version = document["passport"]
        if type(version) is not int or version not in VERSIONS:
            raise ScoreError(
                f"{where} is of an unknown version",
                found=describe_value(version),
                expected=" or ".join(map(str, VERSIONS)),
                next_step="pip install --upgrade attngan-deploy, or score again",
            )
        for field_path in needed:
            if look_up(document, *field_path.split(".")) is None:
                raise broken_field(where, field_path, None)
        try:
            return decode(cls, document)
        except RecordError as error:
            raise ScoreError(
                f"{where} is broken", found=error.found, expected=error.expected, next_step="score again with --json"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """The passport as JSON values."""
        return {"passport": self.passport, **asdict(self), "note": NOT_COMPARABLE}


def describe_resize(width: int, height: int, crop: int | None, size: int, filter_name: str) -> str:
    """What happens to a picture on its way to a judge that looks at `size` px, e.g. "PIL bilinear 256 -> 128"."""
    side = crop if crop is not None else min(width, height)
    if side == size:
        return "none"
    return f"PIL {filter_name} {side} -> {size}" + (", upscaled" if side < size else "")


def picture_warnings(pictures: PictureFacts, who: str = "") -> list[str]:
    """Why these pictures, which begin with `who` (e.g. "reference: "), may give a misleading number."""
    warnings = [who + note for note in pictures.notes]
    if 0 < pictures.used < FEW_PICTURES:
        warnings.append(
            f"{who}only {pictures.used} pictures: small samples bias every score (Inception Score falls, distances "
            "rise); the paper's protocol uses 30,000"
        )
    if lossy := sum(pictures.formats.get(name, 0) for name in LOSSY):
        warnings.append(f"{who}{lossy} of {pictures.used} pictures are JPEG or lossy WebP: compression moves scores")
    if others := Counter(kind for name in pictures.other_files if (kind := _other_kind(name))):
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items()))
        warnings.append(
            f"{who}{others.total()} pictures of kinds that are not read ({kinds}) were left out: "
            "make PNGs of them, e.g. by mogrify -format png, and score again"
        )
    if pictures.was_upscaled:
        warnings.append(f"{who}pictures were upscaled for the judge ({pictures.resize}), which blurs them")
    if pictures.skipped:
        warnings.append(f"{who}{len(pictures.skipped)} of {pictures.found} pictures are broken and were skipped")
    if pictures.generated is not None and (words := pictures.generated.unknown_words):
        shown = ", ".join(words[:LISTED_WORDS]) + (", ..." if len(words) > LISTED_WORDS else "")
        warnings.append(f"{who}the model does not know {len(words)} words of the captions, left out: {shown}")
    return warnings


def _other_kind(name: str) -> str:
    """The kind of a picture that is not read, by its name; "" for any other file."""
    suffix = PurePath(name).suffix.lower()
    return suffix.removeprefix(".") if suffix in OTHER_SUFFIXES else ""


def size_warnings(pictures: PictureFacts, reference: PictureFacts) -> list[str]:
    """Whether pictures and reference came to the judge in different ways, which a distance then measures too."""
    if pictures.resize == reference.resize or not reference.used:  # statistics do not say how large theirs were
        return []
    ours, theirs = min(pictures.width, pictures.height), min(reference.width, reference.height)
    which = "the reference" if ours <= theirs else "both"
    return [
        f"the reference is of another size than the pictures ({reference.width} x {reference.height} px, resize: "
        f"{reference.resize}; {pictures.width} x {pictures.height} px, resize: {pictures.resize}): the distance "
        f"includes what that does; --crop {min(ours, theirs)} takes the centre of {which}"
    ]


def describe_value(value: object) -> str:
    """A value of a passport for messages, cut where it is long; hashes are shown by their beginning."""
    if value is None:
        return "none"
    if isinstance(value, str):
        return value[:12] if len(value) == 64 else value[:80]
    return json.dumps(value, default=str)[:120]


def broken_field(where: str, path: str, value: object) -> ScoreError:
    """The error of a passport whose field can't be used."""
    found = describe_value(value)
    return ScoreError(f"{where} is broken: its {path} can't be used", found=found, next_step="score again with --json")
