"""Figures 6 to 9 of the paper as pictures for docs/guide/score.md: one for each model, its captions beside on the page.

    python benchmarks/paper/paper_figures.py base att1 att2 -o docs/figures

On top ten pictures of caption 1 (Figure 6), below caption 2 in red, black, yellow and blue, a row each, with the same
noise in a column (Figures 7 to 9). The same as `t2i report` draws, seed 0, nothing picked.
"""

import argparse
import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from attngan_deploy.cli import report_errors
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.media.images import WHITE
from attngan_deploy.score.report.figures import draw_figures
from attngan_deploy.system.files import make_folder, write_atomically

GAP, QUALITY = 12, 85


def main() -> None:
    """Draw one picture for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="names or folders of bundles")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make_folder(arguments.out)
    for name in arguments.models:
        model = TextToImage.load(name, backend="onnxruntime", precision="fp32")
        figures = draw_figures(model, arguments.seed)
        gap = np.full((GAP, *figures.samples.shape[1:]), WHITE, np.uint8)
        stream = io.BytesIO()
        whole = np.concatenate([figures.samples, gap, *figures.colours.values()])
        Image.fromarray(whole).save(stream, "WEBP", quality=QUALITY, method=6)
        write_atomically(arguments.out / f"{model.bundle.name}.webp", stream.getvalue())
        print(arguments.out / f"{model.bundle.name}.webp")


if __name__ == "__main__":
    sys.exit(report_errors(main))
