"""Targets of a bundle: which function makes each, with what, and where it goes."""

import shutil
from pathlib import Path

import pytest

from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.engines.cache import make_cache
from attngan_deploy.errors import OutputError, T2IError
from attngan_deploy.export.targets import edge, engines, triton
from attngan_deploy.export.targets.engines import Built
from attngan_deploy.export.targets.targets import TARGETS, build_target, check_targets


def test_the_bundle_itself_is_no_product(tiny_bundle: Path) -> None:
    assert build_target(open_bundle(tiny_bundle), "onnx") == []


@pytest.mark.parametrize("target", engines.TARGETS)
def test_engines(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    asked = []

    def prebuild(*arguments: object) -> list[Built]:
        asked.append(arguments)
        return [Built("generator", target, "1.0", "sm89", "fp16", tmp_path / "engine", 5, 0.5, False)]

    monkeypatch.setattr(engines, "prebuild", prebuild)
    bundle = open_bundle(tiny_bundle)
    made = build_target(bundle, target, ["fp32", "fp16"], tmp_path, ["sm89"])
    assert asked == [(bundle, target, tmp_path, ["fp32", "fp16"], ["sm89"])]
    assert made[0].to_json() == {
        "target": target,
        "what": "generator for sm89",
        "precision": "fp16",
        "path": str(tmp_path / "engine"),
        "bytes": 5,
        "seconds": 0.5,
    }


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_triton_and_edge_take_one_precision(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    def write(bundle: object, path: Path, precision: str) -> object:
        path.write_text(precision)
        return type("Facts", (), {"path": path, "bytes": 4})

    monkeypatch.setattr(edge, "write_edge", write)
    monkeypatch.setattr(triton, "write_triton_repository", lambda bundle, path, precision: path)
    bundle = open_bundle(tiny_bundle)
    single = build_target(bundle, "edge", [precision], tmp_path / "one.onnx")
    assert (single[0].path.read_text(), single[0].precision) == (precision, precision)
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "file").write_text("12345")
    served = build_target(bundle, "triton", [precision], tmp_path / "served")
    assert (served[0].bytes, served[0].precision) == (5, precision)
    with pytest.raises(T2IError, match="--target edge takes one precision; found fp32, int8"):
        check_targets(["onnx", "edge"], ["fp32", "int8"])


@pytest.mark.parametrize("target", ["triton", "edge", "tensorrt-rtx"])
def test_a_place_that_can_not_be_used(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """The next step names the option that gave it."""
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(engines, "prebuild", lambda bundle, target, out, *more: make_cache(out))
    with pytest.raises(OutputError) as caught:
        build_target(open_bundle(tiny_bundle), target, out=tmp_path / "file")
    assert caught.value.next_step == "choose another --target-out"
    monkeypatch.setenv("T2I_CACHE", str(tmp_path / "file"))
    if target == "tensorrt-rtx":
        with pytest.raises(OutputError, match="Next: set T2I_CACHE to a folder of yours"):
            build_target(open_bundle(tiny_bundle), target)


def test_openvino_goes_beside_the_bundle(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not to the cache, where nothing reads it."""
    asked = []
    monkeypatch.setattr(engines, "prebuild", lambda *arguments: asked.append(arguments[2]) or [])
    bundle = open_bundle(shutil.copytree(tiny_bundle, tmp_path / "tiny"))
    build_target(bundle, "openvino")
    build_target(bundle, "openvino", out=tmp_path / "there")
    build_target(bundle, "tensorrt")
    assert asked == [tmp_path.resolve() / "tiny-openvino", tmp_path / "there", None]


def test_all_targets_have_names_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(engines, "find_places", lambda *arguments: asked.append(arguments))
    check_targets(TARGETS, ["fp16"], devices=["sm89"])
    assert asked == [(target, ["fp16"], ["sm89"]) for target in engines.TARGETS]  # before anything is made
    with pytest.raises(T2IError, match=r"--target tflite can't be made; expected onnx, tensorrt, .*triton, edge"):
        check_targets(["onnx", "tflite"], ["fp32"])
    with pytest.raises(T2IError, match="--device is what engines are built for; expected --target tensorrt or "):
        check_targets(["onnx", "edge"], ["fp32"], devices=["sm89"])
    with pytest.raises(T2IError, match="--target triton takes one precision; found fp32, fp16, int8"):
        check_targets(["triton"], ["fp32", "fp16", "int8"])
