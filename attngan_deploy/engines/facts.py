"""What an engine is, and what it says of itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard, runtime_checkable

from numpy.typing import NDArray

TEXT_ENCODER, GENERATOR = "text_encoder", "generator"
NO_TF32 = "without TF32"  # what engines on GPUs say of fp32: TF32 would keep 10 bits of a product's factors

Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class EngineFacts:
    """What runs a graph, as it was read back from the engine after loading."""

    backend: str
    version: str  # the backend's own version
    device: str  # what it runs on, e.g. "cpu", "cuda:0" or "gpu"
    precision: str = "fp32"
    threads: int | None = None  # CPU threads inside one operator; None where the engine chooses
    providers: tuple[str, ...] = ()  # execution providers that were really got, in order (ONNX Runtime only)
    # nodes that were placed on another provider than the one asked for: provider to their number
    elsewhere: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # anything else worth a line, e.g. "engine from the cache"

    @property
    def is_on_nvidia(self) -> bool:
        """Whether it runs on a GPU of NVIDIA, which likes large batches."""
        return self.device.startswith(("cuda", "tensorrt"))

    @property
    def short(self) -> str:
        """Backend, version, device and precision, e.g. "onnxruntime 1.23.0 on cpu, fp32"."""
        return f"{self.backend} {self.version} on {self.device}, {self.precision}"

    def __str__(self) -> str:
        """One line, e.g. "onnxruntime 1.23.0 on cpu, fp32, 2 threads"."""
        parts = [self.short]
        if self.device == "cpu":
            threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
            parts.append(threads if self.threads else "a thread a core")
        parts += [f"{count} nodes on {provider}" for provider, count in self.elsewhere.items()]
        return ", ".join([*parts, *self.notes])


class Engine(Protocol):
    """One loaded graph. May be called from several threads."""

    @property
    def facts(self) -> EngineFacts:
        """What runs it; `str(engine.facts)` is one line."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        """Run the graph on named tensors; returns its named outputs.

        Raises:
            EngineError: a tensor is missing, unknown, or of the wrong type or shape; or the engine failed.
        """


@runtime_checkable
class PictureEngine(Engine, Protocol):
    """An engine that can end a generator in bytes, and leave out what is not in the picture."""

    makes_pictures: bool
    streams: int  # how many calls of `pictures` it works on at the same time, each with its share of the threads

    def pictures(self, inputs: Mapping[str, NDArray[Any]], alone: bool = True) -> Tensors:
        """Only what the last image shows: "pictures" uint8 [N, S, S, 3], and "sums" f32 [N] of its values.

        A sum is not finite where a value is not. `alone` is False where `streams` threads all call this at the same
        time.

        Raises:
            EngineError: as in `run`; also where `makes_pictures` is False.
        """


def can_make_pictures(engine: Engine) -> TypeGuard[PictureEngine]:
    """Whether an engine has `pictures`, and its graph an image to make them of."""
    return isinstance(engine, PictureEngine) and engine.makes_pictures
