"""What `generation_speed.py` measures: the published network in torch, a plain export of it, our engines, and peaks.

Each line is loaded in a process of its own, and the processes take turns: whatever else the machine does meets all of
them alike, and no idle engine's threads are in another's way.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from attngan_deploy.generate.features import TextFeatures
from attngan_deploy.generate.generation import generate
from attngan_deploy.generate.pipeline import STREAM_BATCH_SIZE, TextToImage
from attngan_deploy.generate.run import Run
from attngan_deploy.media.captions import CaptionList, from_texts
from attngan_deploy.media.images import to_uint8

EAGER, PLAIN = "published network, eager torch", "plain torch.onnx.export, ONNX Runtime fp32"
SIDES = ", batches side by side"  # in the name of a line
SIDE = 2048  # of the square matrices whose product is the peak
PEAKS = ("fp32", "bf16", "int8")
LEVELS = 255.0
INPUTS = ("sentence", "words", "mask", "z", "eps")
Work = Callable[[], object]


@dataclass(frozen=True)
class Line:
    """One thing to measure.

    Attributes:
        name: what it is called in the table.
        kind: "eager", "plain", "engine", "streams", which is an engine that makes batches side by side, or "peak",
            whose work is one product of two matrices.
        model: name or folder of the bundle.
        backend: of an engine.
        precision: of an engine or a peak.
    """

    name: str
    kind: str
    model: str = ""
    backend: str = ""
    precision: str = "fp32"


@dataclass(frozen=True)
class Example:
    """What every line makes pictures of: features of captions and noise, cycled to the size of a batch."""

    features: TextFeatures
    z: np.ndarray
    eps: np.ndarray

    def batch(self, size: int) -> tuple[TextFeatures, np.ndarray, np.ndarray]:
        """The first `size` captions, beginning again where there are fewer."""
        rows = np.arange(size) % len(self.features)
        mask = self.features.mask[rows]
        longest = int(mask.sum(1).max())
        words = np.ascontiguousarray(self.features.words[rows][:, :, :longest])
        return TextFeatures(words, self.features.sentence[rows], mask[:, :longest]), self.z[rows], self.eps[rows]

    def tensors(self, size: int) -> dict[str, np.ndarray]:
        """The same as the generator's graph names them."""
        features, z, eps = self.batch(size)
        return dict(zip(INPUTS, (features.sentence, features.words, features.mask, z, eps), strict=True))


def timings(work: Callable[[], object], times: int = 7) -> list[float]:
    """Seconds of some calls, after one that does not count."""
    work()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return taken


def example(model: TextToImage, captions: list[str]) -> Example:
    """Features of captions, and noise."""
    noise = np.random.default_rng(0)
    z = noise.standard_normal((len(captions), model.z_size), np.float32)
    eps = noise.standard_normal((len(captions), model.eps_size), np.float32)
    return Example(model.encode(captions), z, eps)


class Turn:
    """A line in its process."""

    def __init__(self, line: Line, captions: list[str], threads: int) -> None:
        self.line = line
        spawn = get_context("spawn")
        self._pipe, other = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(other, line, captions, threads), daemon=True)
        self._process.start()
        other.close()

    def time(self, batch: int, seconds: float) -> float:
        """Seconds of one piece of work of `batch` pictures: the mean of as many as `seconds` hold, at least one."""
        self._pipe.send((batch, seconds))
        fine, answer = self._pipe.recv()
        if not fine:
            raise RuntimeError(f"{self.line.name}: {answer}")
        return float(answer)

    def end(self) -> None:
        """Stop its process."""
        self._pipe.close()
        self._process.join(5)
        self._process.kill()


@contextmanager
def turns(lines: list[Line], captions: list[str], threads: int) -> Iterator[list[Turn]]:
    """A process for each line. Those of OpenMP get their number of threads from the environment."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    made = [Turn(line, captions, threads) for line in lines]
    try:
        yield made
    finally:
        for turn in made:
            turn.end()


def _serve(pipe: Connection, line: Line, captions: list[str], threads: int) -> None:
    try:
        prepare = MAKERS[line.kind](line, captions, threads)
    except Exception as error:  # this process has nobody else to tell
        prepare, why = None, repr(error)
    works: dict[int, Work] = {}
    while True:
        try:
            batch, seconds = pipe.recv()
        except EOFError:
            return
        if prepare is None:
            pipe.send((False, why))
            continue
        if batch not in works:
            works[batch] = prepare(batch)
            works[batch]()  # the first run of a shape makes plans for it
        start, count = time.perf_counter(), 0
        while count == 0 or time.perf_counter() - start < seconds:
            works[batch]()
            count += 1
        pipe.send((True, (time.perf_counter() - start) / count))


def published(model: str, captions: list[str]) -> Any:
    """The bundle's generator as a network of torch, with BatchNorms and nearest upsampling as published."""
    from attngan_deploy.bundles.bundle import open_bundle
    from attngan_deploy.media.tokenizer import Tokenizer
    from attngan_deploy.train.imports.from_bundle import generator_of

    bundle = open_bundle(model)
    tokenizer = Tokenizer.load(bundle.vocabulary)
    network = generator_of(bundle, [tokenizer.encode(text).ids for text in captions])
    assert network.config.upsampling == "nearest"
    return network


def as_published(images: np.ndarray) -> list[np.ndarray]:
    """Denormalised, picture by picture, as the published code's sampling does it."""
    return [np.transpose(((image + 1.0) * 127.5).astype(np.uint8), (1, 2, 0)) for image in images]


def _eager(line: Line, captions: list[str], threads: int) -> Callable[[int], Work]:
    import torch

    torch.set_num_threads(threads)
    network = published(line.model, captions)
    shown = example(TextToImage.load(line.model, backend="onnxruntime", precision="fp32", threads=threads), captions)

    def prepare(batch: int) -> Work:
        features, _, eps = shown.batch(batch)
        sentence, words, mask, eps = map(torch.from_numpy, (features.sentence, features.words, features.mask, eps))
        z = torch.empty(batch, network.config.noise)

        def work() -> list[np.ndarray]:
            with torch.no_grad():
                z.normal_(0, 1)
                return as_published(network(sentence, words, mask, z, eps).images[-1].numpy())

        return work

    return prepare


def _plain(line: Line, captions: list[str], threads: int) -> Callable[[int], Work]:
    import onnxruntime

    network = published(line.model, captions)
    shown = example(TextToImage.load(line.model, backend="onnxruntime", precision="fp32", threads=threads), captions)

    def prepare(batch: int) -> Work:
        inputs = shown.tensors(batch)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        graph = export_plainly(network, inputs)
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return lambda: as_published(session.run(None, inputs)[1])

    return prepare


def export_plainly(network: Any, inputs: dict[str, np.ndarray]) -> bytes:
    """What `torch.onnx.export` makes of the network, for inputs of these shapes and no others."""
    import warnings

    import torch

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
            made = self.network(*inputs)
            return [*made.images, *made.attention]

    with warnings.catch_warnings(), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # the exporter that needs no further package is said to be old
        path, tensors = Path(folder) / "plain.onnx", tuple(map(torch.from_numpy, inputs.values()))
        torch.onnx.export(Plain().eval(), tensors, str(path), input_names=list(INPUTS), opset_version=17, dynamo=False)
        return path.read_bytes()


def _engine(line: Line, captions: list[str], threads: int) -> Callable[[int], Work]:
    model = TextToImage.load(line.model, backend=line.backend, precision=line.precision, threads=threads)
    shown = example(model, captions)

    def prepare(batch: int) -> Work:
        inputs = shown.batch(batch)
        return lambda: model.decode_pictures(*inputs)

    return prepare


def _streams(line: Line, captions: list[str], threads: int) -> Callable[[int], Work]:
    """Pictures in small batches, one a thread, as long runs make them."""
    model = TextToImage.load(line.model, backend=line.backend, precision=line.precision, threads=threads)
    shown = example(model, captions)
    engine: Any = model.generator
    pool = ThreadPoolExecutor(engine.streams)

    def prepare(pictures: int) -> Work:
        inputs = shown.tensors(STREAM_BATCH_SIZE)
        batches = range(pictures // STREAM_BATCH_SIZE)
        return lambda: list(pool.map(lambda _: engine.pictures(inputs, alone=False), batches))

    return prepare


def _as_exported(line: Line, captions: list[str], threads: int) -> Callable[[int], Work]:
    """OpenVINO with the bundle's graph as it is: what the rewrites are compared with."""
    from attngan_deploy.engines.openvino.engine import settings
    from attngan_deploy.engines.openvino.package import load_openvino

    model = TextToImage.load(line.model, backend="onnxruntime", precision="fp32", threads=threads)
    shown = example(model, captions)
    compiled = (
        load_openvino()
        .Core()
        .compile_model(str(model.bundle.graph_path("generator")), "CPU", settings("CPU", line.precision, threads))
    )
    request = compiled.create_infer_request()

    def prepare(batch: int) -> Work:
        inputs = shown.tensors(batch)
        return lambda: to_uint8(request.infer(inputs)[f"image_{model.picture_size}"])

    return prepare


def _folder(line: Line, captions: list[str], threads: int) -> Callable[[int], Work]:
    """Captions to a folder of PNG files: what `t2i generate` does after it has started."""
    model = TextToImage.load(line.model, backend=line.backend, precision=line.precision, threads=threads)

    def prepare(batch: int) -> Work:
        items = from_texts([captions[place % len(captions)] for place in range(batch)])
        run = Run.of(model.bundle, CaptionList(items))

        def work() -> None:
            with tempfile.TemporaryDirectory() as place:
                generate(run, str(Path(place) / "out"), say=lambda line: None, model=model)

        return work

    return prepare


def _peak(line: Line, captions: list[str], threads: int) -> Callable[[int], Work]:
    """One product of square matrices; `batch` is their size."""
    if line.precision == "int8":
        return lambda size: _int8_product(size, threads)
    import torch

    torch.set_num_threads(threads)

    def prepare(size: int) -> Work:
        matrix = torch.randn(size, size).to(torch.bfloat16 if line.precision == "bf16" else torch.float32)
        out = torch.empty_like(matrix)
        return lambda: torch.mm(matrix, matrix, out=out)

    return prepare


def _int8_product(size: int, threads: int) -> Work:
    """A product of quantised activations and int8 weights in OpenVINO, quantising included."""
    from attngan_deploy.engines.openvino.package import load_openvino

    openvino = load_openvino()
    from openvino import opset13 as ops

    rng = np.random.default_rng(0)
    x = ops.parameter([size, size], np.float32, name="x")
    low, high = np.float32(0), np.float32(1)
    quantised = ops.fake_quantize(x, low, high, low, high, 256)
    weights = ops.constant(rng.integers(-127, 128, (size, size)).astype(np.int8))
    scaled = ops.multiply(ops.convert(weights, "f32"), ops.constant(np.full((size, 1), 1 / LEVELS, np.float32)))
    product = ops.matmul(quantised, scaled, False, True)
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Model([ops.result(product)], [x], "product")
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    values = rng.random((size, size), np.float32)
    return lambda: request.infer([values], share_inputs=True, share_outputs=True)


MAKERS: dict[str, Callable[[Line, list[str], int], Callable[[int], Work]]] = {
    "eager": _eager,
    "plain": _plain,
    "engine": _engine,
    "streams": _streams,
    "as exported": _as_exported,
    "folder": _folder,
    "peak": _peak,
}


def multiply_adds(model: str, captions: list[str]) -> float:
    """Multiply-adds of one picture after the exact rewrites: x2 and a 3x3 convolution as one of 4x4 with stride 2."""
    import torch

    from attngan_deploy.train.generator import Upsample

    network = published(model, captions)
    shown = example(TextToImage.load(model, backend="onnxruntime", precision="fp32", threads=1), captions)
    features, z, eps = shown.batch(1)
    transposed = {id(module.conv) for module in network.modules() if isinstance(module, Upsample)}
    total = 0.0

    def count(layer: Any, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal total
        whole = output.numel() * layer.weight[0].numel()
        total += whole * 4 / 9 if id(layer) in transposed else whole

    hooks = [
        module.register_forward_hook(count)
        for module in network.modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv2d)
    ]
    inputs = map(torch.from_numpy, (features.sentence, features.words, features.mask, z, eps))
    with torch.no_grad():
        made = network(*inputs)
    for hook in hooks:
        hook.remove()
    attention = made.attention[0]  # [1, T, h, w]: scores and context are products over the width of h
    return total + 2 * attention.numel() * network.config.width
