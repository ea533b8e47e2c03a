"""A picture again from its own metadata, and metadata that no picture of ours has."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attngan_deploy.bundles.bundle import read_manifest
from attngan_deploy.engines.request import EngineRequest
from attngan_deploy.errors import BundleError, CaptionError, DataError, EngineError, OutputError
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.generate.replay import replay, write_replay
from attngan_deploy.media.images import encode_picture
from tests.makers.commands import t2i
from tests.makers.golden_bundle import with_golden, with_manifest

CAPTIONS = "a small red bird with black wings\n\nthis bird is blue\n"


@pytest.fixture(autouse=True)
def out(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with c.txt; pictures are made into `out`, which is returned."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("T2I_MODELS", str(tiny_bundle.parent))
    Path("c.txt").write_text(CAPTIONS)
    return tmp_path / "out"


def generate(*options: str) -> None:
    engine = ("--backend", "onnxruntime", "--precision", "fp32", "--threads", "1")
    assert t2i("generate", "c.txt", "--model", "tiny", "--n", "2", "--seed", "7", *engine, *options) == 0


def metadata(path: Path) -> dict[str, Any]:
    with Image.open(path) as image:
        told: dict[str, Any] = json.loads(image.info["t2i"])
    return told


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The same picture with other metadata."""
    told = metadata(path)
    change(told)
    with Image.open(path) as image:
        data = encode_picture(np.asarray(image), "png", told)
    target = path.with_name("changed.png")
    target.write_bytes(data)
    return target


@pytest.mark.parametrize("options", [(), ("--shared-noise",), ("--batch-size", "1")])
def test_every_picture_of_a_run(out: Path, options: tuple[str, ...]) -> None:
    generate(*options)
    for path in sorted(out.glob("*.png")):
        made = replay(path, request=EngineRequest(threads=1))
        assert made.same and made.worst_level <= 1
        assert (made.engine.backend, made.engine.precision) == ("onnxruntime", "fp32")
        with Image.open(path) as image:
            assert np.abs(np.asarray(image).astype(int) - made.picture).max() <= 1
    assert len(list(out.glob("*.png"))) == 4


@pytest.mark.parametrize(("suffix", "most"), [("webp", 1), ("jpg", 8)])
def test_formats_without_metadata_ask_the_manifest(out: Path, suffix: str, most: int) -> None:
    generate("--format", suffix)
    made = replay(out / f"00003_01.{suffix}", request=EngineRequest(threads=1))
    assert made.same and made.worst_level <= most
    assert (made.origin.caption, made.origin.index, made.origin.sample) == ("this bird is blue", 1, 1)
    moved = out.parent / f"00003_01.{suffix}"
    shutil.copy(out / moved.name, moved)
    with pytest.raises(DataError, match="does not say what it was made from; found no metadata in it, and no"):
        replay(moved)


def test_the_manifest_names_the_engine(out: Path) -> None:
    generate("--format", "webp")
    made = replay(out / "00003_01.webp", request=EngineRequest(threads=1))
    assert (made.origin.backend, made.origin.precision) == ("onnxruntime", "fp32")
    assert made.source == "the manifest.jsonl beside it"


def test_what_names_no_engine_may_be_given_one(out: Path) -> None:
    generate()
    path = rewritten(out / "00001_00.png", lambda told: [told.pop(key) for key in ("backend", "precision")])
    made = replay(path, request=EngineRequest(threads=1))
    assert made.same and made.source == "its metadata"
    assert (made.engine.backend, made.engine.precision) == ("onnxruntime", "fp32")
    pytest.importorskip("openvino", reason="computes in bf16: the 'openvino' extra")
    try:
        made = replay(path, request=EngineRequest(precision="bf16", threads=1))
    except EngineError as error:
        pytest.skip(str(error))
    assert (made.engine.backend, made.engine.precision) == ("openvino", "bf16")


def test_of_bundles_of_one_hash_the_one_that_stores_the_precision(
    tiny_bundle: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate()
    path = rewritten(out / "00001_00.png", lambda told: told.update(precision="int8"))
    models = out.parent / "models"
    for name in ("a", "b", "c"):
        shutil.copytree(tiny_bundle, models / name)
    monkeypatch.setenv("T2I_MODELS", str(models))
    with pytest.raises(BundleError, match=r"/a has no graph 'generator' in int8; .* Next: --model with its folder, or"):
        replay(path, request=EngineRequest(threads=1))
    graphs = json.loads((models / "b" / "bundle.json").read_bytes())["graphs"]
    shutil.copy(models / "b" / "generator.onnx", models / "b" / "generator.int8.onnx")
    graphs["generator"]["precisions"] = {"int8": {"file": "generator.int8.onnx"}}
    with_manifest(models / "b", graphs=graphs)
    assert read_manifest(models / "a").hash == read_manifest(models / "b").hash
    opened: list[Path] = []
    real = TextToImage.load_on
    monkeypatch.setattr(TextToImage, "load_on", lambda of, *engine: opened.append(of.folder) or real(of, *engine))
    assert replay(path, request=EngineRequest(threads=1)).same
    with_manifest(models / "c", name="mine")
    plain = rewritten(out / "00001_01.png", lambda told: told.update(model="mine"))
    assert replay(plain, request=EngineRequest(threads=1)).same
    assert [folder.name for folder in opened] == ["b", "c"]
    with pytest.raises(BundleError, match=r"/c has no graph 'generator' in int8"):
        replay(rewritten(out / "00001_00.png", lambda told: told.update(precision="int8")), str(models / "c"))


def test_another_caption_makes_another_picture(out: Path) -> None:
    """The comparison can fail: with another seed the picture is another one."""
    generate()
    made = replay(rewritten(out / "00001_00.png", lambda told: told.update(seed=8)), request=EngineRequest(threads=1))
    assert not made.same
    assert made.worst_level > 1
    assert "differs by at most" in str(made)


def test_a_picture_that_was_painted_over(out: Path) -> None:
    generate()
    path = out / "00001_00.png"
    with Image.open(path) as image:
        pixels = np.array(image)
    pixels[60:64, 60:64] = 255 - pixels[60:64, 60:64]
    path.write_bytes(encode_picture(pixels, "png", metadata(path)))
    made = replay(path, request=EngineRequest(threads=1))
    assert not made.same
    assert 0 < made.differing < 0.01


def test_a_coarser_precision_has_its_floor(out: Path) -> None:
    """A picture that says bf16 may differ by what bf16 may, and by no more."""
    generate()
    path = rewritten(out / "00001_00.png", lambda told: told.update(precision="bf16", backend="openvino"))
    with Image.open(path) as image:
        told, pixels = json.loads(image.info["t2i"]), np.asarray(image).astype(int)
    for noise, same in ((2, True), (20, False)):
        shaken = (pixels + noise * np.random.default_rng(0).choice([-1, 1], pixels.shape)).clip(0, 255).astype(np.uint8)
        path.write_bytes(encode_picture(shaken, "png", told))
        assert replay(path, request=EngineRequest(backend="onnxruntime", precision="fp32", threads=1)).same is same


def test_the_second_one_carries_its_own_metadata(out: Path) -> None:
    generate()
    source, target = out / "00003_01.png", out.parent / "again.png"
    write_replay(replay(source, request=EngineRequest(threads=1)), source, target)
    assert metadata(target)["file"] == "again.png"
    again = replay(target, request=EngineRequest(threads=1))
    assert (again.worst_level, again.origin.caption) == (0, "this bird is blue")


def test_a_model_of_another_hash_is_refused(tiny_bundle: Path, out: Path) -> None:
    generate()
    other = with_golden(tiny_bundle, out.parent / "other", lambda arrays: arrays.update(seed=np.array(5)))
    ours = metadata(out / "00001_00.png")["model_hash"][:12]
    with pytest.raises(BundleError, match="was made by another model") as caught:
        replay(out / "00001_00.png", str(other))
    assert f"expected tiny {ours}" in str(caught.value)
    assert "found other " in str(caught.value)


def test_a_model_is_found_by_its_hash(tiny_bundle: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate()
    models = out.parent / "models"
    shutil.copytree(tiny_bundle, models / "renamed")
    monkeypatch.setenv("T2I_MODELS", str(models))
    assert replay(out / "00001_00.png", request=EngineRequest(threads=1)).same


def test_a_model_that_is_not_here(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate()
    monkeypatch.delenv("T2I_MODELS")
    with pytest.raises(BundleError, match=r"was made by another model; found .*base .*; expected tiny "):
        replay(out / "00001_00.png")


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        (lambda told: told.pop("shared_noise"), DataError, "found no 'shared_noise'"),
        (lambda told: told.pop("caption"), DataError, "found no 'caption'"),
        (lambda told: told.update(caption=5), DataError, "'caption' is 5"),
        (lambda told: told.update(seed="7"), DataError, "'seed' is \"7\""),
        (lambda told: told.update(seed=True), DataError, "'seed' is true"),
        (lambda told: told.update(seed=-1), DataError, "'seed' is out of range"),
        (lambda told: told.update(seed=2**64), DataError, "'seed' is out of range"),
        (lambda told: told.update(index=10**4000), DataError, "'index' is out of range"),
        (lambda told: told.update(sample=1e3), DataError, "'sample' is 1000.0"),
        (lambda told: told.update(shared_noise=1), DataError, "'shared_noise' is 1"),
        (lambda told: told.update(model_hash=None), DataError, "'model_hash' is null"),
        (lambda told: told.update(backend="caffe"), DataError, "'backend' is unknown; found caffe"),
        (lambda told: told.update(precision=[1]), DataError, "'precision' is unknown; found [1]"),
        (lambda told: told.update(model="../../etc"), BundleError, "was made by another model"),
        (lambda told: told.update(model="", model_hash=""), BundleError, "was made by another model"),
        (lambda told: told.update(caption="word " * 20000), CaptionError, "only unknown words"),
        (lambda told: told.update(caption="bird " * 20000), CaptionError, "is too long"),
        (lambda told: told.update(caption="\ud800"), CaptionError, "is not text"),
    ],
)
def test_hostile_metadata(
    out: Path, change: Callable[[dict[str, Any]], object], error: type[Exception], told: str
) -> None:
    generate()

    def aim(facts: dict[str, Any]) -> None:
        change(facts)
        if facts.get("model", "tiny") != "tiny":
            facts["model_hash"] = "0" * 64

    with pytest.raises(error) as caught:
        replay(rewritten(out / "00001_00.png", aim))
    assert told in str(caught.value)
    assert len(str(caught.value)) < 600


def test_the_largest_numbers_are_no_trouble(out: Path) -> None:
    generate()
    path = rewritten(out / "00001_00.png", lambda told: told.update(index=2**64 - 1, sample=2**64 - 1, seed=2**64 - 1))
    assert not replay(path, request=EngineRequest(threads=1)).same


@pytest.mark.parametrize("text", ["{", "[]", "5", "null", '"text"', "[" * 100_000, "1" + "0" * 10_000, "NaN"])
def test_metadata_that_is_no_record(text: str) -> None:
    from PIL.PngImagePlugin import PngInfo

    facts = PngInfo()
    facts.add_text("t2i", text)
    Image.new("RGB", (128, 128)).save("odd.png", pnginfo=facts)
    with pytest.raises(DataError, match="is damaged"):
        replay(Path("odd.png"))


def test_files_that_are_no_pictures(out: Path) -> None:
    generate()
    whole = (out / "00001_00.png").read_bytes()
    Path("text.png").write_text("no picture")
    Path("empty.png").touch()
    Path("cut.png").write_bytes(whole[: len(whole) // 2])
    Path("head.png").write_bytes(whole[:60])
    Path("bare.png").write_bytes(encode_picture(np.zeros((128, 128, 3), np.uint8)))
    Image.new("RGB", (8, 8)).save("tiny.gif")
    Image.new("RGB", (8, 8)).save("wide.bmp")
    expected = {
        "none.png": "no picture at none.png",
        ".": "can't be read: Is a directory",
        "text.png": "text.png is no picture",
        "empty.png": "empty.png is no picture",
        "cut.png": "is a damaged picture",
        "bare.png": "does not say what it was made from",
        "tiny.gif": "tiny.gif is no picture",
        "wide.bmp": "wide.bmp is no picture",
        "head.png": "head.png",
    }
    for name, told in expected.items():
        with pytest.raises(DataError) as caught:
            replay(Path(name))
        assert told in str(caught.value), name


def test_a_picture_that_claims_to_be_huge(out: Path) -> None:
    generate()
    data = bytearray((out / "00001_00.png").read_bytes())
    data[16:24] = (60_000).to_bytes(4) * 2  # width and height
    import zlib

    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4)
    Path("huge.png").write_bytes(bytes(data))
    with pytest.raises(DataError, match="no picture that can be read"):
        replay(Path("huge.png"))


def test_a_resized_picture(out: Path) -> None:
    generate()
    told = metadata(out / "00001_00.png")
    Path("small.png").write_bytes(encode_picture(np.zeros((64, 64, 3), np.uint8), "png", told))
    with pytest.raises(DataError, match="was resized; found 64 x 64 px; expected 128 x 128"):
        replay(Path("small.png"))


def test_an_engine_that_does_not_go(out: Path) -> None:
    generate()
    with pytest.raises(EngineError, match="onnxruntime does not compute in bf16"):
        replay(out / "00001_00.png", request=EngineRequest(precision="bf16"))


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("out/00001_00.png", "is the picture itself"),
        ("out", "can't be written"),
        ("again.gif", "can't be written"),
        ("none/again.png", "there is no folder none"),
        ("folder.png", "is a folder"),
    ],
)
def test_targets_that_are_refused(out: Path, target: str, told: str) -> None:
    generate()
    Path("folder.png").mkdir()
    source = Path("out/00001_00.png")
    before = source.read_bytes()
    with pytest.raises(OutputError) as caught:
        write_replay(replay(source, request=EngineRequest(threads=1)), source, Path(target))
    assert told in str(caught.value)
    assert source.read_bytes() == before


def test_metadata_and_model_are_enough(out: Path) -> None:
    """What a picture says of itself makes it through the Python interface, too."""
    generate()
    told = metadata(out / "00003_01.png")
    model = TextToImage.load(told["model"], backend=told["backend"], precision=told["precision"], threads=1)
    places = [(told["index"], told["sample"])]
    (batch,) = model.stream(["", told["caption"]][-1:] * 2, told["seed"], places=places)
    assert (
        np.abs(
            batch.pictures[0].astype(int) - replay(out / "00003_01.png", request=EngineRequest(threads=1)).picture
        ).max()
        <= 1
    )
