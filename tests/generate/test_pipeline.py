"""Captions to pictures, and what the pictures depend on."""

import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from attngan_deploy.bundles.bundle import write_manifest
from attngan_deploy.engines.facts import EngineFacts, Tensors
from attngan_deploy.errors import BundleError, CaptionError, EngineError, T2IError
from attngan_deploy.generate.batching import MAX_BATCH_WORDS
from attngan_deploy.generate.noise import noise_batch
from attngan_deploy.generate.pipeline import TextFeatures, TextToImage, UnknownWordWarning
from attngan_deploy.media.images import to_uint8
from tests.makers.alike import alike

CAPTIONS = [
    "a small red bird with black wings",
    "blue bird",
    "this bird is yellow and has a short black bill and a bright belly",
    "the large white bird",
]


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> TextToImage:
    return TextToImage.load(tiny_bundle, backend="onnxruntime", precision="fp32", threads=1)


def test_encode(model: TextToImage) -> None:
    features = model.encode(CAPTIONS)
    assert (features.words.shape, features.words.dtype) == ((4, 8, 14), np.float32)
    assert (features.sentence.shape, features.sentence.dtype) == ((4, 8), np.float32)
    assert (features.mask.dtype, features.mask.sum(axis=1).tolist()) == (np.bool_, [7, 2, 14, 4])
    alone = model.encode(CAPTIONS[1:2])
    np.testing.assert_allclose(features.sentence[1], alone.sentence[0], rtol=1e-6)
    np.testing.assert_allclose(features.words[1, :, :2], alone.words[0], rtol=1e-6)


def test_decode(model: TextToImage) -> None:
    features = model.encode(CAPTIONS)
    z, eps = noise_batch(0, [(row, 0) for row in range(4)], model.z_size, model.eps_size)
    stages = model.decode(features, z, eps)
    assert {size: image.shape for size, image in stages.images.items()} == {64: (4, 3, 64, 64), 128: (4, 3, 128, 128)}
    assert all(image.dtype == np.float32 and np.abs(image).max() <= 1 for image in stages.images.values())
    assert stages.attention.shape == (4, 14, 64, 64)
    np.testing.assert_allclose(stages.attention.sum(axis=1), 1, rtol=1e-5)
    assert (stages.attention[1, 2:] == 0).all()
    assert np.array_equal(model.generate(CAPTIONS), to_uint8(stages.images[128]))


def test_features_built_by_hand(model: TextToImage) -> None:
    features = model.encode(CAPTIONS[:1])
    by_hand = TextFeatures(features.words.copy(), features.sentence * 0.5, features.mask.copy())
    z, eps = np.zeros((1, 4), np.float32), np.zeros((1, 4), np.float32)
    before, after = model.decode(features, z, eps), model.decode(by_hand, z, eps)
    assert not np.allclose(before.images[128], after.images[128])
    assert not np.allclose(before.images[64], model.decode(features, z + 1, eps).images[64])
    assert not np.allclose(before.images[64], model.decode(features, z, eps + 1).images[64])


def test_pictures_do_not_depend_on_the_batch_size(model: TextToImage) -> None:
    expected = model.generate(CAPTIONS, seed=3, images_per_caption=3, batch_size=1)
    assert expected.shape == (12, 128, 128, 3)
    assert expected.dtype == np.uint8
    for batch_size in (2, 5, 12, None):
        pictures = model.generate(CAPTIONS, seed=3, images_per_caption=3, batch_size=batch_size)
        assert alike(pictures, expected)


def test_pictures_are_made_of_the_noise_of_their_place(model: TextToImage) -> None:
    places = [(caption, sample) for caption in range(4) for sample in range(2)]
    features = model.encode([CAPTIONS[caption] for caption, _ in places])
    for shared in (False, True):
        noise = noise_batch(3, places, model.z_size, model.eps_size, shared)
        expected = to_uint8(model.decode(features, *noise).images[128])
        pictures = model.generate(CAPTIONS, seed=3, images_per_caption=2, shared_noise=shared)
        assert alike(pictures, expected)


def test_pictures_depend_on_seed_place_and_sample(model: TextToImage) -> None:
    same = ["a red bird"] * 2
    base = model.generate(same, seed=3, images_per_caption=2)
    assert np.array_equal(base, model.generate(same, seed=3, images_per_caption=2))
    assert len({picture.tobytes() for picture in base}) == 4
    assert not np.array_equal(base, model.generate(same, seed=4, images_per_caption=2))
    shared = model.generate(same, seed=3, images_per_caption=2, shared_noise=True)
    assert len({picture.tobytes() for picture in shared}) == 2
    assert np.array_equal(shared[:2], shared[2:])


def test_neighbours_do_not_matter(model: TextToImage) -> None:
    base = model.generate(CAPTIONS, seed=3)
    other = model.generate(["a bird " * 20, *CAPTIONS[1:]], seed=3)
    assert alike(base[1:], other[1:])
    assert not alike(base[0], other[0])


def test_stream_makes_the_places_that_are_asked_for(model: TextToImage) -> None:
    everything = model.generate(CAPTIONS, seed=1, images_per_caption=4)
    places = [(0, 3), (1, 0), (1, 2), (1, 3), (3, 1)]
    batches = list(model.stream(CAPTIONS, seed=1, batch_size=2, places=places))
    assert [len(batch.places) for batch in batches] == [2, 2, 1]
    assert [place for batch in batches for place in batch.places] == places
    for batch in batches:
        for (caption, sample), picture in zip(batch.places, batch.pictures, strict=True):
            assert alike(picture, everything[caption * 4 + sample])


def test_each_caption_is_encoded_once(model: TextToImage, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    original = model._encode_ids

    def counted(ids: list[list[int]]) -> TextFeatures:
        encoded.append(len(ids))
        return original(ids)

    monkeypatch.setattr(model, "_encode_ids", counted)
    list(model.stream(CAPTIONS, images_per_caption=5, batch_size=3))
    assert sum(encoded) == len(CAPTIONS)


def test_captions_of_one_length_together(model: TextToImage) -> None:
    captions = ["a red bird", "a small blue bird", "a red bird", "bird"]
    expected = model.generate(captions, seed=2, images_per_caption=2)
    lengths = [len(caption.split()) for caption in captions]
    made: dict[tuple[int, int], NDArray[np.uint8]] = {}
    order: list[int] = []
    for batch in model.stream(captions, 2, 2, batch_size=3, attention=False, in_order=False):
        assert batch.attention is None
        order += [lengths[caption] for caption, _ in batch.places]
        made |= dict(zip(batch.places, batch.pictures, strict=True))
    assert order == sorted(order) and len(made) == len(captions) * 2
    for (caption, sample), picture in made.items():
        assert alike(picture, expected[caption * 2 + sample])


def test_equal_captions_are_encoded_once(model: TextToImage, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[list[int]] = []
    original = model._encode_ids
    monkeypatch.setattr(model, "_encode_ids", lambda ids: encoded.extend(ids) or original(ids))
    model.generate([*CAPTIONS, *CAPTIONS], images_per_caption=3, batch_size=2)
    assert len(encoded) == len({tuple(ids) for ids in encoded}) == len(CAPTIONS)


def test_long_captions_make_smaller_batches(model: TextToImage) -> None:
    long = "red bird " * 300
    sizes = [(len(batch.places), batch.attention.shape[1]) for batch in model.stream(["blue bird"] * 6 + [long] * 4)]
    assert all(pictures * words <= MAX_BATCH_WORDS for pictures, words in sizes)
    assert sum(pictures for pictures, _ in sizes) == 10


def test_unknown_words_warn(model: TextToImage) -> None:
    with pytest.warns(UnknownWordWarning, match="caption 2: left out 'yelow' .nearest known word: 'yellow'."):
        model.encode(["a bird", "a yelow bird"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.array_equal(model.generate("a yelow bird"), model.generate("a bird"))


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ([], "no captions were given"),
        (["a bird", "zebra"], "line 2 has only unknown words"),
        ([""], "has no words"),
        ([3], "a caption is no text; found 3"),
    ],
)
def test_bad_captions(model: TextToImage, captions: list[Any], message: str) -> None:
    with pytest.raises(CaptionError, match=message):
        model.encode(captions)
    with pytest.raises(CaptionError, match=message):
        model.stream(captions)


def test_bad_arrays(model: TextToImage) -> None:
    features = model.encode(CAPTIONS)
    noise = np.zeros((4, 4), np.float32)
    with pytest.raises(EngineError, match=r"z does not fit model tiny; found \(3, 4\); expected \(4, 4\)"):
        model.decode(features, noise[:3], noise)
    with pytest.raises(EngineError, match="wrong type; found float64"):
        model.decode(features, noise.astype(np.float64), noise)
    with pytest.raises(EngineError, match="no word in its mask"):
        model.decode(TextFeatures(features.words, features.sentence, np.zeros_like(features.mask)), noise, noise)
    with pytest.raises(EngineError, match="not finite"):
        model.decode(features, np.full_like(noise, np.nan), noise)
    with pytest.raises(T2IError, match="1 or more"):
        model.generate("a bird", batch_size=0)


def test_golden_cases(model: TextToImage) -> None:
    golden = np.load(model.bundle.path("golden.npz"))
    features = model.encode([str(caption) for caption in golden["captions"]])
    images = model.decode(features, golden["z"], golden["eps"]).images[128]
    np.testing.assert_allclose(images, golden["image_128"].astype(np.float32), atol=1e-3)


def test_load_by_name(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "mine")
    monkeypatch.setenv("T2I_MODELS", str(tmp_path))
    model = TextToImage.load("mine", backend="onnxruntime", threads=1, device="cpu")
    assert model.picture_size == 128
    assert model.description == str(model.facts) == f"{model.facts.short}, 1 thread"
    with pytest.raises(EngineError, match="openvino has no device cuda"):
        TextToImage.load("mine", backend="openvino", device="cuda", allow_fallback=True)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_weights_that_are_not_numbers(tiny_bundle: Path, tmp_path: Path, backend: str) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino", reason="needs the 'openvino' extra")
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "nan"))
    network = onnx.load(folder / "generator.onnx")
    for tensor in network.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and "bias" in tensor.name:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(tensor.dims, np.nan, np.float32), tensor.name))
    onnx.save(network, folder / "generator.onnx")
    write_manifest(folder, json.loads((folder / "bundle.json").read_text()))
    broken = TextToImage.load(folder, backend=backend, precision="fp32", threads=1, device="cpu")
    with pytest.raises(
        EngineError, match=r"the generator of model tiny made values that are not finite. Next: t2i verify"
    ):
        broken.generate("a bird")


class BrokenEncoder:
    """A text encoder whose features are no numbers."""

    facts = EngineFacts("elsewhere", "1", "cuda:0")

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        count, words = inputs["captions"].shape
        features = {
            "words": np.full((count, 8, words), np.nan, np.float32),
            "sentence": np.zeros((count, 8), np.float32),
        }
        return {**features, "mask": np.ones((count, words), np.bool_)}


def test_features_that_are_not_numbers(model: TextToImage) -> None:
    broken = TextToImage(model.bundle, BrokenEncoder(), model.generator, notes=("a note",))
    with pytest.raises(EngineError, match="the text encoder of model tiny made values that are not finite"):
        broken.encode(["a bird"])
    assert broken.description.endswith("1 thread, text encoder on elsewhere cuda:0, a note")


def test_captions_of_any_kind_of_list(model: TextToImage) -> None:
    expected = model.generate(["a red bird", "a blue bird"])
    assert np.array_equal(model.generate(iter(["a red bird", "a blue bird"])), expected)  # type: ignore[arg-type]
    assert np.array_equal(model.generate(np.array(["a red bird", "a blue bird"])), expected)  # type: ignore[arg-type]


def test_a_vocabulary_longer_than_the_embedding(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "long"))
    words = (folder / "vocabulary.txt").read_text() + "zorp\n"
    (folder / "vocabulary.txt").write_text(words)
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["sizes"]["words"] += 1
    write_manifest(folder, manifest)
    with pytest.raises(BundleError, match="can't take the last word of its vocabulary"):
        TextToImage.load(folder, backend="onnxruntime", precision="fp32", threads=1)
