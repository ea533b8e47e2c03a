"""Engines: each runs one graph of a bundle. What was asked for and can't be had is an error, never a fallback."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from attngan_deploy.bundle import Bundle
from attngan_deploy.errors import EngineError

BACKENDS = ("onnxruntime",)
PRECISIONS = ("fp32",)

Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class EngineFacts:
    """What runs a graph, as it was read back from the engine after loading.

    Attributes:
        backend: "onnxruntime", "openvino", "tensorrt" or "tensorrt-rtx".
        version: the backend's own version.
        device: what it runs on, e.g. "cpu", "cuda:0" or "gpu".
        precision: "fp32", "fp16", "bf16" or "int8": what it computes with.
        threads: CPU threads inside one operator; None where the engine chooses.
        providers: execution providers that were really got, in order (ONNX Runtime only).
        elsewhere: nodes that were placed on another provider than the one asked for: provider to their number.
        notes: anything else worth a line, e.g. "engine from the cache".
    """

    backend: str
    version: str
    device: str
    precision: str = "fp32"
    threads: int | None = None
    providers: tuple[str, ...] = ()
    elsewhere: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line, e.g. "onnxruntime 1.23.0 on cpu, fp32, 2 threads"."""
        parts = [f"{self.backend} {self.version} on {self.device}", self.precision]
        if self.device == "cpu":
            parts.append(f"{self.threads} threads" if self.threads else "a thread a core")
        parts += [f"{count} nodes on {provider}" for provider, count in self.elsewhere.items()]
        return ", ".join([*parts, *self.notes])


class Engine(Protocol):
    """One loaded graph."""

    @property
    def facts(self) -> EngineFacts:
        """What runs it; `str(engine.facts)` is one line."""

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
    allow_fallback: bool = False,
) -> Engine:
    """Load one graph of a bundle.

    Args:
        graph: its key in the manifest, e.g. "text_encoder", "generator" or "judge".
        backend: "auto" or "onnxruntime".
        device: "auto" (the CPU), "cpu" or "cuda".
        precision: "auto" or "fp32".
        threads: threads that compute one picture; None leaves it to the engine.
        allow_fallback: accept another device or provider than the one asked for; `facts` says what was got.

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

    return OnnxRuntimeEngine(bundle.graph_path(graph), device, threads)
