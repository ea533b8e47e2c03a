"""Building engines with TensorRT and TensorRT-RTX: one code path, as both have the same interface.

Networks are strongly typed: an engine computes in the precision that the graph says, and in no other. TensorRT builds
for the GPU of this machine; TensorRT-RTX for any compute capability, on a machine without a GPU too.
"""

import importlib
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from attngan_deploy.bundles.bundle import Bundle
from attngan_deploy.bundles.manifest import Graph, Size
from attngan_deploy.engines.cache import (
    CachedEngine,
    EngineKey,
    as_file_name,
    find_engine,
    make_cache,
    store_engine,
)
from attngan_deploy.engines.facts import TEXT_ENCODER
from attngan_deploy.engines.picture_outputs import read_model
from attngan_deploy.engines.request import BUILDERS, INSTALL, SUPPORTED
from attngan_deploy.engines.tensorrt.callbacks import STEPS, Progress, make_log, make_monitor
from attngan_deploy.engines.tensorrt.cuda import Gpu
from attngan_deploy.errors import EngineError, MissingExtraError
from attngan_deploy.system.cache import cache_folder
from attngan_deploy.system.files import write_atomically
from attngan_deploy.system.progress import show_progress
from attngan_deploy.system.signals import uninterrupted

RTX_DEVICES = ("sm75", "sm80", "sm86", "sm89", "sm120")  # those that TensorRT-RTX builds for without having one
BF16_FROM = 80  # compute capability: Ampere
NO_FP32_PRODUCTS = ("sm75",)  # TensorRT-RTX has no matrix product in fp32 for Turing

Tensors = dict[str, tuple[str, list[int | None]]]  # name to dtype and shape, -1 where a size is dynamic


@dataclass(frozen=True)
class Profile:
    """Sizes that an engine takes, each as smallest, best and largest."""

    batch: tuple[int, int, int] = (1, 16, 64)  # pictures; larger batches are cut into pieces when the engine runs
    words: tuple[int, int, int] = (1, 18, 64)  # words of the longest caption

    def __str__(self) -> str:
        return f"batch {'-'.join(map(str, self.batch))}, words {'-'.join(map(str, self.words))}"

    def shape(self, shape: Sequence[Size], which: int) -> list[int]:
        """A shape of the manifest with its named sizes filled in; `which` is 0 for smallest, 1 for best, 2 for largest.

        Raises:
            EngineError: it has a named size that is neither the first, which is the batch, nor "words".
        """
        if unknown := [size for size in shape[1:] if isinstance(size, str) and size != "words"]:
            raise EngineError(f"a tensor has the size {unknown[0]}", expected="words, or a number")
        named = [self.batch, *(self.words for _ in shape[1:])]
        return [size if isinstance(size, int) else one[which] for size, one in zip(shape, named, strict=True)]


DEFAULT_PROFILE = Profile()


def ensure_engine(
    bundle: Bundle,
    graph: str,
    flavour: str,
    device: str,
    precision: str = "fp32",
    folder: Path | None = None,
) -> tuple[CachedEngine, str]:
    """The engine of a bundle's graph: from the cache, or built and put there, with progress on standard error.

    Args:
        device: as `device_of` says it; for TensorRT-RTX a compute capability, e.g. "sm89", that need not be here.
        folder: the cache; None for `cache_folder()`.

    Returns:
        The engine, and why it was built: "" when it was in the cache already.

    Raises:
        MissingExtraError: the package is missing.
        EngineError: the graph can't be built.
        BundleError: the bundle has no such graph in this precision.
        OutputError: the cache can't be written.
    """
    trt = load_tensorrt(flavour)
    stored = "fp32" if graph == TEXT_ENCODER else precision
    if graph != TEXT_ENCODER:
        check_precision(flavour, device, precision)
    path = bundle.graph_path(graph, stored)
    computes_in = "fp16" if without_fp32_products(flavour, device) else stored
    model, _ = read_model(path, bundle.graph(graph))
    key = EngineKey(sha256(model).hexdigest(), flavour, trt.__version__, device, computes_in, str(DEFAULT_PROFILE))
    reason = "not in the cache"
    try:
        if entry := find_engine(key, folder):
            return entry, ""
    except EngineError as error:
        reason = error.what
    make_cache(folder)
    start = time.perf_counter()
    timing = (folder or cache_folder()) / f"{flavour}-{trt.__version__}-{as_file_name(device)}.timing"
    with show_progress(f"build {path.name} for {flavour}, {device}", "steps") as progress:
        data = build_engine(flavour, path, bundle.graph(graph), device, progress=progress, timing=timing)
    facts = {"bundle": bundle.name, "graph": graph, "checked": False}
    return store_engine(key, data, time.perf_counter() - start, folder, facts), reason


def precisions_for(flavour: str, device: str) -> tuple[str, ...]:
    """Precisions that the graphs of engines for a device may have; text encoders in fp32 are taken everywhere."""
    if without_fp32_products(flavour, device):
        return ("fp16",)
    capability = device.split(" ")[0]
    old = capability.startswith("sm") and _number(capability) < BF16_FROM
    return tuple(name for name in SUPPORTED[flavour]["cuda"] if not (old and name == "bf16"))


def check_precision(flavour: str, device: str, precision: str) -> None:
    """Raise EngineError where no engine can be built for a device from a graph in this precision."""
    if precision not in (able := precisions_for(flavour, device)):
        raise EngineError(
            f"{flavour} does not compute a bundle's graphs in {precision} for {device}",
            expected=" or ".join(able),
            next_step="--precision fp16",
        )


def build_engine(
    flavour: str,
    path: Path,
    graph: Graph,
    device: str,
    profile: Profile = DEFAULT_PROFILE,
    progress: Progress | None = None,
    timing: Path | None = None,
) -> bytes:
    """Build an engine from an ONNX file; one that makes images makes pictures too, see `engines.picture_outputs`.

    Args:
        device: compute capability, e.g. "sm89"; TensorRT itself builds for the GPU of this machine.
        progress: called with (done, total) while building; what it raises ends the build, and is raised here.
        timing: where TensorRT keeps its measurements of kernels between builds; TensorRT-RTX measures none.

    Raises:
        EngineError: the graph can't be read or built, its tensors differ from `graph`, or weights are no numbers.
    """
    trt, log = load_tensorrt(flavour), tensorrt_log(flavour)
    log.begin()
    model, graph = read_model(path, graph)
    with uninterrupted() as signals:  # KeyboardInterrupt, raised in the log or the monitor, would be lost
        try:
            builder = trt.Builder(log)
        except (TypeError, RuntimeError) as error:  # without a driver TensorRT makes no builder
            raise EngineError(f"{flavour} does not start: {log.cause() or error}", next_step="t2i doctor") from error
        typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # version 11 knows nothing else
        network = builder.create_network(0 if typed is None else 1 << int(typed))
        parser = trt.OnnxParser(network, log)
        if not parser.parse(model):
            raise EngineError(f"{flavour} can't read {path}: {_parser_error(parser) or log.cause()}")
        check_tensors(path.name, network_tensors(trt, network), graph)
        _check_weights(trt, network, path)
        if without_fp32_products(flavour, device):
            _halve_products(trt, network)
        config = builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)  # fp32 means fp32: TF32 keeps 10 bits of a product's factors
        config.add_optimization_profile(_make_profile(builder, graph.inputs, profile))
        monitor = make_monitor(trt, progress, signals)
        config.progress_monitor = monitor
        if flavour == "tensorrt-rtx":
            _set_capability(trt, config, device)
        else:
            _read_timing(config, timing)
        data = builder.build_serialized_network(network, config)
    if monitor.stopped is not None:
        raise monitor.stopped
    if progress is not None and data is not None:
        progress(STEPS, STEPS)
    if data is None:
        raise EngineError(f"{flavour} can't build {path.name} for {device}: {log.cause()}", next_step="t2i doctor")
    if flavour != "tensorrt-rtx" and timing is not None:
        with suppress(OSError):  # it only saves time; that the cache can't be written is said when the engine is
            timing.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(timing, bytes(config.get_timing_cache().serialize()))
    return bytes(data)


def device_of(flavour: str, gpu: Gpu) -> str:
    """What `ensure_engine` calls a GPU: TensorRT measures kernels on it, TensorRT-RTX looks at its capability only.

    Raises:
        EngineError: TensorRT-RTX does not know such a GPU, as it is made for those of PCs; Hopper is none.
    """
    if flavour == "tensorrt-rtx":
        _capability(load_tensorrt(flavour), gpu.capability, gpu.name)
    return f"{gpu.capability} {gpu.name}" if flavour == "tensorrt" else gpu.capability


def without_fp32_products(flavour: str, device: str) -> bool:
    """True where matrix products have to be in fp16; `build_engine` then casts to fp16 and back around each."""
    return flavour == "tensorrt-rtx" and device in NO_FP32_PRODUCTS


@cache
def load_tensorrt(flavour: str) -> Any:
    """The module of a flavour.

    Raises:
        EngineError: no such flavour.
        MissingExtraError: its package is missing or broken; the text of the ImportError is in it.
    """
    if flavour not in BUILDERS:
        raise EngineError(f"no TensorRT called '{flavour}'", expected=" or ".join(BUILDERS))
    module = flavour.replace("-", "_")
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        raise MissingExtraError(
            f"the package {module} can't be imported: {error}", next_step=INSTALL[flavour]
        ) from error


@cache
def tensorrt_log(flavour: str) -> Any:
    """Where TensorRT tells its errors. It keeps the first logger it meets, so that there is one for all objects."""
    return make_log(load_tensorrt(flavour))


def network_tensors(trt: Any, network: Any) -> Tensors:
    values = [network.get_input(place) for place in range(network.num_inputs)]
    values += [network.get_output(place) for place in range(network.num_outputs)]
    return {value.name: (np.dtype(trt.nptype(value.dtype)).name, list(value.shape)) for value in values}


def engine_tensors(trt: Any, engine: Any) -> Tensors:
    names = [engine.get_tensor_name(place) for place in range(engine.num_io_tensors)]
    return {
        name: (np.dtype(trt.nptype(engine.get_tensor_dtype(name))).name, list(engine.get_tensor_shape(name)))
        for name in names
    }


def check_tensors(name: str, found: Tensors, graph: Graph) -> None:
    """Raise EngineError where the name, dtype or shape of a tensor is not what the manifest says of a graph."""
    expected = {
        tensor: (said.dtype, [-1 if isinstance(size, str) else size for size in said.shape])
        for tensor, said in {**graph.inputs, **graph.outputs}.items()
    }
    if found == expected:
        return
    differs = sorted(tensor for tensor in found.keys() | expected.keys() if found.get(tensor) != expected.get(tensor))
    raise EngineError(
        f"{name} has other tensors than the manifest says: {', '.join(differs)}",
        found=", ".join(_shown(found.get(tensor)) for tensor in differs),
        expected=", ".join(_shown(expected.get(tensor)) for tensor in differs),
    )


def _shown(tensor: tuple[str, list[int | None]] | None) -> str:
    return "none" if tensor is None else f"{tensor[0]} {tensor[1]}"


def _parser_error(parser: Any) -> str:
    if not parser.num_errors:
        return ""
    error = parser.get_error(0)
    where = f" in node {error.node_name()} ({error.node_operator()})" if error.node_name() else ""
    return f"{error.desc()}{where}"


def _check_weights(trt: Any, network: Any, path: Path) -> None:
    """Weights that are NaN make pictures that are; infinity is no fault, as masks are made of it."""
    kinds = {
        trt.LayerType.CONSTANT: (trt.IConstantLayer, ("weights",)),
        trt.LayerType.CONVOLUTION: (trt.IConvolutionLayer, ("kernel", "bias")),
        trt.LayerType.DECONVOLUTION: (trt.IDeconvolutionLayer, ("kernel", "bias")),
    }
    for place in range(network.num_layers):
        layer = network.get_layer(place)
        if layer.type not in kinds:
            continue
        layer.__class__, attributes = kinds[layer.type]  # how these bindings say which kind of layer it is
        for attribute in attributes:
            values = getattr(layer, attribute)
            if isinstance(values, np.ndarray) and values.dtype.kind == "f" and np.isnan(values).any():
                raise EngineError(
                    f"{path} has weights that are not numbers, in {layer.name}",
                    next_step="export it from a checkpoint that makes pictures",
                )


def _halve_products(trt: Any, network: Any) -> None:
    """Make every matrix product in fp32 one in fp16, with casts around it."""
    layers = [network.get_layer(place) for place in range(network.num_layers)]
    for layer in layers:
        product = layer.get_output(0)
        if layer.type != trt.LayerType.MATRIX_MULTIPLY or product.dtype != trt.float32:
            continue
        users = [
            (user, place)
            for user in layers
            for place in range(user.num_inputs)
            if (tensor := user.get_input(place)) is not None and tensor.name == product.name
        ]
        for place in range(layer.num_inputs):
            layer.set_input(place, network.add_cast(layer.get_input(place), trt.float16).get_output(0))
        again = network.add_cast(product, trt.float32).get_output(0)
        for user, place in users:
            user.set_input(place, again)


def _make_profile(builder: Any, inputs: Mapping[str, Any], profile: Profile) -> Any:
    made = builder.create_optimization_profile()
    for name, said in inputs.items():
        made.set_shape(name, *(profile.shape(said.shape, which) for which in range(3)))
    return made


def _capability(trt: Any, device: str, gpu: str = "") -> Any:
    """TensorRT-RTX's own name of a compute capability; EngineError where it has none."""
    if (capability := getattr(trt.ComputeCapability, device.upper(), None)) is not None:
        return capability
    known = sorted((name.lower() for name in dir(trt.ComputeCapability) if name.startswith("SM")), key=_number)
    raise EngineError(
        f"tensorrt-rtx {trt.__version__} knows no {gpu or 'GPU'} ({device})",
        expected=", ".join(known),
        next_step="--backend tensorrt, or --backend onnxruntime --device cuda",
    )


def _number(capability: str) -> int:
    return int(capability.removeprefix("sm"))


def _set_capability(trt: Any, config: Any, device: str) -> None:
    """Name the GPU to build for."""
    config.num_compute_capabilities = 1
    config.set_compute_capability(_capability(trt, device), 0)


def _read_timing(config: Any, timing: Path | None) -> None:
    known = timing.read_bytes() if timing is not None and timing.is_file() else b""
    measured = config.create_timing_cache(known) or config.create_timing_cache(b"")
    if not config.set_timing_cache(measured, False):  # of another GPU: start afresh
        config.set_timing_cache(config.create_timing_cache(b""), False)
