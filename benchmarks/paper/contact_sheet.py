"""A numbered sheet of unselected pictures, for people who count how many show a bird, and in which colour.

    python benchmarks/paper/contact_sheet.py base att1 att2 --captions data/test.tar -o docs/sheets

Captions are the first of every k-th picture of the shard (or every k-th line of a file), so that all species are asked
for; picture n is sample 0 of the nth caption with the seed given. Beside each sheet stands a list of its captions.
"""

import argparse
import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from attngan_deploy.cli import report_errors
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.media.captions import read_captions
from attngan_deploy.media.images import make_grid
from attngan_deploy.media.labels import labelled
from attngan_deploy.media.shards import iter_samples
from attngan_deploy.system.files import make_folder, write_atomically

COLUMNS, QUALITY = 10, 85


def first_captions(path: Path) -> list[str]:
    """The first caption of every picture of a shard, or every caption of a file."""
    if path.suffix == ".tar":
        return [sample.captions[0] for sample in iter_samples(path) if sample.captions]
    return [caption.text for caption in read_captions(path)]


def draw(name: str, captions: list[str], out: Path, seed: int) -> None:
    """Write the sheet of one model, and its captions."""
    model = TextToImage.load(name, backend="onnxruntime", precision="fp32")
    pictures = model.generate(captions, seed)
    tiles = np.stack([labelled(picture, str(number)) for number, picture in enumerate(pictures, start=1)])
    stream = io.BytesIO()
    Image.fromarray(make_grid(tiles, COLUMNS)).save(stream, "WEBP", quality=QUALITY, method=6)
    write_atomically(out / f"{model.bundle.name}.webp", stream.getvalue())
    lines = [f"{number}. {caption}" for number, caption in enumerate(captions, start=1)]
    head = f"# {model.bundle.name} {model.bundle.hash[:12]}, seed {seed}\n\n"
    write_atomically(out / f"{model.bundle.name}.md", head + "\n".join(lines) + "\n")
    print(out / f"{model.bundle.name}.webp")


def main() -> None:
    """Draw a sheet for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="names or folders of bundles")
    parser.add_argument("--captions", type=Path, required=True, help="a shard, or a file with a caption a line")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for the sheets")
    parser.add_argument("-n", type=int, default=100, help="pictures on a sheet")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    captions = first_captions(arguments.captions)
    captions = captions[:: max(1, len(captions) // arguments.n)][: arguments.n]
    make_folder(arguments.out)
    for name in arguments.models:
        draw(name, captions, arguments.out, arguments.seed)


if __name__ == "__main__":
    sys.exit(report_errors(main))
