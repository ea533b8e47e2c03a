"""Random changes of pictures before a discriminator looks at them, through which gradients flow."""

import torch
from torch import Tensor
from torch.nn import functional as F


def shifted(images: Tensor, size: int, shift: float) -> Tensor:
    """Images [N, 3, S, S] at side `size`, each moved by up to `shift` of its side and mirrored at random.

    A network with strides likes some patterns at some places; what moves can't be drawn to please them, and a
    discriminator finds it harder to learn pictures by heart (differentiable augmentation, Zhao et al., 2020).
    """
    n = len(images)
    moves = torch.zeros(n, 2, 3, device=images.device)
    moves[:, 0, 0] = torch.randint(0, 2, (n,)).to(moves) * 2 - 1
    moves[:, 1, 1] = 1
    moves[:, :, 2] = (torch.rand(n, 2) * 2 - 1).to(moves) * 2 * shift
    grid = F.affine_grid(moves, [n, 3, size, size], align_corners=False)
    return F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False)
