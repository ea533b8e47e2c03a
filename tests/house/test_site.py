"""The documentation as a site: it builds without a warning, and its reference has all that there is."""

import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import attngan_deploy

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "site"))
    return importlib.import_module("commands")


def test_every_command_and_option_is_in_the_reference(commands: ModuleType) -> None:
    page = commands.page()
    found = list(commands.commands())
    files = {path.stem.rstrip("_") for path in (ROOT / "attngan_deploy/cli").glob("*.py")} - {"options", "typed"}
    named = {words.split()[1].replace("-", "_") for words, _ in found}
    assert {name for name in files if name.strip("_") and name not in ("__init", "__main")} <= named
    for words, command in found:
        _, _, section = page.partition(f"\n## {words}\n")
        section = section.partition("\n## ")[0]
        assert section.strip(), words
        for option in commands.options(command):
            assert all(f"`{name}`" in section for name in option.opts if name.startswith("-")), (words, option.opts)


def test_every_public_name_is_in_the_reference() -> None:
    places = re.findall(r"^::: attngan_deploy\.([\w.]+)$", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    named = {place.rpartition(".")[2] for place in places}
    assert set(attngan_deploy.__all__) - {"__version__", "T2IError"} <= named and "errors" in named


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    for name in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(name, reason="needs the extra docs", exc_type=ImportError)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*.html")}
    assert {"index.html", "commands/index.html", "api/index.html", "guide/train/index.html"} <= pages
    assert "TextToImage.load" in (tmp_path / "site/api/index.html").read_text()
    assert "examples/edge/index.html" in pages  # outside docs/, and linked to
