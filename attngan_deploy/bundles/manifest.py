"""What a `bundle.json` says, decoded and checked in one step before anything of it is used."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from attngan_deploy.bundles.truncation import Truncation
from attngan_deploy.errors import BundleError
from attngan_deploy.system.records import JsonObject, RecordError, decode, look_up

MANIFEST = "bundle.json"
SCHEMA_VERSION = 2  # 2: a generator may take no eps, give no attention, and be meant for truncated noise
TEXT_TO_IMAGE, JUDGE, MATCHER, CRITIC = "text-to-image", "judge", "matcher", "critic"
GRAPHS = {
    TEXT_TO_IMAGE: ("text_encoder", "generator"),
    JUDGE: ("judge",),
    MATCHER: ("text_encoder", "picture_encoder"),
    CRITIC: ("critic",),
}
DTYPES = ("bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64")  # that a graph may take or give
NEEDED = {1: ("z", "eps", "features", "attention"), 2: ("z", "features")}  # sizes of a generator, by schema
TEXTS = ("vocabulary", "golden", "variant", "licence", "weights_dtype")  # that need not be there
POINT = ("pictures", "hours", "fid")  # what each point of a curve tells
FLOORS = {"fp16": 40.0, "bf16": 35.0, "int8": 30.0}  # PSNR against fp32 in dB that pictures of a precision must have

Size = int | str | None  # of a tensor: a number, a name that is the same size wherever it stands, or None for any


@dataclass(frozen=True)
class StoredFile:
    """Size and hash of a file of the bundle."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class TensorSpec:
    """What a graph takes or gives."""

    dtype: str
    shape: tuple[Size, ...]


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


@dataclass(frozen=True)
class StoredPrecision:
    """A graph in another precision than fp32, the layers that stayed in fp32, and what it costs where that is known."""

    file: str
    kept: tuple[str, ...] = ()
    parity: PrecisionParity | None = None


@dataclass(frozen=True)
class Graph:
    """A graph in fp32, and the same in other precisions, with the same float32 inputs and outputs."""

    file: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    precisions: Mapping[str, StoredPrecision]


@dataclass(frozen=True)
class Sizes:
    """Sizes of a generator's tensors, 0 of one that it has not; a matcher has `words` and `features`, a judge none."""

    words: int | None = None  # rows of the embedding; None in a bundle of before this was written down
    # z, eps: numbers of noise a picture
    z: int = 0
    eps: int = 0
    features: int = 0  # of a sentence, and of a word
    width: int = 0  # channels of the generator's stages
    stages: tuple[int, ...] = ()  # side of each stage's pictures
    attention: int = 0  # side of an attention map


@dataclass(frozen=True)
class PictureInput:
    """How pictures go into a judge: values x from 0 to 255 as (x - mean) / std, at `size` pixels a side."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: str
    colours: str = "RGB"


@dataclass(frozen=True)
class JudgeFields:
    """What the manifest of a judge says besides."""

    input: PictureInput  # how pictures go in
    classes: int  # logits that count
    drop_outputs: tuple[int, ...] = ()  # places of logits that do not
    features: int = 0  # length of a feature vector
    network: str = ""  # what it is, in words
    # what "images", "logits" and "features" were called in the file that was imported
    tensors: Mapping[str, str] = field(default_factory=dict)
    note: str = ""  # what has to be known about it


@dataclass(frozen=True)
class Manifest:
    """The contents of a `bundle.json`."""

    # all of it, in its order, from which it is written again: what the other attributes do not have stays
    document: JsonObject = field(repr=False)
    name: str  # the bundle's own, e.g. "att1"
    kind: str  # a key of `GRAPHS`, or one that this version does not know
    files: Mapping[str, StoredFile]  # every file of the bundle
    graphs: Mapping[str, Graph]  # by name
    sizes: Sizes  # of its tensors
    vocabulary: str | None  # its file of words; None where it reads none
    golden: str | None  # its file of golden cases; None where it has none
    variant: str | None  # of the generator
    licence: str | None  # what its weights may be used for
    weights_dtype: str | None  # how weights are stored
    floors: Mapping[str, float]  # PSNR against fp32, in dB, that pictures of each precision must have
    parity: Parity | None  # of a text-to-image bundle with torch
    truncation: Truncation | None  # of the noise that its generator is meant for; None where that is not truncated

    def told(self, *keys: str) -> object:
        """What `bundle.json` says at a path of keys, e.g. "provenance", "recipe"; None where it says nothing."""
        return look_up(self.document, *keys)


def decode_manifest(folder: Path, document: object) -> Manifest:
    """The manifest of a bundle, whose parts fit each other.

    Args:
        folder: where the bundle is, for errors.
        document: what its `bundle.json` holds.

    Raises:
        BundleError: of a newer schema, a field is missing or of the wrong type, or two contradict each other.
    """
    if not isinstance(document, dict):
        raise damaged(folder, f"{MANIFEST} is not a JSON object")
    if (schema := _field(folder, document, "schema", int)) > SCHEMA_VERSION:
        raise BundleError(
            f"bundle {folder} was made for a newer version of this program",
            found=f"schema {schema}",
            expected=f"at most {SCHEMA_VERSION}",
            next_step="pip install --upgrade attngan-deploy",
        )
    name, kind = _field(folder, document, "name", str), _field(folder, document, "kind", str)
    files = {file: _file(folder, file, entry) for file, entry in _field(folder, document, "files", dict).items()}
    graphs = {key: _graph(folder, key, entry) for key, entry in _field(folder, document, "graphs", dict).items()}
    if missing := [key for key in GRAPHS.get(kind, ()) if key not in graphs]:
        raise damaged(folder, f"it has no graph '{missing[0]}'")
    texts = {key: None if document.get(key) is None else _field(folder, document, key, str) for key in TEXTS}
    listed = [
        file for graph in graphs.values() for file in (graph.file, *(it.file for it in graph.precisions.values()))
    ]
    sizes, parity, truncation = Sizes(), None, None
    if kind in (TEXT_TO_IMAGE, MATCHER):
        _field(folder, document, "vocabulary", str)
        sizes = _sizes(folder, _field(folder, document, "sizes", dict), kind, schema)
    if kind == TEXT_TO_IMAGE:
        _check_fit(folder, graphs["generator"], sizes)
        parity = _part(folder, Parity, document["parity"], "parity") if "parity" in document else None
        truncation = _truncation(folder, document["truncation"]) if "truncation" in document else None
    listed += [file for file in (texts["vocabulary"], texts["golden"]) if file is not None]
    if unlisted := [file for file in listed if file not in files]:
        raise damaged(folder, f"'{unlisted[0]}' is used but not in its file table")
    floors = document.get("floors", {})
    if not isinstance(floors, dict) or any(type(floor) not in (int, float) for floor in floors.values()):
        raise damaged(folder, "its floors are not numbers")
    return Manifest(
        document=document,
        name=name,
        kind=kind,
        files=files,
        graphs=graphs,
        sizes=sizes,
        **texts,
        floors=FLOORS | {precision: float(floor) for precision, floor in floors.items()},
        parity=parity,
        truncation=truncation,
    )


def schema_of(fields: JsonObject) -> int:
    """The oldest schema that can say these fields of a manifest, so that older programs open what they can use."""
    if fields.get("kind") != TEXT_TO_IMAGE:
        return 1
    sizes = fields.get("sizes")
    has_all = isinstance(sizes, dict) and sizes.keys() >= set(NEEDED[1])
    return 1 if has_all and "truncation" not in fields else 2


def _file(folder: Path, file: str, entry: object) -> StoredFile:
    if Path(file).name != file or "\\" in file or file in ("", ".", "..", MANIFEST):
        raise damaged(folder, f"'{file}' in its file table is not a plain file name")
    try:
        return decode(StoredFile, entry)
    except RecordError as error:
        raise damaged(folder, f"the file table's entry of '{file}' has no bytes and sha256") from error


def _graph(folder: Path, key: str, entry: object) -> Graph:
    if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
        raise damaged(folder, f"graph '{key}' names no file")
    inputs, outputs = (_tensors(folder, key, entry, side) for side in ("inputs", "outputs"))
    stored = entry.get("precisions", {})
    if not isinstance(stored, dict):
        raise damaged(folder, f"graph '{key}' has precisions that are no table")
    if nameless := [name for name, said in stored.items() if not isinstance(look_up(said, "file"), str)]:
        raise damaged(folder, f"graph '{key}' names no file for {nameless[0]}")
    precisions = {name: _part(folder, StoredPrecision, said, f"{key} in {name}") for name, said in stored.items()}
    return Graph(entry["file"], inputs, outputs, precisions)


def _tensors(folder: Path, key: str, graph: JsonObject, side: str) -> dict[str, TensorSpec]:
    """One side of a graph; a size is a number, a name, or None for any."""
    tensors = graph.get(side)
    if not isinstance(tensors, dict):
        raise damaged(folder, f"graph '{key}' has no table of {side}")
    specs = {}
    for name, said in tensors.items():
        shape, dtype = look_up(said, "shape"), look_up(said, "dtype")
        if not isinstance(shape, list) or not isinstance(dtype, str) or dtype not in DTYPES:
            raise damaged(folder, f"graph '{key}' does not say dtype and shape of its tensor {ascii(name)[:80]}")
        if not all(size is None or isinstance(size, str) or _is_size(size) for size in shape):
            raise damaged(folder, f"graph '{key}' has a shape of its tensor {ascii(name)[:80]} that is none")
        specs[name] = TensorSpec(dtype, tuple(shape))
    return specs


def _sizes(folder: Path, sizes: JsonObject, kind: str, schema: int) -> Sizes:
    needed = NEEDED[max(schema, 1)] if kind == TEXT_TO_IMAGE else ()
    for key in ("words", "z", "eps", "features", "width", "attention"):
        if (key in needed or sizes.get(key) is not None) and not _is_size(sizes.get(key)):
            raise damaged(folder, f"size '{key}' is not a positive number")
    stages = sizes.get("stages", None if kind == TEXT_TO_IMAGE else [1])
    if not isinstance(stages, list) or not stages or not all(map(_is_size, stages)):
        raise damaged(folder, "size 'stages' is not a list of picture sizes")
    return decode(Sizes, {key: size for key, size in sizes.items() if size is not None})


def _check_fit(folder: Path, generator: Graph, sizes: Sizes) -> None:
    """See that the sizes are those of the generator's tensors: what reads the manifest relies on either."""
    words = "words" if "words" in generator.inputs else "sentence"
    wanted: dict[str, tuple[int | None, int]] = {"z": (sizes.z, 1), words: (sizes.features, 1)}
    wanted["eps"] = (sizes.eps or None, 1)
    wanted |= {f"image_{size}": (size, -1) for size in sizes.stages}
    for name, (size, axis) in wanted.items():
        tensor = (generator.inputs if axis == 1 else generator.outputs).get(name)
        found = tensor.shape[axis] if tensor is not None and len(tensor.shape) > max(axis, 0) else None
        if found != size:
            raise damaged(folder, f"its sizes ask for '{name}' of {size}, and its generator has {found}")
    if (sizes.attention > 0) != ("attention" in generator.outputs):
        raise damaged(folder, f"its sizes say an attention of {sizes.attention}, and its generator has another")


def _truncation(folder: Path, value: object) -> Truncation:
    told: Truncation = _part(folder, Truncation, value, "truncation")
    if not told.is_usable:
        raise damaged(folder, f"a truncation at {told.clip} times {told.scale}")
    return told


def _part(folder: Path, kind: Any, value: object, what: str) -> Any:
    try:
        return decode(kind, value)
    except RecordError as error:
        raise damaged(folder, f"{what}: found {error.found}, expected {error.expected}") from error


def _is_size(size: object) -> bool:
    return type(size) is int and size > 0


def _field(folder: Path, document: JsonObject, key: str, kind: type) -> Any:
    value = document.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        found = "nothing" if key not in document else type(value).__name__
        raise damaged(folder, f"field '{key}' of {MANIFEST} is {found}, not {kind.__name__}")
    return value


def damaged(folder: Path, why: str) -> BundleError:
    """The error of a bundle that can't be used."""
    return BundleError(f"bundle {folder} is damaged: {why}", next_step="install or export it again")


def _lowest(ratios: Iterable[float | None]) -> float | None:
    return min((ratio for ratio in ratios if ratio is not None), default=None)


@dataclass(frozen=True)
class TrainingRun:
    """A training run. What nobody told of it is None, or empty."""

    document: JsonObject = field(repr=False)  # all that is told of it
    variant: str  # of its generator
    stages: int | None  # how many it has
    pictures: int | None  # that it saw
    bundle: str | None  # name of the bundle that it is, where the next run began with one
    curve: Sequence[Mapping[str, float]]  # scores on the way, each with "pictures", "hours" and "fid"
    before: Sequence["TrainingRun"]  # the runs that it started from


def read_run(told: object) -> TrainingRun:
    """The run that a checkpoint's description, or a bundle's provenance, tells of; old ones tell of one run before."""
    document = told if isinstance(told, dict) else {}
    before = document.get("started_from") or []
    curve = document.get("curve")
    generator = look_up(document, "generator") or look_up(document, "recipe", "generator")  # as a bundle has it
    return TrainingRun(
        document=document,
        variant=str(look_up(generator, "variant") or ""),
        stages=_whole(look_up(generator, "stages")),
        pictures=_whole(document.get("pictures")),
        bundle=None if (bundle := document.get("bundle")) is None else str(look_up(bundle, "name")),
        curve=[point for point in (curve if isinstance(curve, list) else []) if _is_point(point)],
        before=[read_run(each) for each in (before if isinstance(before, list) else [before])],
    )


def _whole(value: object) -> int | None:
    return value if type(value) is int else None


def _is_point(point: object) -> bool:
    return all(isinstance(look_up(point, key), int | float) for key in POINT)
