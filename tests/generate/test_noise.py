"""Same seed, same bird."""

import numpy as np
import pytest

from attngan_deploy.errors import T2IError
from attngan_deploy.generate.noise import EPS_STREAM, LARGEST_SEED, Z_STREAM, noise_batch
from tests.makers.one_noise import noise_for

MASK = 2**64 - 1


def philox(key: list[int], counter: list[int]) -> list[int]:
    """One block of Philox4x64-10, as its paper (Salmon et al., 2011) states it."""
    key_0, key_1 = key
    for _ in range(10):
        product_0, product_1 = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
        counter = [
            (product_1 >> 64) ^ counter[1] ^ key_0,
            product_1 & MASK,
            (product_0 >> 64) ^ counter[3] ^ key_1,
            product_0 & MASK,
        ]
        key_0, key_1 = (key_0 + 0x9E3779B97F4A7C15) & MASK, (key_1 + 0xBB67AE8584CAA73B) & MASK
    return counter


def test_it_is_philox_and_box_muller_and_nothing_else() -> None:
    for stream in (Z_STREAM, EPS_STREAM):
        expected: list[float] = []
        for block in (1, 2):  # numpy counts up before it draws
            bits = philox([12345, 0], [block, stream, 7, 3])
            uniform = [((word >> 11) + 0.5) / 2**53 for word in bits]
            for first, second in zip(uniform[::2], uniform[1::2], strict=True):
                radius = np.sqrt(-2 * np.log(first))
                expected += [radius * np.cos(2 * np.pi * second), radius * np.sin(2 * np.pi * second)]
        found = noise_for(12345, 7, 3, 7, stream)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected[:7], rtol=1e-6)


def test_a_row_does_not_depend_on_its_batch() -> None:
    places = [(caption, sample) for caption in range(7) for sample in range(3)]
    z, eps = noise_batch(5, places, 100, 100)
    for row in (0, 4, 20):
        alone_z, alone_eps = noise_batch(5, [places[row]], 100, 100)
        assert np.array_equal(z[row], alone_z[0])
        assert np.array_equal(eps[row], alone_eps[0])
    shuffled = places[::-1]
    assert np.array_equal(noise_batch(5, shuffled, 100, 100)[0][::-1], z)
    assert np.array_equal(noise_batch(5, places, 31, 8)[0], z[:, :31])


def test_everything_that_counts_changes_the_noise() -> None:
    rows = [
        noise_for(seed, caption, sample, 100, stream)
        for seed in (0, 1, LARGEST_SEED)
        for caption in (0, 1)
        for sample in (0, 1)
        for stream in (Z_STREAM, EPS_STREAM)
    ]
    correlation = np.corrcoef(np.stack(rows))
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 0.45  # 24 independent rows of 100 stay below that; equal ones are at 1


def test_shared_noise_differs_by_sample_only() -> None:
    z, eps = noise_batch(3, [(0, 0), (4, 0), (4, 1)], 16, 16, shared=True)
    assert np.array_equal(z[0], z[1])
    assert np.array_equal(eps[0], eps[1])
    assert not np.array_equal(z[1], z[2])
    assert np.array_equal(z[0], noise_for(3, 0, 0, 16))


def test_it_is_normal() -> None:
    z, _ = noise_batch(1, [(caption, 0) for caption in range(2000)], 100, 1)
    assert abs(float(z.mean())) < 0.01
    assert abs(float(z.std()) - 1) < 0.01
    assert abs(float((z**4).mean()) - 3) < 0.1
    assert np.isfinite(z).all()


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_out_of_range(seed: int) -> None:
    with pytest.raises(T2IError, match="out of range"):
        noise_for(seed, 0, 0, 4)
