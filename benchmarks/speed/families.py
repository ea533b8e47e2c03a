"""DM-GAN and DF-GAN: engines against eager torch of the published network, at real widths with random weights.

python benchmarks/speed/families.py > benchmarks/speed/families.json

One thread, and seconds of processor time instead of the clock's, so that a busy machine can measure too.
`performance_page.py` makes a section of docs/performance.md of the file.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from attngan_deploy.cli import report_errors, script_extra
from attngan_deploy.system.machine import this_machine

with script_extra("dev"):
    import onnx
    import onnxruntime
    import openvino
    import torch
    from torch import Tensor
    from torch.nn import functional as F

    from attngan_deploy.engines.openvino.graph import rewrite
    from attngan_deploy.export.deploy import GraphOptions, deploy
    from attngan_deploy.export.graphs.network import generator_graph
    from attngan_deploy.train.config import GeneratorConfig
    from attngan_deploy.train.df_gan import UpBlock
    from attngan_deploy.train.families import build_generator, generate

CONFIGS = {  # both for 128 px; DF-GAN's has one stage
    "DM-GAN": GeneratorConfig("dmgan", 2, 32, 100, 100, 256, 2),
    "DF-GAN": GeneratorConfig("dfgan", 2, 32, 100, 0, 256, 0),
}
PICTURES, WORDS, ROUNDS = 4, 18, 3
EAGER = "published network, eager torch"


def published_order(self: UpBlock, x: Tensor, condition: Tensor) -> Tensor:
    """An up-block as the published code computes it: the map is doubled before anything else."""
    x = F.interpolate(x, scale_factor=2, mode="nearest")
    bent = F.conv2d(self.fuse1(x, condition), self.conv1.weight, self.conv1.bias, padding=1)
    straight: Tensor = self.shortcut(x)
    return straight + self.conv2(self.fuse2(bent, condition))


def measure(config: GeneratorConfig, folder: Path) -> dict[str, Any]:
    """Processor time of each engine as a ratio to eager torch, and the largest difference of a picture from it."""
    torch.manual_seed(0)
    generator = build_generator(config).eval()
    given = {
        "sentence": torch.randn(PICTURES, config.features).tanh(),
        "words": torch.randn(PICTURES, config.features, WORDS).tanh(),
        "mask": torch.ones(PICTURES, WORDS, dtype=torch.bool),
        "z": torch.randn(PICTURES, config.noise),
        "eps": torch.randn(PICTURES, config.condition),
    }
    path, image = folder / "generator.onnx", f"image_{config.sizes[-1]}"
    onnx.save(generator_graph(deploy(generator, GraphOptions(weights="fp32"))), path)
    inputs = {name: given[name].numpy() for name in generator.inputs}

    def eager() -> np.ndarray:
        with torch.inference_mode():
            return generate(generator, given).images[-1].numpy()

    made: dict[str, Callable[[], np.ndarray]] = {EAGER: eager, **_engines(path, inputs, image)}
    if config.family == "dfgan":
        ours, UpBlock.forward = UpBlock.forward, published_order  # type: ignore[method-assign]
    wanted = eager()
    seconds: dict[str, list[float]] = {name: [] for name in made}
    differences = {name: float(np.abs(run() - wanted).max()) for name, run in made.items()}  # and the first run's plans
    for _ in range(ROUNDS):
        for name, run in made.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    if config.family == "dfgan":
        UpBlock.forward = ours  # type: ignore[method-assign]
    of_eager = {
        name: median(base / took for base, took in zip(seconds[EAGER], each, strict=True))
        for name, each in seconds.items()
    }
    return {
        name: {"of_eager": round(of_eager[name], 2), "worst": float(f"{differences[name]:.1e}")}
        for name in made
        if name != EAGER
    }


def _engines(path: Path, inputs: dict[str, np.ndarray], image: str) -> dict[str, Callable[[], np.ndarray]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    core = openvino.Core()
    model = core.read_model(str(path))
    rewrite(model)
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(model, "CPU", settings).create_infer_request()

    def in_openvino() -> np.ndarray:
        request.infer(inputs)
        return np.array(request.get_tensor(image).data)

    return {
        "ONNX Runtime fp32": lambda: np.asarray(session.run([image], inputs)[0]),
        "OpenVINO fp32": in_openvino,
    }


def main() -> None:
    """Measure, print JSON."""
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = {name: measure(config, Path(folder)) for name, config in CONFIGS.items()}
    told = {"cpu": this_machine().cpu, "pictures": PICTURES, "rounds": ROUNDS, "rows": rows}
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    sys.exit(report_errors(main))
