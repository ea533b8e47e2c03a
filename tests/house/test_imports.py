"""What importing costs, and what it must not bring along."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import attngan_deploy
from tests.makers.commands import PATIENCE, cpu_seconds_of_ended

IMPORT_SECONDS, HELP_SECONDS = 0.3, 0.5  # of the processor, start of Python included: a busy machine takes no more
SHOW_HELP = """
import sys
from attngan_deploy.cli import main, register
register("generate", "models")
sys.argv = ["t2i", "--help"]
main()
"""


def run(code: str, *arguments: str) -> str:
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 0, result.stderr
    return result.stdout


def best_seconds(code: str, bound: float, tries: int = 12) -> float:
    """The best of several runs, start of Python included; stops at the first one within the bound."""
    best = float("inf")
    for _ in range(tries):
        before = cpu_seconds_of_ended()
        run(code)
        best = min(best, cpu_seconds_of_ended() - before)
        if best < bound:
            break
    return best


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
    loaded = run(f"import sys, atexit\natexit.register(lambda: print('loaded', *sys.modules))\n{SHOW_HELP}")
    assert not {"numpy", "onnxruntime", "PIL", "torch"} & set(loaded.rpartition("loaded")[2].split())


def test_import_time() -> None:
    assert best_seconds("import attngan_deploy", IMPORT_SECONDS) < IMPORT_SECONDS


def test_help_time() -> None:
    assert best_seconds(SHOW_HELP, HELP_SECONDS) < HELP_SECONDS
