"""Every metric there is: a new one is a file beside this one and a line here."""

from collections.abc import Iterable
from functools import reduce
from operator import or_

from attngan_deploy.errors import ScoreError
from attngan_deploy.score.metrics import diversity, frechet, inception_score, kernel, r_precision, word_fidelity
from attngan_deploy.score.metrics.metric import Metric, Needs

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
    """The metrics of these names, in the order of tables.

    Raises:
        ScoreError: a name that no metric has.
    """
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
