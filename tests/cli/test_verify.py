"""`t2i verify`, as a person types it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from attngan_deploy.errors import EngineError
from attngan_deploy.score import verify
from tests.makers.commands import t2i
from tests.makers.golden_bundle import with_golden, with_manifest

ENGINE = ("--backend", "onnxruntime", "--precision", "fp32", "--device", "cpu", "--threads", "1")


@pytest.fixture(autouse=True)
def folder(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("T2I_MODELS", str(tiny_bundle.parent))
    return tmp_path


def test_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert t2i("verify", "tiny", *ENGINE) == 0
    told = capsys.readouterr()
    assert "files match their hashes" in told.out
    assert "golden pictures, worst difference" in told.out
    assert told.err == ""


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert t2i("verify", "tiny", *ENGINE, "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["backend"], row["status"], row["why"]) == ("onnxruntime", "passed", "")
    assert row["verification"]["worst_level"] <= 1
    assert row["verification"]["engine"]["threads"] == 1


def test_wrong_pictures_fail(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def darken(arrays: dict[str, np.ndarray]) -> None:
        arrays["image_128"] = arrays["image_128"] * np.float16(0.5)

    with_golden(tiny_bundle, Path("dark"), darken)
    assert t2i("verify", "dark", *ENGINE) == 1
    assert "FAILED (fp32 asks for at most 1 level)" in capsys.readouterr().out


def test_all_engines_in_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    """What can't run is told with its reason and is no failure, while something runs."""
    assert t2i("verify", "tiny", "--backend", "all", "--json", "--threads", "1") == 0
    told = capsys.readouterr()
    rows = json.loads(told.out)
    asked = {(row["backend"], row["device"], row["precision"]): row for row in rows}
    assert asked["onnxruntime", "cpu", "fp32"]["status"] == "passed"
    refused = asked["onnxruntime", "cpu", "int8"]
    assert refused["status"] == "refused" and "has no graph 'generator' in int8" in refused["why"]
    assert {"onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"} == {row["backend"] for row in rows}
    assert "onnxruntime on cpu, int8: can't run: bundle" in told.err


def test_an_engine_that_fails_while_it_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(model: object) -> None:
        raise EngineError("the generator made values that are not finite")

    monkeypatch.setattr(verify, "verify_model", fail)
    assert t2i("verify", "tiny", *ENGINE, "--json") == 1
    told = capsys.readouterr()
    assert json.loads(told.out)[0]["status"] == "failed"
    assert told.err == "t2i: onnxruntime on cpu, fp32: FAILED: the generator made values that are not finite\n"


def test_nothing_that_runs_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert t2i("verify", "tiny", "--backend", "onnxruntime", "--device", "cpu", "--precision", "int8") == 1
    assert "can't run: bundle" in capsys.readouterr().err


def test_a_judge(capsys: pytest.CaptureFixture[str]) -> None:
    assert t2i("verify", "judge", *ENGINE) == 0
    assert "no golden pictures in a judge" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["none"], "no model 'none'"),
        (["./none"], "no bundle at"),
        (["cut"], "is damaged: golden.npz has"),
        (["archive"], "is damaged: golden.npz: it can't be read"),
        (["newer"], "was made for a newer version of this program; found schema 99"),
        (["tiny", "--backend", "caffe"], "no backend 'caffe'"),
        (["tiny", "--backend", "onnxruntime,caffe"], "no backend 'caffe'"),
        (["tiny", "--device", "npu", "--backend", "onnxruntime"], "onnxruntime has no device npu"),
        (["tiny", "--device", "sm86"], "no device 'sm86', a compute capability for t2i export --target tensorrt-rtx"),
        (["tiny", "--precision", "fp8"], "no precision 'fp8'"),
        (["tiny", "--precision", ""], "no precision ''"),
    ],
)
def test_bad_input(tiny_bundle: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    for name in ("cut", "archive", "newer"):
        shutil.copytree(tiny_bundle, name)
    for name in ("cut", "archive"):
        Path(name, "golden.npz").write_bytes(b"PK")
    with_manifest(Path("archive"))
    manifest = json.loads(Path("newer/bundle.json").read_bytes())
    Path("newer/bundle.json").write_text(json.dumps({**manifest, "schema": 99}))
    assert t2i("verify", *arguments) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("t2i: ")
    assert told in lines[0]


def test_no_threads() -> None:
    assert t2i("verify", "tiny", "--threads", "0") == 2
