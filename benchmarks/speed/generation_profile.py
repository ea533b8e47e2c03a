"""Where an OpenVINO generator spends its time: the shares of operators and of layers, in percent."""

import tempfile
from collections import Counter
from pathlib import Path

from generation_lines import example, timings

from attngan_deploy.engines.openvino.engine import read, settings
from attngan_deploy.engines.openvino.graph import only, rewrite
from attngan_deploy.engines.openvino.package import load_openvino
from attngan_deploy.engines.picture_outputs import PICTURES, SUMS, add_pictures
from attngan_deploy.export.precision.half import layer_of
from attngan_deploy.generate.features import Batch
from attngan_deploy.generate.folder import open_folder
from attngan_deploy.generate.noise import noise_batch
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.generate.run import Run
from attngan_deploy.generate.target import Target
from attngan_deploy.media.captions import CaptionList, from_texts
from attngan_deploy.media.images import encode_picture

BATCH, WARM, RUNS = 16, 3, 10
LEAST = 0.5  # per cent


def profile(model: TextToImage, captions: list[str], precision: str, threads: int) -> dict[str, dict[str, float]]:
    """Shares of time by kind of operator, and by layer, of the graph that makes pictures."""
    path = model.bundle.graph_path("generator", "int8" if precision == "int8" else "fp32")
    graph = read(add_pictures(path.read_bytes(), model.bundle.graph("generator")))
    rewrite(graph)
    graph = only(graph, (PICTURES, SUMS))
    wanted = {**settings("CPU", precision, threads), "PERF_COUNT": True}
    request = load_openvino().Core().compile_model(graph, "CPU", wanted).create_infer_request()
    inputs = example(model, captions).tensors(BATCH)
    kinds: Counter[str] = Counter()
    layers: Counter[str] = Counter()
    for run in range(WARM + RUNS):
        request.infer(inputs)
        for node in request.get_profiling_info() if run >= WARM else []:
            seconds = node.real_time.total_seconds()
            kinds[node.node_type] += seconds
            layers[layer_of(node.node_name)] += seconds
    return {"kinds": _shares(kinds), "layers": _shares(layers)}


def stages(model: TextToImage, captions: list[str]) -> dict[str, float]:
    """What else a picture of a whole command costs, each stage alone, as parts of the generator's time for it."""
    items = from_texts(captions)
    places = [(place, 0) for place in range(len(items))]
    pictures = model.generate(captions)
    inputs = example(model, captions).batch(BATCH)
    run = Run.of(model.bundle, CaptionList(items))

    def write() -> None:
        with tempfile.TemporaryDirectory() as folder, open_folder(Target(Path(folder) / "out"), run) as out:
            for start in range(0, len(places), BATCH):
                part = slice(start, start + BATCH)
                out.add(Batch(pictures[part], places[part], captions=items[part]))

    generator = min(timings(lambda: model.decode_pictures(*inputs))) / BATCH
    work = {
        "text encoder": lambda: model.encode(captions),
        "noise": lambda: noise_batch(0, places, model.z_size, model.eps_size),
        "PNG": lambda: [encode_picture(picture) for picture in pictures],
        "PNG, files and manifest": write,
    }
    return {name: round(min(timings(each)) / len(items) / generator, 3) for name, each in work.items()}


def _shares(seconds: "Counter[str]") -> dict[str, float]:
    total = sum(seconds.values())
    shares = {name: round(100 * value / total, 1) for name, value in seconds.most_common()}
    return {name: share for name, share in shares.items() if share >= LEAST}
