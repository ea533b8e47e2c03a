"""The noise of a single picture, as the noise contract says it."""

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.bundles.truncation import Truncation
from attngan_deploy.generate.noise import Z_STREAM, noise_of_stream


def noise_for(
    seed: int, caption: int, sample: int, size: int, stream: int = Z_STREAM, truncation: Truncation | None = None
) -> NDArray[np.float32]:
    row: NDArray[np.float32] = noise_of_stream(seed, [(caption, sample)], size, stream, truncation)[0]
    return row
