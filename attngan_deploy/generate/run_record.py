"""`run.json`: whose a target is, and on which engine."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from shlex import quote
from typing import Any

from attngan_deploy.engines.request import AUTO, EngineRequest
from attngan_deploy.errors import OutputError
from attngan_deploy.generate.other_captions import compare_captions
from attngan_deploy.generate.target import RUN, Target
from attngan_deploy.media.captions import Captions
from attngan_deploy.system.files import ANOTHER_FOLDER
from attngan_deploy.system.records import decode

RUN_VERSION = 1
SHARDS = "shards"  # layout of a run in parts: a shard's place decides its pictures


@dataclass(frozen=True)
class EngineRecord:
    """An engine that makes pictures, as far as it is known: "" and 0 where nothing says."""

    backend: str = ""
    device: str = ""
    precision: str = ""
    batch_size: int = 0

    @classmethod
    def of_picture(cls, values: object) -> "EngineRecord":
        """What a JSON value says of the engine that made a picture; whatever else it is says nothing."""
        found = values if isinstance(values, Mapping) else {}
        told = {key: found[key] for key in ("backend", "precision") if isinstance(found.get(key), str)}
        return cls(**told)

    def json(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if value}

    @property
    def told_of_picture(self) -> dict[str, str]:
        """What `of_picture` reads again."""
        told = {"backend": self.backend, "precision": self.precision}
        return {key: value for key, value in told.items() if value}


USUAL = {"truncation": 1.0, "best_of": 1, "critic": ""}  # is not written down, as before there was any


def without_usual(told: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of a run or a picture, without what is as `USUAL`."""
    return {key: value for key, value in told.items() if key not in USUAL or value != USUAL[key]}


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What `run.json` holds: whose a folder or a store's place is, and on which engine; fields are those of `Run`."""

    version: int = RUN_VERSION
    # `SHARDS` of a run in parts, else None, as are the number of captions, samples, shard size and column
    layout: str | None = None
    captions: int | None = None
    samples: int | None = None
    shard_size: int | None = None
    captions_sha256: str  # hash of the lines and texts of captions; of a run in parts, of their file
    column: str | None = None  # column of a table as asked for
    seed: int
    shared_noise: bool
    model: str
    model_hash: str
    format: str
    truncation: float = 1.0
    best_of: int = 1
    critic: str = ""
    # what makes its pictures, all of them; of a run that is not in parts, backend and precision
    engine: EngineRecord = EngineRecord()

    @property
    def identity(self) -> dict[str, Any]:
        """All but the engine."""
        left_out = {"engine"} | (set() if self.layout else {"layout", "captions", "samples", "shard_size", "column"})
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in left_out}

    def json(self) -> bytes:
        told = without_usual(self.identity) | {"engine": self.engine.json()}
        return (json.dumps(told, indent=2) + "\n").encode()


class DamagedRecordError(OutputError):
    """A `run.json` that says nothing any more, as a power cut or another program left it."""


def find_record(target: Target, wanted: RunRecord, captions: Captions) -> RunRecord | None:
    """The record of the run that has a target, where that is the one that is wanted; None where the target is free.

    Args:
        captions: those of the run that is wanted, to say in what they differ.

    Raises:
        OutputError: it holds other things, or belongs to another run.
        DamagedRecordError: its `run.json` is damaged, and pictures are there.
    """
    if RUN not in target:
        if target.sizes():
            raise OutputError(
                f"{target.where} holds other files, and no {RUN} of t2i generate", next_step=ANOTHER_FOLDER
            )
        return None
    try:
        found = decode(RunRecord, json.loads(target.read(RUN)))
    except (ValueError, RecursionError) as error:
        if target.is_blank():
            return None
        raise DamagedRecordError(f"{target.where}/{RUN} is damaged ({error})", next_step=ANOTHER_FOLDER) from error
    differences = [key for key, value in wanted.identity.items() if getattr(found, key) != value]
    if not differences and found.layout == wanted.layout:
        return found
    if target.is_blank():
        return None
    if found.layout != wanted.layout:
        kind = "a run in parts" if found.layout else "a run that is not in parts"
        raise OutputError(f"{target.where} belongs to {kind} (--shard, --engine ray)", next_step=ANOTHER_FOLDER)
    kind, there, here = "", "", ""
    if "captions_sha256" in differences:
        kind, there, here = compare_captions(target, captions, found.captions)
        differences = [key for key in differences if key != "captions"]  # their number, which is told with them
    raise OutputError(
        f"{target.where} belongs to another run {kind}".rstrip(),
        found=_shown(found, differences, there, "as it was"),
        expected=_shown(wanted, differences, here, "as it is now"),
        next_step=ANOTHER_FOLDER,
    )


def held_engine(target: Target, record: RunRecord, asked: EngineRequest, batch_size: int | None = None) -> EngineRecord:
    """The engine that a run began with, which makes the rest too.

    Raises:
        OutputError: another one was asked for.
    """
    wanted: dict[str, object] = {**asked.names, "batch_size": batch_size or AUTO}
    wanted = {key: value for key, value in wanted.items() if value != AUTO}
    found = record.engine.json()
    if not asked.allow_fallback and any(found.get(key, value) != value for key, value in wanted.items()):
        raise another_engine(target, found, wanted)
    return record.engine


def another_engine(target: Target, found: Mapping[str, object], wanted: Mapping[str, object]) -> OutputError:
    other = "-".join((target.where.rstrip("/"), *map(str, wanted.values())))
    return OutputError(
        f"{target.where} is a run on another engine, whose pictures may differ in their last bits",
        found=", ".join(f"{key} {value}" for key, value in found.items()),
        expected=", ".join(f"{key} {value}" for key, value in wanted.items()),
        next_step=f"ask for the engine that was found, or for none, to go on; or start another with -o {quote(other)}",
    )


def _shown(record: RunRecord, keys: list[str], captions: str, when: str) -> str:
    """Values of a record; nobody reads a hash."""
    told = {key: f"{key} {str(getattr(record, key))[:16]}" for key in keys}
    if "model_hash" in told:
        told["model_hash"] = f"model {record.model} {when}"
        told.pop("model", None)
    if "captions_sha256" in told:
        told["captions_sha256"] = captions
    return ", ".join(told.values())
