"""The same picture again, from what its own file says of it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.bundles.bundle import Bundle, installed_bundles, open_bundle
from attngan_deploy.bundles.manifest import TEXT_TO_IMAGE
from attngan_deploy.engines.choice import is_stored
from attngan_deploy.engines.facts import GENERATOR, EngineFacts
from attngan_deploy.engines.golden import psnr_db
from attngan_deploy.engines.request import ANY_ENGINE, AUTO, BACKENDS, PRECISIONS, REFERENCE, EngineRequest
from attngan_deploy.errors import BundleError, DataError, OutputError
from attngan_deploy.generate.batching import Picture
from attngan_deploy.generate.critic import MOST, Critic, best_of
from attngan_deploy.generate.manifest import iter_manifest
from attngan_deploy.generate.noise import LARGEST_SEED
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.generate.run_record import without_usual
from attngan_deploy.generate.target import MANIFEST
from attngan_deploy.media.caption import Caption
from attngan_deploy.media.decoder import load_picture
from attngan_deploy.media.images import FORMATS, METADATA_KEY, decode_picture, encode_picture
from attngan_deploy.media.tokenizer import encode_caption
from attngan_deploy.system.files import inside, read_file, write_atomically
from attngan_deploy.system.lock import writing

MAX_FILE_BYTES = 64 * 2**20
FORMAT_OF = {"PNG": "png", "WEBP": "webp", "JPEG": "jpg"}
ROUNDING = {"png": 1, "webp": 1, "jpg": 8}  # levels that batch size and machine may change; JPEG makes them larger
EXPECTED = "a picture as t2i generate wrote it"
OUT_OF_RANGE = "is out of range"
ANOTHER_COPY, UNCHANGED_COPY = "another copy of the picture", "a copy that no other program has saved"
OUR_PICTURE = "the path of a picture that t2i generate made"
ENGINE = {"backend": BACKENDS, "precision": PRECISIONS}
NUMBERS = ("index", "sample", "seed")
FIELDS = {"caption": str, "model": str, "model_hash": str, "shared_noise": bool, **dict.fromkeys(NUMBERS, int)}


@dataclass(frozen=True)
class Origin:
    """What a picture was made from, as `Run.picture_record` says it."""

    caption: str
    index: int
    sample: int
    seed: int
    shared_noise: bool
    model: str
    model_hash: str
    backend: str = ""  # what made it; "" where nothing says, as after a run that was killed; so is the precision
    precision: str = ""
    truncation: float = 1.0  # of its noise; 1 where nothing says it
    best_of: int = 1  # candidates that it was chosen from, by
    critic: str = ""  # the critic of this hash


@dataclass(frozen=True)
class Replay:
    """A picture that was made again."""

    origin: Origin
    engine: EngineFacts  # what made it this time
    picture: NDArray[np.uint8]  # uint8 [S, S, 3]
    worst_level: int  # largest difference from the file, in levels of 255; both went through the same file format
    differing: float  # share of values that differ
    same: bool  # whether that is no more than rounding and precision do
    source: str  # what told the origin: "its metadata", or the manifest

    def __str__(self) -> str:
        """In words, e.g. "identical"."""
        if self.worst_level == 0:
            return "identical"
        return f"differs by at most {self.worst_level} of 255 levels, in {self.differing:.2%} of values"


def replay(path: Path, model: str | None = None, request: EngineRequest = ANY_ENGINE) -> Replay:
    """Make the picture of a file again, and compare.

    Args:
        path: a `.png`; or a `.webp` or `.jpg` that still lies beside its `manifest.jsonl`.
        model: name or folder of the bundle; None for the installed one of the right hash that stores the precision.
        request: what shall make it; "auto" as backend or precision is what made it the first time, or ONNX Runtime and
            fp32 where nothing says what that was.

    Raises:
        DataError: not a picture, or one that does not say what it was made from.
        BundleError: the model is not here, damaged, or has another hash.
        CaptionError, EngineError: the picture's caption is no text, or the engine can't be had.
    """
    data = _read(path)
    file_format, (width, height), text = _look(path, data)
    origin = _origin(path, _from_manifest(path) if text is None else _parsed(path, text))
    backend, precision = request.backend, request.precision
    if backend == AUTO:
        backend = origin.backend or (REFERENCE.backend if precision == AUTO else AUTO)
    precision = (origin.precision or REFERENCE.precision) if precision == AUTO else precision
    request = replace(request, backend=backend, precision=precision)
    network = TextToImage.load_on(_find_bundle(path, origin, model, request.candidates()), request)
    side = network.picture_size
    if (width, height) != (side, side):
        raise DataError(
            f"{path} was resized",
            found=f"{width} x {height} px",
            expected=f"{side} x {side}",
            next_step="the picture as it was made",
        )
    picture = _make(network, origin)
    again = decode_picture(encode_picture(picture, file_format)).astype(np.int16)
    difference = np.abs(again - _decode(path, data))
    worst, differing = int(difference.max()), float((difference > 0).mean())
    same = worst <= ROUNDING[file_format] or _is_precision(
        network.bundle, {origin.precision, network.facts.precision}, difference
    )
    source = f"the {MANIFEST} beside it" if text is None else "its metadata"
    return Replay(origin, network.facts, picture, worst, differing, same, source)


def write_replay(made: Replay, source: Path, target: Path) -> None:
    """Write the picture; a PNG carries what it was made from. Raise OutputError where `target` is no place for it."""
    suffix = target.suffix.lower().lstrip(".").replace("jpeg", "jpg")
    if suffix not in FORMATS:
        raise OutputError(
            f"{target} can't be written", expected=f"a name that ends in {', '.join(FORMATS)}", next_step="another -o"
        )
    if target.is_dir() or (target.exists() and target.samefile(source)):
        what = "is a folder" if target.is_dir() else "is the picture itself"
        raise OutputError(f"{target} {what}", next_step="choose another -o")
    if not target.parent.is_dir():
        raise OutputError(f"there is no folder {target.parent}", next_step="choose another -o")
    target = inside(target.parent, target.name)  # the name is one that anybody can guess, and plant a link at
    origin = replace(made.origin, backend=made.engine.backend, precision=made.engine.precision)
    with writing(target):
        told = without_usual(asdict(origin)) | {"file": target.name}
        write_atomically(target, encode_picture(made.picture, suffix, told))


def _is_precision(bundle: Bundle, precisions: set[str], difference: NDArray[np.int16]) -> bool:
    """Whether pictures are as close as the coarser of two precisions asks for."""
    floors = [floor for precision, floor in bundle.manifest.floors.items() if precision in precisions]
    found = psnr_db(difference, np.zeros_like(difference), 255.0)
    return bool(floors) and (found is None or found >= min(floors))


def _make(network: TextToImage, origin: Origin) -> NDArray[np.uint8]:
    caption = Caption(origin.caption, 1)
    wanted = Picture((origin.index, origin.sample), caption, encode_caption(caption, network.tokenizer).ids)
    stream = partial(
        network.stream_pictures,
        seed=origin.seed,
        shared_noise=origin.shared_noise,
        attention=True,
        truncation=origin.truncation,
    )
    critic = Critic.load_as(origin.critic) if origin.best_of > 1 else None
    picture: NDArray[np.uint8] = next(best_of(stream, [wanted], origin.best_of, critic)).pictures[0]
    return picture


def _read(path: Path) -> bytes:
    try:
        return read_file(path, MAX_FILE_BYTES)
    except FileNotFoundError as error:
        raise DataError(f"no picture at {path}", expected=EXPECTED, next_step=OUR_PICTURE) from error
    except OSError as error:
        raise DataError(
            f"{path} can't be read: {error.strerror or error}",
            expected=EXPECTED,
            next_step="a copy that this user may read",
        ) from error
    except ValueError as error:
        raise DataError(
            f"{path} is no picture of ours: {error}",
            expected=EXPECTED,
            next_step=OUR_PICTURE,
        ) from error


def _look(path: Path, data: bytes) -> tuple[str, tuple[int, int], str | bytes | None]:
    """Format, size and metadata (None where it has none) of a picture; no pixel is decoded."""
    try:
        image = load_picture(data, pixels=False)
    except OSError as error:
        raise DataError(
            f"{path} is no picture that can be read ({error})",
            expected=EXPECTED,
            next_step=ANOTHER_COPY,
        ) from error
    return FORMAT_OF[str(image.format)], image.size, image.info.get(METADATA_KEY)


def _parsed(path: Path, text: str | bytes) -> object:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(
            f"the metadata of {path} is damaged ({error})", expected=EXPECTED, next_step=ANOTHER_COPY
        ) from error


def _from_manifest(path: Path) -> Mapping[str, Any]:
    """What the manifest beside a picture says of it: WebP and JPEG carry no metadata."""
    if (path.parent / MANIFEST).is_file():
        for record in iter_manifest(path.parent):
            if record["file"] == path.name:
                return record
    raise DataError(
        f"{path} does not say what it was made from",
        found=f"no metadata in it, and no {MANIFEST} beside it that names it",
        expected=EXPECTED,
        next_step=UNCHANGED_COPY,
    )


def _origin(path: Path, told: object) -> Origin:
    if not isinstance(told, dict):
        raise DataError(
            f"the metadata of {path} is damaged: it is no object",
            expected=EXPECTED,
            next_step=ANOTHER_COPY,
        )
    for key, kind in FIELDS.items():
        if type(told.get(key)) is not kind:
            found = f"'{key}' is {json.dumps(told[key])[:40]}" if key in told else f"no '{key}'"
            raise DataError(
                f"{path} does not say what it was made from",
                found=found,
                expected=EXPECTED,
                next_step=UNCHANGED_COPY,
            )
    for key in ENGINE:
        if key in told and told[key] not in ENGINE[key]:
            raise _wrong(path, key, "is unknown", told[key], ", ".join(ENGINE[key]))
    for key in NUMBERS:
        if not 0 <= told[key] <= LARGEST_SEED:
            raise _wrong(path, key, OUT_OF_RANGE, told[key], "0 to 2**64 - 1")
    truncation = told.get("truncation", 1.0)
    if not (type(truncation) in (int, float) and 0 <= truncation <= 1):
        raise _wrong(path, "truncation", OUT_OF_RANGE, truncation, "0 to 1")
    best_of, critic = told.get("best_of", 1), told.get("critic", "")
    if not (type(best_of) is int and 1 <= best_of <= MOST and type(critic) is str):
        raise _wrong(path, "best_of", OUT_OF_RANGE, best_of, f"1 to {MOST}")
    if (told["sample"] + 1) * best_of - 1 > LARGEST_SEED:  # the number of its last candidate
        raise _wrong(path, "sample", OUT_OF_RANGE, told["sample"], EXPECTED)
    known = {key: told[key] for key in (*FIELDS, *ENGINE) if key in told}
    return Origin(**known, truncation=float(truncation), best_of=best_of, critic=critic)


def _wrong(path: Path, key: str, what: str, found: object, expected: str) -> DataError:
    return DataError(f"{path}: '{key}' {what}", found=str(found)[:40], expected=expected, next_step=ANOTHER_COPY)


def _find_bundle(path: Path, origin: Origin, model: str | None, wanted: list[EngineRequest]) -> Bundle:
    """The bundle that made the picture, under whatever name; a file's own words are never taken for a path.

    The hash is that of the fp32 graphs, so that several bundles may have it: best is the one that stores what the
    engine runs, then the one of the name that made the picture.
    """
    if model is None:
        installed = [bundle for bundle in installed_bundles() if bundle.kind == TEXT_TO_IMAGE]
    else:
        installed = [open_bundle(model)]
    same = [bundle for bundle in installed if bundle.hash == origin.model_hash]
    if not same:
        raise BundleError(
            f"{path} was made by another model",
            found=", ".join(f"{bundle.folder.name} {bundle.hash[:12]}" for bundle in installed) or "no model",
            expected=f"{origin.model[:40]} {origin.model_hash[:12]}",
            next_step="--model with the folder of the right one",
        )

    def fits(bundle: Bundle) -> bool:
        return any(is_stored(bundle, each) for each in wanted)

    best = max(same, key=lambda bundle: (fits(bundle), bundle.name == origin.model))
    if not fits(best):
        precision = wanted[0].precision
        raise BundleError(
            f"bundle {best.folder} has no graph '{GENERATOR}' in {precision}",
            found=", ".join(best.precisions(GENERATOR)),
            expected=f"a bundle of {best.hash[:12]} that stores {precision}",
            next_step="--model with its folder, or --precision fp32; to make one: "
            f"t2i export --bundle {best.folder} --precision {precision} -o {best.name}-{precision}",
        )
    return open_bundle(best.folder)


def _decode(path: Path, data: bytes) -> NDArray[np.uint8]:
    try:
        return decode_picture(data)
    except OSError as error:
        raise DataError(f"{path} is a damaged picture ({error})", expected=EXPECTED, next_step=ANOTHER_COPY) from error
