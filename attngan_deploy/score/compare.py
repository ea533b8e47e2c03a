"""Two passports side by side: scores may be compared only where all that moves them is the same."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attngan_deploy.errors import ScoreError
from attngan_deploy.system.files import read_json

VERSIONS = (1, 2)  # of passports that can be read
NEXT_STEP = "t2i score ... --json > passport.json"
FORBIDDING = (  # what must be the same for every score of pictures by a judge
    "judge.hash",
    "judge.classes",
    "judge.size",
    "pictures.used",
    "pictures.width",
    "pictures.height",
    "pictures.crop",
    "pictures.resize",
    "pictures.order",
    "pictures.shuffle_seed",
)
CAPTIONS = ("pictures.generated.captions", "pictures.generated.captions_sha256")  # where both say them
LARGEST = 1e15  # no score is larger; infinities and NaN are none
SHOWN = ("pictures.captions_sha256",)  # where both have captions
REFERENCE = ("used", "width", "height", "crop", "resize")
CONTENT = "sha256"  # of a reference set; its name stands in where a passport has no hash
LISTED = (  # what is told, and forbids nothing
    "passport",
    "version",
    "judge.name",
    "judge.engine",
    "pictures.source",
    "pictures.found",
    "pictures.formats",
    "pictures.generated",
    "reference.source",
    "matcher.name",
    "warnings",
)


@dataclass(frozen=True)
class Metric:
    """What a passport says of a score.

    Attributes:
        label: its name for people.
        values: keys of its numbers, with dots where they lie deeper.
        noise: key of the deviation of the first of them, or "".
        settings: keys of what must be the same in both.
        has_reference: whether it measures against a reference set.
        has_matcher: whether a matcher made it.
        may_be_none: whether a number may be null, where there was nothing to compute it from.
        has_judge: whether a judge made it of the pictures that the passport describes.
    """

    label: str
    values: tuple[str, ...]
    noise: str = ""
    settings: tuple[str, ...] = ()
    has_reference: bool = False
    has_matcher: bool = False
    may_be_none: bool = False
    has_judge: bool = True


METRICS = {
    "inception_score": Metric("Inception Score", ("mean",), "deviation", ("splits", "ddof", "pictures_per_split")),
    "frechet_distance": Metric("Frechet distance", ("value",), has_reference=True),
    "kernel_distance": Metric(
        "kernel distance", ("mean",), "deviation", ("ddof", "subsets", "subset_size", "seed"), has_reference=True
    ),
    "r_precision": Metric(
        "R-precision",
        ("value",),
        "deviation",
        ("candidates", "asked", "wrong_captions", "distinct_captions", "seed"),
        has_matcher=True,
    ),
    "diversity": Metric(
        "diversity",
        ("value", "near_duplicates"),
        "standard_error",
        ("threshold", "captions", "pictures"),
        may_be_none=True,
    ),
    "word_fidelity": Metric(
        "word fidelity",
        ("fidelity", "accuracy", "leakage"),
        "fidelity_error",
        ("captions", "seeds", "region", "chance"),
        may_be_none=True,
        has_judge=False,
    ),
}


@dataclass(frozen=True)
class Difference:
    """A field that is not the same in two passports, with both values; None where it is absent."""

    field: str
    a: Any
    b: Any


@dataclass(frozen=True)
class ScoreDifference:
    """One score of two sets of pictures.

    Attributes:
        score: its key in both passports, e.g. "inception_score.mean".
        label: its name for people.
        a, b: its values.
        noise_a, noise_b: their deviations, over splits or subsets, or the standard error of a share; None if unknown.
    """

    score: str
    label: str
    a: float
    b: float
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
    """Scores of two sets of pictures that were measured alike.

    Attributes:
        a, b: names of the sets.
        scores: what both passports have.
        differences: what is not the same, and forbids nothing.
    """

    a: str
    b: str
    scores: list[ScoreDifference]
    differences: list[Difference]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "a": self.a,
            "b": self.b,
            "scores": [score.to_json() for score in self.scores],
            "differences": [asdict(difference) for difference in self.differences],
        }

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
        return [f"{each.field}: {_shown(each.a)} and {_shown(each.b)}" for each in self.differences]


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> Comparison:
    """Compare the scores of two passports, as `t2i score --json` prints them.

    Raises:
        ScoreError: a passport that can't be read, no score in common, or anything else that moves scores than the
            pictures themselves; all such fields are named.
    """
    _check_passport(a, "the first passport")
    _check_passport(b, "the second passport")
    shared = [name for name in METRICS if name in a["scores"] and name in b["scores"]]
    unlike = list(_unlike(a, b, shared))
    if unlike:
        raise ScoreError(
            f"these scores can't be compared: {len(unlike)} that must be the same "
            f"{'differs' if len(unlike) == 1 else 'differ'}",
            found=", ".join(f"{each.field} {_shown(each.b)}" for each in unlike),
            expected=", ".join(f"{each.field} {_shown(each.a)}" for each in unlike) + ", as in the first",
            next_step="score both alike",
        )
    if not shared:
        raise ScoreError(
            "these passports have no score in common",
            found=", ".join(b["scores"]),
            expected=", ".join(a["scores"]),
            next_step="score both with one --metric",
        )
    scores = [difference for name in shared for difference in _score_differences(name, a, b)]
    return Comparison(a["pictures"]["source"], b["pictures"]["source"], scores, list(_listed(a, b, shared)))


def read_passport(path: Path) -> dict[str, Any]:
    """Read what `t2i score --json` printed into a file.

    Raises:
        ScoreError: it can't be read, or is no passport.
    """
    try:
        passport = read_json(path)
    except OSError as error:
        raise ScoreError(f"{path} can't be read: {error.strerror}", next_step=NEXT_STEP) from error
    except ValueError as error:
        raise ScoreError(f"{path} is no passport: it is not JSON", next_step=NEXT_STEP) from error
    _check_passport(passport, str(path))
    return dict(passport)


def _check_passport(passport: Any, where: str) -> None:
    if not isinstance(passport, Mapping) or "passport" not in passport:
        raise ScoreError(
            f"{where} is no passport of a score",
            found=f"the fields {', '.join(map(str, passport))}"[:80]
            if isinstance(passport, Mapping)
            else _shown(passport),
            expected='"passport", "scores", "judge" and "pictures"',
            next_step=NEXT_STEP,
        )
    version = passport["passport"]
    if type(version) is not int or version not in VERSIONS:
        raise ScoreError(
            f"{where} is of an unknown version",
            found=_shown(version),
            expected=" or ".join(map(str, VERSIONS)),
            next_step="pip install --upgrade attngan-deploy, or score again",
        )
    if not isinstance(passport.get("scores"), Mapping):
        raise _broken(where, "scores", passport.get("scores"))
    wanted = {"pictures.source": str, "pictures.used": int, "pictures.resize": str, "pictures.order": str}
    if any(name not in METRICS or METRICS[name].has_judge for name in passport["scores"]):
        wanted |= {"judge.hash": str, "judge.size": int}
    for field, kind in wanted.items():
        value = _get(passport, field)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise _broken(where, field, value)
    for name, facts in passport["scores"].items():
        if not isinstance(facts, Mapping):
            raise _broken(where, f"scores.{name}", facts)
        metric = METRICS.get(name)
        if metric is None:
            continue
        for key in (*metric.values, *([metric.noise] if metric.noise else [])):
            value = _get(facts, key)
            if value is None and metric.may_be_none:
                continue
            if type(value) not in (int, float) or not abs(value) < LARGEST:
                raise _broken(where, f"scores.{name}.{key}", value)
        if metric.has_reference and not isinstance(passport.get("reference"), Mapping):
            raise _broken(where, "reference", passport.get("reference"))
        if metric.has_matcher and not isinstance(_get(passport, "matcher.hash"), str):
            raise _broken(where, "matcher.hash", _get(passport, "matcher.hash"))


def _unlike(a: Mapping[str, Any], b: Mapping[str, Any], shared: list[str]) -> Iterator[Difference]:
    """Every field that must be the same and is not."""
    judged = not shared or any(METRICS[name].has_judge for name in shared)
    yield from _different(a, b, FORBIDDING if judged else ())
    if judged and all(_get(passport, SHOWN[0]) for passport in (a, b)):
        yield from _different(a, b, SHOWN)
    if judged and all(_get(passport, "pictures.generated") is not None for passport in (a, b)):
        yield from _different(a, b, CAPTIONS)
    if any(METRICS[name].has_reference for name in shared):
        identity = (CONTENT,) if all(_get(side, f"reference.{CONTENT}") for side in (a, b)) else ("source",)
        yield from _different(a, b, [f"reference.{key}" for key in (*identity, *REFERENCE)])
    if any(METRICS[name].has_matcher for name in shared):
        yield from _different(a, b, ["matcher.hash"])
    for name in shared:
        yield from _different(a, b, [f"scores.{name}.{key}" for key in METRICS[name].settings])


def _listed(a: Mapping[str, Any], b: Mapping[str, Any], shared: list[str]) -> Iterator[Difference]:
    for difference in _different(a, b, LISTED):
        yield from _narrowed(difference)
    for name in dict.fromkeys((*a["scores"], *b["scores"])):
        if name not in shared:
            told = [f"{name} (not compared)" if name in side["scores"] else None for side in (a, b)]
            yield Difference("scores", *told)


def _narrowed(difference: Difference) -> Iterator[Difference]:
    """The entries that differ, of two tables; the items that only one has, of two lists."""
    a, b = difference.a, difference.b
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in dict.fromkeys((*a, *b)):
            if a.get(key) != b.get(key):
                yield Difference(f"{difference.field}.{key}", a.get(key), b.get(key))
    elif isinstance(a, list) and isinstance(b, list):
        only_a, only_b = [item for item in a if item not in b], [item for item in b if item not in a]
        yield Difference(difference.field, only_a or None, only_b or None)
    else:
        yield difference


def _different(a: Mapping[str, Any], b: Mapping[str, Any], fields: Any) -> Iterator[Difference]:
    for field in fields:
        ours, theirs = _get(a, field), _get(b, field)
        if ours != theirs:
            yield Difference(field, ours, theirs)


def _score_differences(name: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[ScoreDifference]:
    metric = METRICS[name]
    for key in metric.values:
        values = [_get(side["scores"][name], key) for side in (a, b)]
        if None in values:
            continue
        detail = "" if key == metric.values[0] else ", " + key.replace(".", " ").replace("_", " ")
        noise: list[float | None] = [None, None]
        if metric.noise and key == metric.values[0]:
            noise = [_get(side["scores"][name], metric.noise) for side in (a, b)]
        yield ScoreDifference(f"{name}.{key}", metric.label + detail, *values, *noise)


def _get(mapping: Mapping[str, Any], field: str) -> Any:
    """The value at a dotted path; None where there is none."""
    value: Any = mapping
    for key in field.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _broken(where: str, field: str, value: Any) -> ScoreError:
    return ScoreError(
        f"{where} is broken: its {field} can't be used", found=_shown(value), next_step="score again with --json"
    )


def _with_noise(value: float, noise: float | None) -> str:
    return f"{value:.4g}" if noise is None else f"{value:.4g} +- {noise:.2g}"


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, str):
        return value[:12] if len(value) == 64 else value[:80]
    return json.dumps(value, default=str)[:120]
