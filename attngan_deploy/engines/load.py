"""Engines: each runs one graph of a bundle. What was asked for and can't be had is an error, not a silent fallback."""

from dataclasses import replace

from attngan_deploy.bundles.bundle import Bundle
from attngan_deploy.engines.facts import TEXT_ENCODER, Engine
from attngan_deploy.engines.request import ANY_ENGINE, REFERENCE, EngineRequest
from attngan_deploy.errors import EngineError, MissingExtraError


def load_engine(bundle: Bundle, graph: str, request: EngineRequest = ANY_ENGINE) -> Engine:
    """Load one graph of a bundle.

    "auto" means ONNX Runtime, a backend's first device, and fp32; `TextToImage.load` chooses by measuring instead.

    Args:
        graph: its key in the manifest, e.g. "text_encoder", "generator" or "judge".

    Raises:
        EngineError: what was asked for does not exist or can't be had here, or the graph can't be loaded.
        MissingExtraError: the backend's package is not installed.
        BundleError: the bundle has no such graph, or none of this precision.
    """
    threads = request.threads
    if threads is not None and threads < 1:
        raise EngineError(
            "the number of threads is out of range",
            found=str(threads),
            expected="1 or more",
            next_step="leave the number out, for one a core",
        )
    wanted = request.candidates()[0]
    try:
        if wanted.backend == "onnxruntime":
            from attngan_deploy.engines.onnxruntime.engine import check_provider

            check_provider(wanted.place, wanted.precision)
        engine = _load(bundle, graph, replace(wanted, precision="fp32") if graph == TEXT_ENCODER else wanted)
        bundle.check_unchanged()
        return engine
    except (EngineError, MissingExtraError) as error:
        if not request.allow_fallback:
            raise
        precision = "fp32" if graph == TEXT_ENCODER else wanted.precision
        note = f"instead of {wanted.backend} on {wanted.device} in {precision} ({error.what})"
        return _load(bundle, graph, replace(REFERENCE, threads=threads), (note,))


def _load(bundle: Bundle, graph: str, request: EngineRequest, notes: tuple[str, ...] = ()) -> Engine:
    if request.backend == "onnxruntime":
        from attngan_deploy.engines.onnxruntime.engine import OnnxRuntimeEngine

        path, described = bundle.graph_path(graph, request.precision), bundle.graph(graph)
        spins = graph != TEXT_ENCODER
        return OnnxRuntimeEngine(path, request.device, request.threads, request.precision, described, notes, spins)
    if request.backend == "openvino":
        if graph == TEXT_ENCODER:
            note = "not openvino, which leaves out the lengths of captions"
            return _load(bundle, graph, replace(REFERENCE, threads=request.threads), (note,))
        from attngan_deploy.engines.openvino.engine import OpenVinoEngine

        return OpenVinoEngine(bundle, graph, request.device, request.precision, request.threads)
    from attngan_deploy.engines.tensorrt.engine import TensorRtEngine

    return TensorRtEngine(bundle, graph, request.backend, request.device, request.precision)
