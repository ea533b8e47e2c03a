"""Word fidelity of models and, as a yardstick, of real pictures; prints Markdown tables.

    python benchmarks/paper/word_colours.py test.tar base att1 att2

The real pictures are those of the tar whose first caption names exactly one of the colours. Needs no torch.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.cli import report_errors
from attngan_deploy.engines.request import REFERENCE
from attngan_deploy.errors import ScoreError
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.media.images import decode_picture
from attngan_deploy.media.shards import iter_samples
from attngan_deploy.media.tokenizer import split_words
from attngan_deploy.score.metrics.colours import COLOURS
from attngan_deploy.score.metrics.word_fidelity import REGION, Shares, shares_of, summarise, word_fidelity

SEED = 0
HEADER = """| pictures | fidelity | accuracy | inside | outside | leakage | change inside | change outside | focus |
|---|---|---|---|---|---|---|---|---|"""
COLOUR_HEADER = """| word | fidelity | accuracy | inside | outside | accuracy inside | accuracy outside |
|---|---|---|---|---|---|---|"""


def real_word_colours(shard: Path, seed: int = SEED) -> dict[str, Any]:
    """Word fidelity of real pictures: those whose first caption names exactly one of the colours.

    Sets of one picture a colour are drawn, each picture at most once, so that there are as many as the rarest colour
    has pictures. The centre, a quarter of the picture, stands for the attended region. Unlike a model's, the pictures
    of a set differ in all else too, which costs accuracy; and a caption may name the colour of a bill.

    Args:
        shard: tar of square pictures with captions.
        seed: of the drawing.

    Returns:
        `word_fidelity.summarise`'s of these sets, and "pictures" (of each colour), "sets" and "centre": for each
        colour's pictures the mean share of each colour {"inside": {...}, "outside": {...}}, over all of them.

    Raises:
        ScoreError: no picture for a colour.
        DataError: a damaged shard.
    """
    found = _read_shares(shard)
    if missing := [colour for colour, shares in found.items() if not shares]:
        raise ScoreError(f"{shard.name} has no picture whose first caption names {missing[0]} and no other colour")
    rng = np.random.RandomState(seed)
    count = min(map(len, found.values()))
    drawn = [[shares[place] for place in rng.permutation(len(shares))[:count]] for shares in found.values()]
    sets = [
        Shares(*(np.concatenate(parts) for parts in zip(*one_each, strict=True)))
        for one_each in zip(*drawn, strict=True)
    ]
    return {
        **summarise(sets, COLOURS),
        "pictures": {colour: len(shares) for colour, shares in found.items()},
        "sets": count,
        "centre": {
            colour: {part: _mean_shares(shares, part) for part in ("inside", "outside")}
            for colour, shares in found.items()
        },
    }


def centre_region(size: int) -> NDArray[np.float64]:
    """The middle of a picture of `size` px that holds a quarter of it: f64 [size, size] of 0 and 1."""
    margin = round(size * (1 - REGION**0.5) / 2)
    region = np.zeros((size, size))
    region[margin : size - margin, margin : size - margin] = 1
    return region


def _read_shares(shard: Path) -> dict[str, list[Shares]]:
    found: dict[str, list[Shares]] = {colour: [] for colour in COLOURS}
    for sample in iter_samples(shard):
        named = [colour for colour in COLOURS if sample.captions and colour in split_words(sample.captions[0])]
        if len(named) == 1:
            picture = decode_picture(sample.picture)
            found[named[0]].append(shares_of(picture[None], centre_region(len(picture))))
    return found


def _mean_shares(shares: list[Shares], part: str) -> dict[str, float]:
    values = np.concatenate([getattr(one, part) for one in shares]).mean(axis=0)
    return dict(zip(COLOURS, values.tolist(), strict=True))


def row(name: str, result: Mapping[str, Any]) -> str:
    """One line of the table of all pictures."""
    leakage = "-" if result["leakage"] is None else f"{result['leakage']:.2f}"
    own = ["-"] * 3
    if "focus" in result:
        own = [f"{result['change_inside']:.1f}", f"{result['change_outside']:.1f}", f"{100 * result['focus']:.0f} %"]
    return (
        f"| {name} | {_points(result, 'fidelity')} | {_points(result, 'accuracy')} | {_points(result, 'inside')} "
        f"| {_points(result, 'outside')} | {leakage} | {' | '.join(own)} |"
    )


def colour_row(name: str, result: Mapping[str, Any]) -> str:
    """One line of the table of one colour each."""
    names = ("fidelity", "accuracy", "inside", "outside", "inside_accuracy", "outside_accuracy")
    return f"| {name} | {' | '.join(_points(result, name) for name in names)} |"


def share_table(result: Mapping[str, Any]) -> str:
    """Mean share of each colour (columns) in the pictures of each word (rows), in percent of the picture."""
    lines = [f"| word | {' | '.join(COLOURS)} |", "|---|" + "---|" * len(COLOURS)]
    for word in COLOURS:
        shares = [f"{100 * result['colours'][colour]['shares'][word]:.1f}" for colour in COLOURS]
        lines.append(f"| {word} | {' | '.join(shares)} |")
    return "\n".join(lines)


def centre_table(result: Mapping[str, Any]) -> str:
    """Mean share of each colour in the centre and outside of it, of all real pictures of a word."""
    lines = [f"| word | pictures | {' | '.join(COLOURS)} |", "|---|---|" + "---|" * len(COLOURS)]
    for word in COLOURS:
        inside, outside = result["centre"][word]["inside"], result["centre"][word]["outside"]
        shares = [f"{100 * inside[colour]:.1f} / {100 * outside[colour]:.1f}" for colour in COLOURS]
        lines.append(f"| {word} | {result['pictures'][word]} | {' | '.join(shares)} |")
    return "\n".join(lines)


def _points(result: Mapping[str, Any], name: str) -> str:
    error = result[f"{name}_error"]
    return f"{100 * result[name]:.1f} ± {100 * error:.1f}" if error is not None else f"{100 * result[name]:.1f}"


def print_tables(shard: Path, models: Sequence[str], threads: int | None = None) -> None:
    """Measure and print."""
    results = {"real": real_word_colours(shard)}
    for name in models:
        results[name] = word_fidelity(TextToImage.load_on(name, replace(REFERENCE, threads=threads)))
    print(HEADER)
    for name, result in results.items():
        print(row(name, result))
    for name, result in results.items():
        print(f"\n{name}: each colour\n\n{COLOUR_HEADER}")
        for colour in COLOURS:
            print(colour_row(colour, result["colours"][colour]))
        print(f"\n{name}: share of each colour with each word, % of the picture\n\n{share_table(result)}")
    print(f"\nreal: share in the centre / outside of it, %\n\n{centre_table(results['real'])}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shard", type=Path, help="tar of real pictures with captions")
    parser.add_argument("models", nargs="*", help="installed models, or folders of bundles")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    sys.exit(report_errors(lambda: print_tables(options.shard, options.models, options.threads)))


if __name__ == "__main__":
    main()
