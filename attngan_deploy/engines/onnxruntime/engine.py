"""The ONNX Runtime engine: the CPU, CUDA, and ONNX Runtime's own TensorRT and TensorRT-RTX providers."""

import importlib
import io
from collections import Counter
from collections.abc import Mapping
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as binding

from attngan_deploy.bundles.bundle import Bundle
from attngan_deploy.bundles.manifest import Graph, TensorSpec
from attngan_deploy.engines.cache import as_file_name
from attngan_deploy.engines.facts import NO_TF32, EngineFacts, Tensors
from attngan_deploy.engines.onnxruntime.bound import BESIDE_CAPTURES, BoundRunner
from attngan_deploy.engines.picture_outputs import PICTURES, SUMS, last_image, read_model
from attngan_deploy.engines.request import INSTALL, SUPPORTED, split_device
from attngan_deploy.engines.tensors import check_inputs, check_names, pad_words
from attngan_deploy.errors import EngineError
from attngan_deploy.system.cache import cache_folder
from attngan_deploy.system.files import sha256_of
from attngan_deploy.system.processor import limited_threads
from attngan_deploy.system.signals import interruptibly

FATAL_ONLY = 4  # the text of every failure comes back as an exception; logging it too would make two lines of one error
CPU = "CPUExecutionProvider"
PROVIDERS = {
    "cpu": CPU,
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "tensorrt-rtx": "NvTensorRTRTXExecutionProvider",
}
PROVIDER_INSTALL = {
    "cuda": INSTALL["onnxruntime-gpu"],
    "tensorrt": f"{INSTALL['onnxruntime-gpu']} tensorrt",
    "tensorrt-rtx": f"{INSTALL['tensorrt-rtx']} and --backend tensorrt-rtx, or an ONNX Runtime built with it",
}
# fp32 means fp32, as in TensorRT; and the kernel of a convolution is chosen without trying all of them for every shape.
CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
WAITS = {"lengths"}  # an input that an LSTM on CUDA waits for on the CPU, which a CUDA graph can't
RECORD_PLACEMENT = "session.record_ep_graph_assignment_info"
DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int64)": "int64", "tensor(bool)": "bool"}
# ONNX Runtime has one exception class for each status code, with Exception as their only common base.
RUNTIME_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    *(thing for thing in vars(binding).values() if isinstance(thing, type) and issubclass(thing, Exception)),
)


class OnnxRuntimeEngine:
    """One graph in ONNX Runtime.

    On CUDA, the tensors of shapes that come back stay bound to GPU memory, and their runs are replayed as CUDA graphs.

    Args:
        threads: CPU threads inside one operator; None for one a core that this process may use.
        precision: what the file computes in, for `facts`.
        described: what the manifest says of the graph; None to ask the file for its inputs.
        notes: for `facts`.
        spins: whether idle threads wait busily for the next operator, and for a while after the last one. A graph that
            takes turns with another engine's would take that one's cores.

    Raises as `load_engine`.
    """

    def __init__(
        self,
        path: Path,
        device: str = "cpu",
        threads: int | None = None,
        precision: str = "fp32",
        described: Graph | None = None,
        notes: tuple[str, ...] = (),
        spins: bool = True,
    ) -> None:
        self._path, threads = path, threads or limited_threads()
        place, number = split_device(device)
        self._is_on_gpu = place != "cpu"
        problem = _load_libraries(place) if self._is_on_gpu else ""
        capture = place == "cuda" and described is not None and WAITS.isdisjoint(described.inputs)
        options: dict[str, Any] = {"enable_cuda_graph": capture, "device_id": number}
        options |= profile_options(described) if place == "tensorrt" and described is not None else {}
        self.makes_pictures, self.streams = described is not None and bool(last_image(described)), 1
        model: bytes | None = None
        if described is not None and self.makes_pictures:
            model, described = read_model(path, described)
        self._session, captured = _open(path, model, place, threads, options, spins)
        providers = tuple(self._session.get_providers())
        if providers[0] != PROVIDERS[place]:
            raise EngineError(
                f"ONNX Runtime did not start on {device}{problem and f': {problem}'}",
                found=", ".join(providers),
                expected=PROVIDERS[place],
                next_step="t2i doctor",
            )
        self._inputs = described.inputs if described is not None else _described(self._session)
        made = [node.name for node in self._session.get_outputs()]
        if described is not None:
            check_names(path, described, (node.name for node in self._session.get_inputs()), made)
        self._outputs = [name for name in made if name not in (PICTURES, SUMS) or not self.makes_pictures]
        self._runner = (
            BoundRunner(self._session, self._inputs, described.outputs, number=number)
            if described and captured
            else None
        )
        elsewhere = placed_elsewhere(self._session, PROVIDERS[place])
        if place == "cuda" and precision == "fp32":
            notes = (*notes, NO_TF32)
        if elsewhere is None and self._is_on_gpu:
            notes = (*notes, "this version does not tell which nodes run elsewhere")
        if capture and not captured:
            notes = (*notes, "no CUDA graphs")
        version = onnxruntime.__version__
        self.facts = EngineFacts("onnxruntime", version, device, precision, threads, providers, elsewhere or {}, notes)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        """See `Engine.run`."""
        check_inputs(self._path.name, self._inputs, inputs)
        return self._run(inputs, self._outputs)

    def pictures(self, inputs: Mapping[str, NDArray[Any]], alone: bool = True) -> Tensors:
        """See `PictureEngine.pictures`; on a GPU, captions get words of padding, so that captured shapes come back."""
        check_inputs(self._path.name, self._inputs, inputs)
        padded = pad_words(self._inputs, inputs) if self._is_on_gpu else inputs
        return self._run(padded, [PICTURES, SUMS], returns=True)

    def _run(self, inputs: Mapping[str, NDArray[Any]], names: list[str], returns: bool = False) -> Tensors:
        try:
            if self._runner is not None:
                return self._runner.run(inputs, names, returns)
            work = partial(self._session.run, names, dict(inputs))
            if self._is_on_gpu:
                with BESIDE_CAPTURES:
                    outputs = work()
            else:
                outputs = interruptibly(work)
        except RUNTIME_ERRORS as error:
            raise EngineError(
                f"ONNX Runtime failed in {self._path.name}: {error}", next_step="t2i models --check"
            ) from error
        return dict(zip(names, outputs, strict=True))


def reference_engine(bundle: Bundle, graph: str) -> OnnxRuntimeEngine:
    """A graph of a bundle on the CPU in fp32, which is what other engines are compared with."""
    return OnnxRuntimeEngine(bundle.graph_path(graph), described=bundle.graph(graph))


def placed_elsewhere(session: Any, provider: str) -> dict[str, int] | None:
    """Number of nodes that a session placed on each provider other than `provider`.

    The session must have been opened with the entry `RECORD_PLACEMENT`; None where ONNX Runtime is too old to tell.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return None
    counts: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        counts[part.ep_name] += len(part.get_nodes())
    return {name: count for name, count in counts.items() if name != provider}


def has_provider(device: str) -> bool:
    """Whether the ONNX Runtime that is installed has a device, by its name without a number."""
    return PROVIDERS[device] in onnxruntime.get_available_providers()


def check_provider(device: str, precision: str) -> None:
    """Raise EngineError where the ONNX Runtime that is installed has no `device` for a bundle in `precision`."""
    if not has_provider(device):
        on_cpu = precision in SUPPORTED["onnxruntime"]["cpu"]
        raise EngineError(
            f"this ONNX Runtime has no {device}" + ("" if on_cpu else f", and on the CPU it does not do {precision}"),
            found=", ".join(onnxruntime.get_available_providers()),
            expected=PROVIDERS[device],
            next_step=PROVIDER_INSTALL[device] + ("" if on_cpu else ", or --backend openvino"),
        )


def profile_options(described: Graph) -> dict[str, str]:
    """Shapes that ONNX Runtime's TensorRT builds for at once; without them it builds anew for every larger batch."""
    from attngan_deploy.engines.tensorrt.build import DEFAULT_PROFILE

    def shapes(which: int) -> str:
        sizes = {name: DEFAULT_PROFILE.shape(said.shape, which) for name, said in described.inputs.items()}
        return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in sizes.items())

    return {f"trt_profile_{name}_shapes": shapes(which) for which, name in enumerate(("min", "opt", "max"))}


def _load_libraries(device: str) -> str:
    """Load CUDA, cuDNN and TensorRT from their Python packages where they are installed; returns what went wrong."""
    printed = io.StringIO()
    if device == "tensorrt":
        try:
            importlib.import_module("tensorrt")  # ONNX Runtime looks for its libraries among those that are loaded
        except (ImportError, OSError) as error:
            printed.write(f"the package tensorrt can't be imported ({error})\n")
    with redirect_stdout(printed):
        onnxruntime.set_default_logger_severity(FATAL_ONLY)
        if hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()
    return " ".join(printed.getvalue().split())


def _open(
    path: Path, model: bytes | None, device: str, threads: int | None, settings: Mapping[str, Any], spins: bool
) -> tuple[Any, bool]:
    """A session of a model, or of the file, and whether its runs can be captured as CUDA graphs.

    `settings` are those of its first provider.
    """
    capture = bool(settings["enable_cuda_graph"])
    try:
        return interruptibly(partial(_session, path, model, device, threads, settings, spins)), capture
    except RUNTIME_ERRORS as error:
        if capture:  # it has nodes that must run on the CPU
            return _open(path, model, device, threads, {**settings, "enable_cuda_graph": False}, spins)
        raise EngineError(f"ONNX Runtime can't load {path}: {error}", next_step="t2i models") from error


def _session(
    path: Path, model: bytes | None, device: str, threads: int | None, settings: Mapping[str, Any], spins: bool
) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = False  # a plan for one shape; batches and captions differ in length
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    options.add_session_config_entry(RECORD_PLACEMENT, "1")
    options.enable_cpu_mem_arena = spins  # an arena keeps the most that any length of captions needed
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", str(int(spins and device == "cpu"))
    )  # a GPU is not waited for busily
    options.log_severity_level = FATAL_ONLY
    # Without `enable_fallback=0` a failure would be printed and the session made again on other providers.
    return onnxruntime.InferenceSession(
        str(path) if model is None else model, options, providers=_providers(path, device, settings), enable_fallback=0
    )


def _providers(path: Path, device: str, settings: Mapping[str, Any]) -> list[Any]:
    """Providers in order; ONNX Runtime puts nodes that the first can't run on the next."""
    number, capture = str(settings["device_id"]), str(int(settings["enable_cuda_graph"]))
    cuda = PROVIDERS["cuda"], {**CUDA_OPTIONS, "device_id": number, "enable_cuda_graph": capture}
    if device == "cuda":
        return [cuda, CPU]
    if device == "tensorrt":
        # An engine's name in the cache tells neither the graph's weights nor the version that built it.
        version = as_file_name(onnxruntime.__version__)
        folder = str(cache_folder() / "onnxruntime" / f"{version}-{sha256_of(path)[:16]}")
        cached = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": folder, "trt_timing_cache_enable": "1"}
        shapes = {name: value for name, value in settings.items() if name.startswith("trt_")}
        return [(PROVIDERS["tensorrt"], {**cached, **shapes, "device_id": number}), cuda, CPU]
    if device == "cpu":
        return [CPU]
    return [(PROVIDERS[device], {"device_id": number}), CPU]


def _described(session: Any) -> dict[str, TensorSpec]:
    """Inputs of a graph of which no manifest says anything."""
    return {node.name: TensorSpec(DTYPES.get(node.type, node.type), tuple(node.shape)) for node in session.get_inputs()}
