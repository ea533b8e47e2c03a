"""The card of a matcher: README.md, written from its manifest."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from attngan_deploy.bundles.manifest import Manifest
from attngan_deploy.export.cards.model_card import table
from attngan_deploy.system.files import write_atomically
from attngan_deploy.system.records import decode

CARD = "README.md"


@dataclass(frozen=True)
class Precision:
    """R-precision of real pictures: how many chose their own caption among how many candidates."""

    r_precision: float
    deviation: float
    pictures: int
    candidates: int


@dataclass(frozen=True)
class RealPrecision(Precision):
    """That of all pictures of a shard, and of those alone that the judge never saw."""

    chance: float
    wrong_captions: str
    crop: int
    data: Mapping[str, str]
    held_out: Precision | None = None


@dataclass(frozen=True)
class Training:
    """What a matcher was trained on, by which recipe."""

    judge: Mapping[str, str]
    recipe: Mapping[str, object]
    pictures: int
    step: int
    data: str | None


@dataclass(frozen=True)
class Comparison:
    """Largest difference of each output from torch's, and cosine with that of unrounded weights."""

    worst: Mapping[str, float]
    stored_weights_cosine: Mapping[str, float]


def write_matcher_card(path: Path, manifest: Manifest) -> None:
    """Write the card."""
    real = decode(RealPrecision, manifest.told("real"))
    parity, told = decode(Comparison, manifest.told("parity")), decode(Training, manifest.told("provenance"))
    name, sizes, judge, recipe = manifest.name, manifest.sizes, told.judge, told.recipe
    rows = {
        "real pictures": f"**{real.r_precision:.1%}** ± {real.deviation:.1%} (chance {real.chance:.1%}): "
        f"{real.pictures:,} pictures of {real.data['file']}, centre crops of {real.crop} px, the first "
        f"caption of each among {real.candidates}, wrong ones of {real.wrong_captions}",
    }
    if (unseen := real.held_out) is not None:
        rows["of these, those that the judge never saw"] = (
            f"{unseen.r_precision:.1%} ± {unseen.deviation:.1%} of {unseen.pictures:,} pictures, "
            f"among {unseen.candidates} captions"
        )
    rows |= {
        "reads pictures through": f"judge `{judge['name']}` {judge['hash'][:12]}, and no other",
        "trained on": f"{told.pictures:,} pictures of {told.data or 'train.tar'}, "
        f"epoch {told.step} of {recipe['epochs']}, seed {recipe['seed']}",
        "text encoder": f"captions int64 [N, T], lengths int64 [N] -> sentence f32 [N, {sizes.features}]",
        "picture encoder": f"features f32 [N, {manifest.told('sizes', 'judge_features')}] -> "
        f"codes f32 [N, {sizes.features}]",
        "vocabulary": f"{(sizes.words or 1) - 1:,} words",
        "graphs against torch": ", ".join(f"{key} within {value:.1e}" for key, value in parity.worst.items())
        + " of the largest value",
        "rounding of weights": f"{manifest.weights_dtype}; cosine with unrounded ones at least "
        f"{min(parity.stored_weights_cosine.values()):.4f}",
    }
    write_atomically(
        path,
        f"""# Matcher `{name}`

Says how close captions and pictures are. `t2i score --metric r-precision` measures with it: how often a picture is
closer to its own caption than to {real.candidates - 1} wrong ones.

{table(("", ""), list(rows.items()))}

**Why it is not the generators' own encoder.** A generator is trained to please the encoders that it is conditioned on,
so their R-precision flatters it. This matcher has another seed and another backbone: a judge, through which no gradient
passes. `t2i train gan` refuses it.

**What a value can say.** It compares generators that were measured by this matcher on as many candidates. It can't be
compared with R-precision by other encoders, the paper's included. The value of real pictures is the yardstick: more
than that is no better picture, but one that shows nothing besides its caption. Where the judge learned from the real
pictures, its features of them are better than those of any others, and the value of those that it never saw is the
fairer yardstick.

Made by `t2i train damsm --image-encoder judge --backbone {judge["name"]} --data DATA --out RUN
--epochs {recipe["epochs"]} --seed {recipe["seed"]} --bundle DIR`.

## Licence

{manifest.licence}
""",
    )
