"""What an engine is, what it says of itself, and which there are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard, runtime_checkable

from numpy.typing import NDArray

# What each backend computes in on each of its devices; the first device of a backend is its default.
# The int8 graph of a bundle has unsigned activations, as CPUs want them and TensorRT does not.
# The devices "tensorrt" and "tensorrt-rtx" of ONNX Runtime are its own execution providers of these names.
SUPPORTED: dict[str, dict[str, tuple[str, ...]]] = {
    "onnxruntime": {
        "cpu": ("fp32", "int8"),
        "cuda": ("fp32", "fp16"),
        "tensorrt": ("fp32", "fp16"),
        "tensorrt-rtx": ("fp32", "fp16"),
    },
    "openvino": {"cpu": ("fp32", "bf16", "fp16", "int8"), "gpu": ("fp32", "fp16", "int8"), "npu": ("fp16", "int8")},
    "tensorrt": {"cuda": ("fp32", "fp16", "bf16")},
    "tensorrt-rtx": {"cuda": ("fp32", "fp16", "bf16")},
}
BACKENDS = tuple(SUPPORTED)
DEVICES = tuple(dict.fromkeys(device for devices in SUPPORTED.values() for device in devices))
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
TEXT_ENCODER, GENERATOR = "text_encoder", "generator"

Tensors = dict[str, NDArray[Any]]


def about_device(name: str) -> str:
    """What to add where there is no such device: "sm86" and the like name a GPU to build for, not one to run on."""
    is_capability = name.startswith("sm") and name[2:].isdecimal()
    return ", a compute capability for t2i export --target tensorrt-rtx" if is_capability else ""


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
    """An engine that can end a generator in bytes, and leave out what is not in the picture.

    Attributes:
        streams: how many calls of `pictures` it works on at the same time, each with its share of the threads.
    """

    makes_pictures: bool
    streams: int

    def pictures(self, inputs: Mapping[str, NDArray[Any]], alone: bool = True) -> Tensors:
        """Only what the last image shows: "pictures" uint8 [N, S, S, 3], and "sums" f32 [N] of its values.

        A sum is not finite where a value is not.

        Args:
            inputs: named tensors.
            alone: False where the caller has `streams` threads that all call this.

        Raises:
            EngineError: as in `run`; also where `makes_pictures` is False.
        """


def can_make_pictures(engine: Engine) -> TypeGuard[PictureEngine]:
    """Whether an engine has `pictures`, and its graph an image to make them of."""
    return isinstance(engine, PictureEngine) and engine.makes_pictures
