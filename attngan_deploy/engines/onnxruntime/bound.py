"""ONNX Runtime with tensors bound to GPU memory, so that runs of shapes that come back are replayed as CUDA graphs."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from attngan_deploy.bundles.manifest import TensorSpec
from attngan_deploy.engines.facts import Tensors

MAX_SHAPES = 4  # each keeps its tensors and its graph in GPU memory
GRAPH_ID, NO_GRAPH = "gpu_graph_id", "-1"

Shapes = tuple[tuple[int, ...], ...]


class CaptureLock:
    """Lets whatever is run on GPUs go side by side, but a capture alone: CUDA calls of other threads would break it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running, self._captures = 0, 0

    def __enter__(self) -> None:
        """A run that is no capture begins."""
        with self._changed:
            self._changed.wait_for(lambda: not self._captures)
            self._running += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._running -= 1
            self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """A capture, or the allocations before it."""
        with self._changed:
            self._changed.wait_for(lambda: not self._captures)
            self._captures = 1
            self._changed.wait_for(lambda: not self._running)
        try:
            yield
        finally:
            with self._changed:
                self._captures = 0
                self._changed.notify_all()


BESIDE_CAPTURES = CaptureLock()  # of this process


@dataclass(frozen=True)
class _Bound:
    binding: Any
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    options: Any


class BoundRunner:
    """Runs a session; the first `MAX_SHAPES` shapes that come twice are bound and captured, others run plainly.

    Args:
        outputs: the manifest's, as `inputs` are; each named size in them is a size of an input.
        memory: where tensors are bound: "cuda", or "cpu" in tests; and
        number: of which GPU.
    """

    def __init__(
        self,
        session: Any,
        inputs: Mapping[str, TensorSpec],
        outputs: Mapping[str, TensorSpec],
        memory: str = "cuda",
        number: int = 0,
    ) -> None:
        self._number = number
        self._session, self._memory, self._inputs, self._outputs = session, memory, inputs, outputs
        self._seen: set[Shapes] = set()
        self._bound: dict[Shapes, _Bound] = {}
        self._lock = threading.Lock()

    def run(self, inputs: Mapping[str, NDArray[Any]], names: Sequence[str] = (), returns: bool = False) -> Tensors:
        """Run the graph on tensors that were checked.

        Args:
            names: outputs that leave the GPU's memory; () for all.
            returns: whether their shapes are known to come back; others are bound when they do.
        """
        names = list(names or self._outputs)
        shapes = tuple(inputs[name].shape for name in self._inputs)
        with self._lock:
            if (returns or shapes in self._seen) and shapes not in self._bound and len(self._bound) < MAX_SHAPES:
                with BESIDE_CAPTURES.alone():
                    bound = self._bind(inputs)
                    made = self._replay(bound, inputs, names)
                    self._bound[shapes] = bound  # not one whose capture failed
                    return made
            if len(self._seen) < 100 * MAX_SHAPES:
                self._seen.add(shapes)
            if shapes in self._bound:
                with BESIDE_CAPTURES:
                    return self._replay(self._bound[shapes], inputs, names)
        with BESIDE_CAPTURES:
            return dict(zip(names, self._session.run(names, dict(inputs), _options(NO_GRAPH)), strict=True))

    def _bind(self, inputs: Mapping[str, NDArray[Any]]) -> _Bound:
        sizes = {
            size: have
            for name, said in self._inputs.items()
            for size, have in zip(said.shape, inputs[name].shape, strict=True)
        }
        value, binding = onnxruntime.OrtValue, self._session.io_binding()
        taken = {name: value.ortvalue_from_numpy(inputs[name], self._memory, self._number) for name in self._inputs}
        given = {}
        for name, said in self._outputs.items():
            shape = [sizes.get(size, size) for size in said.shape]
            given[name] = value.ortvalue_from_shape_and_type(shape, said.dtype, self._memory, self._number)
        for name, tensor in taken.items():
            binding.bind_ortvalue_input(name, tensor)
        for name, tensor in given.items():
            binding.bind_ortvalue_output(name, tensor)
        return _Bound(binding, taken, given, _options(str(len(self._bound) + 1)))

    def _replay(self, bound: _Bound, inputs: Mapping[str, NDArray[Any]], names: Sequence[str]) -> Tensors:
        for name, tensor in bound.inputs.items():
            tensor.update_inplace(inputs[name])
        self._session.run_with_iobinding(bound.binding, bound.options)
        return {name: bound.outputs[name].numpy().copy() for name in names}


def _options(graph: str) -> Any:
    options = onnxruntime.RunOptions()
    options.add_run_config_entry(GRAPH_ID, graph)
    return options
