"""Every metric there is, and scores in a line each: a new metric is a file beside this one and a line here."""

from collections.abc import Iterable
from functools import reduce
from operator import or_

from attngan_deploy.bundles.bundle import Bundle
from attngan_deploy.errors import ScoreError
from attngan_deploy.score.metrics import diversity, frechet, inception_score, kernel, r_precision, word_fidelity
from attngan_deploy.score.metrics.metric import Metric, Needs
from attngan_deploy.score.passport import Passport

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        inception_score.METRIC,
        frechet.METRIC,
        kernel.METRIC,
        r_precision.METRIC,
        diversity.METRIC,
        word_fidelity.METRIC,
    )
}
"""By the name that `--metric` takes, in the order of tables."""


def find_metrics(names: Iterable[str]) -> list[Metric]:
    """The metrics of these names, in the order of tables; a ScoreError for a name that none has."""
    chosen = list(names)
    if unknown := [name for name in chosen if name not in METRICS]:
        raise ScoreError(f"no metric '{', '.join(unknown)}'", expected=" or ".join(METRICS))
    return [metric for metric in METRICS.values() if metric.name in chosen]


def names_that_need(need: Needs) -> list[str]:
    """Names of the metrics that need something."""
    return [metric.name for metric in METRICS.values() if need in metric.needs]


def needs_of(names: Iterable[str]) -> Needs:
    """All that some metrics need together."""
    return reduce(or_, (METRICS[name].needs for name in names), Needs(0))


def describe_metrics() -> str:
    """Names of all metrics and what they need, for the help of an option."""
    reference, captions, model = (
        " and ".join(names_that_need(need)) for need in (Needs.REFERENCE, Needs.CAPTIONS, Needs.MODEL)
    )
    return (
        f"{', '.join(METRICS)}: one, or several with commas. {reference} need --reference; {captions} pictures with "
        f"captions; {model} needs --model."
    )


def describe_scores(bundle: Bundle) -> list[str]:
    """A line for each score in a manifest, with its judge."""
    told = bundle.manifest.told
    accuracy = told("provenance", "held_out_accuracy")
    lines = [f"right on {accuracy:.1%} of held-out real pictures"] if isinstance(accuracy, float) else []
    value, candidates = told("real", "r_precision"), told("real", "candidates")
    if isinstance(value, int | float):
        lines.append(f"R-precision of real pictures {value:.1%}, 1 of {candidates}")
    scores = told("scores")
    return lines + [_describe(document) for document in (scores if isinstance(scores, list) else [])]


def _describe(document: object) -> str:
    try:
        passport = Passport.from_json(document, "it")
    except ScoreError:
        passport = Passport({})
    parts = [text for metric in METRICS.values() if (text := metric.summary_of(passport.scores.get(metric.key, {})))]
    if not parts:
        return f"a score that this version can't read: {document}"[:100]
    if (judge := passport.judge) is None:
        return ", ".join(parts)
    return f"{', '.join(parts)} by judge {judge.name} {judge.hash[:12]} of {passport.pictures.used} pictures"
