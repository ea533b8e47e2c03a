"""Golden cases: does a bundle make its own pictures here, on this engine? Needs no torch and no data."""

import zipfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.bundle import JUDGE, MANIFEST, TEXT_TO_IMAGE, Bundle, bundle_folders, open_bundle, read_manifest
from attngan_deploy.engines import Engine, EngineFacts, load_engine
from attngan_deploy.errors import BundleError
from attngan_deploy.images import to_uint8
from attngan_deploy.pipeline import TextToImage
from attngan_deploy.score.judge import Judge

GRAPHS = ("text_encoder", "generator")
LARGEST_LEVEL = 1  # of 255, in fp32: rounding can go either way
RANGE = 2.0  # from the darkest to the brightest value of an image
UNREADABLE = (
    OSError, EOFError, TypeError, ValueError, KeyError, NotImplementedError, RuntimeError, MemoryError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class GoldenCases:
    """What `golden.npz` holds: N captions, their noise, and the pictures that torch made of them in fp32.

    Attributes:
        captions: the texts.
        ids: vocabulary indices of each caption's words.
        z: f32 [N, z].
        eps: f32 [N, eps].
        images: f32 [N, 3, S, S] in [-1, 1].
    """

    captions: list[str]
    ids: list[list[int]]
    z: NDArray[np.float32]
    eps: NDArray[np.float32]
    images: NDArray[np.float32]

    def __len__(self) -> int:
        """Number of cases."""
        return len(self.captions)


@dataclass(frozen=True)
class Verification:
    """How close an engine came to the golden pictures.

    Attributes:
        model: name of the bundle.
        model_hash: its hash.
        engine: what ran the generator.
        pictures: number of golden pictures; 0 for a judge, which has none.
        worst_level: largest difference of a pixel value, in levels of 255; None for a judge.
        psnr_db: peak signal-to-noise ratio of all pictures together; None where they are equal, or for a judge.
        required: what the precision asks for, in words.
        passed: whether it was met.
    """

    model: str
    model_hash: str
    engine: EngineFacts
    pictures: int
    worst_level: int | None
    psnr_db: float | None
    required: str
    passed: bool

    def to_json(self) -> dict[str, Any]:
        """The verification as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        """One line, e.g. "4 golden pictures, worst difference 1 of 255 levels, PSNR 84.1 dB: passed (...)"."""
        if not self.pictures:
            return "no golden pictures in a judge: its files are whole, and its graph answers with finite numbers"
        psnr = "equal" if self.psnr_db is None else f"PSNR {self.psnr_db:.1f} dB"
        verdict = "passed" if self.passed else "FAILED"
        return (
            f"{self.pictures} golden pictures, worst difference {self.worst_level} of 255 levels, {psnr}: "
            f"{verdict} ({self.engine.precision} asks for {self.required})"
        )


def load_golden(bundle: Bundle) -> GoldenCases:
    """The golden cases of a text-to-image bundle.

    Raises:
        BundleError: it has none, or they are damaged or do not fit its sizes.
    """
    if "golden" not in bundle.manifest:
        raise BundleError(
            f"bundle {bundle.folder} has no golden cases",
            expected='"golden" in its bundle.json',
            next_step="export it again from its checkpoint",
        )
    file, sizes = str(bundle.manifest["golden"]), bundle.manifest["sizes"]
    size = sizes["stages"][-1]
    try:
        with bundle.path(file).open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            texts, ids, lengths = arrays["captions"], arrays["ids"], arrays["lengths"]
            z, eps, images = (arrays[name].astype(np.float32) for name in ("z", "eps", f"image_{size}"))
    except UNREADABLE as error:
        raise _damaged(bundle, file, f"it can't be read ({error})") from error
    count = len(texts) if texts.ndim == 1 and texts.dtype.kind == "U" else 0
    if not count:
        raise _damaged(bundle, file, "it has no captions")
    fits = lengths.shape == (count,) and ids.shape[:1] == (count,) and ids.ndim == 2
    if not fits or {ids.dtype.kind, lengths.dtype.kind} != {"i"} or lengths.min() < 1 or lengths.max() > ids.shape[1]:
        raise _damaged(bundle, file, "its captions, ids and lengths do not fit each other")
    for name, array, shape in (
        ("z", z, [sizes["z"]]),
        ("eps", eps, [sizes["eps"]]),
        (f"image_{size}", images, [3, size, size]),
    ):
        if list(array.shape) != [count, *shape] or not np.isfinite(array).all():
            raise _damaged(bundle, file, f"'{name}' is not {[count, *shape]} finite numbers")
    rows = [[int(number) for number in row[:length]] for row, length in zip(ids, lengths, strict=True)]
    return GoldenCases([str(text) for text in texts], rows, z, eps, images)


def _damaged(bundle: Bundle, file: str, why: str) -> BundleError:
    return BundleError(f"bundle {bundle.folder} is damaged: {file}: {why}", next_step="install or export it again")


def open_any(name_or_folder: str) -> Bundle:
    """Like `open_bundle`, of whatever kind the bundle says it is.

    Raises:
        BundleError: not found, damaged or too new.
    """
    folder = bundle_folders().get(name_or_folder, Path(name_or_folder))
    kind = read_manifest(folder).kind if (folder / MANIFEST).is_file() else TEXT_TO_IMAGE
    if kind not in (TEXT_TO_IMAGE, JUDGE):
        raise BundleError(f"bundle {folder} is of an unknown kind", found=kind, expected=f"{TEXT_TO_IMAGE} or {JUDGE}")
    return open_bundle(name_or_folder, kind)


def verify_judge(judge: Judge) -> Verification:
    """A judge has no golden cases: see that its graph answers, with finite numbers of the right shape.

    Raises:
        ScoreError: it does not.
        EngineError: the engine failed.
    """
    judge.look(np.full((1, judge.size, judge.size, 3), 128, np.uint8))
    bundle = judge.bundle
    return Verification(bundle.name, bundle.hash, judge.engine.facts, 0, None, None, "finite numbers", True)


def verify_model(model: TextToImage) -> Verification:
    """Make the golden pictures, all in one batch and each alone, and compare them with torch's.

    Raises:
        BundleError: the golden cases are missing or damaged, or the vocabulary does not give their words.
        EngineError: an engine failed, or made values that are not finite.
    """
    golden = load_golden(model.bundle)
    _check_words(model, golden)
    made = [_decode(model, golden, slice(None))]
    made.append(np.concatenate([_decode(model, golden, slice(case, case + 1)) for case in range(len(golden))]))
    images = np.concatenate(made)
    wanted = np.concatenate([golden.images, golden.images])
    worst = int(np.abs(to_uint8(images).astype(np.int16) - to_uint8(wanted)).max())
    psnr, facts = psnr_db(images, wanted), model.facts
    required, passed = _judge(model.bundle, facts.precision, worst, psnr)
    return Verification(model.bundle.name, model.bundle.hash, facts, len(golden), worst, psnr, required, passed)


def verify_engine(bundle: Bundle, graph: str, engine: Engine) -> Verification:
    """Like `verify_model`, of one engine: ONNX Runtime on the CPU runs the other graph, in fp32.

    Args:
        graph: the graph that `engine` runs: "text_encoder" or "generator".

    Raises:
        BundleError: as `verify_model`, or there is no such graph.
        EngineError: an engine failed, or made values that are not finite.
    """
    reference = ("onnxruntime", "cpu", "fp32")
    encoder, generator = (engine if key == graph else load_engine(bundle, key, *reference) for key in GRAPHS)
    return verify_model(TextToImage(bundle, encoder, generator))


def psnr_db(one: NDArray[Any], other: NDArray[Any], value_range: float = RANGE) -> float | None:
    """Peak signal-to-noise ratio, 10 log10(range^2 / mean squared difference), in dB; None where both are equal.

    Args:
        value_range: from the darkest to the brightest value: 2 for images in [-1, 1], 255 for uint8.
    """
    error = float(np.mean((one.astype(np.float64) - other) ** 2))
    return None if error == 0.0 else round(float(10.0 * np.log10(value_range**2 / error)), 2)


def _check_words(model: TextToImage, golden: GoldenCases) -> None:
    for caption, ids in zip(golden.captions, golden.ids, strict=True):
        if (found := model.tokenizer.encode(caption).ids) != ids:
            raise BundleError(
                f"the vocabulary of {model.bundle.folder} does not give the numbers of golden caption {caption[:40]!r}",
                found=str(found),
                expected=str(ids),
                next_step="export the bundle again",
            )


def _decode(model: TextToImage, golden: GoldenCases, cases: slice) -> NDArray[np.float32]:
    features = model.encode(golden.captions[cases])
    stages = model.decode(features, golden.z[cases], golden.eps[cases])
    return stages.images[model.picture_size]


def _judge(bundle: Bundle, precision: str, worst: int, psnr: float | None) -> tuple[str, bool]:
    if precision == "fp32":
        return f"at most {LARGEST_LEVEL} level", worst <= LARGEST_LEVEL
    floor = bundle.floors[precision]
    return f"{floor:g} dB or more", psnr is None or psnr >= floor
