"""Which engine was asked for."""

from dataclasses import dataclass

AUTO = "auto"


@dataclass(frozen=True)
class EngineRequest:
    """Which engine shall run a graph; "auto" leaves the choice to whoever loads it.

    Attributes:
        backend: "auto" or a backend.
        device: "auto" or one of the backend's devices.
        precision: "auto" or one of those of the device, of the generator; the text encoder always computes in fp32.
        threads: CPU threads that compute one picture; None leaves it to the engine.
        allow_fallback: where this can't be had here, take ONNX Runtime on the CPU in fp32; `EngineFacts` says so.
    """

    backend: str = AUTO
    device: str = AUTO
    precision: str = AUTO
    threads: int | None = None
    allow_fallback: bool = False
