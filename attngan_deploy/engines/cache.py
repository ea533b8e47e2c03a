"""Compiled engines, kept in a folder between runs: a file and a JSON sidecar that says what it was made from.

Nothing of the cache is used before its sidecar was compared with what is wanted, and its file with the sidecar's hash.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from attngan_deploy.errors import EngineError, OutputError
from attngan_deploy.system.cache import CACHE_VARIABLE, cache_folder
from attngan_deploy.system.files import read_json, sha256_of, write_atomically

SCHEMA_VERSION = 1
SUFFIX, SIDECAR = ".engine", ".json"


@dataclass(frozen=True)
class EngineKey:
    """What decides a compiled engine: one that differs in anything is another engine."""

    graph: str  # SHA-256 of the ONNX file it was made from (`sha256_of`)
    backend: str
    version: str  # the backend's version
    device: str  # what it runs on, e.g. "sm89" or "cpu"
    precision: str
    profile: str = ""  # shapes it was made for, in words; "" where the backend knows no such thing

    @property
    def name(self) -> str:
        """File name without suffix: readable, and different for every key."""
        digest = hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()
        return f"{self.backend}-{as_file_name(self.device)}-{self.precision}-{digest[:16]}"


@dataclass(frozen=True)
class CachedEngine:
    """A compiled engine in the cache."""

    path: Path  # its file; the sidecar stands beside it
    key: EngineKey
    bytes: int
    sha256: str
    seconds: float  # how long building it took
    # anything else its builder wants to remember, such as the bundle's name
    facts: Mapping[str, Any] = field(default_factory=dict)


def as_file_name(text: str) -> str:
    """Letters and digits of a text, with "-" for everything else."""
    return "".join(letter if letter.isalnum() else "-" for letter in text)


def find_engine(key: EngineKey, folder: Path | None = None) -> CachedEngine | None:
    """The engine of this key, checked as by `read_engine`; None when there is none. No folder is `cache_folder()`."""
    path = (cache_folder() if folder is None else folder) / f"{key.name}{SUFFIX}"
    if not path.with_suffix(SIDECAR).is_file() or not path.is_file():
        return None
    return read_engine(path, key)


def read_engine(path: Path, wanted: EngineKey | None = None) -> CachedEngine:
    """Read an engine's sidecar and compare the engine with it, and its key with the one that is wanted, if any.

    Raises:
        EngineError: no sidecar, a damaged one, an engine that differs from it, or one that differs from `wanted`.
    """
    entry = _read_sidecar(path)
    if wanted is not None and entry.key != wanted:
        found, expected = asdict(entry.key), asdict(wanted)
        differs = [name for name in expected if found[name] != expected[name]]
        raise EngineError(
            f"engine {path} was made for another {' and '.join(differs)}",
            found=", ".join(str(found[name]) for name in differs),
            expected=", ".join(str(expected[name]) for name in differs),
        )
    try:
        size, found_hash = path.stat().st_size, sha256_of(path)
    except OSError as error:
        raise _damaged(path, f"it can't be read: {error}") from error
    if size != entry.bytes:
        raise _damaged(path, f"it has {size} bytes instead of {entry.bytes}")
    if found_hash != entry.sha256:
        raise _damaged(path, f"its hash is {found_hash[:12]}, not {entry.sha256[:12]}")
    return entry


def make_cache(folder: Path | None = None) -> None:
    """Make a cache folder before an engine is built for minutes; raise OutputError where it can't be written."""
    folder = cache_folder() if folder is None else folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from error


def store_engine(
    key: EngineKey,
    data: bytes | memoryview,
    seconds: float,
    folder: Path | None = None,
    facts: Mapping[str, Any] | None = None,
) -> CachedEngine:
    """Write an engine that took `seconds` to build, in the place of one of the same key; raises as `make_cache`."""
    folder = cache_folder() if folder is None else folder
    path, content = folder / f"{key.name}{SUFFIX}", bytes(data)
    make_cache(folder)
    _write(path, content)
    digest = hashlib.sha256(content).hexdigest()
    return store_facts(CachedEngine(path, key, len(content), digest, round(seconds, 3)), facts or {})


def store_facts(entry: CachedEngine, facts: Mapping[str, Any]) -> CachedEngine:
    """Write an engine's sidecar with these facts added, as `store_engine` does; returns the entry that it now is."""
    entry = replace(entry, facts={**entry.facts, **facts})
    sidecar = {"schema": SCHEMA_VERSION, **{name: value for name, value in asdict(entry).items() if name != "path"}}
    _write(entry.path.with_suffix(SIDECAR), json.dumps(sidecar, indent=2) + "\n")
    return entry


def cached_engines(folder: Path | None = None) -> list[CachedEngine]:
    """Every engine of a cache whose sidecar can be read, sorted by name; the files themselves are not hashed."""
    entries = []
    for path in sorted((cache_folder() if folder is None else folder).glob(f"*{SUFFIX}")):
        try:
            entries.append(_read_sidecar(path))
        except EngineError:
            continue  # it is never used either: `find_engine` refuses it with its reason
    return entries


def _read_sidecar(path: Path) -> CachedEngine:
    try:
        sidecar = read_json(path.with_suffix(SIDECAR))
        if sidecar.pop("schema") != SCHEMA_VERSION:
            raise ValueError("it is of another version of this program")
        entry = CachedEngine(path, EngineKey(**sidecar.pop("key")), **sidecar)
    except FileNotFoundError as error:
        raise _damaged(path, "it has no sidecar") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"its sidecar can't be read: {error}") from error
    if type(entry.bytes) is not int or not isinstance(entry.sha256, str):
        raise _damaged(path, "its sidecar can't be read: it has no bytes and sha256")
    return entry


def _write(path: Path, content: bytes | str) -> None:
    try:
        write_atomically(path, content)
    except OSError as error:
        raise _unwritable(path.parent, error) from error


def _unwritable(folder: Path, error: OSError) -> OutputError:
    in_cache = folder == cache_folder()
    next_step = f"set {CACHE_VARIABLE} to a folder of yours" if in_cache else "choose another folder for engines"
    return OutputError(f"the engine can't be written to {folder}: {error.strerror}", next_step=next_step)


def _damaged(path: Path, why: str) -> EngineError:
    return EngineError(f"engine {path} is damaged: {why}", next_step=f"rm {path}")
