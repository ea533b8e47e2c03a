"""What every engine does around a run: the check of its tensors against the manifest, and their padding."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.bundles.bundle import Bundle
from attngan_deploy.bundles.manifest import Graph, Size, TensorSpec
from attngan_deploy.engines.facts import Tensors
from attngan_deploy.errors import EngineError

WORDS, WORDS_STEP = "words", 8  # a size in the manifest, and what captions of pictures are padded to a multiple of


def check_names(path: Path, described: Graph, inputs: Iterable[str], outputs: Iterable[str]) -> None:
    """See that a graph has the tensors that the manifest says of it; raises EngineError where one is not there."""
    for kind, wanted, found in (
        ("input", described.inputs, list(inputs)),
        ("output", described.outputs, list(outputs)),
    ):
        if missing := [name for name in wanted if name not in found]:
            raise EngineError(
                f"{path} has no {kind} {', '.join(missing)}, which its manifest says of it",
                found=", ".join(found),
                next_step="install or export the bundle again",
            )


def check_inputs(graph: str, specs: Mapping[str, TensorSpec], inputs: Mapping[str, NDArray[Any]]) -> None:
    """Compare tensors with the inputs of a graph: names, types and shapes.

    Args:
        specs: the manifest's, `bundle.graph(key).inputs`. A size in a shape is a number, a name (e.g. "batch") whose
            size must be the same wherever the name stands, or None.

    Raises:
        EngineError: a tensor is missing, unknown, or of the wrong type or shape; or captions have numbers below 0, or
            lengths that are not those of their words.
    """
    if missing := [name for name in specs if name not in inputs]:
        raise EngineError(f"{graph} needs the tensor {', '.join(missing)}", found=", ".join(inputs))
    if unknown := [name for name in inputs if name not in specs]:
        raise EngineError(f"{graph} takes no tensor {', '.join(unknown)}", expected=", ".join(specs))
    sizes: dict[str, tuple[int, str]] = {}
    for name, wanted in specs.items():
        _check_type(graph, name, wanted.dtype, inputs[name])
        _check_shape(graph, name, wanted.shape, inputs[name].shape, sizes)
    if {"captions", "lengths"} <= inputs.keys():
        _check_range(graph, "captions", inputs["captions"], 0, None)
        _check_range(graph, "lengths", inputs["lengths"], 1, inputs["captions"].shape[1])


def pad_words(specs: Mapping[str, TensorSpec], inputs: Mapping[str, NDArray[Any]]) -> Tensors:
    """The same tensors with words of padding, masked, up to a multiple of `WORDS_STEP`: shapes that come back."""
    padded: Tensors = {}
    for name, array in inputs.items():
        sizes = zip(specs[name].shape, array.shape, strict=True)
        missing = [-have % WORDS_STEP if size == WORDS else 0 for size, have in sizes]
        padded[name] = np.pad(array, [(0, more) for more in missing]) if any(missing) else array
    return padded


def taken(bundle: Bundle, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Those of text features and noise that a bundle's generator takes; the rest it has no use for."""
    return {name: tensors[name] for name in bundle.graph("generator").inputs if name in tensors}


def _check_range(graph: str, name: str, tensor: NDArray[Any], least: int, most: int | None) -> None:
    lowest, highest = int(tensor.min()), int(tensor.max())
    if lowest < least or (most is not None and highest > most):
        raise EngineError(
            f"tensor {name} of {graph} has numbers out of range",
            found=str(lowest if lowest < least else highest),
            expected=f"{least} or more" if most is None else f"{least} to {most}",
        )


def _check_type(graph: str, name: str, dtype: str, tensor: NDArray[Any]) -> None:
    if not isinstance(tensor, np.ndarray) or tensor.dtype != np.dtype(dtype):
        raise EngineError(
            f"tensor {name} of {graph} has the wrong type",
            found=str(getattr(tensor, "dtype", type(tensor).__name__)),
            expected=dtype,
        )


def _check_shape(
    graph: str, name: str, wanted: tuple[Size, ...], found: tuple[int, ...], sizes: dict[str, tuple[int, str]]
) -> None:
    """Compare one shape; `sizes` keeps the size of each named dimension, and the tensor that gave it."""
    wrong = f"tensor {name} of {graph} has the wrong shape"
    shown = f"[{', '.join(str(size) for size in wanted)}]"
    if len(found) != len(wanted):
        raise EngineError(wrong, found=str(list(found)), expected=shown)
    for want, have in zip(wanted, found, strict=True):
        size, giver = sizes.setdefault(want, (have, name)) if isinstance(want, str) else (want or have, "")
        if have < 1 or have != size:
            source = f", with {want} {size} as in {giver}" if giver not in ("", name) else ""
            raise EngineError(wrong, found=str(list(found)), expected=shown + source)


def check_finite(bundle: Bundle, graph: str, *outputs: NDArray[Any]) -> None:
    """Raise EngineError where a graph ("text encoder", "generator") of a bundle made infinities or NaN."""
    if not all(np.isfinite(output).all() for output in outputs):
        raise EngineError(
            f"the {graph} of model {bundle.name} made values that are not finite",
            next_step=f"t2i verify {bundle.folder}, or another --precision or --model",
        )
