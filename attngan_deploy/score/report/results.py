"""What a report shows: scores with their passports, figures and training curves of several models, as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attngan_deploy.score.report.figures import Figures

PAPER = {"attngan": "4.36 ± 0.03 (256 px)", "base": "4.43 ± 0.05", "att1": "4.59 ± 0.06", "att2": "4.50 ± 0.05"}
HEADINGS = (
    "",
    "pictures",
    "Inception Score, our judge",
    "Inception Score, the paper's judge",
    "Fréchet distance",
    "R-precision",
    "words followed",
)
NAMES = {
    "inception_score": "Inception Score",
    "frechet_distance": "Fréchet distance",
    "r_precision": "R-precision",
}
NOT_COMPARABLE = (
    "The two columns of Inception Scores were measured by different judges on different pictures: a number of one says "
    "nothing beside a number of the other. The paper's judge can't be had any more; its column is what the paper says."
)


@dataclass(frozen=True)
class Scored:
    """One row of the table.

    Attributes:
        name: what was scored, e.g. "att1" or "real, test species".
        passports: the JSON of each, a judge each; all of the same pictures.
        variant: the variant of a model; "" for real pictures.
    """

    name: str
    passports: Sequence[Mapping[str, Any]]
    variant: str = ""

    @property
    def scores(self) -> dict[str, Any]:
        """By metric, whichever judge measured it."""
        return {name: value for passport in self.passports for name, value in passport["scores"].items()}


@dataclass(frozen=True)
class Drawn:
    """What is shown of one model.

    Attributes:
        name: its name.
        about: what it is, in a line.
        figures: Figures 6 to 9.
        curves: name and points of every scored run that led to it.
    """

    name: str
    about: str
    figures: Figures
    curves: Sequence[tuple[str, Sequence[Mapping[str, Any]]]] = ()


@dataclass(frozen=True)
class Results:
    """A whole report.

    Attributes:
        models: rows of generated pictures.
        real: rows of real pictures by the same judge.
        drawn: figures, a model each.
    """

    models: Sequence[Scored]
    real: Sequence[Scored]
    drawn: Sequence[Drawn]


def cells(scored: Scored) -> tuple[str, ...]:
    """A row of the table, under `HEADINGS`."""
    scores = scored.scores
    inception, fid = scores.get("inception_score"), scores.get("frechet_distance")
    found, words = scores.get("r_precision"), scores.get("word_fidelity")
    return (
        scored.name,
        f"{scored.passports[0]['pictures']['used']:,}",
        "" if inception is None else f"{inception['mean']:.2f} ± {inception['deviation']:.2f}",
        PAPER.get(scored.variant, ""),
        "" if fid is None else f"{fid['value']:.1f}",
        "" if found is None else f"{found['value']:.1%}",
        "" if words is None else f"{words['accuracy']:.0%}",
    )


def notes(results: Results) -> list[str]:
    """What must be known to read the table."""
    rows = [*results.models, *results.real]
    told = [NOT_COMPARABLE]
    for passport in rows[0].passports if rows else ():
        measured = ", ".join(sorted(NAMES[name] for name in passport["scores"] if name in NAMES))
        if judge := passport["judge"]:
            told.append(
                f"{measured}: {judge['name']} {judge['hash'][:12]}, {judge['classes']} classes, {judge['size']} px."
            )
    scores = {name: value for scored in reversed(rows) for name, value in scored.scores.items()}
    references = {str(one["source"]): one for row in rows for each in row.passports if (one := each.get("reference"))}
    told += [f"Fréchet distance to {one['used']:,} real pictures of {name}." for name, one in references.items()]
    if inception := scores.get("inception_score"):
        told.append(f"Inception Score: mean ± standard deviation (ddof 0) over {inception['splits']} splits.")
    if found := scores.get("r_precision"):
        told.append(f"R-precision: 1 of {found['candidates']}, chance {found['chance']:.1%}.")
    if "word_fidelity" in scores:
        told.append(
            "Words followed: how often a caption's colour word gives the picture more of that colour than any other of "
            "four words does, with the same noise (chance 25 %)."
        )
    warned: dict[str, list[str]] = {}
    for row in rows:
        for line in dict.fromkeys(line for passport in row.passports for line in passport["warnings"]):
            warned.setdefault(line, []).append(row.name)
    return told + [f"{'; '.join(names)}: {line}" for line, names in warned.items()]
