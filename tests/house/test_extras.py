"""The extras of pyproject.toml: they name what there is, and a command needs no other than its own."""

import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from attngan_deploy.errors import install_line
from tests.makers.commands import PATIENCE
from tests.makers.data_makers import birds

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
RUN = """
import sys
blocked = set(sys.argv.pop(1).split(","))
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
sys.meta_path.insert(0, Blocker())
from attngan_deploy.__main__ import main
main()
"""


def requirements(*extras: str) -> list[Requirement]:
    """What a base install with extras brings, without what that brings in turn."""
    found = [Requirement(line) for extra in extras for line in EXTRAS[extra]]
    ours = [extra for each in found if each.name == PROJECT["name"] for extra in each.extras]
    others = [each for each in found if each.name != PROJECT["name"]]
    return others + (requirements(*ours) if ours else [Requirement(line) for line in PROJECT["dependencies"]])


def closure(*extras: str) -> set[str]:
    """Names of all packages that an install brings."""
    left, met = requirements(*extras), set[str]()
    while left:
        each = left.pop()
        if (name := canonicalize_name(each.name)) in met:
            continue
        met.add(name)
        try:
            inner = [Requirement(line) for line in distribution(name).requires or []]
        except PackageNotFoundError:
            pytest.skip(f"needs {name}")
        wanted = [{"extra": extra} for extra in each.extras] or [{"extra": ""}]
        left += [one for one in inner if one.marker is None or any(one.marker.evaluate(env) for env in wanted)]
    return met


def run(extra: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run `t2i` where no package can be imported but those that an extra brings."""
    allowed = closure(*extra.split(",")) | {"attngan-deploy"}
    names = packages_distributions().items()
    blocked = [name for name, owners in names if not {canonicalize_name(owner) for owner in owners} & allowed]
    command = [sys.executable, "-c", RUN, ",".join(blocked), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)


def test_every_extra_of_another_package_is_there() -> None:
    wanted = [each for extra in EXTRAS for each in requirements(extra) if each.extras]
    assert wanted
    for each in wanted:
        try:
            there = {canonicalize_name(name) for name in distribution(each.name).metadata.get_all("Provides-Extra", [])}
        except PackageNotFoundError:
            continue
        assert {canonicalize_name(name) for name in each.extras} <= there, each


def test_no_line_of_ours_brings_both_runtimes() -> None:
    """They have one folder: an extra brings neither or one, and no extra needs another one that brings one."""
    both = {"onnxruntime", "onnxruntime-gpu"}
    brings = {extra: {canonicalize_name(each.name) for each in requirements(extra)} & both for extra in EXTRAS}
    assert brings.pop("cpu") == brings.pop("dev") == {"onnxruntime"}
    assert brings.pop("cuda") == {"onnxruntime-gpu"}
    assert set().union(*brings.values()) == set()
    assert not both & {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}


def test_tensorrt_is_one_that_onnxruntime_loads() -> None:
    (tensorrt,) = (each for each in requirements("tensorrt") if each.name == "tensorrt")
    assert tensorrt.specifier.contains("10.13.3") and not tensorrt.specifier.contains("11.0")


def test_without_a_runtime_one_line_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("a small red bird\n")
    done = run("data", "generate", tmp_path / "captions.txt", "-o", tmp_path / "out")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "onnxruntime can't be imported" in done.stderr
    assert not (tmp_path / "out").exists()


def test_data_build_needs_its_own_extra_alone(tmp_path: Path) -> None:
    birds(tmp_path / "birds")
    done = run("data", "data", "build", tmp_path / "birds", "-o", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data" / "train.tar").stat().st_size > 0
    without = run("parquet", "data", "build", tmp_path / "birds", "-o", tmp_path / "other")
    assert f"Next: {install_line('data')}" in without.stderr and "torch" not in without.stderr


def test_precisions_need_the_extra_of_exports_alone(tmp_path: Path, tiny_bundle: Path) -> None:
    done = run("cpu,export", "export", "--bundle", tiny_bundle, "--precision", "fp16", "-o", tmp_path / "half")
    assert done.returncode == 0, done.stderr
    without = run("cpu,data", "export", "--bundle", tiny_bundle, "--precision", "fp16", "-o", tmp_path / "other")
    assert without.stderr.strip().endswith(f"Next: {install_line('export')}")


def test_what_is_large_is_said_where_it_is_installed(tmp_path: Path) -> None:
    done = run("data", "train", "damsm", "--data", tmp_path, "--out", tmp_path / "run")
    assert "pip install 'attngan-deploy[train]' # with 5.8 GB of CUDA on Linux" in done.stderr
    guide = (ROOT / "docs/guide/train.md").read_text()
    assert "5.8 GB" in guide.partition("# Train your own")[2].partition("pip install '.[cpu,train]'")[0]
    assert "5.8 GB" in (ROOT / "README.md").read_text()
