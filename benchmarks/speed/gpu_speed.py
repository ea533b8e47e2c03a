"""How fast pictures are made on a GPU, next to the published network, torch at its best, and what the chip could do.

    t2i export --bundle base --precision fp16 -o base-fp16
    python benchmarks/speed/gpu_speed.py --model base-fp16 --json gpu.json

Everything is loaded in one process and measured in turns; results are ratios of the same round, the median over rounds.
Each line is measured to uint8 pictures in the machine's memory. The roofline adds up over layers the larger of their
operations by the chip's peak and their bytes by its bandwidth, both measured here, so that a layer of few channels is
not held against a product of matrices; what has no product (activations, upsampling) is taken to cost nothing.
`--device cpu` runs the same with what a CPU has, to try the script. Needs the extra train.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from generation_lines import as_published, example, published

from attngan_deploy.cli import script_extra
from attngan_deploy.engines.facts import can_make_pictures
from attngan_deploy.errors import T2IError
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.score.generated import read_caption_list

with script_extra("train"):
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "captions.txt"
PUBLISHED, BEST, HALF = "published network, batch 100", "published network, best batch", "torch fp16, CUDA graph"
PUBLISHED_BATCH = 100
ENGINES = {
    "cuda": (("onnxruntime", "cuda"), ("onnxruntime", "tensorrt"), ("tensorrt", "cuda"), ("tensorrt-rtx", "cuda")),
    "cpu": (("onnxruntime", "cpu"),),
}
Work = Callable[[], object]


class LayerCosts(TorchDispatchMode):
    """Operations and bytes of every product (convolution, product of matrices) that is computed meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.layers: list[tuple[int, int]] = []  # operations, two for a product and its sum; numbers read and written

    def __torch_dispatch__(self, operator: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        """Compute as usual, and note what it was."""
        made = operator(*arguments, **(options or {}))
        if (count := flop_registry.get(operator.overloadpacket)) is not None:
            tensors = [each for each in (*arguments, made) if isinstance(each, torch.Tensor)]
            operations = count(*arguments, **(options or {}), out_val=made)
            self.layers.append((operations, sum(each.numel() for each in tensors)))
        return made


def roofline(layers: list[tuple[int, int]], size: int, peak: float, bandwidth: float) -> float:
    """Seconds that the layers take at least: `size` bytes a number, operations and bytes a second."""
    return sum(max(operations / peak, numbers * size / bandwidth) for operations, numbers in layers)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="base", help="a bundle; with an fp16 graph, engines are measured in it too")
    parser.add_argument("--captions", type=Path, default=EXAMPLES, help="a captions file or a .tar shard")
    parser.add_argument("--device", choices=list(ENGINES), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batches", default="16,64,100,256", help="to choose the best from")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each turn")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    told = json.dumps(measure(options), indent=2)
    print(told)
    if options.json is not None:
        options.json.write_text(told + "\n", encoding="utf-8")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every line at its best batch, as ratios, and what could not be had."""
    captions = read_caption_list(options.captions)[0][:100]
    batches = [int(size) for size in options.batches.split(",")]
    network = published(options.model, captions).to(options.device)
    shown = example(TextToImage.load(options.model, backend="onnxruntime", precision="fp32", device="cpu"), captions)
    lines: dict[str, Callable[[int], Work]] = {BEST: lambda size: _eager(network, shown, size, options.device)}
    absent: dict[str, str] = {}
    if options.device == "cuda":
        lines[HALF] = lambda size: _captured(network, shown, size)
    for backend, place in ENGINES[options.device]:
        for precision in ("fp32", "fp16"):
            name = f"{backend} on {place}, {precision}"
            try:
                model = TextToImage.load(options.model, backend=backend, device=place, precision=precision)
            except T2IError as error:
                absent[name] = str(error)
                continue
            lines[name] = lambda size, model=model: _engine(model, shown, size)
    works = {name: {size: prepare(size) for size in batches} for name, prepare in lines.items()}
    best = {
        name: min(sizes, key=lambda size, sizes=sizes: _time(sizes[size], 0.3) / size) for name, sizes in works.items()
    }
    works[PUBLISHED] = {PUBLISHED_BATCH: lines[BEST](PUBLISHED_BATCH)}
    best[PUBLISHED] = PUBLISHED_BATCH
    speeds: dict[str, list[float]] = {}
    limits: dict[str, list[float]] = {}
    layers = {size: _layers(network, shown, size, options.device) for size in set(best.values())}
    for _ in range(options.rounds):
        for name, size in best.items():
            speeds.setdefault(name, []).append(size / _time(works[name][size], options.seconds))
        peaks = {kind: _peak(options.device, kind) for kind in (torch.float32, torch.float16)}
        bandwidth = _bandwidth(options.device)
        for name, size in best.items():
            kind = torch.float16 if "fp16" in name else torch.float32
            least = roofline(layers[size], kind.itemsize, peaks[kind], bandwidth)
            limits.setdefault(name, []).append(speeds[name][-1] * least / size)
    rows = {
        name: {
            "batch": best[name],
            "of_published_100": _ratio(speeds[name], speeds[PUBLISHED]),
            "of_published_best": _ratio(speeds[name], speeds[BEST]),
            "of_roofline": round(median(limits[name]), 3),
        }
        for name in speeds
    }
    chip = torch.cuda.get_device_name() if options.device == "cuda" else "a CPU"
    return {"device": chip, "torch": torch.__version__, "rounds": options.rounds, "rows": rows, "absent": absent}


def _best(works: dict[int, Work], seconds: float) -> int:
    """The batch of which a picture takes least."""
    return min(works, key=lambda size: _time(works[size], seconds) / size)


def _tensors(shown: Any, size: int, device: str, kind: torch.dtype) -> list[torch.Tensor]:
    features, z, eps = shown.batch(size)
    tensors = map(torch.from_numpy, (features.sentence, features.words, features.mask, z, eps))
    return [each.to(device, kind if each.is_floating_point() else each.dtype) for each in tensors]


def _eager(network: Any, shown: Any, size: int, device: str) -> Work:
    """As the published code does it: noise drawn on the device, floats copied back, denormalised one by one."""
    sentence, words, mask, z, eps = _tensors(shown, size, device, torch.float32)

    def work() -> list[np.ndarray]:
        with torch.no_grad():
            z.normal_(0, 1)
            return as_published(network(sentence, words, mask, z, eps).images[-1].cpu().numpy())

    return work


def _captured(network: Any, shown: Any, size: int) -> Work:
    """What a careful user of torch gets: fp16, channels last, bytes made on the GPU, one CUDA graph."""
    import copy

    half = copy.deepcopy(network).to(torch.float16, memory_format=torch.channels_last)
    tensors = _tensors(shown, size, "cuda", torch.float16)

    def make() -> torch.Tensor:
        image = half(*tensors).images[-1].float()
        return ((image + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    with torch.no_grad():
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                make()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            made = make()
    host = torch.empty(made.shape, dtype=torch.uint8, pin_memory=True)

    def work() -> np.ndarray:
        tensors[3].normal_(0, 1)
        graph.replay()
        host.copy_(made)
        return host.numpy().copy()

    return work


def _engine(model: TextToImage, shown: Any, size: int) -> Work:
    """As `t2i generate` makes a batch."""
    assert can_make_pictures(model.generator)
    inputs = shown.batch(size)
    return lambda: model.decode_pictures(*inputs)


def _layers(network: Any, shown: Any, size: int, device: str) -> list[tuple[int, int]]:
    with torch.no_grad(), LayerCosts() as costs:
        network(*_tensors(shown, size, device, torch.float32))
    return costs.layers


def _peak(device: str, kind: torch.dtype) -> float:
    """Operations a second of a large product of matrices."""
    side = 8192 if device == "cuda" else 1024
    one = torch.randn(side, side, device=device).to(kind)
    return 2 * side**3 / _time(lambda: one @ one, 0.3)


def _bandwidth(device: str) -> float:
    """Bytes a second that are read and written."""
    source = torch.empty(1 << (30 if device == "cuda" else 26), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / _time(lambda: target.copy_(source), 0.3)


def _time(work: Work, seconds: float) -> float:
    """Seconds of a piece of work: the mean of as many as `seconds` hold, after one that does not count."""
    work()
    _wait()
    start, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - start < seconds:
        work()
        count += 1
        _wait()
    return (time.perf_counter() - start) / count


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return round(median(one / other for one, other in zip(ours, theirs, strict=True)), 3)


if __name__ == "__main__":
    main()
