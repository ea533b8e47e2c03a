"""Any ONNX classifier becomes a judge: its tensors renamed, and what it says checked by running it. Needs no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from attngan_deploy.bundles.bundle import check_replaceable, write_manifest
from attngan_deploy.bundles.graph_file import read_graph
from attngan_deploy.bundles.manifest import JUDGE, JudgeFields
from attngan_deploy.engines.onnxruntime.engine import OnnxRuntimeEngine
from attngan_deploy.errors import BundleError, EngineError, ParityError
from attngan_deploy.export.final_names import new_folder
from attngan_deploy.score.judge import LARGEST, Judge
from attngan_deploy.system.records import JsonObject, decode
from attngan_deploy.system.signals import interruptibly

GRAPH_FILE = "judge.onnx"
IMAGES, LOGITS, FEATURES = "images", "logits", "features"
BATCHES = (1, 3)
BATCH_TOLERANCE = 1e-3  # of the largest value: what a row may change by where its batch does
SUM_TOLERANCE = 1e-3  # of rows that count as probabilities
SMALLEST = float(np.finfo(np.float32).tiny)  # probability that still has a logarithm
IR_VERSION = 8  # from which on weights need not be inputs as well
PREFIX = "classifier/"
NEXT_STEP = "--logits, --features: names of tensors in the file"


@dataclass(frozen=True)
class JudgeOptions:
    """How a classifier is used."""

    name: str | None = None  # of the judge; None for its folder's
    size: int | None = None  # side of its pictures in pixels; None where the file says it
    mean: Sequence[float] = ()  # pictures go in as (x - mean) / std, x from 0 to 255; one number, or one a channel
    std: Sequence[float] = ()
    classes: Sequence[str] = ()  # names of the classes that count, in order; empty if unknown
    drop_outputs: Sequence[int] = ()  # places of logits that are no classes
    logits: str | None = None  # name of a tensor in the file; None to find it
    features: str | None = None
    from_probabilities: bool = False  # its output is a softmax: take its logarithm
    licence: str = "unknown: it is the licence of the weights that were imported"  # what they may be used for
    force: bool = False  # replace a judge that was made of something else


def import_onnx_judge(file: Path, out: Path, options: JudgeOptions) -> Judge:
    """Make a bundle of an ONNX classifier, and run it.

    It has one input, float32 [N, 3, S, S] or [N, S, S, 3], and logits [N, C]. Its features are a tensor [N, F] (sides
    of 1 are dropped): the one that is named, else an output called "features", else what its last linear layer reads.

    Args:
        options: how it is used. Mean and std must be given.

    Raises:
        BundleError: it can't be used so; the message names the tensor or option.
        EngineError: ONNX Runtime can't run it.
        ParityError: what it says of a picture depends on the others of the batch.
        OutputError: something else is at `out`.
    """
    mean, std = _three("--mean", options.mean), _three("--std", options.std)
    model = read_graph(file)
    source, size, transposed = _find_input(file, model, options.size)
    logits = _find_logits(file, model, options.logits)
    features = _find_features(file, model, logits, options.features)
    graph = _renamed(model, source, size, transposed, logits, features, options.from_probabilities)
    facts = {
        "network": f"an ONNX classifier, from {file.name}",
        "tensors": {"images": source, "logits": logits, "features": features},
        "opset": next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0),
    }
    return write_judge(graph, out, options, facts, size=size, mean=mean, std=std)


def write_judge(
    model: onnx.ModelProto,
    out: Path,
    options: JudgeOptions,
    facts: JsonObject,
    *,
    size: int,
    mean: list[float],
    std: list[float],
    card: str = "",
) -> Judge:
    """Write the bundle of a graph with the judge's tensors, checked by running it; the judge, opened.

    Args:
        card: its README.md; "" for that of an imported judge.

    Raises:
        As `import_onnx_judge`.
    """
    check_replaceable(out, JUDGE, facts, options.force)
    with new_folder(out) as folder:
        (folder / GRAPH_FILE).write_bytes(model.SerializeToString(deterministic=True))
        graph = folder / GRAPH_FILE
        outputs, width = interruptibly(lambda: _try_out(graph, size, mean, std, options))  # it may loop for ever
        kept = outputs - len(set(options.drop_outputs))
        if options.classes and len(options.classes) != kept:
            raise BundleError(
                "the names of classes do not fit",
                found=f"{len(options.classes)} names",
                expected=f"{kept}: {outputs} outputs, {len(set(options.drop_outputs))} of them dropped",
                next_step="a name a line in --classes, of the outputs that count",
            )
        name = options.name or out.resolve().name
        fields: JsonObject = {
            "kind": JUDGE,
            "name": name,
            **facts,
            "graphs": {"judge": _graph_entry(size, outputs, width)},
            "input": {"size": size, "mean": mean, "std": std, "resize": "bilinear", "colours": "RGB"},
            "classes": kept,
            **({"drop_outputs": sorted(set(options.drop_outputs))} if options.drop_outputs else {}),
            "features": width,
            **({"class_names": list(options.classes)} if options.classes else {}),
            "licence": options.licence,
        }
        card = card or _card(name, decode(JudgeFields, fields), options.licence)
        (folder / "README.md").write_text(card, encoding="utf-8")
        write_manifest(folder, fields)
        Judge.load(folder).predict(np.random.default_rng(1).integers(0, 256, (2, size, size, 3), np.uint8))
    return Judge.load(out)


def _shape(value: onnx.ValueInfoProto) -> list[int | None]:
    """Its sizes; None for one that is not fixed."""
    return [dim.dim_value if dim.dim_value > 0 else None for dim in value.type.tensor_type.shape.dim]


def _find_input(file: Path, model: onnx.ModelProto, asked: int | None) -> tuple[str, int, bool]:
    """Name of the input, side of its pictures, and whether channels come last."""
    weights = {each.name for each in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    told = ", ".join(f"{value.name} {_shape(value)}".replace("None", "?") for value in inputs)
    expected = "one input, float32 [N, 3, S, S] or [N, S, S, 3]"
    shape = _shape(inputs[0]) if inputs else []
    if len(inputs) != 1 or len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise BundleError(
            f"{file} does not take pictures",
            found=told or "no input",
            expected=expected,
            next_step="t2i import-judge --help",
        )
    if inputs[0].type.tensor_type.elem_type != TensorProto.FLOAT:
        kind = TensorProto.DataType.Name(inputs[0].type.tensor_type.elem_type).lower()
        raise BundleError(
            f"{file} does not take float32 pictures", found=kind, expected=expected, next_step="t2i import-judge --help"
        )
    transposed = shape[1] != 3
    sides = {side for side in (*(shape[1:3] if transposed else shape[2:]), asked) if side is not None}
    if len(sides) != 1:
        raise BundleError(
            f"{file}: the side of its pictures is not clear",
            found=" and ".join(str(side) for side in sorted(sides)) or "none in the file",
            expected="one number of pixels",
            next_step="--size 299, as it was trained with" if not sides else "leave out --size",
        )
    (side,) = sides
    if side > LARGEST:
        raise BundleError(
            f"{file} takes pictures that are too large",
            found=f"{side} px",
            expected=f"1 to {LARGEST} px",
            next_step="another classifier",
        )
    return inputs[0].name, side, transposed


def _find_logits(file: Path, model: onnx.ModelProto, asked: str | None) -> str:
    if asked is not None:
        return _named(file, model, asked, "--logits")
    outputs = [str(value.name) for value in model.graph.output]
    if LOGITS in outputs:
        return LOGITS
    if len(outputs) != 1:
        raise BundleError(
            f"{file} has several outputs", found=", ".join(outputs)[:200], expected="one of logits", next_step=NEXT_STEP
        )
    return outputs[0]


def _find_features(file: Path, model: onnx.ModelProto, logits: str, asked: str | None) -> str:
    if asked is not None:
        return _named(file, model, asked, "--features")
    if FEATURES in [value.name for value in model.graph.output]:
        return FEATURES
    makers = {name: node for node in model.graph.node for name in node.output}
    weights = {each.name for each in model.graph.initializer}
    node = makers.get(logits)
    while node is not None and node.op_type not in ("Gemm", "MatMul"):
        made = [name for name in node.input if name in makers and name not in weights]
        node = (
            makers[made[0]] if made and node.op_type in ("Identity", "Add", "Cast", "Softmax", "LogSoftmax") else None
        )
    if node is None:
        raise BundleError(
            f"{file}: no linear layer was found before {logits}, whose input could be features", next_step=NEXT_STEP
        )
    return str(node.input[0])


def _named(file: Path, model: onnx.ModelProto, name: str, option: str) -> str:
    made = [output for node in model.graph.node for output in node.output if output]
    if name not in made:
        raise BundleError(f"{file} has no tensor '{name}'", found=", ".join(made[-5:])[:200], next_step=option)
    return name


def _renamed(
    model: onnx.ModelProto, source: str, size: int, transposed: bool, logits: str, features: str, take_log: bool
) -> onnx.ModelProto:
    """The model with the judge's input and outputs, of any batch size."""
    renamed = onnx.compose.add_prefix(model, PREFIX)
    graph = renamed.graph
    entry = helper.make_node("Identity", [IMAGES], [PREFIX + source])
    if transposed:
        entry = helper.make_node("Transpose", [IMAGES], [PREFIX + source], perm=[0, 2, 3, 1])
    nodes = [entry, *graph.node, helper.make_node("Flatten", [PREFIX + features], [FEATURES], axis=1)]
    if take_log:
        graph.initializer.append(helper.make_tensor("smallest", TensorProto.FLOAT, [], [SMALLEST]))
        nodes.append(helper.make_node("Max", [PREFIX + logits, "smallest"], ["clipped"]))
        nodes.append(helper.make_node("Log", ["clipped"], [LOGITS]))
    else:
        nodes.append(helper.make_node("Identity", [PREFIX + logits], [LOGITS]))
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info(IMAGES, TensorProto.FLOAT, ["N", 3, size, size]))
    for name, width in ((LOGITS, "C"), (FEATURES, "F")):
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width]))
    renamed.ir_version = max(renamed.ir_version, IR_VERSION)
    return renamed


def _try_out(graph: Path, size: int, mean: list[float], std: list[float], options: JudgeOptions) -> tuple[int, int]:
    """Run a graph on noise, alone and in batches; its numbers of logits and of features."""
    engine = OnnxRuntimeEngine(graph)
    pictures = np.random.default_rng(0).integers(0, 256, (max(BATCHES), 3, size, size)).astype(np.float64)
    pictures[0], pictures[1] = 0, 255
    shape = (1, 3, 1, 1)
    images = ((pictures - np.reshape(mean, shape)) / np.reshape(std, shape)).astype(np.float32)
    whole: dict[str, NDArray[Any]] = {}
    for batch in sorted(BATCHES, reverse=True):
        try:
            outputs = engine.run({IMAGES: images[:batch]})
        except EngineError as error:
            raise EngineError(
                f"the classifier does not run on {batch} pictures of {size} px: {error.what}"[:400],
                expected="any number of pictures",
                next_step="export it with a dynamic batch" if batch > 1 else "",
            ) from error
        whole = whole or outputs
        _check_outputs(outputs, batch)
        for name in (LOGITS, FEATURES):
            largest = max(float(np.abs(whole[name]).max()), 1e-6)
            difference = float(np.abs(outputs[name] - whole[name][:batch]).max()) / largest
            if not difference <= BATCH_TOLERANCE:
                raise ParityError(
                    f"the classifier's {name} of a picture depend on the batch that it is in",
                    found=f"a difference of {difference:.1e} of the largest value",
                    expected=f"at most {BATCH_TOLERANCE:.0e}",
                    next_step="export it in evaluation mode",
                )
    _check_logits(whole[LOGITS], options.from_probabilities)
    count = whole[LOGITS].shape[1]
    if wrong := [place for place in options.drop_outputs if not 0 <= place < count]:
        raise BundleError(
            f"no output {wrong[0]} to drop",
            found=f"{count} outputs",
            expected=f"0 to {count - 1}",
            next_step="t2i import-judge --help",
        )
    if count - len(set(options.drop_outputs)) < 2:
        raise BundleError(
            "a judge needs two classes",
            found=f"{count} outputs, {len(set(options.drop_outputs))} dropped",
            next_step="t2i import-judge --help",
        )
    return count, whole[FEATURES].shape[1]


def _check_outputs(outputs: dict[str, NDArray[Any]], batch: int) -> None:
    for name in (LOGITS, FEATURES):
        values = outputs[name]
        if values.dtype != np.float32 or values.ndim != 2 or len(values) != batch:
            raise BundleError(
                f"the classifier's {name} have the wrong shape",
                found=f"{values.dtype} {list(values.shape)} of {batch} pictures",
                expected=f"float32 [{batch}, a number each]",
                next_step=NEXT_STEP,
            )
        if not np.isfinite(values).all():
            raise BundleError(f"the classifier's {name} are not finite", next_step="check --mean and --std")


def _check_logits(logits: NDArray[np.float32], took_log: bool) -> None:
    """Probabilities taken for logits give Inception Scores near 1, without a word."""
    wide = logits.astype(np.float64)
    are_probabilities = wide.min() >= 0 and bool((np.abs(wide.sum(axis=1) - 1) < SUM_TOLERANCE).all())
    if took_log:
        if not (np.abs(np.exp(wide).sum(axis=1) - 1) < SUM_TOLERANCE).all():
            raise BundleError(
                "the classifier's outputs are no probabilities",
                found=f"a row that sums to {np.exp(wide).sum(axis=1).max():.4g}",
                expected="rows that sum to 1",
                next_step="leave out --from-probabilities",
            )
    elif are_probabilities:
        raise BundleError(
            "the classifier's outputs are probabilities",
            found="rows that sum to 1",
            expected="logits, from before the softmax",
            next_step="name the tensor before the softmax with --logits, or add --from-probabilities",
        )


def _graph_entry(size: int, outputs: int, width: int) -> JsonObject:
    return {
        "file": GRAPH_FILE,
        "inputs": {IMAGES: {"dtype": "float32", "shape": ["N", 3, size, size]}},
        "outputs": {
            LOGITS: {"dtype": "float32", "shape": ["N", outputs]},
            FEATURES: {"dtype": "float32", "shape": ["N", width]},
        },
    }


def _three(option: str, values: Sequence[float]) -> list[float]:
    numbers = [float(value) for value in values] * (3 if len(values) == 1 else 1)
    good = len(numbers) == 3 and all(np.isfinite(numbers)) and (option != "--std" or min(numbers) > 0)
    if not good:
        raise BundleError(
            "how do pictures go in? As (x - mean) / std, x from 0 to 255",
            found=f"{option} {','.join(f'{value:g}' for value in values)}" if values else f"no {option}",
            expected="one number, or three with commas",
            next_step="--mean 127.5 --std 127.5 for [-1, 1]; --mean 123.675,116.28,103.53 --std 58.395,57.12,57.375 "
            "for ImageNet's",
        )
    return numbers


def _card(name: str, judge: JudgeFields, licence: str) -> str:
    how, dropped = judge.input, ", ".join(map(str, judge.drop_outputs))
    note = f"{judge.note}\n\n" if judge.note else ""
    return f"""# {name}: an imported judge

{judge.network}. {judge.classes} classes{f", outputs {dropped} dropped" if dropped else ""}; {judge.features} features.

Pictures of {how.size} px (PIL bilinear where they have another size) go in as (x - mean) / std with mean \
{list(how.mean)} and std {list(how.std)}.

Licence: {licence}.

{note}Scores by this judge can be compared with others by this judge only, see its hash in their passports.

`t2i score PICTURES --judge {name}`
"""
