"""What bundles of DM-GAN and DF-GAN can do: what AttnGAN's can, less what their generators do not take or give."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from typer.testing import CliRunner

from attngan_deploy import TextToImage
from attngan_deploy.bundles.bundle import open_bundle, write_manifest
from attngan_deploy.bundles.truncation import Truncation
from attngan_deploy.cli import app, register
from attngan_deploy.errors import BundleError, EngineError, OutputError, ScoreError
from attngan_deploy.export.parity.torch_maker import TorchMaker
from attngan_deploy.export.precision import writer as precision_writer
from attngan_deploy.export.precision.writer import extend_bundle
from attngan_deploy.export.targets.edge import write_edge
from attngan_deploy.export.targets.triton import write_triton_repository
from attngan_deploy.generate.noise import noise_batch
from attngan_deploy.generate.pipeline import verify_model
from attngan_deploy.generate.replay import replay
from attngan_deploy.generate.run import Run
from attngan_deploy.media.captions import CaptionList, from_texts
from attngan_deploy.media.images import METADATA_KEY
from attngan_deploy.media.tokenizer import Tokenizer
from attngan_deploy.score.generated import GeneratedPictures
from attngan_deploy.score.metrics.word_fidelity import word_fidelity
from attngan_deploy.score.passport import PictureFacts
from attngan_deploy.score.table import _origin_rows
from attngan_deploy.serve.intake import ServedModel, accept
from attngan_deploy.serve.messages import Order
from attngan_deploy.serve.schemas import GenerateRequest
from attngan_deploy.serve.settings import ServerLimits
from attngan_deploy.serve.worker import make
from attngan_deploy.train.imports.from_bundle import generator_of
from tests.makers.alike import alike
from tests.makers.tiny_bundle import make_tiny_bundle

register("generate", "models")  # a lone command would need no name

FAMILIES = ("dmgan", "dfgan")
CAPTIONS = ["a small red bird", "this bird is blue with black wings and a long bill"]
FP32 = {"backend": "onnxruntime", "precision": "fp32", "threads": 1}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny bundle of each family."""
    return {family: make_tiny_bundle(tmp_path_factory.mktemp(family) / family, family) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(folders: dict[str, Path], family: str) -> Path:
    return folders[family]


def load(folder: Path) -> TextToImage:
    return TextToImage.load(folder, **FP32)


def levels_apart(ours: np.ndarray, theirs: np.ndarray) -> int:
    return int(np.abs(ours.astype(np.int16) - theirs).max())


def generate(folder: Path, out: Path, *more: str) -> str:
    """Run the command on `CAPTIONS`; its standard error where it failed, else ""."""
    captions = [word for text in CAPTIONS for word in ("--caption", text)]
    arguments = ["generate", *captions, "--model", str(folder), "-o", str(out), "--backend", "onnxruntime", *more]
    result = CliRunner().invoke(app, [*arguments, "--precision", "fp32", "--threads", "1"])
    return "" if result.exit_code == 0 else str(result.exception)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_it_makes_its_golden_pictures(folder: Path, backend: str) -> None:
    found = verify_model(TextToImage.load(folder, backend=backend, precision="fp32", threads=1))
    assert found.passed and found.worst_level is not None and found.worst_level <= 1


def test_pictures_do_not_depend_on_their_batch(folder: Path) -> None:
    model = load(folder)
    whole = model.generate(CAPTIONS, seed=3, images_per_caption=2)
    alone = model.generate(CAPTIONS, seed=3, images_per_caption=2, batch_size=1)
    assert levels_apart(whole, alone) <= 1
    assert not alike(whole[0], whole[2])


def test_truncation_is_the_models_own_and_can_be_turned_off(folders: dict[str, Path]) -> None:
    plain, cut = load(folders["dmgan"]), load(folders["dfgan"])
    places = [(caption, 0) for caption in range(200)]
    whole, _ = noise_batch(0, places, 4, 0)
    np.testing.assert_array_equal(plain.noise(0, places)[0], whole)
    np.testing.assert_array_equal(cut.noise(0, places, truncation=1.0)[0], whole)
    own = cut.noise(0, places)[0]
    assert np.abs(whole).max() > 2 and 1.5 < np.abs(own).max() <= 1.76
    np.testing.assert_array_equal(cut.noise(0, places, truncation=0.88)[0], own)
    inside = np.abs(whole).max(axis=1) < 2
    np.testing.assert_allclose(own[inside], 0.88 * whole[inside], rtol=1e-6)
    np.testing.assert_allclose(plain.noise(0, places, truncation=0.5)[0][inside], 0.5 * whole[inside], rtol=1e-6)
    assert not alike(cut.generate(CAPTIONS)[0], cut.generate(CAPTIONS, truncation=1.0)[0])


def test_the_command_follows_the_truncation_and_its_pictures_say_so(folders: dict[str, Path], tmp_path: Path) -> None:
    folder, model = folders["dfgan"], load(folders["dfgan"])
    told = {}
    for name, arguments, truncation in (("own", (), None), ("off", ("--truncation", "1"), 1.0)):
        assert generate(folder, tmp_path / name, *arguments) == ""
        picture = tmp_path / name / "00001_00.png"
        with Image.open(picture) as image:
            told[name] = json.loads(image.info[METADATA_KEY])
            assert levels_apart(np.asarray(image), model.generate(CAPTIONS, truncation=truncation)[0]) <= 1
        run = json.loads((tmp_path / name / "run.json").read_text())
        assert run.get("truncation") == told[name].get("truncation")
        assert replay(picture, str(folder)).same
    assert (told["own"]["truncation"], "truncation" in told["off"]) == (0.88, False)
    assert "another run" in generate(folder, tmp_path / "own", "--truncation", "1")
    assert "truncation" not in json.loads(generate_one(folders["dmgan"], tmp_path / "whole"))


def generate_one(folder: Path, out: Path) -> str:
    assert generate(folder, out) == ""
    return (out / "manifest.jsonl").read_text().splitlines()[0]


def test_attention_is_offered_where_there_is_one(folders: dict[str, Path], tmp_path: Path) -> None:
    assert generate(folders["dmgan"], tmp_path / "dm", "--attention") == ""
    assert len(list((tmp_path / "dm" / "attention").iterdir())) == len(CAPTIONS)
    why = "model dfgan has no attention: its generator looks at the sentence as a whole"
    folder = folders["dfgan"]
    (bundle_name,) = {open_bundle(folder).name}
    message = generate(folder, tmp_path / "df", "--attention")
    assert message.startswith(why.replace("dfgan", bundle_name)) and not (tmp_path / "df").exists()
    with pytest.raises(OutputError, match="has no attention"):
        Run.of(open_bundle(folder), CaptionList(from_texts(CAPTIONS)), attention=True)


def test_a_server_makes_the_same_pictures(folder: Path, family: str) -> None:
    bundle, model = open_bundle(folder), load(folder)
    orders = [Order(text, 7, (place, 0), preview=True) for place, text in enumerate(CAPTIONS)]
    for made, wanted in zip(make(model, orders), model.generate(CAPTIONS, seed=7), strict=True):
        assert levels_apart(made.picture, wanted) <= 1 and made.preview is not None
    served = {"m": ServedModel("m", bundle, Tokenizer.load(bundle.vocabulary))}
    wanted = GenerateRequest(captions=CAPTIONS, format="json", attention=True)
    if family == "dmgan":
        accept(wanted, served, ServerLimits())
        attended = make(model, [replace(orders[0], attention=True)])[0].attention
        assert attended is not None and len(attended.words) == 4
    else:
        with pytest.raises(Exception, match="model m has no attention"):
            accept(wanted, served, ServerLimits())
        assert accept(replace_attention(wanted), served, ServerLimits()).run.truncation == 0.88


def replace_attention(request: GenerateRequest) -> GenerateRequest:
    return request.model_copy(update={"attention": False})


def test_the_edge_file_makes_the_same_pictures(folder: Path, family: str, tmp_path: Path) -> None:
    model = load(folder)
    facts = write_edge(folder, tmp_path / "edge.onnx")
    assert facts.golden_worst_level is not None and facts.golden_worst_level <= 1
    session = onnxruntime.InferenceSession(str(facts.path), providers=["CPUExecutionProvider"])
    z, eps = model.noise(5, [(place, 0) for place in range(len(CAPTIONS))])
    inputs = {"captions": np.array(CAPTIONS, object), "z": z} | ({"eps": eps} if family == "dmgan" else {})
    assert [node.name for node in session.get_inputs()] == [*inputs]
    pictures, known = session.run(["pictures", "known"], inputs)
    assert known.tolist() == [4, 11]
    assert levels_apart(pictures, model.generate(CAPTIONS, seed=5)) <= 1
    told = session.get_modelmeta().custom_metadata_map
    assert told.get("truncation_scale") == (None if family == "dmgan" else "0.88")


def test_triton_gets_an_ensemble_of_what_there_is(folder: Path, family: str, tmp_path: Path) -> None:
    name, bundle = open_bundle(folder).name, open_bundle(folder)
    repository = write_triton_repository(bundle, tmp_path / "repository")
    ensemble = (repository / name / "config.pbtxt").read_text()
    readme = (repository / "README.md").read_text()
    compile(readme.split("```python\n")[1].split("```")[0], "README.md", "exec")
    generator = ensemble.split(f'model_name: "{name}_generator"')[1]
    has = {part: part in text for part, text in (("| `eps`", readme), ("attention", readme), ("words", generator))}
    assert set(has.values()) == {family == "dmgan"}
    outputs = ensemble.split(f'model_name: "{name}_text_encoder"')[1].split("model_name")[0]
    assert ('output_map { key: "words"' in outputs) == (family == "dmgan")
    assert ("cut at 2 and times 0.88" in readme) == (family == "dfgan")


def test_other_precisions_are_stored_and_clear_their_floors(
    folder: Path, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision_writer, "SIZES", (8, 1))
    made = extend_bundle(str(folder), ["fp16", "bf16", "int8"], tmp_path / "made")
    bundle = open_bundle(made)
    assert bundle.manifest.truncation == (None if family == "dmgan" else Truncation(2.0, 0.88))
    for precision in bundle.precisions("generator")[1:]:
        parity = bundle.graph("generator").precisions[precision].parity
        assert parity is not None and (parity.lowest_db or 100) >= bundle.manifest.floors[precision]
    found = verify_model(TextToImage.load(made, backend="onnxruntime", precision="int8", threads=1))
    assert found.passed


def test_scores_say_the_truncation(folders: dict[str, Path]) -> None:
    made = {name: GeneratedPictures(load(folder), CAPTIONS, 2).generated for name, folder in folders.items()}
    assert {name: facts.truncation for name, facts in made.items()} == {"dmgan": None, "dfgan": 0.88}
    shown = {name: str(_origin_rows(PictureFacts(generated=facts))) for name, facts in made.items()}
    assert "seed 0, noise cut and times 0.88" in shown["dfgan"] and "noise" not in shown["dmgan"]


def test_word_fidelity_needs_attention(folders: dict[str, Path]) -> None:
    with pytest.raises(ScoreError, match=r"has no attention, which word fidelity measures\. Next: leave out"):
        word_fidelity(load(folders["dfgan"]))


def test_torch_makes_the_same_pictures(folder: Path, family: str, tmp_path: Path) -> None:
    from attngan_deploy.export.parity.torch_maker import torch_maker
    from tests.makers.tiny_bundle import make_tiny_checkpoint

    maker: TorchMaker = torch_maker(make_tiny_checkpoint(tmp_path / "checkpoint", family))
    found = np.concatenate([batch.pictures for batch in maker.stream(CAPTIONS, seed=4)])
    assert np.abs(found.astype(np.int16) - load(folder).generate(CAPTIONS, seed=4)).mean() < 2  # weights are rounded


def test_what_a_generator_takes_is_checked(folders: dict[str, Path]) -> None:
    for name, folder in folders.items():
        model = load(folder)
        features = model.encode(CAPTIONS)
        z, eps = model.noise(0, [(0, 0), (1, 0)])
        with pytest.raises(EngineError, match="eps does not fit model"):
            model.decode(features, z, np.zeros((2, 3), np.float32))
        if name == "dmgan":
            with pytest.raises(EngineError, match="eps does not fit model"):
                model.decode(features, z)
        else:
            assert model.decode(features, z, eps).attention is None


def test_training_does_not_go_on_from_them(folder: Path, family: str) -> None:
    with pytest.raises(BundleError, match=f"can't be trained here; found variant {family}; expected attngan, base"):
        generator_of(open_bundle(folder), [[1, 2], [3]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truncation": {"clip": 0.1, "scale": 0.88}}, "a truncation at 0.1 times 0.88"),
        ({"truncation": {"clip": 2.0, "scale": 1.0}}, "a truncation at 2.0 times 1.0"),
        ({"truncation": {"clip": 2.0}}, "truncation: found no truncation.scale|no scale"),
        ({"truncation": 3}, "truncation: found"),
        ({"sizes": {"eps": 4}}, "its sizes ask for 'eps' of 4, and its generator has None"),
        ({"sizes": {"attention": 64}}, "its sizes say an attention of 64"),
    ],
)
def test_a_manifest_that_its_graph_contradicts_is_refused(
    folders: dict[str, Path], tmp_path: Path, change: dict[str, object], message: str
) -> None:
    copy = Path(shutil.copytree(folders["dfgan"], tmp_path / "copy"))
    document = json.loads((copy / "bundle.json").read_text())
    sizes = document["sizes"] | change.get("sizes", {})
    with pytest.raises(BundleError, match=message):
        write_manifest(copy, {**document, **change, "sizes": sizes})
