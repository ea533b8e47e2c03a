"""The ONNX Runtime engine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as binding

from attngan_deploy.engines import EngineFacts, Tensors
from attngan_deploy.errors import EngineError

FATAL_ONLY = 4  # the text of every failure comes back as an exception; logging it too would make two lines of one error
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(bool)": np.dtype(np.bool_),
}
# ONNX Runtime has one exception class for each status code, with Exception as their only common base.
RUNTIME_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    *(thing for thing in vars(binding).values() if isinstance(thing, type) and issubclass(thing, Exception)),
)


class OnnxRuntimeEngine:
    """One graph in ONNX Runtime.

    Args:
        path: the `.onnx` file.
        device: "auto" (the CPU), "cpu" or "cuda".
        threads: threads inside one operator; None for one a core.

    Raises:
        EngineError: the device can't be had, or the graph can't be loaded.
    """

    def __init__(self, path: Path, device: str = "auto", threads: int | None = None) -> None:
        self.path, self.device = path, "cpu" if device == "auto" else device
        provider = _provider(self.device)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.enable_mem_pattern = False  # a plan for one shape; batches and captions differ in length
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        options.log_severity_level = FATAL_ONLY
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
        except RUNTIME_ERRORS as error:
            raise EngineError(f"ONNX Runtime can't load {path}: {error}", next_step="t2i models") from error
        active = self._session.get_providers()
        if active[0] != provider:
            raise EngineError(
                f"ONNX Runtime did not start on {self.device}", found=", ".join(active), expected=provider
            )
        self._inputs = {node.name: node for node in self._session.get_inputs()}
        self._outputs = [node.name for node in self._session.get_outputs()]
        self._threads = threads

    @property
    def facts(self) -> EngineFacts:
        """What runs the graph."""
        providers = tuple(self._session.get_providers())
        return EngineFacts("onnxruntime", onnxruntime.__version__, self.device, "fp32", self._threads, providers)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        """Run the graph on named tensors; returns its named outputs.

        Raises:
            EngineError: a tensor is missing, unknown, or of the wrong type or shape; or ONNX Runtime failed.
        """
        if missing := sorted(self._inputs.keys() - inputs.keys()):
            raise EngineError(f"{self.path.name} needs the tensor {', '.join(missing)}", found=", ".join(inputs))
        if unknown := sorted(inputs.keys() - self._inputs.keys()):
            raise EngineError(
                f"{self.path.name} takes no tensor {', '.join(unknown)}", expected=", ".join(sorted(self._inputs))
            )
        for name, node in self._inputs.items():
            _check(self.path.name, name, inputs[name], node)
        try:
            outputs = self._session.run(self._outputs, dict(inputs))
        except RUNTIME_ERRORS as error:
            raise EngineError(f"ONNX Runtime failed in {self.path.name}: {error}") from error
        return dict(zip(self._outputs, outputs, strict=True))


def _provider(device: str) -> str:
    if device not in PROVIDERS:
        raise EngineError(f"no device '{device}'", expected=f"auto or {' or '.join(PROVIDERS)}")
    provider, available = PROVIDERS[device], onnxruntime.get_available_providers()
    if provider not in available:
        raise EngineError(
            f"this ONNX Runtime has no {device}",
            found=", ".join(available),
            expected=provider,
            next_step="pip uninstall onnxruntime && pip install 'attngan-deploy[gpu]'",
        )
    return provider


def _check(graph: str, name: str, tensor: NDArray[Any], node: Any) -> None:
    expected = DTYPES.get(node.type)
    if not isinstance(tensor, np.ndarray) or (expected is not None and tensor.dtype != expected):
        raise EngineError(
            f"tensor {name} of {graph} has the wrong type",
            found=str(getattr(tensor, "dtype", type(tensor).__name__)),
            expected=str(expected or node.type),
        )
    fits = tensor.ndim == len(node.shape) and all(
        not isinstance(want, int) or want == have for want, have in zip(node.shape, tensor.shape, strict=True)
    )
    if not fits:
        raise EngineError(
            f"tensor {name} of {graph} has the wrong shape", found=str(list(tensor.shape)), expected=str(node.shape)
        )
