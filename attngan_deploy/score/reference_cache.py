"""What a judge made of reference pictures, kept between runs by the content of the pictures, or by another program.

What can't be read is made anew, and the note of the outputs says so.
"""

import hashlib
import io
import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.engines.golden import UNREADABLE as NO_ARRAYS
from attngan_deploy.errors import OutputError, ScoreError
from attngan_deploy.media.decoder import DECODER
from attngan_deploy.score.judge import Judge
from attngan_deploy.score.measure import Progress, broken_picture, measure
from attngan_deploy.score.metrics.metric import Needs
from attngan_deploy.score.metrics.registry import METRICS, find_metrics, needs_of
from attngan_deploy.score.outputs import FeatureStatistics, JudgeOutputs, ScoreOptions, no_features
from attngan_deploy.score.passport import PictureFacts
from attngan_deploy.score.pictures import PictureFiles, find_pictures
from attngan_deploy.score.preprocessing import one_line
from attngan_deploy.system.cache import CACHE_VARIABLE, cache_folder
from attngan_deploy.system.files import open_file, sha256_of, write_atomically
from attngan_deploy.system.records import decode
from attngan_deploy.system.signals import interruptibly

SCHEMA_VERSION = 1
FOLDER = "reference"
REAL_PICTURES = "--reference with a folder or a .tar of real pictures"
STATISTICS, MU, SIGMA = ".npz", "mu", "sigma"  # of features, as pytorch-fid and others keep them
MEAN = re.compile(r"(.+[_.])?(mu|mean|m)", re.IGNORECASE)  # what others call the two
COVARIANCE = re.compile(r"(.+[_.])?(sigma|covariance|cov|s)", re.IGNORECASE)
ROUNDING = 1e-3  # of the largest value, which float16 needs
LARGEST_STATISTICS = 512 * 2**20  # bytes of the two, unpacked; 2048 features have 33 MB
UNREADABLE = (ScoreError, AttributeError, *NO_ARRAYS)


def measure_reference(
    path: Path, judge: Judge, options: ScoreOptions, progress: Progress | None = None, folder: Path | None = None
) -> JudgeOutputs:
    """What the judge makes of the pictures of a folder or tar: kept from an earlier run, or found out and kept.

    An `.npz` holds what another program kept of it.

    Args:
        options: how; features are kept where one of its metrics needs them.
        folder: the cache; None for "reference" in `cache_folder()`.
    """
    if path.suffix.lower() == STATISTICS:
        return _statistics_of_others(path, judge, options)
    distances = {metric.name: metric.needs for metric in METRICS.values() if Needs.REFERENCE in metric.needs}
    wanted = [name for name, needs in distances.items() if name in options.metrics or Needs.STATISTICS in needs]
    files = find_pictures(path, instead=REAL_PICTURES)
    key = _key(files, judge, options)
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    file = (cache_folder() / FOLDER if folder is None else folder) / f"{digest[:32]}.npz"
    note, kept = "", None
    if file.is_file():
        try:
            kept = _read(file, key, features=Needs.FEATURES in needs_of(wanted))
        except UNREADABLE as error:
            note = f"the kept statistics of the reference were broken ({one_line(error)}) and were made anew: {file}"
    if kept is not None:
        if options.strict and kept.facts.skipped:
            raise broken_picture(kept.facts.skipped[0])
        return replace(kept, facts=replace(kept.facts, source=files.source, other_files=tuple(files.other_files)))
    outputs = measure(files, judge, replace(options, metrics=wanted), progress)
    facts = replace(outputs.facts, sha256=key["content"])
    reference = JudgeOutputs(facts, statistics=outputs.statistics, features=outputs.features, note=note)
    try:
        _write(file, key, reference)
    except (OSError, OutputError) as error:
        return replace(reference, note=f"the statistics of the reference can't be kept ({error}): set {CACHE_VARIABLE}")
    return reference


def _key(files: PictureFiles, judge: Judge, options: ScoreOptions) -> dict[str, Any]:
    """All that decides the features and their order; no path, so that a copy of the pictures is known again."""
    named = [*((files.name_of(path), path) for path in files.loose), *((path.name, path) for path in files.shards)]
    facts = judge.engine.facts
    content = [[name if len(named) > 1 else "", _hash(path)] for name, path in named]
    return {
        "schema": SCHEMA_VERSION,
        "content": hashlib.sha256(json.dumps(content).encode()).hexdigest(),
        "order": [files.order, sorted((files.places or {}).items())],
        "judge": [judge.hash, judge.size, judge.resize],
        "engine": [facts.backend, facts.version, facts.precision],
        "decoder": DECODER,
        "crop": options.crop,
        "shuffle_seed": options.shuffle_seed,
    }


def _hash(path: Path) -> str:
    """SHA-256 of a file; "" of what can't be read, such as a pipe, which is told where it is measured."""
    try:
        return sha256_of(path)
    except (OSError, ValueError):
        return ""


def _statistics_of_others(path: Path, judge: Judge, options: ScoreOptions) -> JudgeOutputs:
    """Mean `mu` [F] and covariance `sigma` [F, F] of features that another program kept in an `.npz`.

    Raises:
        ScoreError: none there, of another width than the judge's features, or a metric that needs every picture's.
    """
    if needing := [
        each.name for each in find_metrics(options.metrics) if Needs.REFERENCE | Needs.FEATURES in each.needs
    ]:
        raise ScoreError(
            f"{needing[0]} needs the features of every reference picture, which {path} does not hold",
            next_step="--metric fid, or --reference with a folder or a .tar of the pictures",
        )
    names: list[str] = []
    try:
        with open_file(path) as stream, np.load(stream, allow_pickle=False) as arrays:
            names = arrays.files
            if not {MU, SIGMA} <= {*names}:
                raise ValueError(", ".join(names[:5]) or "nothing")
            if sum(arrays.zip.getinfo(f"{name}.npy").file_size for name in (MU, SIGMA)) > LARGEST_STATISTICS:
                raise ValueError(f"more than {LARGEST_STATISTICS:,} bytes")
            mean, covariance = (_real(name, arrays[name]) for name in (MU, SIGMA))
        if mean.ndim != 1:
            raise ValueError(f"'{MU}' of shape {list(mean.shape)}")
        statistics = FeatureStatistics.from_covariance(mean, covariance)
    except UNREADABLE as error:
        raise _no_statistics(path, one_line(error), _named(path, names)) from error
    width = judge.look(np.zeros((1, judge.size, judge.size, 3), np.uint8))[1].shape[1]
    if statistics.dimensions != width:
        raise ScoreError(
            f"{path} holds the features of another judge",
            found=f"{statistics.dimensions} features",
            expected=f"the {width} of judge {judge.name}",
            next_step="--judge with the network that made them, or --reference with a folder of the real pictures",
        )
    if wrong := _why_no_covariance(statistics.covariance):
        raise _no_statistics(path, f"'{SIGMA}' is no covariance: {wrong}")
    note = f"statistics of another program ({MU}, {SIGMA}): which network and pictures made them is not known"
    return JudgeOutputs(PictureFacts(path.name, sha256=sha256_of(path), notes=(note,)), statistics=statistics)


def _named(path: Path, names: list[str]) -> str:
    """The line that writes the two under their names, where others of an `.npz` are plainly theirs."""
    means, covariances = ([name for name in names if pattern.fullmatch(name)] for pattern in (MEAN, COVARIANCE))
    if len(means) != 1 or len(covariances) != 1:
        return ""
    new = path.with_name(f"{path.stem}-named{path.suffix}")
    load = f"a = np.load({str(path)!r}); np.savez({str(new)!r}, {MU}=a[{means[0]!r}], {SIGMA}=a[{covariances[0]!r}])"
    return f"write them under these names: python -c {quote(f'import numpy as np; {load}')}"


def _no_statistics(path: Path, found: str, next_step: str = "") -> ScoreError:
    return ScoreError(
        f"{path} holds no statistics of features",
        found=found,
        expected=f"'{MU}' [F] and '{SIGMA}' [F, F] of finite numbers, as pytorch-fid writes them",
        next_step=next_step or "--reference with a folder or a .tar of the real pictures",
    )


def _real(name: str, array: NDArray[Any]) -> NDArray[np.float64]:
    if array.dtype.kind not in "fiu":
        raise ValueError(f"'{name}' holds {array.dtype}, no real numbers")
    return np.asarray(array, np.float64)


def _why_no_covariance(matrix: NDArray[np.float64]) -> str:
    """Why a matrix [F, F] is no covariance; "" where it is symmetric and no variance is negative, within rounding."""
    if np.abs(matrix - matrix.T).max(initial=0) > ROUNDING * np.abs(matrix).max(initial=0):
        return "it is not symmetric"
    try:
        variances = interruptibly(lambda: np.linalg.eigvalsh(matrix))
    except np.linalg.LinAlgError as error:
        return str(error)
    if variances.min(initial=0) < -ROUNDING * variances.max(initial=0):
        return f"an eigenvalue is {variances.min():.3g}"
    return ""


def _read(file: Path, key: dict[str, Any], features: bool) -> JudgeOutputs | None:
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
        facts = decode(PictureFacts, json.loads(str(arrays["facts"])))
        return JudgeOutputs(facts, statistics=statistics, features=kept)


def _write(file: Path, key: dict[str, Any], reference: JudgeOutputs) -> None:
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
