"""`t2i doctor`, as a person types it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.makers.commands import PATIENCE, t2i

AREAS = ["system", "package", "GPU", "engine", "cache", "model", "pictures"]


@pytest.fixture(autouse=True)
def base(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny bundle as the default model."""
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "models" / "base"))
    monkeypatch.setenv("T2I_MODELS", str(folder.parent))
    return folder


def test_where_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert t2i("doctor") == 0
    told = capsys.readouterr()
    assert [line for line in told.out.splitlines() if line in AREAS] == AREAS
    assert told.out.splitlines()[-1].startswith("t2i generate works here")
    assert "  ok      onnxruntime on cpu: " in told.out
    assert told.err == ""


def test_json_with_a_damaged_model(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (base / "bundle.json").write_text("{")
    assert t2i("doctor", "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert told["works"] is False
    broken = {finding["name"]: finding for finding in told["findings"] if finding["status"] == "broken"}
    assert "bundle.json is not JSON" in broken["base"]["found"]


@pytest.mark.parametrize("package", ["numpy", "onnxruntime"])
def test_it_survives_what_it_looks_for(tmp_path: Path, package: str) -> None:
    """Without its most needed packages the doctor still speaks, and shows their errors."""
    place = tmp_path / "site" / package
    place.mkdir(parents=True)
    (place / "__init__.py").write_text("raise ImportError('DLL load failed: a test')")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "attngan_deploy.cli", "doctor"],
        env={**os.environ, "PYTHONPATH": str(place.parent)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert done.stderr == ""
    assert "ImportError: DLL load failed: a test" in done.stdout
    assert f"mend: pip install --force-reinstall {package}" in done.stdout
    assert "t2i generate does NOT work here" in done.stdout.splitlines()[-1]
