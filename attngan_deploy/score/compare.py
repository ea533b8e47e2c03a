"""Two passports side by side: scores may be compared only where all that moves them is the same."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attngan_deploy.errors import ScoreError
from attngan_deploy.score.metrics.metric import Metric, Needs
from attngan_deploy.score.metrics.registry import METRICS
from attngan_deploy.score.passport import NEXT_STEP, Passport, broken_field, describe_value
from attngan_deploy.system.files import read_json
from attngan_deploy.system.records import look_up

LOOK = ("used", "width", "height", "crop", "resize")  # how many pictures were looked at, and how
FORBIDDING = (  # what must be the same for every score of pictures by a judge
    *("judge.hash", "judge.classes", "judge.size"),
    *(f"pictures.{key}" for key in (*LOOK, "order", "shuffle_seed", "best_of")),
)
CAPTIONS = ("pictures.generated.captions", "pictures.generated.captions_sha256")  # where both say them
LARGEST = 1e15  # no score is larger; infinities and NaN are none
SHOWN = ("pictures.captions_sha256", "pictures.decoder", "reference.decoder")  # where both say them
CONTENT = "sha256"  # of a reference set; its name stands in where a passport has no hash
NEEDED = {Needs.REFERENCE: "reference", Needs.MATCHER: "matcher.hash"}  # fields without which a score is worth nothing
LISTED = (  # what is told, and forbids nothing
    "passport",
    "version",
    "judge.name",
    "judge.engine",
    "pictures.source",
    "pictures.found",
    "pictures.formats",
    "pictures.generated",
    "pictures.decoder",
    "reference.source",
    "reference.decoder",
    "matcher.name",
    "warnings",
)


@dataclass(frozen=True)
class Difference:
    """A field that is not the same in two passports, with both values; None where it is absent."""

    field: str
    a: Any
    b: Any


@dataclass(frozen=True)
class ScoreDifference:
    """One score of two sets of pictures."""

    score: str  # its key in both passports, e.g. "inception_score.mean"
    label: str  # its name for people
    # a, b: its values
    a: float
    b: float
    # noise_a, noise_b: their deviations, over splits or subsets, or the standard error of a share; None if unknown
    noise_a: float | None = None
    noise_b: float | None = None

    @property
    def difference(self) -> float:
        """The second minus the first."""
        return self.b - self.a

    @property
    def noise(self) -> float | None:
        """Deviation of the difference, if both are independent; None if unknown."""
        if self.noise_a is None or self.noise_b is None:
            return None
        return math.hypot(self.noise_a, self.noise_b)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "difference": self.difference, "noise": self.noise}


@dataclass(frozen=True)
class Comparison:
    """Scores of two sets of pictures that were measured alike."""

    # a, b: names of the sets
    a: str
    b: str
    scores: list[ScoreDifference]  # what both passports have
    differences: list[Difference]  # what is not the same, and forbids nothing

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "scores": [score.to_json() for score in self.scores]}

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """For a table: score, first, second, difference, noise of the difference ("" if unknown)."""
        return [
            (
                score.label,
                _with_noise(score.a, score.noise_a),
                _with_noise(score.b, score.noise_b),
                f"{score.difference:+.4g}",
                "" if score.noise is None else f"{score.noise:.2g}",
            )
            for score in self.scores
        ]

    def notes(self) -> list[str]:
        """What is not the same, a line each."""
        return [f"{each.field}: {describe_value(each.a)} and {describe_value(each.b)}" for each in self.differences]


def compare(a: Passport, b: Passport) -> Comparison:
    """Compare the scores of two passports.

    Raises:
        ScoreError: no score in common, or anything else that moves scores than the pictures themselves; all such
            fields are named.
    """
    shared = [metric for metric in METRICS.values() if metric.key in a.scores and metric.key in b.scores]
    documents = a.to_json(), b.to_json()
    unlike = list(_unlike(*documents, shared))
    if unlike:
        raise ScoreError(
            f"these scores can't be compared: {len(unlike)} that must be the same "
            f"{'differs' if len(unlike) == 1 else 'differ'}",
            found=", ".join(f"{each.field} {describe_value(each.b)}" for each in unlike),
            expected=", ".join(f"{each.field} {describe_value(each.a)}" for each in unlike) + ", as in the first",
            next_step="score both alike",
        )
    if not shared:
        raise ScoreError(
            "these passports have no score in common",
            found=", ".join(b.scores),
            expected=", ".join(a.scores),
            next_step="score both with one --metric",
        )
    scores = [difference for metric in shared for difference in _score_differences(metric, a, b)]
    return Comparison(a.pictures.source, b.pictures.source, scores, list(_listed(*documents, shared)))


def read_passport(path: Path) -> Passport:
    """What `t2i score --json` printed into a file; a ScoreError where that is no passport that can be compared."""
    try:
        document = read_json(path)
    except OSError as error:
        raise ScoreError(f"{path} can't be read: {error.strerror}", next_step=NEXT_STEP) from error
    except ValueError as error:
        raise ScoreError(f"{path} is no passport: it is not JSON", next_step=NEXT_STEP) from error
    return comparable(document, str(path))


def comparable(document: object, where: str) -> Passport:
    """The passport that a JSON document holds, with all that comparing its scores needs.

    Args:
        where: what to call it in errors.

    Raises:
        ScoreError: no passport, or a field that is missing or can't be used; it is named.
    """
    scores = look_up(document, "scores")
    keys = scores.keys() if isinstance(scores, Mapping) else set()
    metrics = [metric for metric in METRICS.values() if metric.key in keys]
    needed = ["pictures.source", "pictures.used", "pictures.resize", "pictures.order"]
    if len(metrics) < len(keys) or any(Needs.MODEL not in metric.needs for metric in metrics):
        needed += ["judge.hash", "judge.size"]
    needed += [field for metric in metrics for need, field in NEEDED.items() if need in metric.needs]
    passport = Passport.from_json(document, where, needed)
    for metric in metrics:
        for key in filter(None, (*metric.values, metric.noise)):
            value = _get(passport.scores[metric.key], key)
            if value is None and metric.may_be_none:
                continue
            if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < LARGEST:
                raise broken_field(where, f"scores.{metric.key}.{key}", value)
    return passport


def _unlike(a: Mapping[str, Any], b: Mapping[str, Any], shared: list[Metric]) -> Iterator[Difference]:
    """Every field that must be the same and is not."""
    judged = not shared or any(Needs.MODEL not in metric.needs for metric in shared)
    yield from _different(a, b, FORBIDDING if judged else ())
    if judged:
        yield from _different(a, b, [field for field in SHOWN if all(_get(side, field) for side in (a, b))])
    if judged and all(_get(document, "pictures.generated") is not None for document in (a, b)):
        yield from _different(a, b, CAPTIONS)
    if any(Needs.REFERENCE in metric.needs for metric in shared):
        identity = (CONTENT,) if all(_get(side, f"reference.{CONTENT}") for side in (a, b)) else ("source",)
        yield from _different(a, b, [f"reference.{key}" for key in (*identity, *LOOK)])
    if any(Needs.MATCHER in metric.needs for metric in shared):
        yield from _different(a, b, ["matcher.hash"])
    for metric in shared:
        yield from _different(a, b, [f"scores.{metric.key}.{key}" for key in metric.settings])


def _listed(a: Mapping[str, Any], b: Mapping[str, Any], shared: list[Metric]) -> Iterator[Difference]:
    for difference in _different(a, b, LISTED):
        yield from _narrowed(difference)
    compared = [metric.key for metric in shared]
    for key in dict.fromkeys((*a["scores"], *b["scores"])):
        if key not in compared:
            told = [f"{key} (not compared)" if key in side["scores"] else None for side in (a, b)]
            yield Difference("scores", *told)


def _narrowed(difference: Difference) -> Iterator[Difference]:
    """The entries that differ, of two tables; the items that only one has, of two lists."""
    a, b = difference.a, difference.b
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in dict.fromkeys((*a, *b)):
            if a.get(key) != b.get(key):
                yield Difference(f"{difference.field}.{key}", a.get(key), b.get(key))
    elif isinstance(a, tuple) and isinstance(b, tuple):
        only_a, only_b = [item for item in a if item not in b], [item for item in b if item not in a]
        yield Difference(difference.field, only_a or None, only_b or None)
    else:
        yield difference


def _different(a: Mapping[str, Any], b: Mapping[str, Any], fields: Iterable[str]) -> Iterator[Difference]:
    for field in fields:
        ours, theirs = _get(a, field), _get(b, field)
        if ours != theirs:
            yield Difference(field, ours, theirs)


def _score_differences(metric: Metric, a: Passport, b: Passport) -> Iterator[ScoreDifference]:
    for key in metric.values:
        values: list[Any] = [_get(side.scores[metric.key], key) for side in (a, b)]
        if None in values:
            continue
        detail = "" if key == metric.values[0] else ", " + key.replace(".", " ").replace("_", " ")
        noise: list[Any] = [None, None]
        if metric.noise and key == metric.values[0]:
            noise = [_get(side.scores[metric.key], metric.noise) for side in (a, b)]
        yield ScoreDifference(f"{metric.key}.{key}", metric.label + detail, *values, *noise)


def _get(document: object, field: str) -> object:
    """The value at a dotted path; None where there is none."""
    return look_up(document, *field.split("."))


def _with_noise(value: float, noise: float | None) -> str:
    return f"{value:.4g}" if noise is None else f"{value:.4g} +- {noise:.2g}"
