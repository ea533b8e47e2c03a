"""Extras in virtual environments of their own, and the lines of our messages, typed as they stand."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.test_dockerfile import copy_context, reaches_an_index
from tests.makers.commands import PATIENCE

pytestmark = pytest.mark.slow
LINE = "a small red bird\n"


class Place:
    """A virtual environment, and a folder with our wheel, which pip takes for an index."""

    def __init__(self, folder: Path, wheels: Path) -> None:
        self.folder, self.wheels = folder, wheels
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "HOME", "SSL_", "LANG"))}
        links = f"{kept.get('PIP_FIND_LINKS', '')} {wheels}".strip()
        path = f"{folder / 'bin'}:/usr/bin:/bin"
        self.environment = {**kept, "PATH": path, "PIP_FIND_LINKS": links, "T2I_CACHE": str(folder / "cache")}

    def run(self, line: str, status: int = 0) -> str:
        """Run a line in a shell; returns its standard output, or its standard error where it is to fail."""
        done = subprocess.run(
            line,
            shell=True,
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=self.folder,
            timeout=10 * PATIENCE,
        )
        assert done.returncode == status, f"{line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stderr if status else done.stdout

    def findings(self) -> dict[str, dict[str, str]]:
        """What the doctor finds, by name."""
        told = self.run("t2i doctor --json || true")
        return {each["name"]: each for each in json.loads(told)["findings"]}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    if not reaches_an_index(dict(os.environ)):
        pytest.skip("needs a package index")
    copy_context(folder / "src")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(folder), str(folder / "src")]
    subprocess.run(command, check=True)
    shutil.rmtree(folder / "src")
    return folder


def test_the_cpu_extra_and_every_mend_on_the_way(tmp_path: Path, wheels: Path) -> None:
    place = Place(tmp_path / "venv", wheels)
    place.run("pip install -q attngan-deploy")
    (place.folder / "captions.txt").write_text(LINE)
    told = place.run("t2i generate captions.txt -o out", status=1)
    assert told.count("\n") == 1 and "ONNX Runtime is not installed" in told
    assert place.findings()["onnxruntime"]["status"] == "broken"
    mend = told.partition("Next: ")[2].partition(", or")[0]
    assert mend == "pip install 'attngan-deploy[cpu]'"
    place.run(mend)
    assert place.findings()["onnxruntime on cpu"]["status"] == "ok"
    place.run("t2i generate captions.txt -o out && pip check")

    package = next((place.folder / "lib").glob("python*/site-packages/onnxruntime"))
    shutil.rmtree(package)
    package.mkdir()  # as it is left where the other package of this folder was uninstalled
    told = place.run("t2i generate captions.txt -o again", status=1)
    assert told.count("\n") == 1 and "is empty" in told
    assert place.findings()["onnxruntime"]["mend"] == told.strip().partition("Next: ")[2]
    place.run(told.strip().partition("Next: ")[2])
    place.run("t2i generate captions.txt -o again")


@pytest.mark.parametrize(("extras", "brings"), [("cuda", "onnxruntime-gpu"), ("cuda,serve", "onnxruntime-gpu")])
def test_what_the_cuda_extra_would_bring(tmp_path: Path, wheels: Path, extras: str, brings: str) -> None:
    """Resolved against the index; the packages themselves are 1.6 GB."""
    place = Place(tmp_path / "venv", wheels)
    place.run(f"pip install -q --dry-run --report report.json 'attngan-deploy[{extras}]'")
    found = json.loads((place.folder / "report.json").read_text())["install"]
    names = {each["metadata"]["name"].lower().replace("_", "-") for each in found}
    assert brings in names and "onnxruntime" not in names
    assert any(name.startswith("nvidia-cudnn") for name in names) and "nvidia-cuda-runtime" in names
