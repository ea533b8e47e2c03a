"""Engines: each runs one graph of a bundle. What was asked for and can't be had is an error, not a silent fallback."""

from collections.abc import Iterable

from attngan_deploy.bundles.bundle import Bundle
from attngan_deploy.engines.facts import (
    BACKENDS,
    DEVICES,
    PRECISIONS,
    SUPPORTED,
    TEXT_ENCODER,
    Engine,
    about_device,
)
from attngan_deploy.errors import EngineError, MissingExtraError


def load_engine(
    bundle: Bundle,
    graph: str,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    allow_fallback: bool = False,
) -> Engine:
    """Load one graph of a bundle.

    "auto" means ONNX Runtime, a backend's first device, and fp32; `TextToImage.load` chooses by measuring instead.

    Args:
        graph: its key in the manifest, e.g. "text_encoder", "generator" or "judge".
        backend: "auto" or one of `BACKENDS`.
        device: "auto" or one of the backend's devices, see `SUPPORTED`.
        precision: "auto" or one of `SUPPORTED`; the text encoder always computes in fp32.
        threads: CPU threads that compute one picture; None leaves it to the engine.
        allow_fallback: where what was asked for can't be had here, run in ONNX Runtime on the CPU in fp32 instead;
            `facts` says so and why.

    Raises:
        EngineError: what was asked for does not exist or can't be had here, or the graph can't be loaded.
        MissingExtraError: the backend's package is not installed.
        BundleError: the bundle has no such graph, or none of this precision.
    """
    if threads is not None and threads < 1:
        raise EngineError("the number of threads is out of range", found=str(threads), expected="1 or more")
    backend, device, precision = combinations(backend, device, precision)[0]
    asked, precision = precision, "fp32" if graph == TEXT_ENCODER else precision
    try:
        if backend == "onnxruntime":
            from attngan_deploy.engines.onnxruntime.engine import check_provider

            check_provider(device, asked)
        engine = _load(bundle, graph, backend, device, precision, threads)
        bundle.check_unchanged()
        return engine
    except (EngineError, MissingExtraError) as error:
        if not allow_fallback:
            raise
        note = f"instead of {backend} on {device} in {precision} ({error.what})"
        return _load(bundle, graph, BACKENDS[0], "cpu", "fp32", threads, (note,))


def combinations(backend: str = "auto", device: str = "auto", precision: str = "auto") -> list[tuple[str, str, str]]:
    """Every (backend, device, precision) of `SUPPORTED` that fits a request, in its order, whatever is installed.

    Raises:
        EngineError: an unknown backend, device or precision, or some that don't go together.
    """
    _check_name("backend", backend, BACKENDS)
    if backend == "auto":  # else its own devices are named below
        _check_name("device", device, DEVICES)
    _check_name("precision", precision, PRECISIONS)
    places = [
        (one, place, precisions)
        for one, devices in SUPPORTED.items()
        for place, precisions in devices.items()
        if backend in ("auto", one) and device in ("auto", place)
    ]
    if not places:
        raise EngineError(
            f"{backend} has no device {device}{about_device(device)}", expected=_either(SUPPORTED[backend])
        )
    fits = [
        (one, place, each) for one, place, precisions in places for each in precisions if precision in ("auto", each)
    ]
    if not fits:
        where = "" if device == "auto" else f" on {device}"
        who = "no backend computes" if backend == "auto" else f"{backend} does not compute"
        known = dict.fromkeys(each for _, _, precisions in places for each in precisions)
        raise EngineError(f"{who} in {precision}{where}", expected=_either(known), next_step=_ways(backend, precision))
    return fits


def _check_name(what: str, name: str, names: Iterable[str]) -> None:
    if name not in ("auto", *names):
        raise EngineError(f"no {what} '{name}'{about_device(name)}", expected=_either(["auto", *names]))


def _either(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def _ways(backend: str, precision: str) -> str:
    """Options that bring a precision."""
    able = [(one, place) for one, devices in SUPPORTED.items() for place in devices if precision in devices[place]]
    ways = {
        "--device": [place for one, place in able if one == backend],
        "--backend": list(dict.fromkeys(one for one, _ in able if one != backend)),
    }
    return f"for {precision}, {', or '.join(f'{option} {_either(names)}' for option, names in ways.items() if names)}"


def _load(
    bundle: Bundle,
    graph: str,
    backend: str,
    device: str,
    precision: str,
    threads: int | None,
    notes: tuple[str, ...] = (),
) -> Engine:
    if backend == "onnxruntime":
        from attngan_deploy.engines.onnxruntime.engine import OnnxRuntimeEngine

        path, described = bundle.graph_path(graph, precision), bundle.graph(graph)
        return OnnxRuntimeEngine(path, device, threads, precision, described, notes, spins=graph != TEXT_ENCODER)
    if backend == "openvino":
        if graph == TEXT_ENCODER:
            note = "not openvino, which leaves out the lengths of captions"
            return _load(bundle, graph, BACKENDS[0], "cpu", "fp32", threads, (note,))
        from attngan_deploy.engines.openvino.engine import OpenVinoEngine

        return OpenVinoEngine(bundle, graph, device, precision, threads)
    from attngan_deploy.engines.tensorrt.engine import TensorRtEngine

    return TensorRtEngine(bundle, graph, backend, device, precision)
