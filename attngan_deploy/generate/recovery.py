"""A `run.json` that a power cut emptied: what the pictures beside it say of their run.

Versions that did not wait for the disk could leave such a folder; what it holds still tells whose it is.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from attngan_deploy.generate.manifest import LARGEST_MANIFEST, records_in
from attngan_deploy.generate.run import Run
from attngan_deploy.generate.run_record import DamagedRecordError, EngineRecord, RunRecord
from attngan_deploy.generate.storage import SHARD_NAME, LooseFiles
from attngan_deploy.generate.target import MANIFEST, METADATA, RUN, Target
from attngan_deploy.media.decoder import load_picture
from attngan_deploy.media.images import METADATA_KEY

Records = list[dict[str, Any]]


def recover_record(
    target: Target, run: Run, store: LooseFiles, damage: DamagedRecordError
) -> tuple[RunRecord, dict[str, EngineRecord]]:
    """The record of a folder of which every picture that says its origin is of one run, and those files' engines.

    Raises:
        DamagedRecordError: nothing says its origin, or something is of another run.
    """
    records = {record["file"]: record for record in _in_manifests(target)}
    for file in store.scan().values():
        if file not in records and (told := _told_by(store.read(file))):
            records[file] = told
    engines = {file: EngineRecord.of_picture(record) for file, record in records.items()}
    return _checked(run, list(records.values()), damage), engines


def recover_shared_record(target: Target, run: Run, damage: DamagedRecordError) -> RunRecord:
    """The record of a run in parts, of which every line of a shard says the same; raises as `recover_record`.

    Without any line no shard is done, so that nothing is lost where the run begins again.
    """
    records = list(_in_manifests(target))
    shards = {name.partition(".")[0] for name in target.sizes()} - {
        name.partition(".")[0] for name in (RUN, MANIFEST, METADATA)
    }
    if not records and all(SHARD_NAME.fullmatch(f"{shard}.tar") for shard in shards):
        return run.record
    return _checked(run, records, damage)


def _in_manifests(target: Target) -> Iterator[dict[str, Any]]:
    for name, size in sorted(target.sizes().items()):
        if name.endswith(MANIFEST.rpartition(".")[2]) and size <= LARGEST_MANIFEST:
            with suppress(ValueError):  # no file, or a line without an end: what follows says nothing
                yield from (record for record in records_in(target.lines(name)) if "caption" in record)


def _told_by(picture: bytes) -> dict[str, Any]:
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        told = json.loads(load_picture(picture, pixels=False).info[METADATA_KEY])
        if isinstance(told, dict):
            return told
    return {}


def _checked(run: Run, records: Records, damage: DamagedRecordError) -> RunRecord:
    """The run's record with the engine that the pictures name, where they name one."""
    captions = {record.get("index"): "" for record in records}
    for index, caption in enumerate(run.captions.read()):
        if index in captions:
            captions[index] = caption.text
    if not records or not all(_is_of(run, record, captions) for record in records):
        raise damage
    engines = {EngineRecord.of_picture(record) for record in records}
    return replace(run.record, engine=engines.pop() if len(engines) == 1 else EngineRecord())


def _is_of(run: Run, record: Mapping[str, Any], captions: Mapping[Any, str]) -> bool:
    wanted = (run.seed, run.model_hash, run.shared_noise, captions.get(record.get("index")))
    told = tuple(record.get(key) for key in ("seed", "model_hash", "shared_noise", "caption"))
    return told == wanted and str(record.get("file")).partition("/")[0].endswith(f".{run.file_format}")
