"""A metric: what it is called, what it needs, how it is computed, and how its score is shown and compared."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Flag, auto
from typing import TYPE_CHECKING, Any

from attngan_deploy.score.outputs import JudgeOutputs, ScoreOptions

if TYPE_CHECKING:
    from attngan_deploy.generate.pipeline import TextToImage
    from attngan_deploy.score.matcher import Matcher

ScoreFacts = Mapping[str, Any]
"""A score as JSON values: the number and all that it depends on."""
Rows = list[tuple[str, str]]
"""Rows of a table for people: what, and its value."""


class Needs(Flag):
    """What a metric is computed from."""

    LOGITS = auto()  # of a judge
    FEATURES = auto()  # of every picture, by a judge
    STATISTICS = auto()  # mean and covariance of features, which take little memory
    CAPTIONS = auto()  # that the pictures show
    MATCHER = auto()
    REFERENCE = auto()  # pictures that are real
    MODEL = auto()  # which makes pictures of the metric's own captions; no judge looks at them


@dataclass(frozen=True)
class MetricInputs:
    """All that metrics are computed from; a metric finds there what it says that it needs."""

    outputs: JudgeOutputs  # what a judge gave of the pictures
    options: ScoreOptions  # how to score
    reference: JudgeOutputs | None = None  # the same of real pictures
    matcher: "Matcher | None" = None  # what compares captions with pictures
    model: "TextToImage | None" = None  # what makes pictures
    batch_size: int | None = None  # how many it makes together; None for its default


def _nothing(*_: Any) -> list[str]:
    return []


@dataclass(frozen=True)
class Column:
    """A score in a report's table."""

    name: str  # of the score in notes
    heading: str  # of its column
    cell: str  # its text there, with fields of the score in braces
    note: str = ""  # what must be known to read it, likewise; "" if nothing


@dataclass(frozen=True)
class Metric:
    """A metric."""

    name: str  # what `--metric` takes, e.g. "fid"
    key: str  # of its score in a passport, e.g. "frechet_distance"
    label: str  # its name in tables
    needs: Needs  # what it is computed from
    compute: Callable[[MetricInputs], ScoreFacts]  # computes its score
    rows: Callable[[ScoreFacts], Rows]  # its rows in the table of a passport
    values: tuple[str, ...] = ("value",)  # keys of its numbers that can be compared, the main one first
    noise: str = ""  # key of the deviation of the main one, or ""
    settings: tuple[str, ...] = ()  # keys of what must be the same in two scores that are compared
    may_be_none: bool = False  # whether a number may be null, where there was nothing to compute it from
    warnings: Callable[[MetricInputs, ScoreFacts], list[str]] = _nothing  # why a score may mislead
    # refuses numbers of pictures, captions and splits that it can't use, before pictures are made
    check: Callable[[int, int, int | None], object] = _nothing
    summary: str = ""  # its name and one number in lists, with a field of the score in braces; "" if it is not listed
    column: Column | None = None  # its column in a report, if it has one

    def summary_of(self, facts: ScoreFacts) -> str:
        """Its summary with the number of a score; "" where it is not listed, or the score can't be read."""
        try:
            return self.summary.format_map(facts)
        except (KeyError, TypeError, ValueError):
            return ""
