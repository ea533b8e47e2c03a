"""What importing costs, and what it must not bring along."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import attngan_deploy
from tests.makers.commands import PATIENCE, cpu_seconds_of_ended

BASE = "import typer.rich_utils"  # what any help page takes, by which a slow or busy machine is known
IMPORT_SHARE, HELP_SHARE = 0.3, 1.8  # of its processor time, start of Python included in both
SHOW_HELP = """
import sys
from attngan_deploy.cli import main, register
register("generate", "models")
sys.argv = ["t2i", *sys.argv[1:], "--help"]
main()
"""


def run(code: str, *arguments: str) -> str:
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 0, result.stderr
    return result.stdout


def best_share(code: str, bound: float, tries: int = 12) -> float:
    """The least processor time of several runs, as a share of that of `BASE`; stops at the first within the bound."""
    best = {code: float("inf"), BASE: float("inf")}
    for _ in range(tries):
        for each in best:
            before = cpu_seconds_of_ended()
            run(each)
            best[each] = min(best[each], cpu_seconds_of_ended() - before)
        if best[code] < bound * best[BASE]:
            break
    return best[code] / best[BASE]


def test_names_are_sorted_and_complete() -> None:
    assert attngan_deploy.__all__ == sorted(attngan_deploy.__all__)
    assert {"TextToImage", "TextFeatures", "Stages", "T2IError", "__version__"} <= set(attngan_deploy.__all__)
    for name in attngan_deploy.__all__:
        assert getattr(attngan_deploy, name) is not None
    tree = ast.parse(Path(attngan_deploy.__file__).read_text())
    blocks = [block for block in tree.body if isinstance(block, ast.If)]  # TYPE_CHECKING: what a type checker sees
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    assert {alias.name for node in imports for alias in node.names} | {"__version__"} == set(attngan_deploy.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        attngan_deploy.nothing  # noqa: B018


def test_runtime_works_where_torch_can_not_be_imported(tiny_bundle: Path) -> None:
    code = """
import importlib, pkgutil, sys
for name in ("torch", "onnx", "nltk", "scipy", "safetensors", "tensorboard"):
    sys.modules[name] = None  # importing it raises
import attngan_deploy
skip = ("attngan_deploy.train", "attngan_deploy.export")
def walk(package):
    for item in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if not item.name.startswith(skip):
            module = importlib.import_module(item.name)
            if item.ispkg:
                walk(module)
walk(attngan_deploy)
print(attngan_deploy.TextToImage.load(sys.argv[1]).generate("a red bird").shape)
"""
    assert run(code, str(tiny_bundle)).strip() == "(1, 128, 128, 3)"


def test_import_and_help_load_nothing_heavy() -> None:
    check = "heavy = {'numpy', 'onnxruntime', 'PIL', 'torch'} & set(sys.modules); assert not heavy, heavy"
    run(f"import sys, attngan_deploy; {check}")
    for command in ([], ["models"]):
        shown = f"import sys, atexit\natexit.register(lambda: print('loaded', *sys.modules))\n{SHOW_HELP}"
        loaded = run(shown, *command)
        heavy = {"numpy", "onnxruntime", "PIL", "torch", "pydantic"}  # the last is the server's
        assert not heavy & set(loaded.rpartition("loaded")[2].split())


def test_import_time() -> None:
    assert best_share("import attngan_deploy", IMPORT_SHARE) < IMPORT_SHARE


def test_help_time() -> None:
    assert best_share(SHOW_HELP, HELP_SHARE) < HELP_SHARE
