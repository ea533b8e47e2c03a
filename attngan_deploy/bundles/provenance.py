"""The runs that a model comes from, as a checkpoint and the provenance of a bundle tell of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from attngan_deploy.system.records import JsonObject, look_up

POINT = ("pictures", "hours", "fid")  # what each point of a curve tells


@dataclass(frozen=True)
class TrainingRun:
    """A training run. What nobody told of it is None, or empty."""

    document: JsonObject = field(repr=False)  # all that is told of it
    variant: str  # of its generator
    stages: int | None  # how many it has
    pictures: int | None  # that it saw
    bundle: str | None  # name of the bundle that it is, where the next run began with one
    curve: Sequence[Mapping[str, float]]  # scores on the way, each with "pictures", "hours" and "fid"
    before: Sequence["TrainingRun"]  # the runs that it started from


def read_run(told: object) -> TrainingRun:
    """The run that a checkpoint's description, or a bundle's provenance, tells of; old ones tell of one run before."""
    document = told if isinstance(told, dict) else {}
    before = document.get("started_from") or []
    curve = document.get("curve")
    return TrainingRun(
        document=document,
        variant=str(look_up(document, "generator", "variant") or ""),
        stages=_whole(look_up(document, "generator", "stages")),
        pictures=_whole(document.get("pictures")),
        bundle=None if (bundle := document.get("bundle")) is None else str(look_up(bundle, "name")),
        curve=[point for point in (curve if isinstance(curve, list) else []) if _is_point(point)],
        before=[read_run(each) for each in (before if isinstance(before, list) else [before])],
    )


def _whole(value: object) -> int | None:
    return value if type(value) is int else None


def _is_point(point: object) -> bool:
    return all(isinstance(look_up(point, key), int | float) for key in POINT)
