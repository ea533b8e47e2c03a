"""Sheets of generated and real pictures in one shuffled order, to be counted by somebody who has not seen the key.

    python benchmarks/paper/blind_sheet.py draw base att1 --captions data/test.tar -o sheets/ --key key.json
    python benchmarks/paper/blind_sheet.py count verdicts.csv --key key.json

`draw` writes sheets of numbered pictures with a list of their captions, and a form to fill in, `verdicts.csv`: 1 or 0
for each question. Every model makes the same captions, sample 0 of each, and "base:8" the best of eight; real pictures
stand under captions of their own. The key says which number is whose, and is written elsewhere. `count` prints the
rates of each source with 95 % intervals (Wilson's).
"""

import argparse
import csv
import io
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from attngan_deploy.cli import report_errors
from attngan_deploy.errors import DataError
from attngan_deploy.generate.batching import Picture
from attngan_deploy.generate.critic import Critic, best_of
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.media.caption import Caption
from attngan_deploy.media.images import decode_picture, make_grid
from attngan_deploy.media.labels import labelled
from attngan_deploy.media.shards import Sample, iter_samples
from attngan_deploy.media.tokenizer import encode_caption
from attngan_deploy.system.files import make_folder, write_atomically

QUESTIONS = {
    "bird": "one recognisable bird: a head and a body that belong together and stand out from the background",
    "keep": "worth keeping as an illustration of its caption",
    "colour": "the main colour of its caption is on the bird",
}
REAL, SIDE, COLUMNS, PER_SHEET, ENLARGED = "real", 128, 5, 25, 2
Z = 1.959964  # of a 95 % interval


class Tile(NamedTuple):
    """A picture uint8 [S, S, 3] on a sheet, whose it is, and its caption."""

    source: str
    caption: str
    picture: NDArray[np.uint8]


def interval(hits: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate, as two shares of 1 (Wilson, 1927).

    Raises:
        DataError: nothing was counted.
    """
    if count < 1:
        raise DataError("nothing was counted", expected="at least one verdict")
    rate, spread = hits / count, Z * Z / count
    middle = (rate + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * math.sqrt(rate * (1 - rate) / count + spread / count / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


def real_tile(sample: Sample) -> Tile:
    """The centre of a real picture under its own first caption."""
    picture = decode_picture(sample.picture)
    edge = (picture.shape[0] - SIDE) // 2
    return Tile(REAL, sample.captions[0], picture[edge : edge + SIDE, edge : edge + SIDE])


def tiles(models: Sequence[str], samples: Sequence[Sample], count: int, seed: int) -> list[Tile]:
    """`count` pictures of every model and as many real ones, shuffled; captions of both kinds are spread over the set.

    Raises:
        DataError: fewer than two captions a picture.
    """
    if len(samples) < 2 * count:
        raise DataError("too few captions", found=str(len(samples)), expected=f"{2 * count}, half of them for models")
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(samples))[: 2 * count]
    made = [real_tile(samples[place]) for place in chosen[count:]]
    captions = [samples[place].captions[0] for place in chosen[:count]]
    for name in models:
        pictures = paint(name, captions, seed)
        made += [Tile(name, caption, picture) for caption, picture in zip(captions, pictures, strict=True)]
    return [made[place] for place in rng.permutation(len(made))]


def paint(name: str, captions: Sequence[str], seed: int) -> list[NDArray[np.uint8]]:
    """One picture of each caption by a model, or for "base:8" the best of eight."""
    source, _, count = name.rpartition(":") if name.rpartition(":")[2].isdecimal() else (name, "", "1")
    model = TextToImage.load(source, backend="onnxruntime", precision="fp32")
    if int(count) == 1:
        return list(model.generate(captions, seed))
    numbered = [Caption(text, line) for line, text in enumerate(captions, start=1)]
    wanted = [Picture((each.line - 1, 0), each, encode_caption(each, model.tokenizer).ids) for each in numbered]
    chosen = best_of(partial(model.stream_pictures, seed=seed), wanted, int(count), Critic.load())
    return [picture for batch in chosen for picture in batch.pictures]


def draw(shuffled: Sequence[Tile], out: Path, key: Path) -> None:
    """Write the sheets, their captions and the form into `out`, and who made what into `key`."""
    make_folder(out)
    for first in range(0, len(shuffled), PER_SHEET):
        on_sheet = shuffled[first : first + PER_SHEET]
        grid = make_grid(
            np.stack(
                [
                    labelled(tile.picture.repeat(ENLARGED, 0).repeat(ENLARGED, 1), str(number))
                    for number, tile in enumerate(on_sheet, start=first + 1)
                ]
            ),
            COLUMNS,
        )
        stream = io.BytesIO()
        Image.fromarray(grid).save(stream, "PNG")
        name = f"sheet-{first // PER_SHEET + 1:02d}"
        write_atomically(out / f"{name}.png", stream.getvalue())
        lines = [f"{number}. {tile.caption}" for number, tile in enumerate(on_sheet, start=first + 1)]
        write_atomically(out / f"{name}.md", "\n".join(lines) + "\n")
    form = [",".join(("number", *QUESTIONS)), *(f"{number}," for number in range(1, len(shuffled) + 1))]
    write_atomically(out / "verdicts.csv", "\n".join(form) + "\n")
    write_atomically(key, json.dumps({"sources": [tile.source for tile in shuffled]}, indent=1) + "\n")
    asked = "\n".join(f"- {name}: {question}" for name, question in QUESTIONS.items())
    print(f"{len(shuffled)} pictures in {out}; fill in 1 or 0 in {out / 'verdicts.csv'} for\n{asked}")


def read_verdicts(path: Path, count: int) -> dict[int, Mapping[str, bool]]:
    """Verdicts by number.

    Raises:
        DataError: a line that is no verdict, or numbers that are missing or twice there.
    """
    verdicts: dict[int, Mapping[str, bool]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            try:
                answers = {name: {"1": True, "0": False}[(row[name] or "").strip()] for name in QUESTIONS}
                number = int(row["number"])
            except (KeyError, ValueError, TypeError) as error:
                raise DataError(
                    f"{path}: a line is no verdict", found=str(row), expected="a number, then 1 or 0s"
                ) from error
            if number in verdicts:
                raise DataError(f"{path}: number {number} is there twice")
            verdicts[number] = answers
    if missing := sorted(set(range(1, count + 1)) ^ set(verdicts)):
        raise DataError(f"{path} does not fit the key", found=f"{missing[:5]} missing or too many", expected=str(count))
    return verdicts


def rates(sources: Sequence[str], verdicts: Mapping[int, Mapping[str, bool]]) -> Iterable[str]:
    """A line of a table for every source: pictures, then each question's rate with its interval."""
    yield "| | pictures | " + " | ".join(QUESTIONS) + " |"
    yield "|---|---:|" + "---:|" * len(QUESTIONS)
    for source in dict.fromkeys(sorted(sources)):
        own = [verdicts[number] for number, name in enumerate(sources, start=1) if name == source]
        cells = []
        for question in QUESTIONS:
            hits = sum(answers[question] for answers in own)
            low, high = interval(hits, len(own))
            cells.append(f"{hits / len(own):.0%} ({low:.0%} to {high:.0%})")
        yield f"| {source} | {len(own)} | " + " | ".join(cells) + " |"


def main() -> None:
    """Draw sheets, or count verdicts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    drawing = commands.add_parser("draw")
    drawing.add_argument("models", nargs="+", help="names or folders of bundles")
    drawing.add_argument("--captions", type=Path, required=True, help="shard of real pictures with captions")
    drawing.add_argument("-o", "--out", type=Path, required=True, help="folder for the sheets")
    drawing.add_argument("-n", type=int, default=50, help="pictures of each source")
    drawing.add_argument("--seed", type=int, default=0)
    counting = commands.add_parser("count")
    counting.add_argument("verdicts", type=Path, help="the form, filled in")
    for command in (drawing, counting):
        command.add_argument("--key", type=Path, required=True, help="who made which picture; not for who counts")
    arguments = parser.parse_args()
    if arguments.command == "draw":
        samples = [sample for sample in iter_samples(arguments.captions) if sample.captions]
        draw(tiles(arguments.models, samples, arguments.n, arguments.seed), arguments.out, arguments.key)
    else:
        sources = json.loads(arguments.key.read_text(encoding="utf-8"))["sources"]
        print("\n".join(rates(sources, read_verdicts(arguments.verdicts, len(sources)))))


if __name__ == "__main__":
    sys.exit(report_errors(main))
