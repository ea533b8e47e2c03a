"""What "auto" stands for: measured once, kept, and never something worse than its floor."""

import json
import shutil
from pathlib import Path

import pytest

from attngan_deploy.bundles.bundle import Bundle, open_bundle, write_manifest
from attngan_deploy.engines import choice as module
from attngan_deploy.engines.choice import choose
from attngan_deploy.engines.facts import Engine
from attngan_deploy.engines.golden import Verification
from attngan_deploy.engines.request import EngineRequest
from attngan_deploy.errors import EngineError
from attngan_deploy.generate.pipeline import TextToImage, verify_model

ORT, OPENVINO, BF16 = ("onnxruntime", "cpu", "fp32"), ("openvino", "cpu", "fp32"), ("openvino", "cpu", "bf16")

ENGINE = ("backend", "device", "precision")

Names = tuple[str, ...]  # of a backend, a device and a precision


def names_of(request: EngineRequest) -> Names:
    return tuple(request.names.values())


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("T2I_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> set[Names]:
    """Combinations that count as installed, all of which ONNX Runtime runs in truth."""
    installed = {ORT, OPENVINO, BF16}
    real = module.load_engine
    monkeypatch.setattr(module, "_is_installed", lambda each: names_of(each) in installed)
    monkeypatch.setattr(module, "_is_here", lambda each: True)
    monkeypatch.setattr(
        module, "load_engine", lambda bundle, graph, each: real(bundle, graph, EngineRequest(*ORT, threads=1))
    )
    return installed


def speeds(monkeypatch: pytest.MonkeyPatch, *values: float) -> list[float]:
    """Let measuring find these speeds, in order; returns those that were not measured yet."""
    left = list(values)
    monkeypatch.setattr(module, "_speed", lambda bundle, text_encoder, generator: left.pop(0))
    return left


def test_a_base_install_measures_nothing(bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    monkeypatch.setattr(module, "_try", None)
    assert choose(bundle) == (EngineRequest("onnxruntime", "cpu", "fp32"), ())
    assert not cache.exists()


def test_what_is_named_is_not_measured(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_try", None)
    assert choose(bundle, EngineRequest("openvino", "cpu", "bf16")) == (EngineRequest("openvino", "cpu", "bf16"), ())
    assert choose(bundle, EngineRequest(precision="bf16")) == (EngineRequest("openvino", "cpu", "bf16"), ())
    assert choose(bundle, EngineRequest(device="npu", precision="int8")) == (
        EngineRequest("openvino", "npu", "int8"),
        (),
    )


@pytest.mark.usefixtures("here")
def test_the_fastest_is_kept(bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = speeds(monkeypatch, 20.0, 40.0, 70.4)
    note = "fastest of onnxruntime cpu fp32 20 img/s, openvino cpu fp32 40 img/s, openvino cpu bf16 70 img/s"
    expected = (EngineRequest("openvino", "cpu", "bf16"), (note,))
    assert choose(bundle) == expected
    assert left == []
    monkeypatch.setattr(module, "_try", None)
    assert choose(bundle) == expected
    assert len(list(cache.glob("choice-*.json"))) == 1


@pytest.mark.usefixtures("here", "cache")
def test_measured_again_where_something_differs(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = speeds(monkeypatch, *[1.0] * 100)

    def measured() -> int:
        before = len(left)
        choose(bundle)
        return before - len(left)

    assert measured() == 3
    assert measured() == 0
    choose(bundle, EngineRequest(threads=1))
    assert len(left) == 94
    choose(bundle, EngineRequest(precision="fp32"))
    assert len(left) == 92
    monkeypatch.setattr(module, "_machine", lambda: ["another processor"])
    assert measured() == 3
    monkeypatch.setattr("attngan_deploy.system.machine.versions", lambda: {"openvino": "1"})
    assert measured() == 3
    folder = Path(shutil.copytree(bundle.folder, tmp_path / "other"))
    (folder / "generator.fp16.onnx").write_bytes(b"new")
    write_manifest(folder, bundle.manifest.document)
    bundle = open_bundle(folder)
    assert measured() == 3


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"schema": 0}', '{"schema": 1}', '{"schema": 1, "backend": "x", "device": 1}']
)
def test_a_damaged_cache_is_measured_again(
    bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    speeds(monkeypatch, 3.0, 2.0, 1.0, 3.0, 2.0, 1.0)
    expected = choose(bundle)
    [path] = cache.glob("*.json")
    path.write_text(text)
    assert choose(bundle) == expected
    assert json.loads(path.read_text())["backend"] == "onnxruntime"


@pytest.mark.parametrize(
    "kept",
    [
        ("tensorrt", "cuda", "fp32"),  # not installed, and not asked for
        ("onnxruntime", "cuda", "fp32"),
        ("openvino", "cpu", "int8"),  # not stored
        ("openvino", "npu", "fp16"),  # not here
        ("openvino", "cpu", "fp64"),
        ("", 5, None),
    ],
)
def test_a_kept_choice_that_does_not_go_is_measured_again(
    bundle: Bundle, cache: Path, here: set[Names], monkeypatch: pytest.MonkeyPatch, kept: tuple[object, ...]
) -> None:
    npu = ("openvino", "npu", "fp16")
    here |= {npu, ("openvino", "cpu", "int8")}
    monkeypatch.setattr(module, "_is_here", lambda each: names_of(each) != npu)
    speeds(monkeypatch, 3.0, 2.0, 1.0, 3.0, 2.0, 1.0)
    expected = choose(bundle)
    [path] = cache.glob("*.json")
    path.write_text(json.dumps({"schema": module.SCHEMA_VERSION, "notes": [], **dict(zip(ENGINE, kept, strict=True))}))
    assert choose(bundle) == expected
    assert json.loads(path.read_text())["backend"] == "onnxruntime"


@pytest.mark.usefixtures("here")
def test_a_kept_choice_fits_the_request(bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds(monkeypatch, 3.0, 2.0, 3.0, 2.0)
    assert choose(bundle, EngineRequest("openvino"))[0].precision == "fp32"
    [path] = cache.glob("*.json")
    path.write_text(json.dumps({"schema": module.SCHEMA_VERSION, "notes": [], **dict(zip(ENGINE, ORT, strict=True))}))
    assert choose(bundle, EngineRequest("openvino"))[0].backend == "openvino"


@pytest.mark.usefixtures("here")
def test_a_cache_that_can_not_be_written(bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.write_text("a file, no folder")
    speeds(monkeypatch, 1.0, 2.0, 1.0)
    engine, notes = choose(bundle)
    assert engine.backend == "openvino"
    assert f"measured at every start, as {cache} can't be written: File exists" in notes


@pytest.mark.usefixtures("here")
def test_a_folder_in_the_place_of_a_cache_file(bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds(monkeypatch, *[1.0, 2.0, 1.0] * 3)
    choose(bundle)
    [path] = cache.glob("*.json")
    path.unlink()
    path.mkdir()
    for _ in range(2):
        engine, notes = choose(bundle)
        assert engine.backend == "openvino"
        assert f"measured at every start, as {path} is not a file, and is left alone" in notes


@pytest.mark.usefixtures("here", "cache")
def test_below_its_floor_nothing_is_chosen(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    psnr = iter([80.0, 80.0, 34.9])

    def check(bundle: Bundle, text_encoder: Engine, generator: Engine) -> Verification:
        found = next(psnr)
        return Verification("tiny", "", generator.facts, 4, 9, found, "35 dB or more", found >= 35.0)

    monkeypatch.setattr(module, "check_engines", check)
    speeds(monkeypatch, 10.0, 20.0)
    engine, notes = choose(bundle)
    assert (engine.backend, engine.precision) == ("openvino", "fp32")
    assert "openvino cpu bf16 left out: " in notes[0]
    assert "34.9 dB" in notes[0]
    monkeypatch.setattr(
        module, "check_engines", lambda *each: Verification("", "", each[2].facts, 4, 9, 1.0, "", False)
    )
    with pytest.raises(
        EngineError, match="no engine makes the golden pictures here; found onnxruntime cpu fp32 left out"
    ):
        choose(bundle, EngineRequest(precision="fp32"))


@pytest.mark.usefixtures("cache")
def test_what_does_not_run_is_left_out(bundle: Bundle, here: set[Names], monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.load_engine

    def load(bundle: Bundle, graph: str, request: EngineRequest) -> Engine:
        if request.backend == "openvino":
            raise EngineError("OpenVINO has a cold", found="a cough")
        return real(bundle, graph, request)

    monkeypatch.setattr(module, "load_engine", load)
    engine, notes = choose(bundle)
    assert engine.backend == "onnxruntime"
    assert "openvino cpu bf16 left out: OpenVINO has a cold" in notes[0]
    here.remove(ORT)
    engine, notes = choose(bundle, EngineRequest(threads=1))  # whose own error then says what is wrong
    assert (engine, notes) == (EngineRequest(*OPENVINO, threads=1), ())


@pytest.mark.usefixtures("cache", "here")
def test_a_fallback_is_never_measured(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.load_engine

    def load(bundle: Bundle, graph: str, request: EngineRequest) -> Engine:
        assert not request.allow_fallback
        return real(bundle, graph, request)

    monkeypatch.setattr(module, "load_engine", load)
    speeds(monkeypatch, 1.0, 2.0, 1.0)
    assert choose(bundle, EngineRequest(allow_fallback=True))[0] == EngineRequest(*OPENVINO, allow_fallback=True)


@pytest.mark.usefixtures("cache", "here")
def test_without_the_reference_nothing_else_is_taken(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken fp32 graph is a broken bundle: its int8 graph is no way out."""

    def fail(bundle: Bundle, *engines: Engine) -> Verification:
        raise EngineError("the generator made values that are not finite")

    monkeypatch.setattr(module, "check_engines", fail)
    with pytest.raises(EngineError, match="not finite"):
        choose(bundle)


@pytest.mark.usefixtures("cache")
def test_tensorrt_has_to_be_named(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Names] = []
    monkeypatch.setattr(module, "is_stored", lambda bundle, each: bool(asked.append(names_of(each))))  # type: ignore[func-returns-value]
    choose(bundle)
    assert not any(name.startswith("tensorrt") for each in asked for name in each)
    asked.clear()
    choose(bundle, EngineRequest("tensorrt-rtx"))
    choose(bundle, EngineRequest("onnxruntime", "tensorrt"))
    assert {each[:2] for each in asked} == {("tensorrt-rtx", "cuda"), ("onnxruntime", "tensorrt")}


def test_without_golden_cases_nothing_is_measured(
    bundle: Bundle, tmp_path: Path, here: set[Names], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_try", None)
    folder = Path(shutil.copytree(bundle.folder, tmp_path / "plain"))
    write_manifest(folder, {key: value for key, value in bundle.manifest.document.items() if key != "golden"})
    assert here
    assert choose(open_bundle(folder)) == (EngineRequest(*ORT), ("not measured, as the bundle has no golden cases",))


def test_for_real(tiny_bundle: Path, cache: Path) -> None:
    """With the engines that are installed; the model that comes out makes the golden pictures."""
    pytest.importorskip("openvino", reason="needs a second engine: the 'openvino' extra")
    model = TextToImage.load(tiny_bundle, threads=1)
    assert "fastest of onnxruntime cpu fp32 " in model.description
    assert verify_model(model).passed
    [path] = cache.glob("choice-*.json")
    told = json.loads(path.read_text())
    assert (told["backend"], told["precision"]) == (model.facts.backend, model.facts.precision)
