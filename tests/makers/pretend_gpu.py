"""A GPU for PyTorch on machines without one: tensors that say they are there, and are computed on the CPU.

What a real one refuses is refused: an operation on tensors of both devices, and a numpy array of what is there.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

NAME = "pretend"
ATEN = torch.ops.aten
COPIES = (ATEN._to_copy.default, ATEN.copy_.default)  # between devices
PACKED = (ATEN._pack_padded_sequence.default, ATEN._pad_packed_sequence.default)  # lengths in and out on the CPU
INDEXED = (ATEN.index.Tensor, ATEN.index_put_.default, ATEN._index_put_impl_.default)  # by places that may be elsewhere


def _lstm_cell(of_input: Tensor, of_recurrence: Tensor, cell: Tensor, *biases: Tensor | None) -> tuple[Tensor, ...]:
    """The cell of an LSTM, which GPUs have as one operation and CPUs have not."""
    i, f, g, o = sum([of_input, of_recurrence, *(each for each in biases if each is not None)]).chunk(4, 1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    after = f * cell + i * g
    return o * after.tanh(), after, torch.cat([i, f, g, o], 1)


def _lstm_cell_backward(
    of_state: Tensor | None, of_cell: Tensor | None, before: Tensor, after: Tensor, gates: Tensor, has_bias: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of the gates, the cell before and the biases."""
    i, f, g, o = gates.chunk(4, 1)
    bent = after.tanh()
    of_state = torch.zeros_like(after) if of_state is None else of_state
    total = of_state * o * (1 - bent**2) + (0 if of_cell is None else of_cell)
    parts = total * g * i * (1 - i), total * before * f * (1 - f), total * i * (1 - g**2), of_state * bent * o * (1 - o)
    return torch.cat(parts, 1), total * f, torch.cat(parts, 1).sum(0) if has_bias else None


ONLY_ON_GPUS = {
    ATEN._thnn_fused_lstm_cell.default: _lstm_cell,
    ATEN._thnn_fused_lstm_cell_backward_impl.default: _lstm_cell_backward,
}


class OnGpu(Tensor):
    """A tensor that is on the device as far as anybody can tell; `held` has its numbers, on the CPU."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnGpu":
        place = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        made = Tensor._make_wrapper_subclass(cls, held.shape, dtype=held.dtype, device=f"{NAME}:0", **place)
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        return _computed(operation, arguments, named or {})

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy")

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self) -> str:
        return f"OnGpu({self.held!r})"


class _Factories(TorchDispatchMode):
    """Sees what makes tensors of no tensor, and what brings one to the device."""

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        return _computed(operation, arguments, named or {})


class _Module(backend_registration._DummyBackendModule):
    """What PyTorch asks of a device; it is there within `pretend_gpu` only."""

    is_there = False

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def is_available(self) -> bool:
        return self.is_there

    def device_count(self) -> int:
        return int(self.is_there)

    def current_device(self) -> int:
        return 0

    def manual_seed_all(self, seed: int) -> None:
        return None

    def get_rng_state(self, device: Any) -> Tensor:
        return torch.empty(0)

    def set_rng_state(self, state: Tensor, device: Any) -> None:
        return None


MODULE = _Module()


def _computed(operation: Any, arguments: Any, named: dict[str, Any]) -> Any:
    """Compute on the CPU, and put the outcome where it belongs."""
    tensors = [each for each in tree_leaves((arguments, named)) if isinstance(each, Tensor)]
    there = [isinstance(each, OnGpu) for each in tensors]
    target = named.get("device")
    on_gpu = any(there) if target is None else torch.device(target).type == NAME
    if operation is ATEN.copy_.default:
        on_gpu = there[0]
    elif any(there) and operation not in COPIES + PACKED + INDEXED:
        strangers = [each for each, one in zip(tensors, there, strict=True) if each.dim() and not one]
        if strangers:
            raise RuntimeError(f"Expected all tensors to be on the same device: {operation} of {NAME}:0 and cpu")
    places, options = tree_map(lambda each: each.held if isinstance(each, OnGpu) else each, (arguments, named))
    if target is not None:
        options = {**options, "device": torch.device("cpu")}
    made = ONLY_ON_GPUS.get(operation, operation)(*places, **options)
    if operation is ATEN._to_copy.default and any(made is each for each in tree_leaves(places)):
        made = made.clone()
    if not on_gpu:
        return made
    if operation in PACKED:
        return OnGpu(made[0]), made[1]
    wrapped = tree_map(lambda each: OnGpu(each) if isinstance(each, Tensor) else each, made)
    return return_and_correct_aliasing(operation, arguments, named, wrapped) if any(there) else wrapped


@cache
def _register() -> torch.library.Library:
    backend_registration._setup_privateuseone_for_python_backend(NAME, MODULE)
    library = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    library.fallback(torch.library.fallthrough_kernel)  # it stays in fp32: what autocast does is not tried here
    return library


@contextmanager
def pretend_gpu() -> Iterator[torch.device]:
    """The device, as long as this lasts; skips the test where this PyTorch lets no device be made in Python."""
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip(f"PyTorch {torch.__version__} lets no device be made in Python")
    _register()
    with pytest.MonkeyPatch.context() as patch, _Factories():
        # in inference mode PyTorch shows nothing of what an operation is made of
        patch.setattr(torch._C, "_InferenceMode", lambda on: torch.no_grad() if on else nullcontext())
        MODULE.is_there = True
        try:
            yield torch.device(NAME, 0)
        finally:
            MODULE.is_there = False
