"""Building a bundle's engines before they are needed: TensorRT, TensorRT-RTX and OpenVINO."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from attngan_deploy.bundles.bundle import Bundle
from attngan_deploy.engines.cache import CachedEngine, EngineKey, find_engine, store_engine
from attngan_deploy.engines.facts import GENERATOR, TEXT_ENCODER
from attngan_deploy.engines.openvino.engine import OpenVinoEngine, check_device, settings
from attngan_deploy.engines.openvino.package import load_openvino
from attngan_deploy.engines.request import BUILDERS
from attngan_deploy.engines.tensorrt import build
from attngan_deploy.engines.tensorrt.build import RTX_DEVICES, load_tensorrt
from attngan_deploy.engines.tensorrt.cuda import find_gpu
from attngan_deploy.errors import EngineError, MissingExtraError
from attngan_deploy.system.files import sha256_of
from attngan_deploy.system.signals import own_signal_stack

TARGETS = (*BUILDERS, "openvino")


@dataclass(frozen=True)
class Built:
    """A built engine."""

    graph: str  # its key in the bundle, e.g. "generator".
    backend: str  # "tensorrt", "tensorrt-rtx" or "openvino"
    version: str  # the backend's version
    device: str  # what it is for, e.g. "sm89" or "cpu".
    precision: str  # "fp32", "fp16", "bf16" or "int8"
    path: Path  # where it is
    bytes: int  # its size
    seconds: float  # how long building it took
    cached: bool  # it was there already; `seconds` is then what building it had taken


def prebuild(
    bundle: Bundle,
    target: str,
    out: Path | None = None,
    precisions: Sequence[str] = ("fp32",),
    devices: Sequence[str] = ("auto",),
) -> list[Built]:
    """Build the engines of every graph of a bundle, in each precision and for each device.

    What is in the folder already is not built again. TensorRT's engines are what the runtime looks for. OpenVINO's are
    of the generator only, since OpenVINO leaves out the lengths of captions, and for programs that call `import_model`
    on the same device, with the settings of `openvino.engine.settings` once more. The runtime does not need them: a
    CPU compiles in a tenth of a second, and for other devices OpenVINO's own cache is filled here too.

    Args:
        bundle: an opened text-to-image bundle; the text encoder is always built in fp32, the generator in `precisions`.
        out: folder for the engines; None for the cache, where the runtime finds TensorRT's. Another folder is found by
            the runtime when T2I_CACHE names it.
        precisions: of the generator; each but fp32 must be stored in the bundle, or be native to the engine.
        devices: "auto" is this machine's: its GPU, or for openvino its CPU. For openvino also "cpu", "gpu" or "npu";
            for tensorrt-rtx the compute capabilities `RTX_DEVICES`, which need no GPU here. Without a GPU, "auto" is
            all of those for tensorrt-rtx that compute in every one of `precisions`.

    Returns:
        What was built, in order: for each device the text encoder, then the generator in each precision.

    Raises:
        MissingExtraError: the package of the target is not installed.
        EngineError: the device or precision can't be had, or a graph can't be built.
        BundleError: the bundle has no graph of a precision.
        OutputError: the folder can't be written.
    """
    places = find_places(target, precisions, devices)
    if target == "openvino":
        return [_openvino(bundle, place, precision, out) for place in places for precision in precisions]
    for precision in precisions:
        bundle.graph_path(GENERATOR, precision)  # before anything is built for minutes
    wanted = [(TEXT_ENCODER, "fp32"), *((GENERATOR, precision) for precision in precisions)]
    return [_tensorrt(bundle, graph, target, place, precision, out) for place in places for graph, precision in wanted]


def find_places(target: str, precisions: Sequence[str] = ("fp32",), devices: Sequence[str] = ("auto",)) -> list[str]:
    """What `prebuild` builds for, e.g. "sm89" or "cpu"; each can be had here, in all of `precisions`.

    Raises:
        MissingExtraError: the package of the target is not installed.
        EngineError: a device or precision can't be had.
    """
    if target not in TARGETS:
        raise EngineError(f"no engines can be built for '{target}'", expected=" or ".join(TARGETS))
    if target == "openvino":
        places = ["cpu" if device == "auto" else device for device in devices]
    else:
        places = [place for device in devices for place in _gpus(target, device, precisions)]
    for place in places:
        for precision in precisions:
            if target == "openvino":
                check_device(place, precision)
            else:
                build.check_precision(target, place, precision)
    return places


def _gpus(flavour: str, device: str, precisions: Sequence[str]) -> list[str]:
    load_tensorrt(flavour)  # that its package is missing is worth more to say than that a GPU is
    if flavour == "tensorrt-rtx" and device in RTX_DEVICES:
        return [device]
    if device != "auto":
        known = RTX_DEVICES if flavour == "tensorrt-rtx" else ()
        raise EngineError(f"{flavour} can't build for '{device}'", expected=" or ".join(["auto", *known]))
    try:
        gpu = find_gpu()
    except (EngineError, MissingExtraError):
        if flavour == "tensorrt":
            raise
        able = [one for one in RTX_DEVICES if {*precisions} <= {*build.precisions_for(flavour, one)}]
        return able or list(RTX_DEVICES)  # each is refused with its reason
    return [build.device_of(flavour, gpu)]


def _tensorrt(bundle: Bundle, graph: str, flavour: str, device: str, precision: str, out: Path | None) -> Built:
    entry, reason = build.ensure_engine(bundle, graph, flavour, device, precision, out)
    return _built(graph, entry, cached=not reason)


def _openvino(bundle: Bundle, device: str, precision: str, out: Path | None) -> Built:
    engine = OpenVinoEngine(bundle, GENERATOR, device, precision)  # fills OpenVINO's own cache
    core, name = load_openvino().Core(), device.upper()
    path = bundle.graph_path(GENERATOR, "int8" if precision == "int8" else "fp32")
    place = f"{device} {core.get_property(name, 'FULL_DEVICE_NAME')}"
    key = EngineKey(sha256_of(path), "openvino", engine.facts.version, place, precision)
    with suppress(EngineError):  # a damaged one is written again
        if entry := find_engine(key, out):
            return _built(GENERATOR, entry, cached=True)
    start = time.perf_counter()
    with own_signal_stack():
        data = core.compile_model(str(path), name, settings(name, precision, None)).export_model().getvalue()
    facts = {"bundle": bundle.name, "graph": GENERATOR}
    return _built(GENERATOR, store_engine(key, data, time.perf_counter() - start, out, facts), cached=False)


def _built(graph: str, entry: CachedEngine, cached: bool) -> Built:
    key = entry.key
    device = key.device.split(" ")[0]
    return Built(graph, key.backend, key.version, device, key.precision, entry.path, entry.bytes, entry.seconds, cached)
