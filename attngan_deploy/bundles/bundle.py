"""Bundles: folders that run anywhere. Finding, listing and checking them, and writing their manifest.

`bundle.json` names every file with its size and SHA-256; nothing of a bundle is used before it was compared with that.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attngan_deploy.bundles.graph_file import check_alone
from attngan_deploy.bundles.manifest import (
    GRAPHS,
    MANIFEST,
    TEXT_TO_IMAGE,
    Graph,
    Manifest,
    StoredFile,
    damaged,
    decode_manifest,
    schema_of,
)
from attngan_deploy.errors import BundleError, OutputError
from attngan_deploy.system.files import atomic_folder, entries, inside, is_part, read_json, sha256_of, write_atomically
from attngan_deploy.system.os_errors import advice, reason
from attngan_deploy.system.records import JsonObject, look_up

DEFAULT_MODEL = "base"
MODELS_VARIABLE = "T2I_MODELS"  # folders of bundles, separated as in PATH, looked at before those that ship
LIST_MODELS = "t2i models"
ORIGIN = ("variant", "network", "tensors", "weights_dtype")  # fields of a manifest that tell bundles apart
# and of its provenance: of the run, or of the files, that it was made from
RUN = ("recipe", "data", "started_from", "damsm", "judge", "imagenet_weights", "imported", "sha256")
SWAPS = 3  # how often a bundle may be replaced while it is being opened

Stamp = tuple[int, ...]  # device, number, size and time of a file


@dataclass(frozen=True)
class Bundle:
    """An opened bundle."""

    folder: Path  # where it is
    manifest: Manifest  # the contents of `bundle.json`
    # of each file that was compared with the manifest, what tells whether it is still the same one
    stamps: Mapping[str, Stamp] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """Its own name, e.g. "att1"."""
        return self.manifest.name

    @property
    def kind(self) -> str:
        """ "text-to-image", "judge" or "matcher"."""
        return self.manifest.kind

    @cached_property
    def hash(self) -> str:
        """SHA-256 of what decides the outputs (graphs, vocabulary, golden cases), by their names and hashes."""
        decisive = {graph.file for graph in self.manifest.graphs.values()}
        decisive |= {file for file in (self.manifest.vocabulary, self.manifest.golden) if file}
        table = [[name, self.manifest.files[name].sha256] for name in sorted(decisive)]
        return hashlib.sha256(json.dumps(table).encode()).hexdigest()

    @property
    def bytes(self) -> int:
        """Size of all its files."""
        return sum(file.bytes for file in self.manifest.files.values())

    @property
    def vocabulary(self) -> Path:
        """Its file of words; a BundleError where it reads none."""
        return self.path(self.manifest.vocabulary or "")

    def check_unchanged(self) -> None:
        """A BundleError where a file was replaced since the bundle was opened, as by an export into its folder."""
        for file, stamp in self.stamps.items():
            if _stamp(self.folder / file) != stamp:
                raise BundleError(
                    f"bundle {self.folder} was replaced while it was being loaded: {file} is another file now",
                    next_step="the same command again",
                )

    def path(self, file: str) -> Path:
        """Path of one of its files; a BundleError where the manifest has no such file."""
        if file not in self.manifest.files:
            raise BundleError(
                f"bundle {self.folder} has no file '{file}'",
                found=", ".join(self.manifest.files),
                next_step="install or export it again",
            )
        return self.folder / file

    def graph(self, key: str) -> Graph:
        """One of its graphs; a BundleError where there is no such graph."""
        if key not in self.manifest.graphs:
            raise BundleError(
                f"bundle {self.folder} has no graph '{key}'",
                found=", ".join(self.manifest.graphs),
                next_step="install or export it again",
            )
        return self.manifest.graphs[key]

    def precisions(self, key: str) -> tuple[str, ...]:
        """Precisions that a graph is stored in: "fp32" first, then e.g. "fp16" or "int8"."""
        return ("fp32", *self.graph(key).precisions)

    def graph_path(self, key: str, precision: str = "fp32") -> Path:
        """File of a graph that computes in `precision`; all of them have the same float32 inputs and outputs.

        Raises:
            BundleError: there is no such graph, or none of this precision.
        """
        graph = self.graph(key)
        if precision == "fp32":
            return self.path(graph.file)
        if precision not in graph.precisions:
            raise BundleError(
                f"bundle {self.folder} has no graph '{key}' in {precision}",
                found=", ".join(self.precisions(key)),
                next_step=f"t2i export --bundle {self.folder} --precision {precision} -o {self.name}-{precision}",
            )
        return self.path(graph.precisions[precision].file)


def open_bundle(name_or_folder: str | Path, kind: str | None = TEXT_TO_IMAGE) -> Bundle:
    """Find a bundle by name or folder, and check every file against its manifest.

    Args:
        name_or_folder: the name of an installed bundle, or a folder.
        kind: what it must be; None for any.

    Raises:
        BundleError: not found, of another kind, made for a newer schema, or with a file missing, cut short or changed.
    """
    folder = _resolve(name_or_folder)
    for _ in range(SWAPS):
        before = _stamp(folder / MANIFEST)
        try:
            return _checked(read_manifest(folder), kind)
        except BundleError:
            if _stamp(folder / MANIFEST) == before:
                raise  # else it was replaced by another one meanwhile, which may be whole
    return _checked(read_manifest(folder), kind)


def _checked(bundle: Bundle, kind: str | None) -> Bundle:
    """The bundle with stamps of its files, every one of which is as the manifest says."""
    if kind is not None and bundle.kind != kind:
        raise BundleError(
            f"{bundle.folder} is not a {kind} bundle",
            found=f"kind '{bundle.kind}'",
            expected=f"'{kind}'",
            next_step=LIST_MODELS,
        )
    stamps = {MANIFEST: _stamp(bundle.folder / MANIFEST)}
    for file, entry in bundle.manifest.files.items():
        stamps[file] = _stamp(bundle.folder / file)
        _check_file(bundle.folder, file, entry)
    for key in bundle.manifest.graphs:
        for precision in bundle.precisions(key):
            check_alone(bundle.graph_path(key, precision))
    _check_vocabulary(bundle)
    checked = replace(bundle, stamps=stamps)
    checked.check_unchanged()
    return checked


def _stamp(path: Path) -> Stamp:
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def bundle_folders() -> dict[str, Path]:
    """Folders with a `bundle.json` in T2I_MODELS and among those that ship, by name; the first of a name wins."""
    roots = [Path(root) for root in os.environ.get(MODELS_VARIABLE, "").split(os.pathsep) if root]
    shipped = find_spec("attngan_deploy.models")
    roots += [Path(place) for place in (shipped.submodule_search_locations if shipped else None) or []]
    found: dict[str, Path] = {}
    for root in roots:
        for folder in sorted(root.iterdir()) if root.is_dir() else []:
            if (folder / MANIFEST).is_file() and not is_part(folder):
                found.setdefault(folder.name, folder)
    return found


def missing_roots() -> list[str]:
    """What T2I_MODELS names that is no folder."""
    roots = os.environ.get(MODELS_VARIABLE, "").split(os.pathsep)
    return [root for root in roots if root and not Path(root).is_dir()]


def check_replaceable(folder: Path, kind: str, made: JsonObject | None = None, force: bool = False) -> None:
    """Refuse, by an OutputError, to put a bundle in the place of anything but an earlier one of its kind and origin.

    Args:
        made: what the manifest of the new one says of its origin (`ORIGIN`, and `RUN` in "provenance"); a field that
            it lacks is not compared, and an empty "provenance" is a run that has not begun. None where both are the
            same bundle.
        force: replace one of another origin too.
    """
    try:
        there = read_manifest(folder)
    except BundleError:
        return  # no bundle, or none that can be used: what writes the folder looks at the rest
    others = sorted({path.name for path in entries(folder)} - {*there.manifest.files, MANIFEST})
    if there.kind != kind or others:
        raise OutputError(
            f"{folder} is left alone",
            found=f"a bundle of kind '{there.kind}'" if there.kind != kind else f"also {', '.join(others[:3])}",
            expected=f"an empty folder, or a {kind} bundle alone",
            next_step="choose another -o",
        )
    if made is None or force:
        return
    told, source = there.manifest.told, made.get("provenance")
    others = [key for key in ORIGIN if key in made and told(key) != made[key]]
    others += [key for key in RUN if told("provenance", key) != look_up(source, key)]
    if others or source == {}:
        raise not_ours(folder, f"{there.name} {there.hash[:12]}", others or ["run"])


def copy_bundle(bundle: Bundle, out: Path, force: bool = False) -> Path:
    """Copy an opened bundle to `out`, which is returned; an OutputError where `check_replaceable` refuses it."""
    check_replaceable(out, bundle.kind, bundle.manifest.document, force)
    with atomic_folder(out) as folder:
        for file in (*bundle.manifest.files, MANIFEST):
            shutil.copyfile(bundle.folder / file, folder / file)
    return out


def not_ours(folder: Path, found: str, others: Sequence[str]) -> OutputError:
    """The error of a folder that holds something of another origin, which differs in `others`."""
    differ = ", ".join(others).replace("_", " ")
    return OutputError(
        f"{folder} holds what this command did not make, and is left alone",
        found=f"{found}, of another {differ}",
        expected="a new folder, or one of the same origin",
        next_step="choose another folder, or add --force to replace it",
    )


def _resolve(name_or_folder: str | Path) -> Path:
    text = os.fspath(name_or_folder)
    is_name = isinstance(name_or_folder, str) and Path(text).name == text and text not in ("", ".", "..")
    if is_name:
        installed = bundle_folders()
        if text in installed:
            return installed[text]
    folder = Path(text)
    if text and folder.is_dir():
        return folder
    names = ", ".join(sorted(bundle_folders())) if is_name else ""
    missing = [f"{MODELS_VARIABLE} names {root}, which is no folder" for root in missing_roots()] if is_name else []
    raise BundleError(
        f"no model '{text}'" if is_name else f"no bundle at {text}",
        found="; ".join([f"installed: {names}"] * bool(names) + missing),
        expected="the name of an installed bundle or a folder with a bundle.json",
        next_step=LIST_MODELS,
    )


def read_manifest(folder: Path) -> Bundle:
    """Read and check `bundle.json` alone; `open_bundle` checks the files too.

    Raises:
        BundleError: missing, not JSON, of a newer schema, or with a field missing or of the wrong type.
    """
    path = folder / MANIFEST
    try:
        document = read_json(path)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise BundleError(f"{folder} is not a bundle", expected=f"a {MANIFEST} in it", next_step=LIST_MODELS) from error
    except ValueError as error:
        raise damaged(folder, f"{MANIFEST} is not JSON ({error})") from error
    except OSError as error:
        raise BundleError(
            f"{path} can't be read: {reason(error)}", expected="a bundle that you may read", next_step=advice(error)
        ) from error
    return Bundle(folder, decode_manifest(folder, document))


def _check_vocabulary(bundle: Bundle) -> None:
    rows = bundle.manifest.sizes.words
    if rows is None:  # a judge, or a bundle of before this was written down
        return
    data = bundle.vocabulary.read_bytes()
    words = data.count(b"\n") + (not data.endswith(b"\n"))
    if words != rows:
        raise BundleError(
            f"the vocabulary of {bundle.folder} does not fit its embedding",
            found=f"{words} words",
            expected=str(rows),
            next_step="export the bundle again",
        )


def _check_file(folder: Path, file: str, entry: StoredFile) -> None:
    path = folder / file
    if not path.is_file():
        raise damaged(folder, f"the file {file} is missing")
    size = path.stat().st_size
    if size != entry.bytes:
        raise damaged(folder, f"{file} has {size} bytes instead of {entry.bytes}")
    try:
        found = sha256_of(path)
    except OSError as error:
        raise BundleError(f"{path} can't be read: {reason(error)}", next_step=advice(error)) from error
    if found != entry.sha256:
        raise damaged(folder, f"{file} was changed: its hash is {found[:12]}, not {entry.sha256[:12]}")


def write_manifest(folder: Path, fields: JsonObject) -> Manifest:
    """Hash every file of `folder` and write its `bundle.json`, atomically; returns what it says.

    Args:
        fields: everything but "schema" and "files", which are filled in here.

    Raises:
        BundleError: `fields` would make a bundle that can't be opened, or `folder` holds a folder.
    """
    files = {}
    for path in entries(folder):
        if path.is_dir():
            raise BundleError("a bundle holds no folders", found=str(path))
        if path.name != MANIFEST and not is_part(path):
            files[path.name] = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
    schema = schema_of(fields)
    document = {"schema": schema, **fields} | {"schema": schema, "files": files}
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    manifest = decode_manifest(folder, json.loads(text))
    write_atomically(inside(folder, MANIFEST), text)
    return manifest


@dataclass(frozen=True)
class Entry:
    """An installed bundle."""

    name: str  # by which commands know it
    folder: Path  # where it is
    bundle: Bundle | None  # what its manifest says; None where that is damaged
    damaged: str = ""  # why it can't be used; "" where nothing is wrong

    @property
    def is_default(self) -> bool:
        """Whether commands use it when none is named."""
        return self.name == DEFAULT_MODEL

    @property
    def precisions(self) -> list[str]:
        """Precisions that its pictures, or its judgement, can be computed in from what it stores."""
        graphs = GRAPHS.get(self.bundle.kind, ()) if self.bundle else ()
        return list(self.bundle.precisions(graphs[-1])) if self.bundle and graphs else []

    def to_json(self) -> dict[str, Any]:
        """The entry as JSON values."""
        known: dict[str, Any] = {"kind": None}
        if (bundle := self.bundle) is not None:
            manifest = bundle.manifest
            known = {"kind": bundle.kind, "hash": bundle.hash, "bytes": bundle.bytes}
            known |= {"variant": manifest.variant, "licence": manifest.licence, "scores": manifest.told("scores") or []}
        place = {"folder": str(self.folder), "default": self.is_default}
        return {"name": self.name, **known, "precisions": self.precisions, **place, "damaged": self.damaged or None}


def list_models(check: bool = False) -> list[Entry]:
    """Every installed bundle, sorted by name; `check` also compares every file with its hash."""
    return [_entry(name, folder, check) for name, folder in sorted(bundle_folders().items())]


def installed_bundles() -> list[Bundle]:
    """Every installed bundle with a usable manifest, sorted by name; their files are not checked."""
    return [entry.bundle for entry in list_models() if entry.bundle is not None]


def _entry(name: str, folder: Path, check: bool) -> Entry:
    bundle = None
    try:
        bundle = read_manifest(folder)
        if check:
            open_bundle(folder, None)
    except BundleError as error:
        return Entry(name, folder, bundle, str(error))
    except OSError as error:
        return Entry(name, folder, bundle, f"it can't be read: {error.strerror or error}")
    return Entry(name, folder, bundle)
