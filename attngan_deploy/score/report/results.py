"""What a report shows: scores with their passports, figures and training curves of several models, as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attngan_deploy.bundles.manifest import TrainingRun
from attngan_deploy.score.metrics.metric import Column
from attngan_deploy.score.metrics.registry import METRICS
from attngan_deploy.score.passport import Passport
from attngan_deploy.score.report.figures import Figures

PAPER = {"attngan": "4.36 ± 0.03 (256 px)", "base": "4.43 ± 0.05", "att1": "4.59 ± 0.06", "att2": "4.50 ± 0.05"}
PAPER_HEADING = "Inception Score, the paper's judge"
PAPER_PLACE = 3  # of that column, beside ours
NOT_COMPARABLE = (
    "The two columns of Inception Scores were measured by different judges on different pictures: a number of one says "
    "nothing beside a number of the other. The paper's judge can't be had any more; its column is what the paper says."
)


@dataclass(frozen=True)
class ReportRow:
    """One row of the table."""

    name: str  # what was scored, e.g. "att1" or "real, test species"
    passports: Sequence[Passport]  # of each score, a judge each; all of the same pictures
    variant: str = ""  # the variant of a model; "" for real pictures

    @property
    def scores(self) -> dict[str, Any]:
        """By metric, whichever judge measured it."""
        return {name: value for passport in self.passports for name, value in passport.scores.items()}


@dataclass(frozen=True)
class ModelFigures:
    """What is shown of one model."""

    name: str
    about: str  # what it is, in a line
    figures: Figures  # Figures 6 to 9
    # name and points of every scored run that led to it
    curves: Sequence[tuple[str, Sequence[Mapping[str, float]]]] = ()


@dataclass(frozen=True)
class Results:
    """A whole report."""

    models: Sequence[ReportRow]  # rows of generated pictures
    real: Sequence[ReportRow]  # rows of real pictures by the same judge
    drawn: Sequence[ModelFigures]  # figures, a model each


def headings() -> tuple[str, ...]:
    """Over the columns of the table."""
    ours = ["", "pictures", *(column.heading for column in _columns().values())]
    return (*ours[:PAPER_PLACE], PAPER_HEADING, *ours[PAPER_PLACE:])


def cells(row: ReportRow) -> tuple[str, ...]:
    """A row of the table, under `headings`."""
    scores = row.scores
    ours = [row.name, f"{row.passports[0].pictures.used:,}"]
    ours += [column.cell.format_map(scores[key]) if key in scores else "" for key, column in _columns().items()]
    return (*ours[:PAPER_PLACE], PAPER.get(row.variant, ""), *ours[PAPER_PLACE:])


def notes(results: Results) -> list[str]:
    """What must be known to read the table."""
    rows = [*results.models, *results.real]
    lines = [NOT_COMPARABLE]
    for passport in rows[0].passports if rows else ():
        if judge := passport.judge:
            names = ", ".join(sorted(column.name for key, column in _columns().items() if key in passport.scores))
            lines.append(f"{names}: {judge.name} {judge.hash[:12]}, {judge.classes} classes, {judge.size} px.")
    scores = {key: value for row in reversed(rows) for key, value in row.scores.items()}
    references = {one.source: one for row in rows for passport in row.passports if (one := passport.reference)}
    lines += [f"Fréchet distance to {one.used:,} real pictures of {name}." for name, one in references.items()]
    columns = [(column, scores[key]) for key, column in _columns().items() if key in scores]
    lines += [column.note.format_map(facts) for column, facts in columns if column.note]
    warned: dict[str, list[str]] = {}
    for row in rows:
        for line in dict.fromkeys(line for passport in row.passports for line in passport.warnings):
            warned.setdefault(line, []).append(row.name)
    return lines + [f"{'; '.join(names)}: {line}" for line, names in warned.items()]


def _columns() -> dict[str, Column]:
    """Columns of the table by the keys of their scores."""
    return {metric.key: metric.column for metric in METRICS.values() if metric.column is not None}


def parts(run: TrainingRun) -> list[tuple[str, Sequence[Mapping[str, float]]]]:
    """Name and curve of every run that led to a model and was scored on the way, the first one first."""
    found: list[tuple[str, Sequence[Mapping[str, float]]]] = []
    for before in run.before:
        found += [part for part in parts(before) if part not in found]
    if run.curve:
        size = f"{64 * 2 ** ((run.stages or 1) - 1)} px"
        found.append((f"{size}, {run.variant}" if run.variant else size, run.curve))
    return found
