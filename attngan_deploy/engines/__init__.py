"""Engines: each runs one graph of a bundle. What was asked for and can't be had is an error, never a fallback."""

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from attngan_deploy.bundle import Bundle
from attngan_deploy.errors import EngineError

BACKENDS = ("onnxruntime",)
PRECISIONS = ("fp32",)

Tensors = dict[str, NDArray[Any]]


class Engine(Protocol):
    """One loaded graph."""

    @property
    def description(self) -> str:
        """What runs it, e.g. "onnxruntime 1.23.0 on cpu, fp32, 2 threads"."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        """Run the graph on named tensors; returns its named outputs.

        Raises:
            EngineError: a tensor is missing, unknown, or of the wrong type or shape; or the engine failed.
        """


def load_engine(
    bundle: Bundle,
    graph: str,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
) -> Engine:
    """Load one graph of a bundle.

    Args:
        graph: its key in the manifest, e.g. "text_encoder", "generator" or "judge".
        backend: "auto" or "onnxruntime".
        device: "auto" (the CPU), "cpu" or "cuda".
        precision: "auto" or "fp32".
        threads: threads that compute one picture; None leaves it to the engine.

    Raises:
        EngineError: what was asked for can't be had here, or the graph can't be loaded.
        BundleError: the bundle has no such graph.
    """
    if backend not in ("auto", *BACKENDS):
        raise EngineError(
            f"no backend '{backend}'", expected=f"auto or {' or '.join(BACKENDS)}", next_step="leave out --backend"
        )
    if precision not in ("auto", *PRECISIONS):
        raise EngineError(
            f"no precision '{precision}' in backend onnxruntime", expected=f"auto or {' or '.join(PRECISIONS)}"
        )
    if threads is not None and threads < 1:
        raise EngineError("the number of threads is out of range", found=str(threads), expected="1 or more")
    from attngan_deploy.engines.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(bundle.path(bundle.graph(graph)["file"]), device, threads)
