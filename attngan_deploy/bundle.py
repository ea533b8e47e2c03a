"""Bundles: folders that run anywhere. Finding them, checking them, and writing their manifest.

`bundle.json` names every file with its size and SHA-256; nothing of a bundle is used before it was compared with that.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attngan_deploy.errors import BundleError, OutputError
from attngan_deploy.files import is_part, sha256_of, write_atomically

SCHEMA_VERSION = 1
MANIFEST = "bundle.json"
DEFAULT_MODEL = "base"
TEXT_TO_IMAGE, JUDGE, MATCHER = "text-to-image", "judge", "matcher"
GRAPHS = {
    TEXT_TO_IMAGE: ("text_encoder", "generator"),
    JUDGE: ("judge",),
    MATCHER: ("text_encoder", "picture_encoder"),
}
MODELS_VARIABLE = "T2I_MODELS"  # folders of bundles, separated as in PATH, looked at before those that ship
LIST_MODELS = "t2i models"
DTYPES = ("bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64")  # that a graph may take or give
FLOORS = {"fp16": 40.0, "bf16": 35.0, "int8": 30.0}  # PSNR against fp32 in dB that pictures of a precision must have


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes:
        folder: where it is.
        manifest: the contents of `bundle.json`.
    """

    folder: Path
    manifest: dict[str, Any]

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
    bundle = read_manifest(folder)
    if bundle.kind != kind:
        raise BundleError(
            f"{folder} is not a {kind} bundle",
            found=f"kind '{bundle.kind}'",
            expected=f"'{kind}'",
            next_step=LIST_MODELS,
        )
    for file, entry in bundle.manifest["files"].items():
        _check_file(folder, file, entry)
    _check_vocabulary(bundle)
    return bundle


def bundle_folders() -> dict[str, Path]:
    """Folders with a `bundle.json` in T2I_MODELS and among those that ship, by name; the first of a name wins."""
    roots = [Path(root) for root in os.environ.get(MODELS_VARIABLE, "").split(os.pathsep) if root]
    shipped = find_spec("attngan_deploy.models")
    roots += [Path(place) for place in (shipped.submodule_search_locations if shipped else None) or []]
    roots.append(Path(__file__).resolve().parents[1] / "models")  # of a clone whose folder hides the installed package
    found: dict[str, Path] = {}
    for root in roots:
        for folder in sorted(root.iterdir()) if root.is_dir() else []:
            if (folder / MANIFEST).is_file() and not is_part(folder):
                found.setdefault(folder.name, folder)
    return found


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
    raise BundleError(
        f"no model '{text}'" if is_name else f"no bundle at {text}",
        found=f"installed: {names}" if names else "",
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
        manifest = json.loads(path.read_bytes())
    except (FileNotFoundError, IsADirectoryError) as error:
        raise BundleError(f"{folder} is not a bundle", expected=f"a {MANIFEST} in it", next_step=LIST_MODELS) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(folder, f"{MANIFEST} is not JSON ({error})") from error
    if not isinstance(manifest, dict):
        raise _damaged(folder, f"{MANIFEST} is not a JSON object")
    schema = _field(folder, manifest, "schema", int)
    if schema > SCHEMA_VERSION:
        raise BundleError(
            f"bundle {folder} was made for a newer version of this program",
            found=f"schema {schema}",
            expected=f"at most {SCHEMA_VERSION}",
            next_step="pip install --upgrade attngan-deploy",
        )
    _check_fields(folder, manifest)
    return Bundle(folder, manifest)


def _check_fields(folder: Path, manifest: dict[str, Any]) -> None:
    _field(folder, manifest, "name", str)
    kind = _field(folder, manifest, "kind", str)
    files = _field(folder, manifest, "files", dict)
    for file, entry in files.items():
        if Path(file).name != file or "\\" in file or file in ("", ".", "..", MANIFEST):
            raise _damaged(folder, f"'{file}' in its file table is not a plain file name")
        if (
            not isinstance(entry, dict)
            or type(entry.get("bytes")) is not int
            or not isinstance(entry.get("sha256"), str)
        ):
            raise _damaged(folder, f"the file table's entry of '{file}' has no bytes and sha256")
    listed = []
    for key, graph in _field(folder, manifest, "graphs", dict).items():
        if not isinstance(graph, dict) or not isinstance(graph.get("file"), str):
            raise _damaged(folder, f"graph '{key}' names no file")
        listed.append(graph["file"])
        _check_tensors(folder, key, graph)
        listed += _precision_files(folder, key, graph)
    for key in GRAPHS.get(kind, ()):
        if key not in manifest["graphs"]:
            raise _damaged(folder, f"it has no graph '{key}'")
    if kind in (TEXT_TO_IMAGE, MATCHER):
        listed.append(_field(folder, manifest, "vocabulary", str))
        sizes = _field(folder, manifest, "sizes", dict)
        if kind == TEXT_TO_IMAGE:
            _check_sizes(folder, sizes)
            _check_fit(folder, manifest["graphs"]["generator"], sizes)
    if "golden" in manifest:
        listed.append(_field(folder, manifest, "golden", str))
    for file in listed:
        if file not in files:
            raise _damaged(folder, f"'{file}' is used but not in its file table")
    floors = manifest.get("floors", {})
    if not isinstance(floors, dict) or any(type(floor) not in (int, float) for floor in floors.values()):
        raise _damaged(folder, "its floors are not numbers")


def _check_tensors(folder: Path, key: str, graph: dict[str, Any]) -> None:
    """See that what a graph says of its tensors can be relied upon; a size is a number, a name, or None for any."""
    for side in ("inputs", "outputs"):
        tensors = graph.get(side)
        if not isinstance(tensors, dict):
            raise _damaged(folder, f"graph '{key}' has no table of {side}")
        for name, said in tensors.items():
            shape = said.get("shape") if isinstance(said, dict) else None
            if not isinstance(shape, list) or said.get("dtype") not in DTYPES:
                raise _damaged(folder, f"graph '{key}' does not say dtype and shape of its tensor {ascii(name)[:80]}")
            if not all(size is None or isinstance(size, str) or (type(size) is int and size > 0) for size in shape):
                raise _damaged(folder, f"graph '{key}' has a shape of its tensor {ascii(name)[:80]} that is none")


def _precision_files(folder: Path, key: str, graph: dict[str, Any]) -> list[str]:
    precisions = graph.get("precisions", {})
    if not isinstance(precisions, dict):
        raise _damaged(folder, f"graph '{key}' has precisions that are no table")
    for name, entry in precisions.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
            raise _damaged(folder, f"graph '{key}' names no file for {name}")
    return [entry["file"] for entry in precisions.values()]


def _check_sizes(folder: Path, sizes: dict[str, Any]) -> None:
    for key in ("z", "eps", "features", "attention"):
        if type(sizes.get(key)) is not int or sizes[key] < 1:
            raise _damaged(folder, f"size '{key}' is not a positive number")
    stages = sizes.get("stages")
    if not isinstance(stages, list) or not stages or any(type(size) is not int or size < 1 for size in stages):
        raise _damaged(folder, "size 'stages' is not a list of picture sizes")


def _check_fit(folder: Path, generator: dict[str, Any], sizes: dict[str, Any]) -> None:
    """See that the sizes are those of the generator's tensors: what reads the manifest relies on either."""
    inputs, outputs, stages = generator["inputs"], generator["outputs"], sizes["stages"]
    wanted = {name: sizes[size] for name, size in {"z": "z", "eps": "eps", "words": "features"}.items()}
    found = {name: (inputs.get(name, {}).get("shape", []) + [None] * 2)[1] for name in wanted}
    wanted |= {f"image_{size}": size for size in stages}
    found |= {f"image_{size}": (outputs.get(f"image_{size}", {}).get("shape", []) or [None])[-1] for size in stages}
    if wrong := [name for name in wanted if found[name] != wanted[name]]:
        name = wrong[0]
        raise _damaged(folder, f"its sizes ask for '{name}' of {wanted[name]}, and its generator has {found[name]}")


def _field(folder: Path, manifest: dict[str, Any], key: str, kind: type) -> Any:
    value = manifest.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        found = "nothing" if key not in manifest else type(value).__name__
        raise _damaged(folder, f"field '{key}' of {MANIFEST} is {found}, not {kind.__name__}")
    return value


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
        raise _damaged(folder, f"the file {file} is missing")
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise _damaged(folder, f"{file} has {size} bytes instead of {entry['bytes']}")
    found = sha256_of(path)
    if found != entry["sha256"]:
        raise _damaged(folder, f"{file} was changed: its hash is {found[:12]}, not {entry['sha256'][:12]}")


def _damaged(folder: Path, why: str) -> BundleError:
    return BundleError(f"bundle {folder} is damaged: {why}", next_step="install or export it again")


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
    _check_fields(folder, ordered)
    write_atomically(folder / MANIFEST, json.dumps(ordered, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
