"""Finding bundles, and refusing damaged ones."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attngan_deploy.bundles.bundle import bundle_folders, installed_bundles, open_bundle, write_manifest
from attngan_deploy.errors import BundleError


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "bundle.json"
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))


def test_open_by_folder(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    assert (bundle.name, bundle.kind, bundle.folder) == ("tiny", "text-to-image", tiny_bundle)
    assert bundle.path("generator.onnx") == tiny_bundle / "generator.onnx"
    assert bundle.bytes == sum(path.stat().st_size for path in tiny_bundle.iterdir() if path.name != "bundle.json")
    assert open_bundle(str(tiny_bundle)).hash == bundle.hash
    with pytest.raises(BundleError, match="no file 'x'"):
        bundle.path("x")
    with pytest.raises(BundleError, match="no graph 'judge'; found text_encoder, generator"):
        bundle.graph("judge")


def test_open_by_name(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T2I_MODELS", str(tmp_path / "none") + ":" + str(tiny_bundle.parent))
    assert open_bundle("tiny").folder == tiny_bundle
    assert bundle_folders()["tiny"] == tiny_bundle
    assert "tiny" in [bundle.name for bundle in installed_bundles()]
    with pytest.raises(BundleError, match=r"no model 'tinny'; found installed: .*tiny.*Next: t2i models"):
        open_bundle("tinny")
    with pytest.raises(BundleError, match="no bundle at"):
        open_bundle(tmp_path / "none")


def test_hash_covers_what_decides_the_pictures(copy: Path) -> None:
    before = open_bundle(copy).hash
    fields = json.loads((copy / "bundle.json").read_text())
    (copy / "README.md").write_text("a card")
    write_manifest(copy, {**fields, "scores": [{"inception_score": 3.0}]})
    assert open_bundle(copy).hash == before
    text = (copy / "vocabulary.txt").read_text()
    (copy / "vocabulary.txt").write_text(text.replace("red", "pink"))
    write_manifest(copy, fields)
    assert open_bundle(copy).hash != before


@pytest.mark.parametrize(("added", "found"), [("robin\n", 24), ("robin", 24), ("", 23)])
def test_a_vocabulary_that_does_not_fit_the_embedding(copy: Path, added: str, found: int) -> None:
    with (copy / "vocabulary.txt").open("a") as stream:
        stream.write(added)
    write_manifest(copy, json.loads((copy / "bundle.json").read_text()))
    if found == 23:
        assert open_bundle(copy).manifest.sizes.words == found
        return
    with pytest.raises(
        BundleError, match=f"vocabulary of .* does not fit its embedding; found {found} words; expected 23"
    ):
        open_bundle(copy)


def test_a_bundle_of_before_sizes_named_the_words_opens(copy: Path) -> None:
    change(copy, lambda manifest: manifest["sizes"].pop("words"))
    assert open_bundle(copy).name == "tiny"


def test_floors_have_defaults(copy: Path) -> None:
    assert open_bundle(copy).manifest.floors == {"fp16": 40.0, "bf16": 35.0, "int8": 30.0}
    change(copy, lambda manifest: manifest.update(floors={"int8": 28}))
    assert open_bundle(copy).manifest.floors == {"fp16": 40.0, "bf16": 35.0, "int8": 28.0}


def test_precisions_are_graphs_of_their_own(copy: Path) -> None:
    entry = {"file": "text_encoder.onnx"}
    change(copy, lambda manifest: manifest["graphs"]["generator"].update(precisions={"fp16": entry}))
    bundle = open_bundle(copy)
    assert bundle.precisions("generator") == ("fp32", "fp16")
    assert bundle.graph_path("generator", "fp16").name == "text_encoder.onnx"
    message = "no graph 'generator' in int8; found fp32, fp16. Next: t2i export --bundle .* --precision int8"
    with pytest.raises(BundleError, match=message):
        bundle.graph_path("generator", "int8")


def test_a_changed_card_is_noticed(copy: Path) -> None:
    (copy / "README.md").write_text("a card")
    write_manifest(copy, json.loads((copy / "bundle.json").read_text()))
    (copy / "README.md").write_text("a CARD")
    with pytest.raises(BundleError, match=r"README.md was changed"):
        open_bundle(copy)


def tensors(folder: Path, inputs: object) -> None:
    change(folder, lambda manifest: manifest["graphs"]["generator"].update(inputs=inputs))


def truncate(folder: Path) -> None:
    path = folder / "generator.onnx"
    path.write_bytes(path.read_bytes()[:-1])


def flip(folder: Path) -> None:
    path = folder / "generator.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "vocabulary.txt").unlink(), "the file vocabulary.txt is missing"),
        (truncate, r"generator.onnx has \d+ bytes instead of \d+"),
        (flip, r"generator.onnx was changed: its hash is \w{12}, not \w{12}"),
        (lambda folder: (folder / "bundle.json").unlink(), "is not a bundle; expected a bundle.json"),
        (lambda folder: (folder / "bundle.json").write_bytes(b"\xff{"), "bundle.json is not JSON"),
        (lambda folder: (folder / "bundle.json").write_text("[" * 100_000), "bundle.json is not JSON"),
        (lambda folder: (folder / "bundle.json").write_text("[]"), "not a JSON object"),
        (
            lambda folder: change(folder, lambda m: m.update(schema=99)),
            "newer version of this program; found schema 99",
        ),
        (lambda folder: change(folder, lambda m: m.update(schema="1")), "field 'schema' .* is str, not int"),
        (lambda folder: change(folder, lambda m: m.pop("graphs")), "field 'graphs' .* is nothing, not dict"),
        (lambda folder: change(folder, lambda m: m["graphs"].update(generator=3)), "graph 'generator' names no file"),
        (lambda folder: change(folder, lambda m: m["files"].update({"a": 1})), "entry of 'a' has no bytes and sha256"),
        (lambda folder: change(folder, lambda m: m.update(vocabulary="v.txt")), "'v.txt' is used but not in its file"),
        (lambda folder: change(folder, lambda m: m["sizes"].update(z=-1)), "size 'z' is not a positive number"),
        (lambda folder: change(folder, lambda m: m["sizes"].update(stages=[])), "'stages' is not a list"),
        (lambda folder: change(folder, lambda m: m["graphs"].pop("generator")), "has no graph 'generator'"),
        (lambda folder: change(folder, lambda m: m.update(floors={"int8": "30"})), "its floors are not numbers"),
        (lambda folder: change(folder, lambda m: m.update(floors=[30])), "its floors are not numbers"),
        (
            lambda folder: change(folder, lambda m: m["graphs"]["generator"].update(precisions=["fp16"])),
            "precisions that are no table",
        ),
        (
            lambda folder: change(folder, lambda m: m["graphs"]["generator"].update(precisions={"fp16": {}})),
            "names no file for fp16",
        ),
        (lambda folder: tensors(folder, None), "graph 'generator' has no table of inputs"),
        (lambda folder: tensors(folder, ["z"]), "graph 'generator' has no table of inputs"),
        (lambda folder: tensors(folder, {"z": "float32"}), "does not say dtype and shape of its tensor 'z'"),
        (lambda folder: tensors(folder, {"z": {"dtype": "float32"}}), "does not say dtype and shape of its tensor 'z'"),
        (lambda folder: tensors(folder, {"z": {"dtype": "f4,f4", "shape": []}}), "dtype and shape of its tensor 'z'"),
        (lambda folder: tensors(folder, {"z": {"dtype": ["bool"], "shape": []}}), "dtype and shape of its tensor 'z'"),
        (lambda folder: tensors(folder, {"z": {"dtype": "bool", "shape": [-1]}}), "a shape of its tensor 'z' that is"),
        (
            lambda folder: tensors(folder, {"z": {"dtype": "bool", "shape": [True]}}),
            "a shape of its tensor 'z' that is",
        ),
        (lambda folder: tensors(folder, {"z": {"dtype": "bool", "shape": [[2]]}}), "a shape of its tensor 'z' that is"),
    ],
)
def test_damaged_bundles(copy: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(copy)
    with pytest.raises(BundleError, match=message) as caught:
        open_bundle(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../secret", "a/b", "..", "", "a\\b", "bundle.json", "/etc/passwd"])
def test_a_file_outside_the_bundle_is_refused(copy: Path, name: str) -> None:
    change(copy, lambda manifest: manifest["files"].update({name: {"sha256": "0", "bytes": 1}}))
    with pytest.raises(BundleError, match="not a plain file name"):
        open_bundle(copy)


def test_another_kind(copy: Path) -> None:
    with pytest.raises(BundleError, match="not a judge bundle; found kind 'text-to-image'"):
        open_bundle(copy, kind="judge")


def test_write_manifest_refuses_what_could_not_be_opened(copy: Path) -> None:
    fields = json.loads((copy / "bundle.json").read_text())
    before = (copy / "bundle.json").read_bytes()
    with pytest.raises(BundleError, match="is used but not in its file table"):
        write_manifest(copy, {**fields, "vocabulary": "card.md"})
    (copy / "folder").mkdir()
    with pytest.raises(BundleError, match="holds no folders"):
        write_manifest(copy, fields)
    assert (copy / "bundle.json").read_bytes() == before


@pytest.mark.parametrize(
    ("size", "value", "message"),
    [
        ("stages", [64, 128, 256], "its sizes ask for 'image_256' of 256, and its generator has None"),
        ("stages", [64, 100], "its sizes ask for 'image_100' of 100"),
        ("z", 7, "its sizes ask for 'z' of 7"),
        ("features", 5, "its sizes ask for 'words' of 5"),
    ],
)
def test_sizes_are_those_of_the_graph(copy: Path, size: str, value: object, message: str) -> None:
    change(copy, lambda manifest: manifest["sizes"].update({size: value}))
    with pytest.raises(BundleError, match=message):
        open_bundle(copy)
