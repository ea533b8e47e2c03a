"""How many pictures carry a woven pattern of 2 and 4 px, as networks with strides leave it.

    python benchmarks/paper/woven_pattern.py base att1 att2 --captions data/test.tar

A picture's strength is the power of its spectrum at the lattice of periods of 2 and 4 px, over the power around each
point of that lattice. One that is stronger than 95 % of real pictures counts; so 5 % of real ones do.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from blind_sheet import real_tile
from numpy.typing import NDArray

from attngan_deploy.cli import report_errors
from attngan_deploy.errors import DataError
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.media.shards import iter_samples

PERIOD, NEAR, FAR, PERCENTILE = 4, 3, 6, 95
BATCH = 256


def strengths(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean over the lattice of the power at a point over the power around it, of pictures uint8 [N, S, S, 3]: [N].

    Raises:
        DataError: pictures that are no squares, or whose side is no multiple of 16.
    """
    count, height, width = pictures.shape[:3]
    if height != width or height % (4 * PERIOD):
        raise DataError("the pattern is not defined", found=f"{width} x {height} px", expected="a square of 16s")
    grey = pictures.astype(np.float64).mean(3)
    window = np.hanning(height)
    power = np.abs(np.fft.fft2((grey - grey.mean((1, 2), keepdims=True)) * np.outer(window, window))) ** 2 + 1e-9
    step = height // PERIOD
    offsets = np.arange(-FAR, FAR + 1)
    distance = np.maximum(np.abs(offsets)[:, None], np.abs(offsets)[None])
    around = (distance >= NEAR) & (distance <= FAR)
    found = np.zeros(count)
    points = [(down, across) for down in range(PERIOD) for across in range(PERIOD) if down or across]
    for down, across in points:
        rows, columns = (down * step + offsets) % height, (across * step + offsets) % height
        patch = power[:, rows][:, :, columns]
        found += power[:, down * step, across * step] / patch[:, around].mean(1)
    return found / len(points)


def share_above(pictures: NDArray[np.uint8], real: NDArray[np.uint8]) -> float:
    """Share of pictures whose strength is above the 95th percentile of that of real ones."""
    return float((strengths(pictures) > np.percentile(strengths(real), PERCENTILE)).mean())


def main() -> None:
    """Print the share of each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="names or folders of bundles")
    parser.add_argument("--captions", type=Path, required=True, help="shard of real pictures with captions")
    parser.add_argument("-n", type=int, default=1000, help="pictures of each, half of the shard's at most")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    samples = [sample for sample in iter_samples(arguments.captions) if sample.captions]
    order = np.random.default_rng(arguments.seed).permutation(len(samples))
    half = min(arguments.n, len(samples) // 2)
    real = np.stack([real_tile(samples[place]).picture for place in order[: 2 * half]])
    print(f"real: {share_above(real[half:], real[:half]):.1%} of {half}, against as many others")
    captions = [samples[place].captions[0] for place in order[:half]]
    for name in arguments.models:
        model = TextToImage.load(name, backend="onnxruntime", precision="fp32")
        print(f"{name}: {share_above(model.generate(captions, arguments.seed), real):.1%} of {half}", flush=True)


if __name__ == "__main__":
    sys.exit(report_errors(main))
