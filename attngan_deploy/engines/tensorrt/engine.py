"""The TensorRT engine, of both flavours: TensorRT and TensorRT-RTX. Running needs an NVIDIA GPU; building may not."""

import threading
import weakref
from collections.abc import Iterable, Mapping
from contextlib import suppress
from math import prod
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.bundles.bundle import Bundle
from attngan_deploy.bundles.manifest import TEXT_TO_IMAGE
from attngan_deploy.engines.cache import CachedEngine, store_facts
from attngan_deploy.engines.facts import GENERATOR, NO_TF32, TEXT_ENCODER, EngineFacts, Tensors
from attngan_deploy.engines.golden import check_engines
from attngan_deploy.engines.onnxruntime.engine import reference_engine
from attngan_deploy.engines.picture_outputs import PICTURES, SUMS, last_image, with_pictures
from attngan_deploy.engines.request import split_device
from attngan_deploy.engines.tensorrt.build import (
    DEFAULT_PROFILE,
    check_tensors,
    device_of,
    engine_tensors,
    ensure_engine,
    load_tensorrt,
    tensorrt_log,
    without_fp32_products,
)
from attngan_deploy.engines.tensorrt.cuda import Buffer, PinnedBuffer, Stream, find_gpu, use_gpu
from attngan_deploy.engines.tensors import check_inputs, pad_words
from attngan_deploy.errors import EngineError
from attngan_deploy.system.files import write_atomically
from attngan_deploy.system.signals import uninterrupted

DEVICES = ("auto", "cuda")  # the latter also with a number
MOST_SHAPES = 10_000  # of inputs, that are remembered
KERNELS = ".kernels"  # what TensorRT-RTX compiled for this GPU when the engine first ran


class Kernels:
    """What TensorRT-RTX compiles for this GPU, some of it only when an engine meets new shapes; kept in a file.

    The configuration and its cache must live as long as the execution context that was made of them.
    """

    def __init__(self, config: Any, path: Path) -> None:
        self.config, self._path = config, path
        self._cache = config.create_runtime_cache()
        self._saved = path.read_bytes() if path.is_file() else b""
        self.are_new = not (self._saved and self._cache.deserialize(self._saved))  # False: of this driver, say
        self._shapes: set[tuple[tuple[int, ...], ...]] = set()
        config.set_runtime_cache(self._cache)

    def met(self, shapes: tuple[tuple[int, ...], ...]) -> None:
        """An engine ran with inputs of these shapes: save after the 1st, 2nd, 4th, 8th new ones, and so on."""
        if shapes in self._shapes or len(self._shapes) >= MOST_SHAPES:
            return
        self._shapes.add(shapes)
        if len(self._shapes).bit_count() == 1:
            self.save()

    def save(self) -> None:
        """Write what there is, where it is more than before; that it can't be written only costs time later."""
        compiled = bytes(self._cache.serialize())
        if compiled != self._saved:
            with suppress(OSError):
                write_atomically(self._path, compiled)
                self._saved = compiled


class Lane:
    """What one run at a time uses: a context of the engine, a stream, and memory on the GPU and beside it."""

    def __init__(self, context: Any, names: Iterable[str]) -> None:
        self.context, self.stream = context, Stream()
        self.buffers = {name: (Buffer(), PinnedBuffer()) for name in names}


class TensorRtEngine:
    """One graph in TensorRT or TensorRT-RTX.

    The engine comes from the cache. Where that has none for this graph, GPU and version, or a damaged one, it is built
    from the bundle; an engine that runs here for the first time must make the golden pictures. Where pictures are asked
    for side by side, two lanes take turns, so that copies of one batch go on while the other is computed.

    A flavour is "tensorrt" or "tensorrt-rtx"; other arguments are those of `load_engine`, errors also of `find_gpu` and
    `ensure_engine`.
    """

    def __init__(self, bundle: Bundle, graph: str, flavour: str, device: str = "auto", precision: str = "fp32") -> None:
        name, self._gpu = split_device(device)
        if name not in DEVICES:
            raise EngineError(f"no device '{device}' in {flavour}", expected=" or ".join(DEVICES))
        self._trt, self._flavour = load_tensorrt(flavour), flavour
        self._name, self._described = f"{graph} of {bundle.name}", bundle.graph(graph)
        self.makes_pictures = bool(last_image(self._described))
        self.streams = 2 if self.makes_pictures else 1
        gpu = find_gpu(self._gpu)
        place = device_of(flavour, gpu)
        entry, reason = ensure_engine(bundle, graph, flavour, place, precision)
        engine = self._deserialise(entry.path)
        if engine is None and not reason:  # whole, but not for this machine after all, such as of another driver
            reason = f"TensorRT refused it ({self._log.cause()})"
            entry.path.unlink()
            entry, _ = ensure_engine(bundle, graph, flavour, place, precision)
            engine = self._deserialise(entry.path)
        if engine is None:
            raise EngineError(f"{flavour} can't load {entry.path}: {self._log.cause()}", next_step="t2i doctor")
        all_tensors = with_pictures(self._described) if self.makes_pictures else self._described
        check_tensors(entry.path.name, engine_tensors(self._trt, engine), all_tensors)

        halved = without_fp32_products(flavour, gpu.capability)
        exact = [] if halved or entry.key.precision != "fp32" else [NO_TF32]
        notes = [
            gpu.name,
            *exact,
            f"engine built in {entry.seconds:.1f} s: {reason}" if reason else "engine from the cache",
        ]
        notes += [f"matrix products in fp16, as {gpu.capability} has no others"] if halved else []
        self.facts = EngineFacts(
            flavour, self._trt.__version__, f"cuda:{self._gpu}", entry.key.precision, notes=tuple(notes)
        )
        self._engine, self._lock, self._outputs = engine, threading.Lock(), all_tensors.outputs
        self._kernels: Kernels | None = None
        if flavour == "tensorrt-rtx":
            self._kernels = Kernels(engine.create_runtime_config(), entry.path.with_suffix(KERNELS))
        self._lanes, self._idle = 0, SimpleQueue[Lane]()
        self._add_lane()
        if (self._kernels is not None and self._kernels.are_new) or not entry.facts.get("checked"):
            self._check(bundle, graph, entry)
        if self._kernels is not None:
            weakref.finalize(self, self._kernels.save)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        """See `Engine.run`; also refuses a caption that is too long for the engine. A large batch is run in pieces."""
        check_inputs(self._name, self._described.inputs, inputs)
        return self._run(inputs, list(self._described.outputs))

    def pictures(self, inputs: Mapping[str, NDArray[Any]], alone: bool = True) -> Tensors:
        """See `PictureEngine.pictures` and `run`; captions get words of padding, so that shapes come back."""
        check_inputs(self._name, self._described.inputs, inputs)
        with self._lock:
            if not alone and self._lanes < self.streams:
                self._add_lane()
        return self._run(pad_words(self._described.inputs, inputs), [PICTURES, SUMS])

    def _run(self, inputs: Mapping[str, NDArray[Any]], names: list[str]) -> Tensors:
        self._check_words(inputs)
        largest, count = DEFAULT_PROFILE.batch[2], len(next(iter(inputs.values())))
        lane = self._idle.get()
        try:
            use_gpu(self._gpu)
            pieces = [
                self._run_piece(lane, {name: array[start : start + largest] for name, array in inputs.items()}, names)
                for start in range(0, count, largest)
            ]
        finally:
            self._idle.put(lane)
        if self._kernels is not None:
            with self._lock:
                self._kernels.met(tuple(array.shape for array in inputs.values()))
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in names}

    @property
    def _log(self) -> Any:
        return tensorrt_log(self._flavour)

    def _deserialise(self, path: Path) -> Any:
        self._log.begin()
        self._runtime = self._trt.Runtime(self._log)  # lives as long as its engine
        with uninterrupted():  # a Ctrl-C in the log's callback would be lost
            return self._runtime.deserialize_cuda_engine(path.read_bytes())

    def _add_lane(self) -> None:
        use_gpu(self._gpu)
        with uninterrupted():
            self._log.begin()
            settings = [] if self._kernels is None else [self._kernels.config]
            context = self._engine.create_execution_context(*settings)
        if context is None:
            raise EngineError(f"{self._flavour} can't start {self._name}: {self._log.cause()}", next_step="t2i doctor")
        self._idle.put(Lane(context, (*self._described.inputs, *self._outputs)))
        self._lanes += 1

    def _check(self, bundle: Bundle, graph: str, entry: CachedEngine) -> None:
        """See that an engine or kernels that never ran here make the golden pictures, and remember that they do."""
        if bundle.kind != TEXT_TO_IMAGE:
            return  # it has no golden pictures
        encoder, generator = (
            self if key == graph else reference_engine(bundle, key) for key in (TEXT_ENCODER, GENERATOR)
        )
        result = check_engines(bundle, encoder, generator)
        near = result.psnr_db is None or result.psnr_db >= bundle.manifest.floors["fp16"]
        good_half = self.facts.precision == "fp16" and near
        if not (result.passed or good_half):
            raise EngineError(
                f"{self._flavour} does not make the golden pictures with {graph}: {result}",
                next_step="another --precision or --backend, or t2i verify for details",
            )
        store_facts(entry, {"checked": True})

    def _check_words(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        largest = DEFAULT_PROFILE.words[2]
        for name, said in self._described.inputs.items():
            if "words" in said.shape and (found := inputs[name].shape[said.shape.index("words")]) > largest:
                raise EngineError(
                    f"a caption is too long for the engine of {self._name}",
                    found=f"{found} words",
                    expected=f"at most {largest}",
                    next_step="shorten it, or --backend onnxruntime",
                )

    def _run_piece(self, lane: Lane, inputs: Mapping[str, NDArray[Any]], names: list[str]) -> Tensors:
        self._log.begin()
        for name, array in inputs.items():
            buffer, pinned = lane.buffers[name]
            held = pinned.view(array.shape, array.dtype)
            held[...] = array
            buffer.reserve(held.nbytes)
            lane.stream.upload(held, buffer)
            self._expect(lane.context.set_input_shape(name, array.shape), f"take {name} of {list(array.shape)}")
            self._expect(lane.context.set_tensor_address(name, buffer.address), f"take {name}")
        outputs = {}
        for name, said in self._outputs.items():
            shape, dtype = tuple(lane.context.get_tensor_shape(name)), np.dtype(said.dtype)
            buffer, pinned = lane.buffers[name]
            buffer.reserve(prod(shape) * dtype.itemsize)
            self._expect(lane.context.set_tensor_address(name, buffer.address), f"give {name}")
            if name in names:
                outputs[name] = pinned.view(shape, dtype)
        self._expect(lane.context.execute_async_v3(lane.stream.handle), "run")
        for name, array in outputs.items():
            lane.stream.download(lane.buffers[name][0], array)
        lane.stream.wait()
        return {name: array.copy() for name, array in outputs.items()}

    def _expect(self, success: bool, what: str) -> None:
        if not success:
            raise EngineError(f"{self._flavour} can't {what} in {self._name}: {self._log.cause()}")
