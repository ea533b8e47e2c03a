"""The README's picture: a column for each caption, a row for each sample, by a model that ships; nothing is picked.

python benchmarks/paper/readme_picture.py examples/captions.txt -o docs/grid.webp
"""

import argparse
import io
import sys
from pathlib import Path

from PIL import Image

from attngan_deploy.bundles.bundle import DEFAULT_MODEL
from attngan_deploy.cli import report_errors
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.media.captions import read_captions
from attngan_deploy.media.images import make_grid
from attngan_deploy.system.files import write_atomically

SAMPLES, QUALITY = 4, 85


def main() -> int:
    """Read the command line, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("captions", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    options = parser.parse_args()
    captions = [caption.text for caption in read_captions(options.captions)]
    model = TextToImage.load(options.model, backend="onnxruntime", precision="fp32")
    pictures = model.generate(captions, seed=0, images_per_caption=SAMPLES)
    columns = pictures.reshape(len(captions), SAMPLES, *pictures.shape[1:])
    stream = io.BytesIO()
    turned = columns.swapaxes(0, 1).reshape(pictures.shape)
    Image.fromarray(make_grid(turned, len(captions))).save(stream, "WEBP", quality=QUALITY, method=6)
    write_atomically(options.out, stream.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(report_errors(main))
