"""Targets of a bundle: which function makes each, with what, and where it goes."""

from pathlib import Path

import pytest

from attngan_deploy.bundle import open_bundle
from attngan_deploy.errors import T2IError
from attngan_deploy.export import edge, engines, triton
from attngan_deploy.export.engines import Built
from attngan_deploy.export.targets import TARGETS, build_target, check_targets


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


@pytest.mark.parametrize(("precisions", "wanted"), [(["fp32"], "fp32"), (["fp32", "int8"], "int8")])
def test_triton_and_edge_take_one_precision(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precisions: list[str], wanted: str
) -> None:
    def write(bundle: object, path: Path, precision: str) -> object:
        path.write_text(precision)
        return type("Facts", (), {"path": path, "bytes": 4})

    monkeypatch.setattr(edge, "write_edge", write)
    monkeypatch.setattr(triton, "write_triton_repository", lambda bundle, path, precision: path)
    bundle = open_bundle(tiny_bundle)
    single = build_target(bundle, "edge", precisions, tmp_path / "one.onnx")
    assert (single[0].path.read_text(), single[0].precision) == (wanted, wanted)
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "file").write_text("12345")
    served = build_target(bundle, "triton", precisions, tmp_path / "served")
    assert (served[0].bytes, served[0].precision) == (5, wanted)


def test_all_targets_have_names_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(engines, "find_places", lambda *arguments: asked.append(arguments))
    check_targets(TARGETS, ["fp32", "fp16"], devices=["sm89"])
    assert asked == [(target, ["fp32", "fp16"], ["sm89"]) for target in engines.TARGETS]  # before anything is made
    with pytest.raises(T2IError, match=r"--target tflite can't be made; expected onnx, tensorrt, .*triton, edge"):
        check_targets(["onnx", "tflite"], ["fp32"])
    with pytest.raises(T2IError, match="--target triton takes one precision; found fp32, fp16, int8"):
        check_targets(["triton"], ["fp32", "fp16", "int8"])
