"""The house rules that tools can check, and the promises of the README about size."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LARGEST_MODELS = 75 * 2**20  # a base install may take 260 MB, of which its dependencies take 180


# Not what a reader of the README made beside it, such as bundles, in whose cards is code too.
OURS = "README.md attngan_deploy benchmarks docs examples export tests train"


@pytest.mark.parametrize("command", [f"ruff check {OURS}", f"ruff format --check {OURS}", "mypy"])
def test_lint_and_types(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_stay_readable() -> None:
    folders = ("attngan_deploy", "train", "export", "tests")
    lines = {path: path.read_text().count("\n") for folder in folders for path in (ROOT / folder).rglob("*.py")}
    assert lines and not {str(path): count for path, count in lines.items() if count > 400}


def test_doors_open_one_way() -> None:
    forbidden = {
        "attngan_deploy": r"^\s*(import|from) (torch|attngan_deploy\.(train|export))\b",
        "train": r"^\s*(import|from) attngan_deploy\.(export|cli)\b",
        "export": r"^\s*(import|from) attngan_deploy\.cli\b",
    }
    found = [
        f"{path}: {line}"
        for folder, pattern in forbidden.items()
        for path in (ROOT / folder).rglob("*.py")
        for line in _without_extras(path).splitlines()
        if re.match(pattern, line)
    ]
    assert found == []


def _without_extras(path: Path) -> str:
    """A file without what the command line imports when a command needs it, which says what to install."""
    text = path.read_text()
    if ROOT / "attngan_deploy/cli" not in path.parents:
        return text
    return re.sub(r"^( +)with extra\([^\n]*\):\n(\1    [^\n]*\n)+", "", text, flags=re.MULTILINE)


def test_models_leave_room_in_a_base_install() -> None:
    """Those that ship: bundles of the user's own may stand beside them."""
    listed = subprocess.run(["git", "ls-files", "models"], cwd=ROOT, capture_output=True, text=True, check=False)
    files = [ROOT / line for line in listed.stdout.splitlines()] or (ROOT / "models").rglob("*")
    assert sum(path.stat().st_size for path in files if path.is_file()) < LARGEST_MODELS


def test_the_readme_has_the_two_commands_that_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(re.findall(r"^pip install '\.\[cpu\]' && t2i generate .*$", readme, re.MULTILINE)) == 1
    assert len(re.findall(r"^pip install torch.* && pytest$", readme, re.MULTILINE)) == 1


def test_every_package_is_installed() -> None:
    """An editable install would not notice."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = ("attngan_deploy", "train", "export", "models")
    places = [path.parent.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py")]
    here = {".".join(place.parts) for place in places}
    assert {name if name.startswith("attngan_deploy") else f"attngan_deploy.{name}" for name in here} == set(listed)
