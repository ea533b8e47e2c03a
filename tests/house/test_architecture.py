"""docs/architecture.md: rooms import only rooms above them in its table, and every symbol that it names is there."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text()
FOLDERS = {"attngan_deploy": "attngan_deploy", "train": "attngan_deploy.train", "export": "attngan_deploy.export"}
MOST_ENTRIES = 12


def rooms() -> list[str]:
    table = PAGE.partition("## Rooms")[2].partition("## ")[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)


def imports() -> Iterator[tuple[str, str, str]]:
    """Each import inside the package: the file, its room, the room that it imports."""
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            inside = path.relative_to(ROOT / folder).with_suffix("").parts
            room = (*package.split("."), *inside)[1]
            for node in ast.walk(ast.parse(path.read_text())):
                names: list[str] = []
                if isinstance(node, ast.ImportFrom) and node.module:
                    is_whole = node.module == "attngan_deploy"
                    names = [f"{node.module}.{each.name}" for each in node.names] if is_whole else [node.module]
                elif isinstance(node, ast.Import):
                    names = [each.name for each in node.names]
                for name in names:
                    if name.startswith("attngan_deploy."):
                        yield str(path.relative_to(ROOT)), room, name.split(".")[1]


def test_rooms_import_only_what_stands_above_them() -> None:
    order = rooms()
    assert len(order) > 8 and len(order) == len(set(order))
    known = [(file, room, other) for file, room, other in imports() if room in order and other in order]
    assert len(known) > 300
    wrong = {(room, other): file for file, room, other in known if order.index(other) > order.index(room)}
    assert wrong == {}


def test_every_room_is_on_the_page() -> None:
    top = {path.name.removesuffix(".py") for path in (ROOT / "attngan_deploy").iterdir() if path.name != "__pycache__"}
    assert len(top) <= MOST_ENTRIES
    assert top - {"__init__", "__main__", "py.typed"} | {"train", "export"} == set(rooms())


@pytest.mark.parametrize("place", sorted(set(re.findall(r"`([\w/]+\.py(?::[\w.]+)?)`", PAGE))))
def test_what_the_page_names_is_there(place: str) -> None:
    file, _, symbol = place.partition(":")
    body: list[ast.stmt] = ast.parse((ROOT / file).read_text()).body
    for part in filter(None, symbol.split(".")):
        found = [node for node in body if part in names_of(node)]
        assert found, f"{file} has no {symbol}"
        body = getattr(found[0], "body", [])


def names_of(node: ast.stmt) -> list[str]:
    """What a statement gives a name to."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]
