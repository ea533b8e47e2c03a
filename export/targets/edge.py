"""One file for devices: tokenizer, text encoder and generator of a bundle as a single graph, `edge.onnx`.

    captions string [N], z f32 [N, Z], eps f32 [N, E]  ->  pictures uint8 [N, S, S, 3], known int64 [N]

There is no eps where the generator takes none. The noise comes from outside, as everywhere: with that of
`noise.noise_batch`, the pictures are those of `TextToImage.generate`. Where the model is meant for truncated noise, the
file's metadata say so. Unknown words are left out inside, and `known` counts the words of each caption that were not:
where it is 0, the picture shows no caption. Known words behind the first `MAX_WORDS` are counted but not looked at.

The numbers that reach the embedding come from the vocabulary in the graph and from nowhere else, and its size is
compared with the embedding when the file is made. Only ONNX Runtime has the text operators; OpenVINO has none.
"""

import string
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, permutations, product
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import onnx
import onnxruntime
from onnx import compose, helper, parser

from attngan_deploy.bundles.bundle import Bundle, open_bundle
from attngan_deploy.bundles.graph_file import read_graph
from attngan_deploy.bundles.manifest import TEXT_TO_IMAGE
from attngan_deploy.engines.golden import LARGEST_LEVEL, load_golden, psnr_db
from attngan_deploy.engines.onnxruntime.engine import FATAL_ONLY, RUNTIME_ERRORS
from attngan_deploy.engines.tensors import check_names
from attngan_deploy.errors import BundleError, OutputError, ParityError
from attngan_deploy.export.final_names import final_names
from attngan_deploy.media.images import to_uint8
from attngan_deploy.media.tokenizer import INVISIBLE, MAX_WORDS, Tokenizer, split_words
from attngan_deploy.system.durable import move, sync_files
from attngan_deploy.system.files import part_path, replaceable_file
from attngan_deploy.system.lock import writing
from attngan_deploy.system.processor import limited_threads
from attngan_deploy.system.signals import interruptibly

EDGE = "edge.onnx"
# tokenizer.WORD as RE2 says it, whose \w is ASCII only: a word ends with a letter that NFC takes apart, see `_word`.
WORD = r"(?:{composed}|[^\P{{L}}{apart}]|[\p{{N}}_])*(?:[{apart}]|{composed}|[^\P{{L}}{apart}]|[\p{{N}}_])"
VISIBLE = "[^" + "".join(rf"\x{{{first:x}}}-\x{{{last:x}}}" for first, last in INVISIBLE) + "]+"
MAX_SPELLINGS = 100  # of a word
LAST_COMPOSED = 0x11938  # of the letters that NFC composes or takes apart
OPSET, IR_VERSION = 20, 9  # the first that have StringConcat
DOMAINS = {"ai.onnx.ml": 2, "com.microsoft": 1}  # of the text operators
ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
LEVELS = 255.0
CONTRACT = (
    "pictures of captions, from noise z and eps that is drawn outside; known counts the words of each caption that the "
    "model knows: where it is 0, the picture shows no caption"
)

# The visible pieces of each caption are joined. No operator makes NFC of them: a letter with its marks behind it is a
# letter of a word, and the vocabulary holds words in both spellings.
# Numbers are 0 for unknown words and filling. Each row is sorted: known words first, in their order, then zeros; and
# cut to the longest row. A row without a known word keeps one zero, as no engine has an LSTM of length 0.
FRONT = """
front (string[N] captions{given})
    => (int64[N, T] ids, int64[N] lengths, int64[N] known{passed})
<int64 zero = {{0}}, int64 step = {{1}}, int64[1] rows = {{1}}, int64 one = {{1}}, int64 most = {{{most}}},
 int64[4] one_column = {{0, 0, 0, 1}}, string nothing = {{""}}, bool always = {{1}}>
{{
    pieces = com.microsoft.Tokenizer <mark = 0, mincharnum = 1, pad_value = ""> (captions)
    piece_columns = Shape <start = 1> (pieces)
    piece_count = Squeeze (piece_columns)
    captions_shape = Shape (captions)
    empty = Expand (nothing, captions_shape)
    visible = Loop (piece_count, always, empty) <body = join (int64 column, bool more, string[N] before)
        => (bool more_after, string[N] after)
    {{
        more_after = Identity (more)
        piece = Gather <axis = 1> (pieces, column)
        after = StringConcat (before, piece)
    }}>
    lower = StringNormalizer <case_change_action = "LOWER", is_case_sensitive = 1, locale = "C"> (visible)
    tokens = com.microsoft.Tokenizer <mark = 0, mincharnum = 1, pad_value = ""> (lower)
    labels = ai.onnx.ml.LabelEncoder <default_int64 = 0> (tokens)
    numbers = Pad (labels, one_column)
    is_known = Greater (numbers, zero)
    ones = Cast <to = 7> (is_known)
    known = ReduceSum <keepdims = 0> (ones, rows)
    lengths = Clip (known, one, most)
    longest = ReduceMax <keepdims = 1> (lengths)
    columns = Shape <start = 1> (numbers)
    width = Squeeze (columns)
    place = Range (zero, width, step)
    last = Add (place, width)
    order = Where (is_known, place, last)
    sorted, chosen = TopK <axis = 1, largest = 0> (order, longest)
    ids = GatherElements <axis = 1> (numbers, chosen)
    {copies}
}}
"""

# images.to_uint8
BACK = """
back (float[N, 3, {size}, {size}] image) => (uint8[N, {size}, {size}, 3] pictures)
<float shift = {{1.0}}, float half = {{127.5}}, float black = {{0.0}}, float white = {{255.0}}>
{{
    above = Add (image, shift)
    scaled = Mul (above, half)
    rounded = Round (scaled)
    inside = Clip (rounded, black, white)
    channels_last = Transpose <perm = [0, 2, 3, 1]> (inside)
    pictures = Cast <to = 2> (channels_last)
}}
"""


@dataclass(frozen=True)
class EdgeFacts:
    """What was written."""

    path: Path
    bytes: int
    model: str  # name of the bundle
    model_hash: str
    precision: str  # of the generator; the text encoder is always fp32
    words: int  # how many it knows
    golden_worst_level: int | None  # largest difference from the golden pictures, of 255; None where there are none
    golden_psnr_db: float | None  # the same as a peak signal-to-noise ratio; None also where there is no difference

    def to_json(self) -> dict[str, Any]:
        """The facts as JSON values."""
        return asdict(self) | {"path": str(self.path)}

    def __str__(self) -> str:
        """One line, e.g. "edge.onnx  9.13 MB, base in fp32, 5449 words, golden pictures: at most 1 of 255 levels"."""
        golden = "none to compare with"
        if self.golden_worst_level is not None:
            psnr = "" if self.golden_psnr_db is None else f", {self.golden_psnr_db} dB"
            golden = f"at most {self.golden_worst_level} of 255 levels{psnr}"
        return (
            f"{self.path}  {self.bytes / 1e6:.2f} MB, {self.model} in {self.precision}, {self.words} words, "
            f"golden pictures: {golden}"
        )


def write_edge(bundle: Bundle | str | Path, path: Path, precision: str = "fp32") -> EdgeFacts:
    """Write a bundle as one file. It gets its name only when it makes the bundle's golden pictures from their captions.

    Args:
        precision: a precision in which the bundle holds its generator.

    Raises:
        BundleError: missing, damaged, no text-to-image model, without this precision, or with a vocabulary that does
            not fit the embedding.
        OutputError: the folder of `path` is missing, or `path` is a folder.
        ParityError: the file does not make the golden pictures; nothing is left of it.
    """
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    if not path.parent.is_dir():
        raise OutputError(f"there is no folder {path.parent}", next_step=f"mkdir -p {path.parent}")
    if path.is_dir():
        raise OutputError(f"{path} is a folder", expected="the name of a file", next_step=f"give {path / EDGE}")
    model = build_edge(opened, precision)
    path = replaceable_file(path)
    if path.exists() and path.suffix != ".onnx":
        raise OutputError(f"{path} is there and is no .onnx file", next_step="choose another --target-out")
    part = part_path(path)
    try:
        with final_names(path), writing(path):
            part.write_bytes(model.SerializeToString(deterministic=True))
            golden = _check_golden(opened, part, precision)
            size = part.stat().st_size
            sync_files([part])
            move(part, path)
    finally:
        part.unlink(missing_ok=True)
    return EdgeFacts(path, size, opened.name, opened.hash, precision, len(_tokenizer(opened)) - 1, *golden)


def build_edge(bundle: Bundle, precision: str = "fp32") -> onnx.ModelProto:
    """The graph that `write_edge` writes.

    Raises:
        BundleError: no text-to-image model, without this precision, with graphs of different operator sets, or with a
            vocabulary that does not fit the embedding.
        EngineError: a graph without the tensors that the manifest says of it.
    """
    if bundle.kind != TEXT_TO_IMAGE:
        raise BundleError(
            f"{bundle.folder} makes no pictures",
            found=f"kind '{bundle.kind}'",
            expected=TEXT_TO_IMAGE,
            next_step="t2i models",
        )
    tokenizer, sizes = _tokenizer(bundle), bundle.manifest.sizes
    size = sizes.stages[-1]
    text_encoder = _part(bundle, "text_encoder", "fp32")
    generator = _part(bundle, "generator", precision)
    _check_embedding(bundle, text_encoder, len(tokenizer))
    noise = {name: size for name, size in (("z", sizes.z), ("eps", sizes.eps)) if size}
    text = FRONT.format(
        given="".join(f", float[N, {size}] {name}" for name, size in noise.items()),
        passed="".join(f", float[N, {size}] {name}_noise" for name, size in noise.items()),
        copies="\n    ".join(f"{name}_noise = Identity ({name})" for name in noise),
        most=MAX_WORDS,
    )
    front = _front(text, tokenizer)
    back = parser.parse_graph(BACK.format(size=size))
    imports, ir_version = _versions(bundle, text_encoder, generator)

    graph = compose.merge_graphs(
        front, text_encoder.graph, [("ids", "text_encoder/captions"), ("lengths", "text_encoder/lengths")]
    )
    taken = bundle.graph("generator").inputs
    links = [(f"text_encoder/{name}", f"generator/{name}") for name in ("words", "sentence", "mask") if name in taken]
    links += [(f"{name}_noise", f"generator/{name}") for name in noise]
    graph = compose.merge_graphs(graph, generator.graph, links)
    graph = compose.merge_graphs(graph, back, [(f"generator/image_{size}", "image")])
    keep_outputs(graph, ("pictures", "known"))
    graph.name, graph.doc_string = "edge", CONTRACT
    model = helper.make_model(graph, opset_imports=imports, ir_version=ir_version, producer_name="attngan-deploy")
    facts = {"model": bundle.name, "model_hash": bundle.hash, "precision": precision}
    if (truncation := bundle.manifest.truncation) is not None:
        facts |= {"truncation_clip": repr(truncation.clip), "truncation_scale": repr(truncation.scale)}
    helper.set_model_props(model, facts | {"licence": bundle.manifest.licence or ""})
    onnx.checker.check_model(model)
    return model


def _tokenizer(bundle: Bundle) -> Tokenizer:
    return Tokenizer.load(bundle.vocabulary)


def _part(bundle: Bundle, key: str, precision: str) -> onnx.ModelProto:
    """A graph of the bundle; its key stands before all its names."""
    path = bundle.graph_path(key, precision)
    model = read_graph(path)
    weights = {weight.name for weight in model.graph.initializer}
    inputs = (value.name for value in model.graph.input if value.name not in weights)
    check_names(path, bundle.graph(key), inputs, (value.name for value in model.graph.output))
    del model.graph.value_info[:]
    return compose.add_prefix(model, f"{key}/")


def _check_embedding(bundle: Bundle, text_encoder: onnx.ModelProto, words: int) -> None:
    sizes = {table.name: table.dims for table in text_encoder.graph.initializer}
    tables = [node.input[0] for node in text_encoder.graph.node if "text_encoder/captions" in node.input[1:]]
    rows = {sizes[table][0] for table in tables if sizes.get(table)}  # a single number is no table
    if rows != {words}:
        raise BundleError(
            f"the vocabulary of {bundle.folder} does not fit its embedding",
            found=f"{words} words",
            expected=" and ".join(str(count) for count in sorted(rows)) or "an embedding",
            next_step="export the bundle again",
        )


def _front(text: str, tokenizer: Tokenizer) -> onnx.GraphProto:
    graph, labels = parser.parse_graph(text), _labels(tokenizer)
    attributes: dict[str, dict[str, Any]] = {
        "pieces": {"tokenexp": VISIBLE},
        "tokens": {"tokenexp": _word()},
        "labels": {"keys_strings": list(labels), "values_int64s": list(labels.values())},
    }
    for node in graph.node:
        node.name = node.output[0]
        for name, value in attributes.get(node.name, {}).items():
            node.attribute.append(helper.make_attribute(name, value))
    return graph


def _labels(tokenizer: Tokenizer) -> dict[str, int]:
    """Number of every word that a caption can contain, as written in lower case and with capitals outside ASCII.

    In locale "C", the only one that every device has, StringNormalizer lowers the letters of ASCII alone.
    """
    labels: dict[str, int] = {}
    for word, number in tokenizer.index.items():
        if split_words(word) == [word]:
            capitals = {written for written in (word.capitalize(), word.upper()) if written.lower() == word}
            for written in {word} | capitals:
                letters = ([letter, *_spellings(letter)] for letter in written)
                spelled = [normalize("NFD", written), *map("".join, islice(product(*letters), MAX_SPELLINGS))]
                labels |= {each.translate(ASCII_LOWER): number for each in spelled}
    return labels


def _word() -> str:
    """A regular expression of words, in which a letter that NFC composes may be in any other spelling of it."""
    bases: dict[str, str] = {}
    apart = ""
    for letter in filter(str.isalnum, map(chr, range(0xC0, LAST_COMPOSED + 1))):
        apart += letter * (not normalize("NFC", letter).isalnum())
        for spelled in _spellings(letter):
            bases[spelled[1:]] = bases.get(spelled[1:], "") + spelled[0]
    composed = "|".join(f"[{bases[marks]}]{marks}" for marks in sorted(bases, key=len, reverse=True))
    return WORD.format(composed=composed, apart=apart)


def _spellings(letter: str) -> Iterator[str]:
    """A letter with some or all of its marks behind it, in each order that is the same to NFC."""
    base, *marks = list(normalize("NFD", letter))
    if marks and not any(map(str.isalnum, marks)):
        spelled = {
            normalize("NFC", base + "".join(order[:cut])) + "".join(order[cut:])
            for order in permutations(marks)
            for cut in range(len(marks))
        }
        yield from (each for each in sorted(spelled) if normalize("NFC", each) == letter)


def _versions(bundle: Bundle, *models: onnx.ModelProto) -> tuple[list[onnx.OperatorSetIdProto], int]:
    """Operator sets and IR version that all graphs together need."""
    imports: dict[str, int] = dict(DOMAINS)
    for model in models:
        for entry in model.opset_import:
            if imports.setdefault(entry.domain, entry.version) != entry.version:
                raise BundleError(
                    f"the graphs of {bundle.folder} use different operator sets",
                    found=f"{imports[entry.domain]} and {entry.version} of '{entry.domain or 'ai.onnx'}'",
                    next_step="choose another --precision",
                )
    imports[""] = max(imports.get("", 0), OPSET)
    made = [helper.make_opsetid(domain, version) for domain, version in imports.items()]
    return made, max(IR_VERSION, *(model.ir_version for model in models))


def keep_outputs(graph: onnx.GraphProto, names: Sequence[str]) -> None:
    """Drop the other outputs, and the nodes and weights that only they needed: ONNX Runtime would run them."""
    needed, kept = set(names), []
    for node in reversed(graph.node):  # a graph's nodes stand in the order in which they run
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    outputs = {value.name: value for value in graph.output}
    weights = [weight for weight in graph.initializer if weight.name in needed]
    kept_fields = {"node": kept[::-1], "output": [outputs[name] for name in names], "initializer": weights}
    for field, values in (kept_fields | {"value_info": []}).items():
        graph.ClearField(field)
        getattr(graph, field).extend(values)


def _check_golden(bundle: Bundle, path: Path, precision: str) -> tuple[int | None, float | None]:
    """Worst level and PSNR of the golden pictures, as the file makes them."""
    if bundle.manifest.golden is None:
        return None, None
    golden, options = load_golden(bundle), onnxruntime.SessionOptions()
    options.log_severity_level = FATAL_ONLY
    options.intra_op_num_threads = limited_threads() or 0
    inputs = {"captions": np.array(golden.captions, object), "z": golden.z}
    if golden.eps.size:
        inputs["eps"] = golden.eps
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        pictures, known = interruptibly(lambda: session.run(["pictures", "known"], inputs))
    except RUNTIME_ERRORS as error:
        raise ParityError(f"ONNX Runtime can't run {path.name}: {error}", next_step="t2i models --check") from error
    wanted = to_uint8(golden.images)
    worst, psnr = int(np.abs(pictures.astype(np.int16) - wanted).max()), psnr_db(pictures, wanted, LEVELS)
    found = f"a difference of {worst} levels" + ("" if psnr is None else f", {psnr} dB")
    if known.tolist() != [len(row) for row in golden.ids]:
        raise ParityError("the edge file does not read the golden captions", found=f"{known.tolist()} known words")
    if precision == "fp32" and worst > LARGEST_LEVEL:
        raise ParityError("the edge file does not make the golden pictures", found=found, expected="at most 1 level")
    if precision != "fp32" and psnr is not None and not psnr >= (floor := bundle.manifest.floors[precision]):
        raise ParityError("the edge file does not make the golden pictures", found=found, expected=f"{floor:g} dB")
    return worst, psnr
