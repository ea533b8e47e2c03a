"""The model card of a bundle: README.md with a picture, written from the manifest."""

import json
from collections.abc import Sequence
from pathlib import Path

from attngan_deploy.bundles.manifest import Manifest, Parity, Rounding, TrainingRun, read_run
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.media.images import encode_picture, make_grid
from attngan_deploy.system.files import inside, write_atomically
from attngan_deploy.system.records import JsonObject
from attngan_deploy.train.config import DESCRIPTIONS

CARD, GRID = "README.md", "grid.webp"
SAMPLES, SEED = 4, 0

CODE_LICENCE = "Code: Apache-2.0."
CUB_LICENCE = (
    "Weights: learned from the pictures of CUB-200-2011, which are for non-commercial research and education only."
)
OTHER_LICENCE = "Weights: the terms of the pictures they were learned from apply."


def licence_of(provenance: JsonObject) -> str:
    """The licence line of a model of this provenance; imported weights may bring their own."""
    if told := provenance.get("licence"):
        return str(told)
    data = json.dumps(provenance.get("data", "")).lower()
    return f"{CODE_LICENCE} {CUB_LICENCE if 'cub' in data else OTHER_LICENCE}"


def paint_grid(folder: Path, captions: Sequence[str]) -> None:
    """Let the bundle in `folder` make its card's picture: a row for each caption, a column for each sample."""
    pictures = TextToImage.load(folder, backend="onnxruntime", precision="fp32").generate(captions, SEED, SAMPLES)
    write_atomically(inside(folder, GRID), encode_picture(make_grid(pictures, columns=SAMPLES), "webp"))


def write_card(path: Path, manifest: Manifest, captions: Sequence[str]) -> None:
    """Write the model card.

    Args:
        captions: what the rows of the picture show.
    """
    name, variant, size, parity = manifest.name, manifest.variant or "", manifest.sizes.stages[-1], manifest.parity
    assert parity is not None, "no bundle is exported without it"
    rows = "\n".join(f"- row {row}: {caption}" for row, caption in enumerate(captions, start=1))
    text = f"""# {name}: captions to pictures of {size} x {size} pixels

Variant `{variant}`: {DESCRIPTIONS[variant].sentence}.

![What it makes of the captions below]({GRID})

{rows}

Made by this bundle with seed {SEED}, samples 0 to {SAMPLES - 1}; nothing was picked.{_truncation(manifest)}

## Use

```
t2i generate captions.txt -o out/ --model {name}
```
```python
from attngan_deploy import TextToImage

pictures = TextToImage.load("{name}").generate(["{captions[0]}"])  # uint8 [1, {size}, {size}, 3]
```
A folder may stand in place of the name.

## Training

{table(("", ""), _training(read_run(manifest.told("provenance"))))}

## Is it the model that was trained?

Worst differences of the graphs in ONNX Runtime from torch, which ran the same folded and rounded weights, over several
batch sizes and caption lengths:

{table(("output", "worst difference", "tolerance", "pixel values that differ"), _parity(parity))}

{_rounding(manifest.weights_dtype, parity.stored_weights)}
{_precisions(manifest)}
## Licence

{manifest.licence}
"""
    write_atomically(inside(path.parent, path.name), text)


def _truncation(manifest: Manifest) -> str:
    """What noise the pictures are made of, where it is not all of a normal distribution."""
    if (truncation := manifest.truncation) is None:
        return ""
    return (
        f"\nIts noise is cut at {truncation.clip:g} and taken times {truncation.scale:g}, as its authors do; "
        "`t2i generate --truncation 1` turns that off."
    )


def _training(run: TrainingRun) -> list[tuple[str, ...]]:
    told, recipe = run.document, run.document.get("recipe")
    facts = {
        "data": told.get("data") or "not recorded in the checkpoint",
        "recipe": recipe.get("name") if isinstance(recipe, dict) else recipe,
        "pictures in the training set": told.get("training_pictures"),
        "pictures seen": told.get("pictures"),
        "steps": told.get("step"),
        "started from": "; before that ".join(_ancestors(run)) or None,
        "text and image encoder": told.get("damsm"),
    }
    return [(name, _fact(value)) for name, value in facts.items() if value is not None]


def _ancestors(run: TrainingRun) -> list[str]:
    """The runs that this one started from, and those before them: stages and pictures seen of each."""
    told = []
    for before in run.before:
        what = f"a run of {before.stages or '?'} stage(s)" if before.bundle is None else f"the bundle {before.bundle}"
        told += [f"{what} that saw {_fact(before.pictures)} pictures", *_ancestors(before)]
    return told


def _fact(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_fact(inner)}" for key, inner in value.items() if inner is not None)
    if isinstance(value, list):
        return ", ".join(map(_fact, value))
    text = f"{value:.3g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    return " ".join(text.split()).replace("|", "\\|")


def _parity(parity: Parity) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, output in parity.outputs.items():
        pixels = "" if output.pixels is None else f"{output.pixels_differ:,} of {output.pixels:,}"
        rows.append((f"`{name}`", f"{output.worst:.1e}", f"{output.tolerance:.0e}", pixels))
    return rows


def _rounding(weights_dtype: str | None, stored: Rounding) -> str:
    psnr = "no difference" if stored.psnr_db is None else f"{stored.psnr_db} dB PSNR"
    return (
        f"Weights are stored in {weights_dtype}, arithmetic is float32. Against the weights as trained "
        f"that costs: {psnr}, at most {stored.worst_level} of 255 levels, {stored.pixels_differ:.2%} of values."
    )


def _precisions(manifest: Manifest) -> str:
    """A section on the other precisions that the generator is stored in; empty where there is none."""
    rows = []
    for name, stored in manifest.graphs["generator"].precisions.items():
        if (parity := stored.parity) is None:
            continue
        psnr = "no difference" if parity.psnr_db is None else f"{parity.psnr_db} dB"
        pictures = f"{parity.pictures} of {parity.captions} captions"
        floor = f"{manifest.floors[name]:g} dB"
        rows.append((name, psnr, floor, f"{parity.worst_level} of 255 levels", pictures, parity.measured))
    if not rows:
        return ""
    head = ("precision", "PSNR against fp32", "floor", "worst pixel", "pictures", "measured with")
    return f"""
## Other precisions of the generator

{table(head, rows)}
"""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
