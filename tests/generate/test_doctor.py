"""What the doctor finds where packages are broken, crash, or stand in each other's way; and where all is well."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from attngan_deploy.engines.request import SUPPORTED
from attngan_deploy.generate import doctor
from attngan_deploy.generate.doctor import BACKENDS, BROKEN, OFF, OK, OPTIONAL, Diagnosis, Finding
from attngan_deploy.system.machine import Nvidia, versions
from tests.makers.golden_bundle import with_golden

Fake = Callable[..., None]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Install a package that is nothing but `code`, here and in every Python that is started from here."""
    place = tmp_path / "site"
    place.mkdir()
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("PYTHONPATH", str(place))

    def install(name: str, code: str | None, version: str = "99.1") -> None:
        if code is not None:
            (place / name).mkdir()
            (place / name / "__init__.py").write_text(code)
        facts = place / f"{name.replace('-', '_')}-{version}.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")

    return install


@pytest.fixture
def base(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny bundle as the default model."""
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "models" / "base"))
    monkeypatch.setenv("T2I_MODELS", str(folder.parent))
    return folder


def test_every_backend_is_looked_at() -> None:
    assert tuple(SUPPORTED) == BACKENDS


def test_a_backend_that_works(base: Path) -> None:
    findings = {finding.name: finding for finding in doctor._backend("onnxruntime", versions())}
    assert findings["onnxruntime on cpu"].status == OK
    assert "fp32" in findings["onnxruntime on cpu"].found
    assert all(finding.mend for finding in findings.values() if finding.status == OFF)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (
            "raise ImportError('libopenvino_c.so.2640: cannot open\\n shared object file')",
            "cannot open shared object file",
        ),
        ("raise OSError('libtbb.so.12: file too short')", "OSError: libtbb.so.12: file too short"),
        ("raise RuntimeError('no locale')", "RuntimeError: no locale (it ended with status 1)"),
        ("import os; os.kill(os.getpid(), 11)", "it ended with signal 11"),
        ("import sys; sys.exit('bye')", "bye (it ended with status 1)"),
    ],
)
def test_a_package_that_is_installed_and_broken(base: Path, fake: Fake, code: str, told: str) -> None:
    fake("openvino", code)
    findings = list(doctor._backend("openvino", versions()))
    assert findings and {finding.status for finding in findings} == {BROKEN}
    assert told in findings[0].found
    assert findings[0].mend == "pip install --force-reinstall openvino"


def test_a_package_that_is_not_installed(base: Path, fake: Fake) -> None:
    fake("tensorrt", "raise ModuleNotFoundError(\"No module named 'tensorrt'\")")
    installed = {name: number for name, number in versions().items() if name != "tensorrt"}
    (finding,) = doctor._backend("tensorrt", installed)
    assert finding.status == OFF
    assert "No module named 'tensorrt'" in finding.found
    assert finding.mend == "pip install 'attngan-deploy[tensorrt]'"


def test_the_smallest_extra_mends() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    for package, line in OPTIONAL.items():
        bring = [name for name, needs in extras.items() if any(need.startswith(f"{package}>") for need in needs)]
        if bring and (named := re.search(r"attngan-deploy\[(\w+)\]", line)):
            assert named[1] == min(bring, key=lambda name: len(extras[name])), package


def test_two_packages_in_one_folder(fake: Fake) -> None:
    fake("onnxruntime-gpu", None)
    findings = {finding.name: finding for finding in doctor._packages(versions())}
    both = findings["onnxruntime and onnxruntime-gpu"]
    assert both.status == BROKEN
    assert both.mend == "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'onnxruntime-gpu[cuda,cudnn]'"
    assert findings["onnxruntime-gpu"].found == "99.1"


def test_a_package_whose_files_went_with_another(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """What uninstalling one of two leaves behind: a folder without code, which Python imports all the same."""
    fake("onnxruntime", "")
    version = metadata.version
    missing = metadata.PackageNotFoundError

    def without_the_other(name: str) -> str:
        if name == "onnxruntime-gpu":
            raise missing(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", without_the_other)
    findings = {finding.name: finding for finding in doctor._packages(versions())}
    assert findings["onnxruntime"].status == BROKEN
    assert "the package onnxruntime is empty" in findings["onnxruntime"].found
    assert findings["onnxruntime"].mend == "pip install --force-reinstall --no-deps onnxruntime"
    code = "import attngan_deploy.engines.onnxruntime"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    told = done.stderr.splitlines()[-1]
    assert "MissingExtraError: the package onnxruntime is empty" in told and "--no-deps onnxruntime" in told


def test_onnxruntime_gpu_alone_is_enough(fake: Fake) -> None:
    installed = {name: number for name, number in versions().items() if name != "onnxruntime"}
    findings = {finding.name: finding for finding in doctor._packages({**installed, "onnxruntime-gpu": "1.2"})}
    assert findings["onnxruntime-gpu"] == Finding("package", "onnxruntime-gpu", OK, "1.2")
    assert "onnxruntime" not in findings and "onnxruntime and onnxruntime-gpu" not in findings


def test_a_base_package_that_is_broken(fake: Fake) -> None:
    fake("PIL", "raise ImportError('libjpeg.so.62: wrong ELF class')")
    findings = {finding.name: finding for finding in doctor._packages(versions())}
    assert findings["pillow"].status == BROKEN
    assert "ImportError: libjpeg.so.62: wrong ELF class" in findings["pillow"].found
    assert findings["pillow"].mend == "pip install --force-reinstall pillow"
    assert findings["numpy"].status == OK


def test_generation(base: Path) -> None:
    finding = doctor._generation()
    assert finding.status == OK, finding
    assert "golden pictures" in finding.found and "passed" in finding.found


def test_generation_with_a_damaged_model(base: Path) -> None:
    graph = base / "generator.onnx"
    graph.write_bytes(graph.read_bytes()[:1000])
    finding = doctor._generation()
    assert finding.status == BROKEN
    assert "generator.onnx has 1000 bytes" in finding.found
    assert finding.mend == "install or export it again"


def invert(arrays: dict[str, Any]) -> None:
    arrays["image_128"] = -arrays["image_128"]


def test_generation_of_the_wrong_pictures(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_golden(tiny_bundle, tmp_path / "models" / "base", invert)
    monkeypatch.setenv("T2I_MODELS", str(tmp_path / "models"))
    finding = doctor._generation()
    assert finding.status == BROKEN
    assert "FAILED" in finding.found or "no engine makes the golden pictures" in finding.found


def test_generation_that_never_answers(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SECONDS", 0.01)
    assert "no answer within 0.01 s" in doctor._generation().found


def test_models(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (base / "vocabulary.txt").write_text("a\nb\n")
    monkeypatch.setenv("T2I_MODELS", f"{base.parent}{os.pathsep}{tmp_path / 'none'}")
    findings = {finding.name: finding for finding in doctor._models()}
    assert findings["base"].status == BROKEN and "vocabulary.txt has 4 bytes" in findings["base"].found
    assert findings["judge"].status == OK
    assert findings["T2I_MODELS"].status == BROKEN and str(tmp_path / "none") in findings["T2I_MODELS"].found


def test_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T2I_CACHE", str(tmp_path / "new" / "cache"))
    assert doctor._cache().status == OK
    (tmp_path / "file").touch()
    if sys.platform == "linux":  # where even root can't make files in /proc
        monkeypatch.setenv("T2I_CACHE", "/proc/cache")
        assert doctor._cache().status == BROKEN
    monkeypatch.setenv("T2I_CACHE", str(tmp_path / "file" / "cache"))
    assert (doctor._cache().status, doctor._cache().mend) == (BROKEN, "set T2I_CACHE to a folder of yours")


@pytest.mark.parametrize(
    ("package", "version", "cuda", "told"),
    [
        ("nvidia-cuda-runtime", "13.5.37", "12.4", "CUDA 13 and needs the driver 580 or newer; found driver 550.54"),
        ("cuda-bindings", "13.4.4", "9.2", "cuda-bindings 13.4.4 is of CUDA 13"),
        ("cuda-bindings", "12.9.0", "12.4", ""),
        ("nvidia-cuda-runtime", "13.0.1", "13.2", ""),
        ("nvidia-cuda-runtime", "9.0", "13.2", ""),  # numbers, not letters
    ],
)
def test_a_driver_that_is_too_old_for_a_package(package: str, version: str, cuda: str, told: str) -> None:
    finding = doctor._gpu(Nvidia(("NVIDIA L4 (8.9)",), cuda, "550.54"), {package: version})
    assert finding.status == (BROKEN if told else OK)
    assert told in finding.found and bool(finding.mend) == bool(told)


def test_gpu() -> None:
    here = doctor._gpu(Nvidia(("NVIDIA L4 (8.9)",), "12.4", "550.54"))
    assert here == Finding("GPU", "NVIDIA", OK, "NVIDIA L4 (8.9), driver 550.54, CUDA 12.4")
    without = doctor._gpu(Nvidia(why="no NVIDIA driver (libcuda.so.1)"))
    assert (without.status, without.found) == (OFF, "no NVIDIA driver (libcuda.so.1)")


def test_an_old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._python().status == OK
    monkeypatch.setattr(sys, "version_info", (3, 10, 1, "final", 0))
    assert doctor._python().mend == "install Python 3.11 or newer"


def test_summary() -> None:
    good, bad = Finding("pictures", "base", OK, ""), Finding("pictures", "base", BROKEN, "")
    other = Finding("package", "openvino", BROKEN, "")
    assert str(Diagnosis([good])) == "t2i generate works here"
    assert str(Diagnosis([good, other])) == "t2i generate works here; 1 thing is broken"
    assert str(Diagnosis([bad, other])) == "t2i generate does NOT work here; 2 things are broken"
    assert not Diagnosis([other]).works  # without pictures nothing is proven
