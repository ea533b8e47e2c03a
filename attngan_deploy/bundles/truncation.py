"""Truncated noise: which part of a normal distribution z comes from."""

from dataclasses import dataclass
from math import inf

CLIP, LEAST_CLIP = 2.0, 0.5  # where the distribution is cut unless a bundle says it, and where it may be


@dataclass(frozen=True)
class Truncation:
    """Noise z from a normal distribution that ends at plus and minus `clip`, times `scale` (section 3.2 of BigGAN)."""

    clip: float
    scale: float

    @property
    def is_usable(self) -> bool:
        """Whether a bundle may ask for it."""
        return LEAST_CLIP <= self.clip < inf and 0 <= self.scale < 1


def truncated(own: Truncation | None, scale: float | None) -> Truncation | None:
    """Truncation at a scale, where 1 is none and None is a bundle's own."""
    if scale is None:
        return own
    return None if scale == 1 else Truncation(own.clip if own else CLIP, scale)
