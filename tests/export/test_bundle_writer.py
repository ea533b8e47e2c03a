"""Checkpoint to bundle, and every checkpoint that makes none."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from attngan_deploy import TextToImage
from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.errors import CheckpointError, OutputError, ParityError, T2IError
from attngan_deploy.export import bundle_writer
from attngan_deploy.export.bundle_writer import export_bundle
from attngan_deploy.export.deploy import GraphOptions
from attngan_deploy.export.graphs import network as network_graphs
from attngan_deploy.export.graphs.network import generator_graph
from attngan_deploy.export.parity.golden import PAPER_CAPTIONS, golden_captions
from attngan_deploy.media.images import to_uint8
from attngan_deploy.media.tokenizer import PADDING, split_words
from tests.makers.exported_once import EXPORTER
from tests.makers.tiny_bundle import make_tiny_checkpoint

LARGEST_GOLDEN = 400_000  # bytes


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_tiny_checkpoint(tmp_path / "checkpoint")


def describe(checkpoint: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = checkpoint / "checkpoint.json"
    description = json.loads(path.read_text())
    change(description)
    path.write_text(json.dumps(description))


def test_the_bundle_opens_and_says_what_it_is(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    assert sorted(path.name for path in tiny_bundle.iterdir()) == sorted([*bundle.manifest.files, "bundle.json"])
    assert (bundle.name, bundle.manifest.variant, bundle.manifest.weights_dtype) == (
        "tiny",
        "base",
        "uint8 and float16",
    )
    assert bundle.manifest.sizes.stages == (64, 128)
    assert bundle.manifest.told("provenance", "data").startswith("none")
    assert bundle.manifest.parity.outputs["image_128"].worst < 1e-4
    assert bundle.manifest.parity.golden_worst_level <= 1


def test_runs_that_several_began_with_are_told_once(checkpoint: Path, tmp_path: Path) -> None:
    first = {"generator": {"stages": 1}, "pictures": 24, "started_from": None}
    second = {"generator": {"stages": 2}, "pictures": 16, "started_from": [first]}
    bundle = {"generator": None, "pictures": 8, "started_from": [second, first], "bundle": {"name": "old", "hash": "1"}}
    describe(checkpoint, lambda told: told.update(started_from=[bundle, second, first]))
    made = open_bundle(export_bundle(checkpoint, tmp_path / "bundle", GraphOptions()))
    told = made.manifest.told("provenance", "started_from")
    assert [run["pictures"] for run in told] == [8]
    assert told[0]["started_from"] == [{**second, "started_from": [{**first, "started_from": []}]}]
    card = (made.folder / "README.md").read_text()
    line = next(row for row in card.splitlines() if row.startswith("| started from"))
    assert line == (
        "| started from | the bundle old that saw 8 pictures; before that a run of 2 stage(s) that saw 16 pictures; "
        "before that a run of 1 stage(s) that saw 24 pictures |"
    )


def test_golden_pictures_are_made_again(tiny_bundle: Path) -> None:
    path = tiny_bundle / "golden.npz"
    assert path.stat().st_size < LARGEST_GOLDEN
    with np.load(path) as golden:
        cases = dict(golden)
    assert len(set(cases["lengths"])) > 2
    model = TextToImage.load(tiny_bundle, backend="onnxruntime", precision="fp32")
    stages = model.decode(model.encode(list(cases["captions"])), cases["z"], cases["eps"])
    np.testing.assert_allclose(stages.images[128], cases["image_128"], atol=5e-4)  # half a step of float16, and 1e-4
    pictures = model.generate(list(cases["captions"]), seed=int(cases["seed"]))
    difference = np.abs(pictures.astype(int) - to_uint8(cases["image_128"].astype(np.float32)))
    assert difference.max() <= 1


def test_the_card_shows_what_its_caption_says(tiny_bundle: Path) -> None:
    card = (tiny_bundle / "README.md").read_text(encoding="utf-8")
    assert "# tiny: captions to pictures of 128 x 128 pixels" in card
    assert "![What it makes of the captions below](grid.webp)" in card and (tiny_bundle / "grid.webp").is_file()
    assert "| `image_128` |" in card


@pytest.mark.parametrize(("variant", "stages"), [("attngan", 3), ("att1", 2), ("att2", 2)])
def test_other_variants_become_bundles(tmp_path: Path, variant: str, stages: int) -> None:
    out = export_bundle(make_tiny_checkpoint(tmp_path / "checkpoint", variant, stages), tmp_path / "bundle")
    model = TextToImage.load(out, backend="onnxruntime", precision="fp32")
    assert model.bundle.name == variant
    pictures = model.generate(["a red bird", "a large blue bird with long wings"])
    assert pictures.shape == (2, 64 * 2 ** (stages - 1), 64 * 2 ** (stages - 1), 3)
    assert pictures.std() > 10


def test_the_same_checkpoint_makes_the_same_bundle(
    checkpoint: Path, tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_graphs, "_exported", EXPORTER)
    again = open_bundle(export_bundle(checkpoint, tmp_path / "again", name="tiny"))
    assert again.hash == open_bundle(tiny_bundle).hash


def test_a_metric_that_is_no_number_becomes_null(checkpoint: Path, tmp_path: Path) -> None:
    describe(checkpoint, lambda facts: facts.update(damsm={"r_precision": float("nan"), "step": 3}))
    bundle = open_bundle(export_bundle(checkpoint, tmp_path / "bundle"))
    assert bundle.manifest.told("provenance", "damsm") == {"r_precision": None, "step": 3}


def test_weights_may_be_stored_whole(checkpoint: Path, tmp_path: Path, tiny_bundle: Path) -> None:
    whole = open_bundle(export_bundle(checkpoint, tmp_path / "whole", GraphOptions(weights="fp32")))
    assert whole.manifest.weights_dtype == "float32"
    assert whole.path("generator.onnx").stat().st_size > (tiny_bundle / "generator.onnx").stat().st_size


def test_a_graph_that_differs_leaves_no_bundle(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build_another(generator: Any) -> Any:
        with torch.no_grad():
            generator.to_image[1].conv.weight[0, 0, 1, 1] += 0.01
        model = generator_graph(generator)
        with torch.no_grad():
            generator.to_image[1].conv.weight[0, 0, 1, 1] -= 0.01
        return model

    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(bundle_writer, "generator_graph", build_another)
    with pytest.raises(ParityError, match="output image_128"):
        export_bundle(checkpoint, tmp_path / "bundle")
    assert sorted(tmp_path.iterdir()) == before


def test_a_failed_export_keeps_the_earlier_bundle(checkpoint: Path, tmp_path: Path) -> None:
    out = export_bundle(checkpoint, tmp_path / "bundle")
    first = open_bundle(out).hash
    set_weight(checkpoint, "generator", "first.norm.running_var", -1.0)
    with pytest.raises(CheckpointError, match="not finite after folding"):
        export_bundle(checkpoint, out)
    assert open_bundle(out).hash == first
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint", "bundle"}


def set_weight(checkpoint: Path, file: str, name: str, value: float) -> None:
    tensors = load_file(checkpoint / f"{file}.safetensors")
    tensors[name].view(-1)[0] = value
    save_file(tensors, checkpoint / f"{file}.safetensors")


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


BAD_CHECKPOINTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights cut short": (lambda path: cut_short(path / "generator.safetensors"), "generator.safetensors is damaged"),
    "weights missing": (lambda path: (path / "text_encoder.safetensors").unlink(), "has no text_encoder weights"),
    "nan in the generator": (
        lambda path: set_weight(path, "generator", "to_image.0.conv.weight", float("nan")),
        "generator has values that are not finite; found to_image.0.conv.weight",
    ),
    "nan in the text encoder": (
        lambda path: set_weight(path, "text_encoder", "embedding.weight", float("inf")),
        "text_encoder has values that are not finite; found embedding.weight",
    ),
    "too few words": (
        lambda path: (path / "vocabulary.txt").write_text("<end>\nbird\n"),
        "the vocabulary does not fit the embedding; found 2 words; expected 23",
    ),
    "no vocabulary": (lambda path: (path / "vocabulary.txt").unlink(), "vocabulary.txt can't be read"),
    "sizes of another generator": (
        lambda path: describe(path, lambda facts: facts["generator"].update(width=4)),
        "generator does not fit its configuration",
    ),
    "sizes of no generator": (
        lambda path: describe(path, lambda facts: facts["generator"].update(width=-4)),
        "its sizes make no network",
    ),
    "a size that is no number": (
        lambda path: describe(path, lambda facts: facts["generator"].update(width="wide")),
        "checkpoint: GeneratorConfig can't be read; found width is a str; expected int",
    ),
    "text features of another size": (
        lambda path: describe(path, lambda facts: facts["text_encoder"].update(features=16)),
        "its text encoder does not fit its generator; found 16 text features; expected 8",
    ),
    "a size beyond 64 bits": (
        lambda path: describe(path, lambda facts: facts["generator"].update(width=2**64)),
        "checkpoint: GeneratorConfig can't be read; found width is 18446744073709551616; expected a finite number",
    ),
    "sizes that overflow together": (
        lambda path: describe(path, lambda facts: facts["generator"].update(width=10**18)),
        "its sizes make no network",
    ),
    "a dropout that is no number": (
        lambda path: describe(path, lambda facts: facts["text_encoder"].update(dropout=float("nan"))),
        "checkpoint: TextEncoderConfig can't be read; found dropout is nan; expected a finite number",
    ),
    "half of a surrogate pair": (
        lambda path: describe(path, lambda facts: facts.update(data="\ud800")),
        "checkpoint.json can't be read: ValueError('a text in it holds half of a surrogate pair')",
    ),
    "words that no caption can say": (
        lambda path: (path / "vocabulary.txt").write_text("<end>\n" + "".join(f"A {n}!\n" for n in range(22))),
        "no caption can say a word of the vocabulary; found ['A 0!', 'A 1!', 'A 2!']",
    ),
    "no generator described": (
        lambda path: describe(path, lambda facts: facts.pop("generator")),
        "GeneratorConfig can't be read",
    ),
    "an encoder's checkpoint": (
        lambda path: describe(path, lambda facts: facts.update(kind="damsm")),
        "another kind of checkpoint; found damsm; expected gan",
    ),
}


@pytest.mark.parametrize("case", BAD_CHECKPOINTS)
def test_a_bad_checkpoint_is_named_and_leaves_nothing(checkpoint: Path, tmp_path: Path, case: str) -> None:
    spoil, message = BAD_CHECKPOINTS[case]
    spoil(checkpoint)
    with pytest.raises(CheckpointError) as caught:
        export_bundle(checkpoint, tmp_path / "bundle")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert "Exception raised" not in str(caught.value)  # above the frames of C++
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_single_stage_makes_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="found 1 stage; expected 2 or 3 stages"):
        export_bundle(make_tiny_checkpoint(tmp_path / "checkpoint", "base", 1), tmp_path / "bundle")


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.trace),)


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save(Hostile(tmp_path / "trace"), tmp_path / "netG.pth")
    with pytest.raises(CheckpointError, match="pickle could run code"):
        export_bundle(tmp_path / "netG.pth", tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["netG.pth"]


def test_a_pickle_named_as_weights_is_refused_and_not_run(checkpoint: Path, tmp_path: Path) -> None:
    torch.save(Hostile(tmp_path / "trace"), checkpoint / "generator.safetensors")
    with pytest.raises(CheckpointError, match=r"generator\.safetensors is damaged"):
        export_bundle(checkpoint, tmp_path / "bundle")
    assert not (tmp_path / "trace").exists()


def test_other_files_are_not_overwritten(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds other files"):
        export_bundle(checkpoint, out)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


def test_a_word_that_stands_twice_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    path = checkpoint / "vocabulary.txt"
    path.write_text(path.read_text().replace("blue", "red"))
    with pytest.raises(T2IError, match="'red' more than once"):
        export_bundle(checkpoint, tmp_path / "bundle")


def test_golden_captions_are_the_papers_where_they_can_be_said() -> None:
    words = dict.fromkeys(word for caption in PAPER_CAPTIONS for word in split_words(caption))
    assert golden_captions([PADDING, *words])[:2] == list(PAPER_CAPTIONS)
    assert golden_captions([PADDING, "oak", "ash"]) == ["oak", "oak ash"]
