"""What a judge made of reference pictures, kept between runs by the content of the pictures.

What can't be read is made anew, and the note of a `Reference` says so.
"""

import hashlib
import io
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.engines.cache import CACHE_VARIABLE, cache_folder
from attngan_deploy.engines.golden import UNREADABLE as NO_ARRAYS
from attngan_deploy.errors import OutputError, ScoreError
from attngan_deploy.score.judge import Judge
from attngan_deploy.score.measure import DISTANCES, Progress, ScoreOptions, broken_picture, measure, no_features
from attngan_deploy.score.metrics.frechet import FeatureStatistics
from attngan_deploy.score.passport import PictureFacts
from attngan_deploy.score.pictures import PictureFiles, find_pictures
from attngan_deploy.system.files import sha256_of, write_atomically

SCHEMA_VERSION = 1
FOLDER = "reference"
UNREADABLE = (ScoreError, AttributeError, *NO_ARRAYS)


@dataclass(frozen=True)
class Reference:
    """Reference pictures, as a judge sees them.

    Attributes:
        facts: what was measured.
        statistics: of the features.
        features: f32 [N, F], where a kernel distance needs them; otherwise empty.
        note: what was wrong with the cache, in a line; "" if nothing.
    """

    facts: PictureFacts
    statistics: FeatureStatistics
    features: NDArray[np.float32] = field(default_factory=no_features)
    note: str = ""


def measure_reference(
    path: Path, judge: Judge, options: ScoreOptions, progress: Progress | None = None, folder: Path | None = None
) -> Reference:
    """What the judge makes of the pictures of a folder or tar: kept from an earlier run, or found out and kept.

    Args:
        options: how; of its metrics, the kernel distance is the one that needs all features.
        folder: the cache; None for "reference" in `cache_folder()`.

    Raises:
        ScoreError, DataError: as `find_pictures` and `measure`.
    """
    files = find_pictures(path)
    key = _key(files, judge, options)
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    file = (cache_folder() / FOLDER if folder is None else folder) / f"{digest[:32]}.npz"
    note, kept = "", None
    if file.is_file():
        try:
            kept = _read(file, key, features="kid" in options.metrics)
        except UNREADABLE as error:
            note = f"the kept statistics of the reference were broken ({_short(error)}) and were made anew: {file}"
    if kept is not None:
        if options.strict and kept.facts.skipped:
            raise broken_picture(kept.facts.skipped[0])
        return replace(kept, facts=replace(kept.facts, source=files.source, other_files=files.other_files))
    wanted = ("fid", *(name for name in DISTANCES if name in options.metrics))
    measured = measure(files, judge, replace(options, metrics=wanted), progress)
    facts = replace(measured.facts, sha256=key["content"])
    reference = Reference(facts, measured.statistics, measured.features, note)
    try:
        _write(file, key, reference)
    except (OSError, OutputError) as error:
        return replace(reference, note=f"the statistics of the reference can't be kept ({error}): set {CACHE_VARIABLE}")
    return reference


def _key(files: PictureFiles, judge: Judge, options: ScoreOptions) -> dict[str, Any]:
    """All that decides the features and their order; no path, so that a copy of the pictures is known again."""
    paths = (*files.loose, *files.shards)
    facts = judge.engine.facts
    content = [[path.name if len(paths) > 1 else "", sha256_of(path)] for path in paths]
    return {
        "schema": SCHEMA_VERSION,
        "content": hashlib.sha256(json.dumps(content).encode()).hexdigest(),
        "order": [files.order, sorted((files.places or {}).items())],
        "judge": [judge.hash, judge.size, judge.resize],
        "engine": [facts.backend, facts.version, facts.precision],
        "crop": options.crop,
        "shuffle_seed": options.shuffle_seed,
    }


def _read(file: Path, key: dict[str, Any], features: bool) -> Reference | None:
    """What is kept there; None where it has no features and they are needed."""
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        if json.loads(str(arrays["key"])) != json.loads(json.dumps(key)):
            raise ValueError("it belongs to other pictures")
        if features and "features" not in arrays:
            return None
        statistics = FeatureStatistics.from_arrays(arrays)
        kept = np.asarray(arrays["features"], np.float32) if features else no_features()
        if features and kept.shape != (statistics.count, statistics.dimensions):
            raise ValueError(f"features of shape {list(kept.shape)}")
        return Reference(PictureFacts(**json.loads(str(arrays["facts"]))), statistics, kept)


def _write(file: Path, key: dict[str, Any], reference: Reference) -> None:
    arrays = {
        **reference.statistics.arrays,
        "key": np.array(json.dumps(key)),
        "facts": np.array(json.dumps(asdict(reference.facts))),
    }
    if len(reference.features):
        arrays["features"] = reference.features
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, stream.getvalue())


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:80] or type(error).__name__
