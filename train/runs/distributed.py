"""Several training processes under `torchrun`: gradients and batch-norm statistics are averaged between them.

The adversarial step calls parts of each network several times, so gradients are averaged once, after all of them,
rather than by hooks of a wrapper around `forward`.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from attngan_deploy.errors import EngineError
from attngan_deploy.train.runs.progress import say

# The first process scores alone while the others wait, which takes longer than NCCL waits by itself: ten minutes. That
# a process died is seen by torchrun, which ends the others.
LONGEST_WAIT = timedelta(hours=6)


def _number(name: str, least: int = 0) -> int:
    """A number that torchrun puts into the environment; that of a process alone where it is not set."""
    text = os.environ.get(name, str(least))
    if not (text.isascii() and text.isdigit() and len(text) < 7 and int(text) >= least):
        raise _odd(f"{name} is {text!r}")
    return int(text)


def _odd(found: str) -> EngineError:
    return EngineError(
        "the training processes that the environment speaks of can't be joined",
        found=found,
        expected="what torchrun sets, or none of it",
        next_step="unset WORLD_SIZE RANK LOCAL_RANK MASTER_ADDR MASTER_PORT",
    )


@dataclass(frozen=True)
class Processes:
    """This process among all that train together."""

    rank: int = 0  # number of this process, from 0
    count: int = 1  # number of processes
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))  # where this process computes
    place: int = 0  # number of this process among those of its machine, from 0

    @classmethod
    def start(cls) -> "Processes":
        """Join the processes that `torchrun` started; alone where it did not.

        Raises:
            EngineError: there are GPUs, but none is left for this process; or the processes that
                the environment speaks of can't be joined.
        """
        count, rank, local = _number("WORLD_SIZE", 1), _number("RANK"), _number("LOCAL_RANK")
        gpu = torch.cuda.is_available()
        device = torch.device("cuda", local) if gpu else torch.device("cpu")
        if gpu:
            if local >= (gpus := torch.cuda.device_count()):
                raise EngineError(
                    "there are more processes than GPUs on this machine",
                    found=f"{os.environ.get('LOCAL_WORLD_SIZE', local + 1)} processes",
                    expected=f"at most {gpus}",
                    next_step=f"torchrun --nproc-per-node {gpus}",
                )
            torch.cuda.set_device(device)
        if count > 1 and not distributed.is_initialized():
            try:
                store, rank, size = next(rendezvous("env://"))
            except (ValueError, distributed.DistError) as error:
                raise _odd(str(error)) from error
            # torchrun keeps its store when it starts processes again: the addresses of the dead still stand there
            attempt = PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
            distributed.init_process_group(
                "nccl" if gpu else "gloo",
                store=attempt,
                rank=rank,
                world_size=size,
                timeout=LONGEST_WAIT,
                device_id=device if gpu else None,
            )
        return cls(rank, count, device, local)

    def say(self, line: str) -> None:
        """Tell the person who trains, once for all processes."""
        if self.rank == 0:
            say(line)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over all processes."""
        self.average([parameter.grad for parameter in parameters if parameter.grad is not None])

    def average_buffers(self, module: nn.Module) -> None:
        """Replace the batch-norm statistics of a module by their mean over all processes."""
        self.average([buffer for buffer in module.buffers() if buffer.is_floating_point()])

    def average(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its mean over all processes, in one exchange."""
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        flat /= self.count
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def from_first_here(self, told: Any) -> Any:
        """What the first process of this machine tells; the others tell None."""
        return told if (everything := self._everything(told)) is None else everything[self.rank - self.place]

    def from_first(self, told: Any) -> Any:
        """What the first of all processes tells; the others tell None."""
        return told if (everything := self._everything(told)) is None else everything[0]

    def _everything(self, told: Any) -> list[Any] | None:
        """What each process tells; None where this one is alone."""
        if self.count == 1 or not distributed.is_initialized():
            return None
        everything: list[Any] = [None] * self.count
        distributed.all_gather_object(everything, told)
        return everything

    def stop(self) -> None:
        """Leave the group, all at once: gloo aborts a process that leaves while another is still at work."""
        if self.count > 1 and distributed.is_initialized():
            distributed.barrier()
            distributed.destroy_process_group()
