"""Measuring a precision, choosing what stays in fp32, and refusing what is below the floor."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.engines.facts import EngineFacts
from attngan_deploy.errors import CaptionError, ParityError
from attngan_deploy.export.precision.parity import (
    PICTURES,
    SIZES,
    Reference,
    check_floor,
    choose_kept,
    make_reference,
    measure,
)
from attngan_deploy.export.precision.sample_inputs import sample_batches, sample_captions

COUNTS = (3, 2, 1, 1)


class Painter:
    """An engine whose images are its noise plus an error."""

    facts = EngineFacts("onnxruntime", "0", "cpu")

    def __init__(self, error: float = 0.0, only_alone: bool = False) -> None:
        self.error, self.only_alone = error, only_alone

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        error = self.error if not self.only_alone or len(inputs["z"]) == 1 else 0.0
        image = np.tanh(inputs["z"][:, :, None, None].repeat(4, 2).repeat(4, 3)) * 0.9
        return {"image_64": image, "image_128": image + np.float32(error), "attention": image * np.nan}


def batches() -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    return [{"z": random.normal(size=(count, 3)).astype(np.float32)} for count in COUNTS]


@pytest.fixture(scope="module")
def reference() -> Reference:
    return make_reference(Painter(), batches(), 5)


def test_equal_pictures_have_no_ratio(reference: Reference) -> None:
    parity = measure(Painter(), reference, "fp16", "a painter")
    assert (parity.psnr_db, parity.worst_level) == (None, 0)
    assert (parity.pictures, parity.captions, parity.batches, parity.measured) == (7, 5, (1, 2, 3), "a painter")
    check_floor(parity, "fp16", 1000.0)


def test_the_worst_output_counts(reference: Reference) -> None:
    parity = measure(Painter(0.02), reference, "fp16", "")
    assert parity.psnr_db == pytest.approx(40.0, abs=0.01)  # 20 log10(2 / 0.02)
    assert parity.outputs["image_64"].psnr_db is None
    assert parity.outputs["image_128"].worst == pytest.approx(0.02, abs=1e-5) and parity.worst_level in (2, 3)
    assert parity.manifest()["psnr_db"] == parity.psnr_db


def test_a_batch_size_can_not_hide_among_others(reference: Reference) -> None:
    parity = measure(Painter(0.02, only_alone=True), reference, "fp16", "")
    assert parity.psnr_db is not None and parity.psnr_db > 44
    assert parity.outputs["image_128"].by_batch == {1: pytest.approx(40.0, abs=0.01), 2: None, 3: None}
    with pytest.raises(
        ParityError, match=r"fp16 changes the pictures too much; found 40.0 dB.*expected at least 42 dB"
    ):
        check_floor(parity, "fp16", 42.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(reference: Reference, bad: float) -> None:
    with pytest.raises(ParityError, match="image_128 of the generator in int8 has values that are not finite"):
        measure(Painter(bad), reference, "int8", "")
    with pytest.raises(ParityError, match=r"image_128 .* in fp32 .*earlier checkpoint"):
        make_reference(Painter(bad), batches(), 5)


def graph(error: float) -> ModelProto:
    """image_128 = z + error."""
    shape = ["N", 3]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("z", "image_128")]
    constant = helper.make_tensor("error", TensorProto.FLOAT, [], [error])
    node = helper.make_node("Add", ["z", "error"], ["image_128"])
    made = helper.make_graph([node], "graph", tensors[:1], tensors[1:], [constant])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


COSTS = {"small": 0.001, "large": 0.1, "middle": 0.03, "none": 0.0}


def build(kept: Collection[str]) -> ModelProto:
    return graph(sum(cost for layer, cost in COSTS.items() if layer not in kept))


@pytest.mark.parametrize(
    ("floor", "kept"),
    [(15.0, []), (30.0, ["large"]), (45.0, ["large", "middle"]), (70.0, ["small", "large", "middle"])],
)
def test_the_costliest_layers_are_kept_until_the_floor_is_cleared(
    floor: float, kept: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attngan_deploy.export.precision.parity.to_uint8", lambda images: images)
    inputs = batches()
    reference = Reference(inputs, [{"image_128": batch["z"]} for batch in inputs], 1)
    assert choose_kept(list(COSTS), build, reference, "fp16", floor) == kept


def test_a_precision_that_fits_no_layer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attngan_deploy.export.precision.parity.to_uint8", lambda images: images)
    inputs = batches()
    reference = Reference(inputs, [{"image_128": batch["z"]} for batch in inputs], 1)
    with pytest.raises(ParityError, match=r"int8 changes the pictures too much in every layer; found 26\.0 dB"):
        choose_kept(["a", "b"], lambda keep: graph(0.1 * (2 - len(keep))), reference, "int8", 30.0)


def test_a_layer_that_overflows_is_the_costliest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attngan_deploy.export.precision.parity.to_uint8", lambda images: images)
    inputs = batches()
    reference = Reference(inputs, [{"image_128": batch["z"]} for batch in inputs], 1)
    costs = {"a": 0.01, "b": float("inf")}
    kept = choose_kept(
        list(costs), lambda keep: graph(sum(costs[one] for one in costs if one not in keep)), reference, "fp16", 40.0
    )
    assert kept == ["b"]


def test_a_part_is_whole_batches_up_to_a_number(reference: Reference) -> None:
    assert [len(batch["z"]) for batch in reference.part(4).batches] == [3, 2]
    assert len(reference.part(0).batches) == 1
    assert reference.part(1000).batches == reference.batches


def test_samples_are_enough_and_real(tiny_bundle: Path) -> None:
    assert PICTURES == sum(SIZES) >= 256 and set(SIZES) == {1, 8, 33}
    bundle = open_bundle(tiny_bundle)
    captions = sample_captions(bundle)
    assert len(captions) > 8 and all(captions)
    made = sample_batches(bundle, captions, (5, 1), seed=0)
    assert made[0]["words"].shape[:2] == (5, 8)
    for batch in made:
        assert batch["words"].shape[2] == batch["mask"].shape[1] == batch["mask"].sum(axis=1).max()
    noise = np.concatenate([batch["z"] for batch in made])
    assert len(np.unique(noise, axis=0)) == 6
    alone = sample_batches(bundle, captions, (1,) * 6, seed=0)
    np.testing.assert_array_equal(np.concatenate([batch["z"] for batch in alone]), noise)


def test_captions_of_a_file_join_the_golden_ones(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    (tmp_path / "captions.txt").write_text("a blue head\nzzz qqq\nred\n")
    (tmp_path / "none.txt").write_text("zzz\n")
    given = sample_captions(bundle, tmp_path / "captions.txt")
    assert len(given) == len(sample_captions(bundle, tmp_path / "none.txt")) + 2
    bare = replace(bundle, manifest=replace(bundle.manifest, golden=None))
    with pytest.raises(CaptionError, match=r"no caption has a word that tiny knows.*--captions"):
        sample_captions(bare, tmp_path / "none.txt")
    with pytest.raises(CaptionError, match="no captions file"):
        sample_captions(bundle, tmp_path / "missing.txt")
