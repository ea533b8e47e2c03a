"""The OpenVINO engine: Intel and other CPUs, and Intel's GPUs and NPUs."""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from io import BytesIO
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.bundles.bundle import Bundle
from attngan_deploy.engines.facts import GENERATOR, EngineFacts, Tensors
from attngan_deploy.engines.openvino.graph import only, rewrite
from attngan_deploy.engines.openvino.package import load_openvino
from attngan_deploy.engines.picture_outputs import PICTURES, SUMS, add_pictures, last_image
from attngan_deploy.engines.request import SUPPORTED, about_device
from attngan_deploy.engines.tensors import check_inputs, check_names, pad_words
from attngan_deploy.errors import EngineError
from attngan_deploy.system.cache import cache_folder
from attngan_deploy.system.processor import cpu_flags, limited_threads
from attngan_deploy.system.signals import interruptibly, own_signal_stack

COMPUTES_IN = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}  # OpenVINO's names of what it computes in
QUANTISED = ("u8", "i8")
# Where a generator spends its time. Not FullyConnected, which tells the type that its weights are stored in.
PRODUCTS = ("Convolution", "MatMul", "Deconvolution")
MULTIPLIES_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}  # flags of processors that need no detour through fp32
MOST_STREAMS = 8  # each has memory for the activations of a batch


class OpenVinoEngine:
    """One graph in OpenVINO.

    fp16 and bf16 are computed natively from the fp32 graph, where the device can; int8 needs a graph of the bundle. A
    generator is rewritten for the CPU (`openvino.graph`); there, `run` and both forms of `pictures` each compile it
    when first used, `pictures` for one caller at once. Arguments and errors are those of `load_engine`.
    """

    @own_signal_stack()
    def __init__(
        self, bundle: Bundle, graph: str, device: str = "cpu", precision: str = "fp32", threads: int | None = None
    ) -> None:
        openvino, threads = load_openvino(), threads or limited_threads()
        check_device(device, precision)
        self._core, self._name = openvino.Core(), device.upper()
        self._path = bundle.graph_path(graph, "int8" if precision == "int8" else "fp32")
        self._described = bundle.graph(graph)
        self._settings = settings(self._name, precision, threads)
        self._is_rewritten = device == "cpu" and graph == GENERATOR
        self.makes_pictures = self._is_rewritten and bool(last_image(self._described))
        self._requests: dict[_Use, SimpleQueue[Any]] = {}
        self._lock = threading.Lock()
        self.streams = 1
        try:
            use = _Use.PICTURES if self.makes_pictures else _Use.ALL
            compiled = interruptibly(own_signal_stack()(lambda: self._compile(use)))
            if self.makes_pictures:
                self.streams = min(compiled.get_property("INFERENCE_NUM_THREADS"), MOST_STREAMS)
            places = compiled.get_property("EXECUTION_DEVICES")
            found = _precision(compiled)
        except _errors() as error:
            raise EngineError(
                f"OpenVINO can't load {self._path} on {device}: {_reason(error)}", next_step="t2i models"
            ) from error
        if found != precision:
            raise EngineError(
                f"OpenVINO on {device} does not compute in {precision}", found=found, next_step="t2i doctor"
            )
        self.facts = EngineFacts(
            "openvino", openvino.__version__.split("-")[0], ", ".join(places).lower(), found, threads
        )

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        """See `Engine.run`."""
        check_inputs(self._path.name, self._described.inputs, inputs)
        return self._infer(inputs, list(self._described.outputs), _Use.ALL)

    def pictures(self, inputs: Mapping[str, NDArray[Any]], alone: bool = True) -> Tensors:
        """See `PictureEngine.pictures`."""
        check_inputs(self._path.name, self._described.inputs, inputs)
        # OpenVINO keeps memory for every shape that it has met: there are fewer of them with words of padding.
        padded = pad_words(self._described.inputs, inputs)
        return self._infer(padded, [PICTURES, SUMS], _Use.PICTURES if alone else _Use.STREAMS)

    def _infer(self, inputs: Mapping[str, NDArray[Any]], names: list[str], use: "_Use") -> Tensors:
        return interruptibly(lambda: self._infer_at_once(inputs, names, use))

    def _infer_at_once(self, inputs: Mapping[str, NDArray[Any]], names: list[str], use: "_Use") -> Tensors:
        whole = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        try:
            with own_signal_stack(), self._request(use) as request:
                outputs = request.infer(whole, share_inputs=True, share_outputs=True)
                made = {name: array for port, array in outputs.items() for name in port.get_names()}
                return {name: np.array(made[name]) for name in names}  # the next run writes over what is shared
        except _errors() as error:
            raise EngineError(
                f"OpenVINO failed in {self._path.name}: {_reason(error)}", next_step="t2i models --check"
            ) from error

    @contextmanager
    def _request(self, use: "_Use") -> Iterator[Any]:
        """A request that nobody else uses; waits for one."""
        with self._lock:
            if use not in self._requests:
                self._compile(use)
            idle = self._requests[use]
        request = idle.get()
        try:
            yield request
        finally:
            idle.put(request)

    def _compile(self, use: "_Use") -> Any:
        data = self._path.read_bytes()
        model = read(data if use is _Use.ALL else add_pictures(data, self._described))
        inputs, outputs = (
            {name for port in ports for name in port.get_names()} for ports in (model.inputs, model.outputs)
        )
        check_names(self._path, self._described, inputs, outputs)
        if self._is_rewritten:
            rewrite(model)
        if use is not _Use.ALL:
            model = only(model, (PICTURES, SUMS))
        options, count = self._settings, 1
        if use is _Use.STREAMS:
            self._requests.pop(_Use.PICTURES, None)  # its memory: the graph is compiled again where it is needed
            count = self.streams
            options = {**options, "PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": count}
        compiled = self._core.compile_model(model, self._name, options)
        self._requests[use] = SimpleQueue()
        for _ in range(count):
            self._requests[use].put(compiled.create_infer_request())
        return compiled


class _Use(Enum):
    """What a compiled graph is for."""

    ALL = "every output"
    PICTURES = "pictures, all threads on one batch"
    STREAMS = "pictures, batches side by side"


def settings(device: str, precision: str, threads: int | None) -> dict[str, Any]:
    """What OpenVINO is told: `device` by its name there, e.g. "CPU".

    One batch runs at a time unless streams are asked for: all threads must work on it.
    A CPU compiles the generator in 0.1 s, from its cache in 0.03 s and 26 MB: only other devices get a cache. What an
    int8 graph keeps in floats is bf16 where the processor multiplies that: 1.3 x faster, and as close to fp32 (0.1 dB).
    """
    wanted: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": COMPUTES_IN.get(precision, _beside_int8() if device == "CPU" else "f16"),
    }
    if device != "CPU":
        wanted["CACHE_DIR"] = str(cache_folder() / "openvino")
    elif threads is not None:
        wanted["INFERENCE_NUM_THREADS"] = threads
        # Who gives a number runs several processes: OpenVINO would pin the threads of each to the same first cores.
        wanted["ENABLE_CPU_PINNING"] = False
    return wanted


def _beside_int8() -> str:
    """What a CPU computes in where an int8 graph has floats."""
    return "f32" if MULTIPLIES_BF16.isdisjoint(cpu_flags()) else "bf16"


def _errors() -> tuple[type[Exception], ...]:
    """What OpenVINO raises: a front end's failures have no common base of their own."""
    from openvino import frontend

    failures = (getattr(frontend, name) for name in dir(frontend) if name.endswith("Failure"))
    return (RuntimeError, ValueError, *failures)


@own_signal_stack()
def check_device(device: str, precision: str) -> None:
    """Raise MissingExtraError where OpenVINO is not here, EngineError where a device lacks a precision, or is not."""
    core = load_openvino().Core()
    if device not in SUPPORTED["openvino"]:
        expected = " or ".join(SUPPORTED["openvino"])
        raise EngineError(
            f"OpenVINO has no device {device}{about_device(device)}", expected=expected, next_step="t2i doctor"
        )
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
            next_step="t2i doctor",
        )


def read(data: bytes) -> Any:
    """Read an ONNX model, and as nothing else: left to itself, OpenVINO tries a broken one in every other format."""
    from openvino.frontend import FrontEndManager

    frontend = FrontEndManager().load_by_framework("onnx")
    model = frontend.convert(frontend.load(BytesIO(data)))
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
    ours = {theirs: name for name, theirs in COMPUTES_IN.items()}
    theirs = counts.most_common(1)[0][0] if counts else compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    return ours.get(theirs, theirs)


def _reason(error: Exception) -> str:
    """OpenVINO's errors are a trace of its source files with the reason in the last lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(line for line in lines if not line.startswith(("Exception from", "Check '"))) or lines[-1]
