"""Golden cases: captions, noise and the pictures that torch made of them, and how near engines come to them."""

import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.bundles.bundle import Bundle
from attngan_deploy.bundles.manifest import damaged
from attngan_deploy.engines.facts import Engine, EngineFacts, Tensors, can_make_pictures
from attngan_deploy.engines.tensors import check_finite, taken
from attngan_deploy.errors import BundleError
from attngan_deploy.media.images import to_uint8
from attngan_deploy.media.tokenizer import Tokenizer

LARGEST_LEVEL = 1  # of 255, in fp32: rounding can go either way
LEVELS = 255.0
RANGE = 2.0  # from the darkest to the brightest value of an image
LARGEST = 256 * 2**20  # bytes of all arrays; those of three stages have 4 MB
UNREADABLE = (  # what numpy raises on damaged and hostile archives, found by feeding it some
    OSError, EOFError, TypeError, ValueError, KeyError, NotImplementedError, RuntimeError, MemoryError,
    SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class GoldenCases:
    """What `golden.npz` holds: N captions, their noise, and the pictures that torch made of them in fp32."""

    captions: list[str]
    ids: list[list[int]]  # vocabulary indices of each caption's words
    z: NDArray[np.float32]  # f32 [N, z]
    eps: NDArray[np.float32]  # f32 [N, eps]; [N, 0] where the generator takes none
    images: NDArray[np.float32]  # f32 [N, 3, S, S] in [-1, 1]

    def __len__(self) -> int:
        return len(self.captions)


@dataclass(frozen=True)
class Verification:
    """How close an engine came to the golden pictures."""

    model: str
    model_hash: str
    engine: EngineFacts  # what ran the generator
    pictures: int  # number of golden pictures; 0 for a judge or matcher, which have none
    worst_level: int | None  # largest difference of a pixel value, in levels of 255; None for a judge
    # peak signal-to-noise ratio of all pictures together; None where they are equal, or for a judge
    psnr_db: float | None
    required: str  # what the precision asks for, in words
    passed: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        """One line, e.g. "4 golden pictures, worst difference 1 of 255 levels, PSNR 84.1 dB: passed (...)"."""
        if not self.pictures:
            return "no golden pictures in a judge or matcher: its files are whole, and it answers with finite numbers"
        psnr = "equal" if self.psnr_db is None else f"PSNR {self.psnr_db:.1f} dB"
        verdict = "passed" if self.passed else "FAILED"
        return (
            f"{self.pictures} golden pictures, worst difference {self.worst_level} of 255 levels, {psnr}: "
            f"{verdict} ({self.engine.precision} asks for {self.required})"
        )


def load_golden(bundle: Bundle) -> GoldenCases:
    """The golden cases of a bundle; raise BundleError where it has none, damaged ones, or some of other sizes."""
    file, sizes = bundle.manifest.golden, bundle.manifest.sizes
    if file is None:
        raise BundleError(
            f"bundle {bundle.folder} has no golden cases",
            expected='"golden" in its bundle.json',
            next_step="export it again from its checkpoint",
        )
    size = sizes.stages[-1]
    try:
        with bundle.path(file).open("rb") as stream:
            _check_size(stream)
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as arrays:
                texts, ids, lengths = (_array(arrays, name) for name in ("captions", "ids", "lengths"))
                z, images = (_array(arrays, name).astype(np.float32) for name in ("z", f"image_{size}"))
                eps = _array(arrays, "eps").astype(np.float32) if sizes.eps else z[:, :0]
    except UNREADABLE as error:
        raise damaged(bundle.folder, f"{file}: {_unreadable(str(error))}") from error
    count = len(texts) if texts.ndim == 1 and texts.dtype.kind == "U" else 0
    if not count:
        raise damaged(bundle.folder, f"{file}: it has no captions")
    fits = lengths.shape == (count,) and ids.shape[:1] == (count,) and ids.ndim == 2
    if not fits or {ids.dtype.kind, lengths.dtype.kind} != {"i"} or lengths.min() < 1 or lengths.max() > ids.shape[1]:
        raise damaged(bundle.folder, f"{file}: its captions, ids and lengths do not fit each other")
    for name, array, shape in (
        ("z", z, [sizes.z]),
        ("eps", eps, [sizes.eps]),
        (f"image_{size}", images, [3, size, size]),
    ):
        if list(array.shape) != [count, *shape] or not np.isfinite(array).all():
            raise damaged(bundle.folder, f"{file}: '{name}' is not {[count, *shape]} finite numbers")
    rows = [[int(number) for number in row[:length]] for row, length in zip(ids, lengths, strict=True)]
    return GoldenCases([str(text) for text in texts], rows, z, eps, images)


def _array(arrays: Mapping[str, Any], name: str) -> NDArray[Any]:
    """An array of an archive, of which numpy gives bytes where they don't begin as an array does."""
    if not isinstance(array := arrays[name], np.ndarray):
        raise ValueError(f"'{name}' is no array")
    return array


def _check_size(stream: BinaryIO) -> None:
    """Refuse an archive that unpacks to more than there is memory; one that says too little is cut where it said."""
    with zipfile.ZipFile(stream) as archive:
        unpacked = sum(item.file_size for item in archive.infolist())
    if unpacked > LARGEST:
        raise ValueError(f"its arrays have {unpacked:,} bytes, more than {LARGEST:,}")


def _unreadable(reason: str) -> str:
    """What numpy says, but for its advice to load a file unsafely."""
    if "Object arrays" in reason:
        return "it holds Python objects"
    return f"it can't be read ({'no archive of arrays' if 'pickle' in reason else reason[:200]})"


def check_engines(bundle: Bundle, text_encoder: Engine, generator: Engine) -> Verification:
    """Make the golden pictures, all in one batch and each alone, and compare them with torch's.

    An engine that also makes pictures as bytes must do so as well: the worse of both counts.

    Raises:
        BundleError: the golden cases are missing or damaged.
        EngineError: an engine failed, or made values that are not finite.
    """
    golden = load_golden(bundle)
    cases = [slice(None), *(slice(case, case + 1) for case in range(len(golden)))]
    images = np.concatenate([_make(bundle, text_encoder, generator, golden, each) for each in cases])
    wanted = np.concatenate([golden.images, golden.images])
    worst = int(np.abs(to_uint8(images).astype(np.int16) - to_uint8(wanted)).max())
    psnr, facts = psnr_db(images, wanted), generator.facts
    if can_make_pictures(generator):
        shown = generator.pictures(golden_inputs(bundle, golden, text_encoder))["pictures"]
        levels = to_uint8(golden.images)
        worst = max(worst, int(np.abs(shown.astype(np.int16) - levels).max()))
        of_levels = psnr_db(shown, levels, LEVELS)
        if facts.precision != "fp32" and psnr is not None and of_levels is not None:
            psnr = min(psnr, of_levels)
    required, passed = _judge(bundle, facts.precision, worst, psnr)
    return Verification(bundle.name, bundle.hash, facts, len(golden), worst, psnr, required, passed)


def golden_inputs(bundle: Bundle, golden: GoldenCases, text_encoder: Engine, cases: slice = slice(None)) -> Tensors:
    """What the generator takes to make golden pictures: text features and noise."""
    ids = golden.ids[cases]
    lengths = np.array([len(row) for row in ids], np.int64)
    features = text_encoder.run({"captions": Tokenizer.pad(ids), "lengths": lengths})
    return taken(bundle, {**features, "z": golden.z[cases], "eps": golden.eps[cases]})


def psnr_db(one: NDArray[Any], other: NDArray[Any], value_range: float = RANGE) -> float | None:
    """Peak signal-to-noise ratio, 10 log10(range^2 / mean squared difference), in dB; None where both are equal.

    The range is from the darkest to the brightest value: 2 for images in [-1, 1], 255 for uint8.
    """
    error = float(np.mean((one.astype(np.float64) - other) ** 2))
    return None if error == 0.0 else round(float(10.0 * np.log10(value_range**2 / error)), 2)


def _make(
    bundle: Bundle, text_encoder: Engine, generator: Engine, golden: GoldenCases, cases: slice
) -> NDArray[np.float32]:
    inputs = golden_inputs(bundle, golden, text_encoder, cases)
    check_finite(bundle, "text encoder", *(inputs[name] for name in ("words", "sentence") if name in inputs))
    image = generator.run(inputs)[f"image_{bundle.manifest.sizes.stages[-1]}"]
    check_finite(bundle, "generator", image)
    return np.asarray(image, np.float32).clip(-1, 1)


def _judge(bundle: Bundle, precision: str, worst: int, psnr: float | None) -> tuple[str, bool]:
    if precision == "fp32":
        return f"at most {LARGEST_LEVEL} level", worst <= LARGEST_LEVEL
    floor = bundle.manifest.floors[precision]
    return f"{floor:g} dB or more", psnr is None or psnr >= floor
