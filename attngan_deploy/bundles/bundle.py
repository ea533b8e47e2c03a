"""Bundles: folders that run anywhere. Finding them, checking them, and writing their manifest.

`bundle.json` names every file with its size and SHA-256; nothing of a bundle is used before it was compared with that.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attngan_deploy.bundles.fields import GRAPHS as GRAPHS
from attngan_deploy.bundles.fields import JUDGE as JUDGE
from attngan_deploy.bundles.fields import MANIFEST as MANIFEST
from attngan_deploy.bundles.fields import MATCHER as MATCHER
from attngan_deploy.bundles.fields import TEXT_TO_IMAGE as TEXT_TO_IMAGE
from attngan_deploy.bundles.fields import check_fields, damaged, field_of
from attngan_deploy.errors import BundleError, OutputError
from attngan_deploy.system.files import is_part, read_json, sha256_of, write_atomically
from attngan_deploy.system.os_errors import advice, reason

SCHEMA_VERSION = 1
DEFAULT_MODEL = "base"
MODELS_VARIABLE = "T2I_MODELS"  # folders of bundles, separated as in PATH, looked at before those that ship
LIST_MODELS = "t2i models"
SWAPS = 3  # how often a bundle may be replaced while it is being opened
FLOORS = {"fp16": 40.0, "bf16": 35.0, "int8": 30.0}  # PSNR against fp32 in dB that pictures of a precision must have


Stamp = tuple[int, ...]  # device, number, size and time of a file


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes:
        folder: where it is.
        manifest: the contents of `bundle.json`.
        stamps: of each file that was compared with the manifest, what tells whether it is still the same one.
    """

    folder: Path
    manifest: dict[str, Any]
    stamps: Mapping[str, Stamp] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """Its own name, e.g. "att1"."""
        return str(self.manifest["name"])

    @property
    def kind(self) -> str:
        """ "text-to-image", "judge" or "matcher"."""
        return str(self.manifest["kind"])

    @cached_property
    def hash(self) -> str:
        """SHA-256 of what decides the outputs (graphs, vocabulary, golden cases), by their names and hashes."""
        decisive = {entry["file"] for entry in self.manifest["graphs"].values()}
        decisive |= {self.manifest[key] for key in ("vocabulary", "golden") if key in self.manifest}
        table = [[name, self.manifest["files"][name]["sha256"]] for name in sorted(decisive)]
        return hashlib.sha256(json.dumps(table).encode()).hexdigest()

    @property
    def bytes(self) -> int:
        """Size of all its files."""
        return sum(int(entry["bytes"]) for entry in self.manifest["files"].values())

    def check_unchanged(self) -> None:
        """See that no file was replaced since the bundle was opened: what was loaded belongs together.

        Raises:
            BundleError: one was, as by an export into the same folder.
        """
        for file, stamp in self.stamps.items():
            if _stamp(self.folder / file) != stamp:
                raise BundleError(
                    f"bundle {self.folder} was replaced while it was being loaded: {file} is another file now",
                    next_step="the same command again",
                )

    def path(self, file: str) -> Path:
        """Path of one of its files.

        Raises:
            BundleError: the manifest has no such file.
        """
        if file not in self.manifest["files"]:
            raise BundleError(f"bundle {self.folder} has no file '{file}'", found=", ".join(self.manifest["files"]))
        return self.folder / file

    def graph(self, key: str) -> Mapping[str, Any]:
        """The manifest's entry of a graph: its file, inputs and outputs.

        Raises:
            BundleError: there is no such graph.
        """
        graphs: dict[str, Mapping[str, Any]] = self.manifest["graphs"]
        if key not in graphs:
            raise BundleError(f"bundle {self.folder} has no graph '{key}'", found=", ".join(graphs))
        return graphs[key]

    @property
    def floors(self) -> dict[str, float]:
        """PSNR against fp32, in dB, that pictures of each precision must have."""
        return FLOORS | {name: float(floor) for name, floor in self.manifest.get("floors", {}).items()}

    def precisions(self, key: str) -> tuple[str, ...]:
        """Precisions that a graph is stored in: "fp32" first, then e.g. "fp16" or "int8".

        Raises:
            BundleError: there is no such graph.
        """
        return ("fp32", *self.graph(key).get("precisions", {}))

    def graph_path(self, key: str, precision: str = "fp32") -> Path:
        """File of a graph that computes in `precision`; all of them have the same float32 inputs and outputs.

        Raises:
            BundleError: there is no such graph, or none of this precision.
        """
        graph = self.graph(key)
        if precision == "fp32":
            return self.path(graph["file"])
        if precision not in graph.get("precisions", {}):
            raise BundleError(
                f"bundle {self.folder} has no graph '{key}' in {precision}",
                found=", ".join(self.precisions(key)),
                next_step=f"t2i export --bundle {self.folder} --precision {precision} -o {self.name}-{precision}",
            )
        return self.path(graph["precisions"][precision]["file"])


def open_bundle(name_or_folder: str | Path, kind: str = TEXT_TO_IMAGE) -> Bundle:
    """Find a bundle by name or folder, and check every file against its manifest.

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


def _checked(bundle: Bundle, kind: str) -> Bundle:
    """The bundle with stamps of its files, every one of which is as the manifest says."""
    if bundle.kind != kind:
        raise BundleError(
            f"{bundle.folder} is not a {kind} bundle",
            found=f"kind '{bundle.kind}'",
            expected=f"'{kind}'",
            next_step=LIST_MODELS,
        )
    stamps = {MANIFEST: _stamp(bundle.folder / MANIFEST)}
    for file, entry in bundle.manifest["files"].items():
        stamps[file] = _stamp(bundle.folder / file)
        _check_file(bundle.folder, file, entry)
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
    roots.append(Path(__file__).resolve().parents[2] / "models")  # of a clone whose folder hides the installed package
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


def check_replaceable(folder: Path, kind: str) -> None:
    """Refuse to put a bundle in the place of anything but an earlier bundle of its kind.

    Raises:
        OutputError: a bundle of another kind is there, or files that are not the bundle's.
    """
    try:
        there = read_manifest(folder)
    except BundleError:
        return  # no bundle, or none that can be used: what writes the folder looks at the rest
    others = sorted({path.name for path in folder.iterdir()} - {*there.manifest["files"], MANIFEST})
    if there.kind != kind or others:
        raise OutputError(
            f"{folder} is left alone",
            found=f"a bundle of kind '{there.kind}'" if there.kind != kind else f"also {', '.join(others[:3])}",
            expected=f"an empty folder, or a {kind} bundle alone",
            next_step="choose another -o",
        )


def installed_bundles() -> list[Bundle]:
    """Every installed bundle with a usable manifest, sorted by name; their files are not checked."""
    bundles = []
    for _, folder in sorted(bundle_folders().items()):
        try:
            bundles.append(read_manifest(folder))
        except BundleError:
            continue  # `t2i models` shows it with its reason; here it is simply not usable
    return bundles


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
        manifest = read_json(path)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise BundleError(f"{folder} is not a bundle", expected=f"a {MANIFEST} in it", next_step=LIST_MODELS) from error
    except ValueError as error:
        raise damaged(folder, f"{MANIFEST} is not JSON ({error})") from error
    except OSError as error:
        raise BundleError(
            f"{path} can't be read: {reason(error)}", expected="a bundle that you may read", next_step=advice(error)
        ) from error
    if not isinstance(manifest, dict):
        raise damaged(folder, f"{MANIFEST} is not a JSON object")
    schema = field_of(folder, manifest, "schema", int)
    if schema > SCHEMA_VERSION:
        raise BundleError(
            f"bundle {folder} was made for a newer version of this program",
            found=f"schema {schema}",
            expected=f"at most {SCHEMA_VERSION}",
            next_step="pip install --upgrade attngan-deploy",
        )
    check_fields(folder, manifest)
    return Bundle(folder, manifest)


def _check_vocabulary(bundle: Bundle) -> None:
    rows = bundle.manifest.get("sizes", {}).get("words")
    if rows is None:  # a judge, or a bundle of before this was written down
        return
    data = bundle.path(bundle.manifest["vocabulary"]).read_bytes()
    words = data.count(b"\n") + (not data.endswith(b"\n"))
    if words != rows:
        raise BundleError(
            f"the vocabulary of {bundle.folder} does not fit its embedding",
            found=f"{words} words",
            expected=str(rows),
            next_step="export the bundle again",
        )


def _check_file(folder: Path, file: str, entry: dict[str, Any]) -> None:
    path = folder / file
    if not path.is_file():
        raise damaged(folder, f"the file {file} is missing")
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise damaged(folder, f"{file} has {size} bytes instead of {entry['bytes']}")
    try:
        found = sha256_of(path)
    except OSError as error:
        raise BundleError(f"{path} can't be read: {reason(error)}", next_step=advice(error)) from error
    if found != entry["sha256"]:
        raise damaged(folder, f"{file} was changed: its hash is {found[:12]}, not {entry['sha256'][:12]}")


def write_manifest(folder: Path, fields: Mapping[str, Any]) -> None:
    """Hash every file of `folder` and write its `bundle.json`, atomically.

    Args:
        fields: everything but "schema" and "files", which are filled in here.

    Raises:
        BundleError: `fields` would make a bundle that can't be opened, or `folder` holds a folder.
    """
    files = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            raise BundleError("a bundle holds no folders", found=str(path))
        if path.name != MANIFEST and not is_part(path):
            files[path.name] = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
    manifest = {**fields, "schema": SCHEMA_VERSION, "files": files}
    ordered = {"schema": manifest.pop("schema"), **manifest}
    check_fields(folder, ordered)
    write_atomically(folder / MANIFEST, json.dumps(ordered, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
