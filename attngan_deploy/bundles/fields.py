"""What a `bundle.json` must say before anything of it is used."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attngan_deploy.errors import BundleError

MANIFEST = "bundle.json"
TEXT_TO_IMAGE, JUDGE, MATCHER = "text-to-image", "judge", "matcher"
GRAPHS = {
    TEXT_TO_IMAGE: ("text_encoder", "generator"),
    JUDGE: ("judge",),
    MATCHER: ("text_encoder", "picture_encoder"),
}
DTYPES = ("bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64")  # that a graph may take or give


def runs_before(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The runs that a run started from, as its checkpoint or a bundle's provenance tells it; old ones tell of one."""
    before = run.get("started_from") or []
    return before if isinstance(before, list) else [before]


def check_fields(folder: Path, manifest: dict[str, Any]) -> None:
    """See that everything that is read of a manifest is there and fits each other.

    Raises:
        BundleError: a field is missing or of the wrong type, or two contradict each other.
    """
    field_of(folder, manifest, "name", str)
    kind = field_of(folder, manifest, "kind", str)
    files = field_of(folder, manifest, "files", dict)
    for file, entry in files.items():
        if Path(file).name != file or "\\" in file or file in ("", ".", "..", MANIFEST):
            raise damaged(folder, f"'{file}' in its file table is not a plain file name")
        if (
            not isinstance(entry, dict)
            or type(entry.get("bytes")) is not int
            or not isinstance(entry.get("sha256"), str)
        ):
            raise damaged(folder, f"the file table's entry of '{file}' has no bytes and sha256")
    listed = []
    for key, graph in field_of(folder, manifest, "graphs", dict).items():
        if not isinstance(graph, dict) or not isinstance(graph.get("file"), str):
            raise damaged(folder, f"graph '{key}' names no file")
        listed.append(graph["file"])
        _check_tensors(folder, key, graph)
        listed += _precision_files(folder, key, graph)
    for key in GRAPHS.get(kind, ()):
        if key not in manifest["graphs"]:
            raise damaged(folder, f"it has no graph '{key}'")
    if kind in (TEXT_TO_IMAGE, MATCHER):
        listed.append(field_of(folder, manifest, "vocabulary", str))
        sizes = field_of(folder, manifest, "sizes", dict)
        if kind == TEXT_TO_IMAGE:
            _check_sizes(folder, sizes)
            _check_fit(folder, manifest["graphs"]["generator"], sizes)
    if "golden" in manifest:
        listed.append(field_of(folder, manifest, "golden", str))
    for file in listed:
        if file not in files:
            raise damaged(folder, f"'{file}' is used but not in its file table")
    floors = manifest.get("floors", {})
    if not isinstance(floors, dict) or any(type(floor) not in (int, float) for floor in floors.values()):
        raise damaged(folder, "its floors are not numbers")


def _check_tensors(folder: Path, key: str, graph: dict[str, Any]) -> None:
    """See that what a graph says of its tensors can be relied upon; a size is a number, a name, or None for any."""
    for side in ("inputs", "outputs"):
        tensors = graph.get(side)
        if not isinstance(tensors, dict):
            raise damaged(folder, f"graph '{key}' has no table of {side}")
        for name, said in tensors.items():
            shape = said.get("shape") if isinstance(said, dict) else None
            if not isinstance(shape, list) or said.get("dtype") not in DTYPES:
                raise damaged(folder, f"graph '{key}' does not say dtype and shape of its tensor {ascii(name)[:80]}")
            if not all(size is None or isinstance(size, str) or (type(size) is int and size > 0) for size in shape):
                raise damaged(folder, f"graph '{key}' has a shape of its tensor {ascii(name)[:80]} that is none")


def _precision_files(folder: Path, key: str, graph: dict[str, Any]) -> list[str]:
    precisions = graph.get("precisions", {})
    if not isinstance(precisions, dict):
        raise damaged(folder, f"graph '{key}' has precisions that are no table")
    for name, entry in precisions.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
            raise damaged(folder, f"graph '{key}' names no file for {name}")
    return [entry["file"] for entry in precisions.values()]


def _check_sizes(folder: Path, sizes: dict[str, Any]) -> None:
    for key in ("z", "eps", "features", "attention"):
        if type(sizes.get(key)) is not int or sizes[key] < 1:
            raise damaged(folder, f"size '{key}' is not a positive number")
    stages = sizes.get("stages")
    if not isinstance(stages, list) or not stages or any(type(size) is not int or size < 1 for size in stages):
        raise damaged(folder, "size 'stages' is not a list of picture sizes")


def _check_fit(folder: Path, generator: dict[str, Any], sizes: dict[str, Any]) -> None:
    """See that the sizes are those of the generator's tensors: what reads the manifest relies on either."""
    inputs, outputs, stages = generator["inputs"], generator["outputs"], sizes["stages"]
    wanted = {name: sizes[size] for name, size in {"z": "z", "eps": "eps", "words": "features"}.items()}
    found = {name: (inputs.get(name, {}).get("shape", []) + [None] * 2)[1] for name in wanted}
    wanted |= {f"image_{size}": size for size in stages}
    found |= {f"image_{size}": (outputs.get(f"image_{size}", {}).get("shape", []) or [None])[-1] for size in stages}
    if wrong := [name for name in wanted if found[name] != wanted[name]]:
        name = wrong[0]
        raise damaged(folder, f"its sizes ask for '{name}' of {wanted[name]}, and its generator has {found[name]}")


def field_of(folder: Path, manifest: dict[str, Any], key: str, kind: type) -> Any:
    """A field of a manifest.

    Raises:
        BundleError: it is missing or of another type.
    """
    value = manifest.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        found = "nothing" if key not in manifest else type(value).__name__
        raise damaged(folder, f"field '{key}' of {MANIFEST} is {found}, not {kind.__name__}")
    return value


def damaged(folder: Path, why: str) -> BundleError:
    """The error of a bundle that can't be used."""
    return BundleError(f"bundle {folder} is damaged: {why}", next_step="install or export it again")
