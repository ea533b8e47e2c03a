"""Random changes of pictures before a discriminator looks at them, through which gradients flow."""

import torch
from torch import Tensor
from torch.nn import functional as F


def recoloured(images: Tensor, amount: float) -> Tensor:
    """Images [N, 3, S, S] with another brightness, saturation and contrast each, at random (DiffAugment, 2020)."""
    images = images.float()
    changes = ((torch.rand(3, len(images), 1, 1, 1) * 2 - 1) * amount).to(images)
    brightness, saturation, contrast = changes[0], changes[1], changes[2]
    images = images + brightness
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * (1 + saturation)
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (1 + contrast)


def shifted(images: Tensor, size: int, shift: float, zoom: float = 0.0) -> Tensor:
    """Images [N, 3, S, S] at side `size`, each moved by up to `shift` of its side, zoomed and mirrored at random.

    A network with strides likes some patterns at some places; what moves can't be drawn to please them, and a
    discriminator finds it harder to learn pictures by heart (differentiable augmentation, Zhao et al., 2020).
    """
    n = len(images)
    moves = torch.zeros(n, 2, 3, device=images.device)
    moves[:, 0, 0] = torch.randint(0, 2, (n,)).to(moves) * 2 - 1
    moves[:, 1, 1] = 1
    moves[:, :, 2] = (torch.rand(n, 2) * 2 - 1).to(moves) * 2 * shift
    if zoom:
        moves[:, :, :2] *= (1 + zoom * (torch.rand(n, 1, 1) * 2 - 1)).to(moves)
    grid = F.affine_grid(moves, [n, 3, size, size], align_corners=False)
    return F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False)
