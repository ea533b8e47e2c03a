"""A GPU for machines without one: CUDA's functions over plain memory, and a TensorRT runtime that computes with
ONNX Runtime. Everything around it is real: engines are built by TensorRT-RTX and read back from their files.
"""

import ctypes
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from attngan_deploy.bundles.bundle import Bundle
from tests.makers.tensorrt_file import read_tensors


class FakeCuda(ModuleType):
    """`cuda.bindings.runtime`, as far as it is used. Copies happen at once, but only on a stream that exists."""

    def __init__(self, gpus: int = 1, memory: int = 1 << 30) -> None:
        super().__init__("cuda.bindings.runtime")
        self.gpus, self.memory = gpus, memory
        self.capability, self.name = (8, 9), b"Fake GeForce\0\0"
        self.held: dict[int, Any] = {}
        self.streams: set[int] = set()
        self.cudaError_t = SimpleNamespace(cudaSuccess=0)
        self.cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)

    def cudaGetErrorString(self, status: int) -> tuple[int, bytes]:
        return 0, {2: b"out of memory", 100: b"no CUDA-capable device is detected"}[status]

    def cudaGetDeviceCount(self) -> tuple[int, int]:
        return (0, self.gpus) if self.gpus else (100, 0)

    def cudaSetDevice(self, number: int) -> tuple[int]:
        return (0,)

    def cudaGetDeviceProperties(self, number: int) -> tuple[int, Any]:
        return 0, SimpleNamespace(name=self.name, major=self.capability[0], minor=self.capability[1])

    def cudaStreamCreate(self) -> tuple[int, int]:
        stream = 1 + max(self.streams, default=0)
        self.streams.add(stream)
        return 0, stream

    def cudaStreamDestroy(self, stream: int) -> tuple[int]:
        self.streams.remove(stream)
        return (0,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:
        assert stream in self.streams
        return (0,)

    def cudaMalloc(self, size: int) -> tuple[int, int]:
        if size + sum(map(len, self.held.values())) > self.memory:
            return 2, 0
        block = ctypes.create_string_buffer(size)
        self.held[ctypes.addressof(block)] = block
        return 0, ctypes.addressof(block)

    def cudaFree(self, address: int) -> tuple[int]:
        del self.held[address]
        return (0,)

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int) -> tuple[int]:
        assert stream in self.streams
        on_gpu = to if kind == 1 else source
        assert size <= len(self.held[on_gpu])
        ctypes.memmove(to, source, size)
        return (0,)


class FakeContext:
    """An execution context that reads its inputs from addresses and writes its outputs to addresses."""

    def __init__(self, engine: "FakeEngine") -> None:
        self.engine, self.shapes, self.addresses = engine, {}, {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
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
        tensors = self.engine.tensors
        inputs = {
            name: np.frombuffer(self._memory(name), dtype=tensors[name].dtype).reshape(shape)
            for name, shape in self.shapes.items()
        }
        names = [name for name, tensor in tensors.items() if tensor.output]
        for name, value in zip(names, self.engine.session.run(names, inputs), strict=True):
            value = np.ascontiguousarray(value + self.engine.error if value.dtype == np.float32 else value)
            ctypes.memmove(self.addresses[name], value.ctypes.data, value.nbytes)
        return self.engine.works

    def _memory(self, name: str) -> Any:
        tensor, shape = self.engine.tensors[name], self.shapes[name]
        size = int(np.prod(shape)) * np.dtype(tensor.dtype).itemsize
        return (ctypes.c_char * size).from_address(self.addresses[name])


class FakeKernels:
    """A runtime cache of TensorRT-RTX."""

    def deserialize(self, blob: bytes) -> bool:
        return blob == b"kernels"

    def serialize(self) -> bytes:
        return b"kernels"


class FakeEngine:
    """A deserialised engine: its tensors come from the file, its numbers from the fp32 graph with these tensors."""

    works, error = True, 0.0

    def __init__(self, trt: ModuleType, data: bytes, bundle: Bundle) -> None:
        self.trt, self.tensors = trt, read_tensors(data)
        (graph,) = (
            key for key, said in bundle.manifest.graphs.items() if {*said.inputs, *said.outputs} == set(self.tensors)
        )
        self.session = onnxruntime.InferenceSession(bundle.graph_path(graph))
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, place: int) -> str:
        return list(self.tensors)[place]

    def get_tensor_dtype(self, name: str) -> Any:
        kinds = {"float32": "FLOAT", "bool": "BOOL", "int64": "INT64"}
        return getattr(self.trt.DataType, kinds[self.tensors[name].dtype])

    def get_tensor_shape(self, name: str) -> list[int]:
        return [max(-1, size) for size in self.tensors[name].shape]

    def create_runtime_config(self) -> Any:
        return SimpleNamespace(create_runtime_cache=FakeKernels, set_runtime_cache=lambda kernels: True)

    def create_execution_context(self, config: Any = None) -> FakeContext:
        return FakeContext(self)


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
