"""Where an OpenVINO generator spends its time: the shares of operators and of layers, in percent."""

from collections import Counter
from typing import Any

import numpy as np
from generation_lines import INPUTS, example

from attngan_deploy.engines.openvino import _read, settings
from attngan_deploy.engines.openvino_graph import only_pictures, rewrite
from attngan_deploy.openvino_import import load_openvino
from attngan_deploy.pipeline import TextToImage

BATCH, WARM, RUNS = 16, 3, 10
LEAST = 0.5  # per cent


def profile(model: TextToImage, captions: list[str], precision: str, threads: int) -> dict[str, dict[str, float]]:
    """Shares of time by kind of operator, and by layer, of the graph that makes pictures."""
    path = model.bundle.graph_path("generator", "int8" if precision == "int8" else "fp32")
    graph = _read(path)
    rewrite(graph)
    graph = only_pictures(graph, f"image_{model.picture_size}")
    wanted = {**settings("CPU", precision, threads), "PERF_COUNT": True}
    request = load_openvino().Core().compile_model(graph, "CPU", wanted).create_infer_request()
    features, z, eps = example(model, captions).batch(BATCH)
    inputs: dict[str, np.ndarray[Any, Any]] = dict(
        zip(INPUTS, (features.sentence, features.words, features.mask, z, eps), strict=True)
    )
    kinds: Counter[str] = Counter()
    layers: Counter[str] = Counter()
    for run in range(WARM + RUNS):
        request.infer(inputs)
        for node in request.get_profiling_info() if run >= WARM else []:
            seconds = node.real_time.total_seconds()
            kinds[node.node_type] += seconds
            layers["/".join(node.node_name.split("/")[:2])] += seconds
    return {"kinds": _shares(kinds), "layers": _shares(layers)}


def _shares(seconds: "Counter[str]") -> dict[str, float]:
    total = sum(seconds.values())
    shares = {name: round(100 * value / total, 1) for name, value in seconds.most_common()}
    return {name: share for name, share in shares.items() if share >= LEAST}
