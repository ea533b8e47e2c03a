"""A GPU for machines without one: CUDA's functions over plain memory, and a TensorRT runtime that computes with
ONNX Runtime. Everything around it is real: engines are built by TensorRT-RTX and read back from their files.
"""

import ctypes
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from attngan_deploy.bundles.bundle import Bundle
from attngan_deploy.engines.picture_outputs import read_model
from tests.makers.tensorrt_file import read_profile, read_tensors

ERRORS = {
    35: b"CUDA driver version is insufficient for CUDA runtime version",
    2: b"out of memory",
    100: b"no CUDA-capable device is detected",
    101: b"invalid device ordinal",
}


class FakeCuda(ModuleType):
    """`cuda.bindings.runtime`, as far as it is used. What a stream is told happens when somebody waits for it.

    As in CUDA, every thread has a device of its own, the first one where it chose none, and a stream or memory of
    another device is refused.
    """

    def __init__(self, gpus: int = 1, memory: int = 1 << 30) -> None:
        super().__init__("cuda.bindings.runtime")
        self.gpus, self.memory = gpus, memory
        self.no_gpu = 100  # what CUDA says where there is none
        self.capability, self.name = (8, 9), b"Fake GeForce\0\0"
        self.held: dict[int, Any] = {}
        self.pinned: dict[int, Any] = {}
        self.streams: dict[int, list[Callable[[], None]]] = {}  # what each is still to do
        self.devices: dict[int, int] = {}  # of each stream and each piece of memory, by its number or address
        self._here = threading.local()
        self.cudaError_t = SimpleNamespace(cudaSuccess=0)
        self.cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)

    def cudaGetErrorString(self, status: int) -> tuple[int, bytes]:
        return 0, ERRORS[status]

    def cudaGetDeviceCount(self) -> tuple[int, int]:
        return (0, self.gpus) if self.gpus else (self.no_gpu, 0)

    @property
    def current(self) -> int:
        """The device of this thread."""
        return getattr(self._here, "device", 0)

    def cudaSetDevice(self, number: int) -> tuple[int]:
        if not 0 <= number < self.gpus:
            return (101,)
        self._here.device = number
        return (0,)

    def cudaGetDeviceProperties(self, number: int) -> tuple[int, Any]:
        return 0, SimpleNamespace(name=self.name, major=self.capability[0], minor=self.capability[1])

    def cudaStreamCreate(self) -> tuple[int, int]:
        stream = 1 + max(self.streams, default=0)
        self.streams[stream], self.devices[stream] = [], self.current
        return 0, stream

    def cudaStreamDestroy(self, stream: int) -> tuple[int]:
        del self.streams[stream], self.devices[stream]
        return (0,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:
        while self.streams[stream]:
            self.streams[stream].pop(0)()
        return (0,)

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        """Let a stream of this thread's device do something when it is waited for."""
        assert self.devices[stream] == self.current, "a stream of another device"
        self.streams[stream].append(work)

    def cudaMalloc(self, size: int) -> tuple[int, int]:
        if size + sum(map(len, self.held.values())) > self.memory:
            return 2, 0
        block = ctypes.create_string_buffer(size)
        self.held[ctypes.addressof(block)] = block
        self.devices[ctypes.addressof(block)] = self.current
        return 0, ctypes.addressof(block)

    def cudaFree(self, address: int) -> tuple[int]:
        del self.held[address], self.devices[address]
        return (0,)

    def cudaMallocHost(self, size: int) -> tuple[int, int]:
        block = ctypes.create_string_buffer(size)
        self.pinned[ctypes.addressof(block)] = block
        return 0, ctypes.addressof(block)

    def cudaFreeHost(self, address: int) -> tuple[int]:
        del self.pinned[address]
        return (0,)

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int) -> tuple[int]:
        on_gpu = to if kind == 1 else source
        assert size <= len(self.held[on_gpu])
        assert self.devices[on_gpu] == self.current, "memory of another device"
        self.enqueue(stream, lambda: void(ctypes.memmove(to, source, size)))
        return (0,)


def void(_: object) -> None:
    """Nothing, of anything."""


def gpu() -> FakeCuda:
    """The one that is in the place of cuda-python."""
    cuda: FakeCuda = sys.modules["cuda.bindings.runtime"]  # type: ignore[assignment]
    return cuda


class FakeContext:
    """An execution context that reads its inputs from addresses and writes its outputs to addresses."""

    def __init__(self, engine: "FakeEngine") -> None:
        self.engine, self.shapes, self.addresses = engine, {}, {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        smallest, _, largest = self.engine.profile[name]
        if not all(low <= size <= high for low, size, high in zip(smallest, shape, largest, strict=True)):
            return False
        self.shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def get_tensor_shape(self, name: str) -> list[int]:
        """Dynamic sizes by their number in the file, which is the same in all tensors."""
        tensors = self.engine.tensors
        sizes = {
            want: have
            for inner, shape in self.shapes.items()
            for want, have in zip(tensors[inner].shape, shape, strict=True)
        }
        return [size if size >= 0 else sizes[size] for size in tensors[name].shape]

    def execute_async_v3(self, stream: int) -> bool:
        self.engine.compile(self.shapes)
        shapes, addresses = dict(self.shapes), dict(self.addresses)
        gpu().enqueue(stream, lambda: self._compute(shapes, addresses))
        return self.engine.works

    def _compute(self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int]) -> None:
        tensors = self.engine.tensors
        inputs = {
            name: np.frombuffer(self._memory(name, shape, addresses), dtype=tensors[name].dtype).reshape(shape)
            for name, shape in shapes.items()
        }
        names = [name for name, tensor in tensors.items() if tensor.output]
        for name, value in zip(names, self.engine.session.run(names, inputs), strict=True):
            value = np.ascontiguousarray(value + self.engine.error if value.dtype == np.float32 else value)
            ctypes.memmove(addresses[name], value.ctypes.data, value.nbytes)

    def _memory(self, name: str, shape: tuple[int, ...], addresses: dict[str, int]) -> Any:
        size = int(np.prod(shape)) * np.dtype(self.engine.tensors[name].dtype).itemsize
        return (ctypes.c_char * size).from_address(addresses[name])


class FakeKernels:
    """A runtime cache of TensorRT-RTX: it grows with batches that golden pictures are not."""

    def __init__(self) -> None:
        self.batches: set[int] = set()

    def deserialize(self, blob: bytes) -> bool:
        return blob.startswith(b"kernels")

    def serialize(self) -> bytes:
        return b"kernels" + b"".join(b" %d" % batch for batch in sorted(self.batches))


class FakeConfig:
    """A runtime configuration of TensorRT-RTX, which the caller has to keep, with the cache in it."""

    def create_runtime_cache(self) -> FakeKernels:
        return FakeKernels()

    def set_runtime_cache(self, kernels: FakeKernels) -> bool:
        self.kernels = weakref.ref(kernels)
        return True


class FakeEngine:
    """A deserialised engine: its tensors come from the file, its numbers from the fp32 graph with these tensors."""

    works, error = True, 0.0

    def __init__(self, trt: ModuleType, data: bytes, bundle: Bundle) -> None:
        self.trt, self.tensors = trt, read_tensors(data)
        models = {key: read_model(bundle.graph_path(key), said) for key, said in bundle.manifest.graphs.items()}
        (graph,) = (key for key, (_, said) in models.items() if {*said.inputs, *said.outputs} == set(self.tensors))
        self.session = onnxruntime.InferenceSession(models[graph][0])
        self.num_io_tensors = len(self.tensors)
        self.profile = dict(zip(bundle.graph(graph).inputs, read_profile(data), strict=True))
        self.config: weakref.ref[FakeConfig] | None = None

    def get_tensor_name(self, place: int) -> str:
        return list(self.tensors)[place]

    def get_tensor_dtype(self, name: str) -> Any:
        kinds = {"float32": "FLOAT", "bool": "BOOL", "int64": "INT64", "uint8": "UINT8"}
        return getattr(self.trt.DataType, kinds[self.tensors[name].dtype])

    def get_tensor_shape(self, name: str) -> list[int]:
        return [max(-1, size) for size in self.tensors[name].shape]

    def create_runtime_config(self) -> Any:
        return FakeConfig()

    def create_execution_context(self, config: Any = None) -> FakeContext:
        self.config = None if config is None else weakref.ref(config)
        return FakeContext(self)

    def compile(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Put a kernel for new shapes into the cache, as TensorRT-RTX does when it first meets them."""
        if self.config is not None:
            config = self.config()
            kernels = config and config.kernels()
            assert kernels is not None, "the configuration or its cache is gone"
            kernels.batches |= {batch for batch, *_ in shapes.values() if batch > 8}


def use_fake_cuda(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda | None = None) -> FakeCuda:
    """Put a fake in the place of cuda-python."""
    cuda = cuda or FakeCuda()
    for name in ("cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    return cuda


def use_fake_runtime(monkeypatch: pytest.MonkeyPatch, trt: ModuleType, bundle: Bundle) -> list[bytes]:
    """Put a fake in the place of `trt.Runtime`; returns the list of what it was given to deserialise."""
    given: list[bytes] = []

    def deserialise(data: bytes) -> FakeEngine:
        given.append(data)
        return FakeEngine(trt, data, bundle)

    monkeypatch.setattr(trt, "Runtime", lambda log: SimpleNamespace(deserialize_cuda_engine=deserialise))
    return given


def plain_tensorrt(rtx: ModuleType) -> ModuleType:
    """TensorRT-RTX in the clothes of TensorRT: no compute capabilities to choose from."""
    plain = ModuleType("tensorrt")
    vars(plain).update({name: thing for name, thing in vars(rtx).items() if not name.startswith("_")})
    plain.__version__ = "10.99"

    class Builder:  # not derived from the real one, whose bindings warn when a class that is goes away
        def __init__(self, log: Any) -> None:
            self._builder = rtx.Builder(log)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._builder, name)

        def create_builder_config(self) -> Any:
            config = self._builder.create_builder_config()
            config.num_compute_capabilities = 1
            config.set_compute_capability(rtx.ComputeCapability.SM89, 0)
            return config

    plain.Builder = Builder
    del plain.ComputeCapability
    return plain


def files(folder: Path, suffix: str) -> list[Path]:
    """Files of a cache with this suffix, sorted."""
    return sorted(folder.glob(f"*{suffix}"))
