"""Settings of the process that make training on a CPU faster, without changing what is computed."""

import torch

from attngan_deploy.system.allocator import keep_freed_memory


def prepare_cpu() -> None:
    """Treat denormal numbers as zero, and keep freed memory for the next step.

    Adam's means of weights without gradient (rare words) become denormal, which makes steps several times slower.
    """
    torch.set_flush_denormal(True)
    keep_freed_memory()
