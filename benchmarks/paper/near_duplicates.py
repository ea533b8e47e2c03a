"""How the threshold of near-duplicates was chosen, and how diverse real pictures of one species are; prints Markdown.

    python benchmarks/paper/near_duplicates.py test.tar

Each real picture (centre crop, resized for the judge) is compared with changed copies of itself and with the nearest
other picture, by the cosine distance of the shipped judge's features. Needs no torch.
"""

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from attngan_deploy.cli import report_errors
from attngan_deploy.media.images import decode_picture
from attngan_deploy.media.shards import iter_samples
from attngan_deploy.score.judge import Judge
from attngan_deploy.score.metrics.diversity import NEAR_DUPLICATE, diversity

MARGIN = 4  # pixels that the centre crop leaves around it: room to move
QUALITY = 75
POINTS = (1, 25, 50, 75, 99)


def cut(image: Image.Image, size: int, right: int = 0, down: int = 0, margin: int = MARGIN) -> Image.Image:
    """The centre of a picture, moved, at the judge's size."""
    box = (margin + right, margin + down, image.width - margin + right, image.height - margin + down)
    return image.crop(box).resize((size, size), Image.Resampling.BILINEAR)


def as_jpeg(image: Image.Image) -> Image.Image:
    """What is left of a picture after JPEG."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY)
    return Image.fromarray(decode_picture(stream.getvalue()))


CHANGES: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    "none": cut,
    "copy moved by 1 px right and down": lambda image, size: cut(image, size, 1, 1),
    f"copy moved by {MARGIN} px right": lambda image, size: cut(image, size, MARGIN),
    f"copy as JPEG of quality {QUALITY}": lambda image, size: as_jpeg(cut(image, size)),
    "mirrored copy": lambda image, size: cut(image, size).transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def directions(shard: Path, judge: Judge, change: Callable[[Image.Image, int], Image.Image]) -> NDArray[np.float64]:
    """Features of all pictures, changed, as unit vectors [N, F]."""
    images = (Image.fromarray(decode_picture(sample.picture)) for sample in iter_samples(shard))
    features = judge.predict(np.stack([np.asarray(change(image, judge.size)) for image in images]))[1]
    return unit(features)


def unit(features: NDArray[Any]) -> NDArray[np.float64]:
    """Rows of length 1."""
    rows = features.astype(np.float64)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def line(name: str, distances: NDArray[np.float64]) -> str:
    """One line of the table."""
    quantiles = " | ".join(f"{value:.3f}" for value in np.percentile(distances, POINTS))
    return f"| {name} | {quantiles} | {100 * (distances < NEAR_DUPLICATE).mean():.1f} % |"


def print_tables(shard: Path, threads: int | None = None) -> None:
    """Measure and print."""
    judge = Judge.load(threads=threads)
    original = directions(shard, judge, CHANGES["none"])
    print(f"| compared with a picture | {' | '.join(f'{point} %' for point in POINTS)} | below {NEAR_DUPLICATE} |")
    print("|---" * (len(POINTS) + 2) + "|")
    for name, change in list(CHANGES.items())[1:]:
        print(line(name, 1 - (directions(shard, judge, change) * original).sum(axis=1)), flush=True)
    distance = 1 - original @ original.T
    np.fill_diagonal(distance, np.inf)
    print(line("nearest other picture", distance.min(axis=1)))
    species = np.array([sample.class_id for sample in iter_samples(shard)])
    pairs = np.triu(np.ones_like(distance, np.bool_), 1)
    same = species[:, None] == species
    print(line("any other of its species", distance[pairs & same]))
    print(line("any of another species", distance[pairs & ~same]))
    result = diversity(original.astype(np.float32), [str(number) for number in species])
    print(
        f"\ndiversity of the pictures of a species: {result['value']:.3f} ± {result['standard_error']:.3f} "
        f"({result['cosine']['within']:.3f} within, {result['cosine']['between']:.3f} between)"
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shard", type=Path, help="tar of real pictures with classes")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    sys.exit(report_errors(lambda: print_tables(options.shard, options.threads)))


if __name__ == "__main__":
    main()
