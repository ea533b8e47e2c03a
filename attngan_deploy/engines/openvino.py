"""The OpenVINO engine: Intel and other CPUs, and Intel's GPUs and NPUs."""

import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.bundle import Bundle
from attngan_deploy.engines.cache import cache_folder
from attngan_deploy.engines.facts import SUPPORTED, EngineFacts, Tensors, about_device
from attngan_deploy.engines.signal_stack import own_signal_stack
from attngan_deploy.engines.tensors import check_inputs
from attngan_deploy.errors import EngineError
from attngan_deploy.openvino_import import load_openvino

COMPUTES_IN = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}  # OpenVINO's names of what it computes in
QUANTISED = ("u8", "i8")
# Where a generator spends its time. Not FullyConnected, which tells the type that its weights are stored in.
PRODUCTS = ("Convolution", "MatMul", "Deconvolution")


class OpenVinoEngine:
    """One graph in OpenVINO.

    fp16 and bf16 are computed natively from the fp32 graph, where the device can; int8 needs a graph of the bundle.

    Args:
        bundle: an opened bundle.
        graph: its key in the manifest.
        device: "cpu", "gpu" or "npu".
        precision: "fp32", "fp16", "bf16" or "int8".
        threads: CPU threads; None for one a core.

    Raises:
        MissingExtraError: OpenVINO is not installed, or can't be imported.
        EngineError: there is no such device, it does not compute in that precision, or the graph can't be loaded.
        BundleError: the bundle has no such graph, or none in int8.
    """

    @own_signal_stack()
    def __init__(
        self, bundle: Bundle, graph: str, device: str = "cpu", precision: str = "fp32", threads: int | None = None
    ) -> None:
        openvino = load_openvino()
        check_device(device, precision)
        core, name = openvino.Core(), device.upper()
        self._path = bundle.graph_path(graph, "int8" if precision == "int8" else "fp32")
        self._described = bundle.graph(graph)
        try:
            compiled = core.compile_model(_read(self._path), name, settings(name, precision, threads))
            self._request = compiled.create_infer_request()
            places = compiled.get_property("EXECUTION_DEVICES")
            found = _precision(compiled)
        except _errors() as error:
            raise EngineError(
                f"OpenVINO can't load {self._path} on {device}: {_reason(error)}", next_step="t2i models"
            ) from error
        if found != precision:
            raise EngineError(f"OpenVINO on {device} does not compute in {precision}", found=found)
        self._outputs = {tensor: port for port in compiled.outputs for tensor in port.get_names()}
        self._lock = threading.Lock()
        self.facts = EngineFacts(
            "openvino", openvino.__version__.split("-")[0], ", ".join(places).lower(), found, threads
        )

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        """Run the graph on named tensors; returns its named outputs.

        Raises:
            EngineError: a tensor is missing, unknown, or of the wrong type or shape; or OpenVINO failed.
        """
        check_inputs(self._path.name, self._described["inputs"], inputs)
        try:
            with self._lock, own_signal_stack():
                outputs = self._request.infer({name: np.ascontiguousarray(array) for name, array in inputs.items()})
        except _errors() as error:
            raise EngineError(f"OpenVINO failed in {self._path.name}: {_reason(error)}") from error
        return {name: outputs[self._outputs[name]] for name in self._described["outputs"]}


def settings(device: str, precision: str, threads: int | None) -> dict[str, Any]:
    """What OpenVINO is told: `device` by its name there, e.g. "CPU".

    One batch runs at a time, so that all threads must work on it: the hint for throughput would cut them into streams.
    A CPU compiles the generator in 0.1 s, from its cache in 0.03 s and 26 MB: only other devices get a cache.
    """
    wanted: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": COMPUTES_IN.get(precision, "f32" if device == "CPU" else "f16"),
    }
    if device != "CPU":
        wanted["CACHE_DIR"] = str(cache_folder() / "openvino")
    elif threads is not None:
        wanted["INFERENCE_NUM_THREADS"] = threads
        # Who gives a number runs several processes: OpenVINO would pin the threads of each to the same first cores.
        wanted["ENABLE_CPU_PINNING"] = False
    return wanted


def _errors() -> tuple[type[Exception], ...]:
    """What OpenVINO raises: a front end's failures have no common base of their own."""
    from openvino import frontend

    failures = (getattr(frontend, name) for name in dir(frontend) if name.endswith("Failure"))
    return (RuntimeError, ValueError, *failures)


@own_signal_stack()
def check_device(device: str, precision: str) -> None:
    """See that OpenVINO is here, and that it can compute on a device ("cpu", "gpu" or "npu") in a precision.

    Raises:
        MissingExtraError: OpenVINO is not installed, or can't be imported.
        EngineError: there is no such device, or it does not compute in that precision.
    """
    core = load_openvino().Core()
    if device not in SUPPORTED["openvino"]:
        expected = " or ".join(SUPPORTED["openvino"])
        raise EngineError(f"OpenVINO has no device {device}{about_device(device)}", expected=expected)
    available = [name.lower() for name in core.available_devices]
    if device not in (name.partition(".")[0] for name in available):
        raise EngineError(
            f"OpenVINO finds no {device} here",
            found=", ".join(available) or "no device",
            next_step=f"install the {device.upper()}'s driver, or --device cpu",
        )
    able = core.get_property(device.upper(), "OPTIMIZATION_CAPABILITIES")
    if precision.upper() not in able:
        can = [name for name in ("fp32", *COMPUTES_IN, "int8") if name.upper() in able]
        raise EngineError(
            f"this {device} does not compute in {precision} ({core.get_property(device.upper(), 'FULL_DEVICE_NAME')})",
            expected=" or ".join(dict.fromkeys(can)),
        )


def _read(path: Path) -> Any:
    """Read an ONNX file as ONNX and nothing else: left to itself, OpenVINO tries a broken one in every other format."""
    from openvino.frontend import FrontEndManager

    frontend = FrontEndManager().load_by_framework("onnx")
    model = frontend.convert(frontend.load(str(path)))
    if not model.outputs:
        raise RuntimeError("the graph is empty")
    return model


def _precision(compiled: Any) -> str:
    """What a compiled model computes its products in: the precision of most of them, int8 where any is."""
    counts = Counter(
        str(facts["runtimePrecision"].value)
        for facts in (node.get_rt_info() for node in compiled.get_runtime_model().get_ops())
        if facts["layerType"].value in PRODUCTS
    )
    if any(counts[name] for name in QUANTISED):
        return "int8"
    names = {told: ours for ours, told in COMPUTES_IN.items()}
    told = counts.most_common(1)[0][0] if counts else compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    return names.get(told, told)


def _reason(error: Exception) -> str:
    """OpenVINO's errors are a trace of its source files with the reason in the last lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(line for line in lines if not line.startswith(("Exception from", "Check '"))) or lines[-1]
