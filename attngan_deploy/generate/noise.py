"""The noise contract: the noise of a picture depends on (seed, caption's place, sample number) and on nothing else.

Philox4x64-10 is a counter-based generator: the seed is its key, and the counter starts at
(0, stream, caption's place, sample number), so that no two pictures share a block and none depends on another.
numpy guarantees the raw bits of its bit generators for ever, but not what its `standard_normal` makes of them;
the Box-Muller transform below is therefore written out, and easy to repeat in another language. Truncated noise leaves
out the numbers beyond its clip: those that follow take their places.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.bundles.truncation import Truncation
from attngan_deploy.errors import T2IError

Z_STREAM, EPS_STREAM = 0, 1
LARGEST_SEED = 2**64 - 1


def noise_batch(
    seed: int,
    places: Sequence[tuple[int, int]],
    z_size: int,
    eps_size: int,
    shared: bool = False,
    truncation: Truncation | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Standard normal noise of a batch of pictures, a row each, so that no row can depend on its neighbours.

    Args:
        seed: 0 to 2**64 - 1.
        places: (caption's place in the input, sample number) of each picture, both from 0.
        shared: give every caption the noise of the first one; sample numbers still differ.
        truncation: of z.

    Returns:
        z f32 [N, z_size] and eps f32 [N, eps_size], computed in double precision and rounded once; shorter rows are the
        start of longer ones.

    Raises:
        T2IError: the seed is out of range.
    """
    places = [(0 if shared else caption, sample) for caption, sample in places]
    return noise_of_stream(seed, places, z_size, Z_STREAM, truncation), noise_of_stream(
        seed, places, eps_size, EPS_STREAM, None
    )


def noise_of_stream(
    seed: int, places: Sequence[tuple[int, int]], size: int, stream: int, truncation: Truncation | None
) -> NDArray[np.float32]:
    """Noise of pictures from one of the streams, f32 [N, size]; see `noise_batch`."""
    if not 0 <= seed <= LARGEST_SEED:
        raise T2IError(
            "the seed is out of range", found=str(seed), expected="0 to 2**64 - 1", next_step="another --seed"
        )
    drawn = size
    while True:
        normal = _normal(seed, stream, places, drawn)
        if truncation is None:
            return normal[:, :size].astype(np.float32)
        inside = [row[np.abs(row) <= truncation.clip][:size] for row in normal]
        if all(len(row) == size for row in inside):
            return (np.array(inside).reshape(len(places), size) * truncation.scale).astype(np.float32)
        drawn *= 2


def _normal(seed: int, stream: int, places: Sequence[tuple[int, int]], size: int) -> NDArray[np.float64]:
    """The first `size` numbers of the streams of pictures, and one more where that is odd: f64 [N, size]."""
    pairs = (size + 1) // 2
    bits = np.empty((len(places), pairs, 2), np.uint64)
    generator = np.random.Philox(key=np.array([seed, 0], np.uint64))
    state: Any = generator.state  # to set it takes a quarter of the time of making a generator
    for row, place in enumerate(places):
        state["state"]["counter"] = np.array([0, stream, *place], np.uint64)
        generator.state = state
        bits[row] = generator.random_raw(2 * pairs).reshape(pairs, 2)
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53  # inside (0, 1): the logarithm is finite
    radius, angle = np.sqrt(-2.0 * np.log(uniform[..., 0])), 2.0 * np.pi * uniform[..., 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1).reshape(len(places), 2 * pairs)
