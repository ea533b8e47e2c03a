"""Scores that a bundle's manifest has, a line each."""

from attngan_deploy.bundles.bundle import Bundle
from attngan_deploy.errors import ScoreError
from attngan_deploy.score.metrics.registry import METRICS
from attngan_deploy.score.passport import Passport


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
