"""What a person at a terminal is told behind the pictures, and nobody else."""

import shlex
from pathlib import Path

import pytest

from attngan_deploy.cli import app, report_errors
from attngan_deploy.generate import what_next
from attngan_deploy.generate.run_record import EngineRecord
from tests.makers.commands import t2i

ON_CPU = EngineRecord("onnxruntime", "cpu", "fp32")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A processor that multiplies in bf16, without OpenVINO and with an empty cache."""
    monkeypatch.setenv("T2I_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(what_next, "find_spec", lambda name: None)
    monkeypatch.setattr(what_next, "cpu_flags", lambda: {"avx2", "avx512_bf16"})


def told(engine: EngineRecord) -> str:
    return "\n".join(what_next.what_next("out", "t2i generate c.txt", engine))


def test_openvino_is_told_once(tmp_path: Path) -> None:
    assert "pip install 'attngan-deploy[openvino]'" in told(ON_CPU)
    assert "OpenVINO" not in told(ON_CPU)
    (tmp_path / "cache" / what_next.TOLD).unlink()
    assert "OpenVINO" in told(ON_CPU)


@pytest.mark.parametrize("case", ["other engine", "gpu", "nothing made", "installed", "no bf16", "no cache"])
def test_openvino_is_not_told_where_it_would_not_help(
    case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engines = {"other engine": EngineRecord("openvino", "cpu"), "gpu": EngineRecord("onnxruntime", "cuda")}
    engine = EngineRecord() if case == "nothing made" else engines.get(case, ON_CPU)
    if case == "installed":
        monkeypatch.setattr(what_next, "find_spec", lambda name: object())
    if case == "no bf16":
        monkeypatch.setattr(what_next, "cpu_flags", lambda: {"avx2", "bf16"})
    if case == "no cache":
        (tmp_path / "cache").write_text("in the way")
    assert "OpenVINO" not in told(engine)


def test_a_person_is_told_where_the_pictures_are(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("generate", "--caption", "a red bird", "--model", str(tiny_bundle), "--backend", "onnxruntime")
    assert t2i(*arguments) == 0
    quiet = capsys.readouterr()
    assert "next" not in quiet.err and quiet.out.count("\n") == 1
    monkeypatch.setattr("attngan_deploy.cli.generate.at_terminal", lambda: True)
    assert t2i(*arguments, "--out", "more", "--seed", "4") == 0
    lines = capsys.readouterr().err.splitlines()[-4:]
    assert lines[0] == f"t2i: the pictures are in {tmp_path / 'more'}"
    assert "OpenVINO is two or more times faster" in lines[3]
    command = shlex.split(lines[1].partition("captions: ")[2])
    assert {"more-2", "5"} <= {*command} and "more" not in command
    assert report_errors(lambda: app(command[1:])) == 0
    assert (tmp_path / "more-2" / "manifest.jsonl").is_file()
