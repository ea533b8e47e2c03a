"""What a disk may hold after a power cut: every step of a recorded command, and what was not synced lost in part.

A disk holds for certain what was synced before the cut: the content of a file by a sync of the file, a name by a sync
of its folder. Of the rest, names are lost
- in order: the journal of ext4 keeps the beginning of all changes to names, up to some moment after the last sync, or
- in any way: each change to names that no sync of its own folder kept is there or not, which POSIX allows;
and of the content of a file that was not synced there is nothing, a beginning, all, or zeros in its length.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

HEAD = struct.Struct("<6Q")
EXCHANGE = 2  # of renameat2
BEGIN = 1_700_000_000  # of all times
LOSSES = ("in order", "in any way")
Tree = dict[str, bytes | None]  # content of files by path; None of a folder


class State(dict[str, bytes | None]):
    """A tree, and the steps in which its files were changed last."""

    def __init__(self) -> None:
        super().__init__()
        self.changed: dict[str, int] = {}


@dataclass(eq=False)
class Node:
    """A file or a folder, whatever its name is."""

    is_folder: bool
    content: bytes = b""  # before the recording
    names: "dict[str, Node]" = field(default_factory=dict)  # now, in a folder
    changes: "list[tuple[int, int, bytes | None]]" = field(default_factory=list)  # step, place, data; None cuts there
    synced: list[int] = field(default_factory=list)  # steps


@dataclass(frozen=True)
class Names:
    """A change to names, which happens as a whole: new nodes of names in folders, None for names that go."""

    step: int
    entries: "tuple[tuple[Node, str, Node | None], ...]"
    folder: Node  # which keeps it when it is synced


class Recording:
    """What a command did to the files below a folder.

    Args:
        root: the folder, as it is before the command.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._numbers = root, dict[int, Node]()
        self.top = self._scan(root)
        self._first = dict[Node, dict[str, Node]]()
        for node in self._numbers.values():
            self._first[node] = dict(node.names)
        self.names: list[Names] = []
        self.marks: list[tuple[int, str]] = []
        self.steps = 0
        self._all_synced: list[int] = []

    def read(self, log: Path) -> None:
        """Take in the log of `record_writes.c`."""
        with log.open("rb") as stream:
            while head := stream.read(HEAD.size):
                kind, a, b, _, one, two = HEAD.unpack(head)
                self._take(chr(kind), a, b, stream.read(one), stream.read(two))
                self.steps += 1

    def state(self, step: int, rng: Random | None = None, *, loss: str = "", deaf: bool = False) -> State:
        """What may be there when the power is cut after `step` steps; without `rng`, what every program sees then.

        Args:
            loss: one of `LOSSES`.
            deaf: whether the disk ignores syncs.
        """
        content: dict[Node, bytes] = {}
        kept = [change for change in self.names if change.step < step]
        if rng is not None:
            kept = self._kept(kept, step, rng, loss, deaf)
        names = {node: dict(first) for node, first in self._first.items()}
        for change in kept:
            for folder, name, node in change.entries:
                there = names.setdefault(folder, {})
                if node is None:
                    there.pop(name, None)
                else:
                    there[name] = node
        tree = State()

        def walk(folder: Node, path: str) -> None:
            for name, node in sorted(names.get(folder, {}).items()):
                if node.is_folder:
                    tree[path + name] = None
                    walk(node, f"{path}{name}/")
                else:
                    if node not in content:
                        content[node] = self._content(node, step, rng, deaf)
                    tree[path + name] = content[node]
                    changes = (change for change, *_ in reversed(node.changes) if change < step)
                    tree.changed[path + name] = next(changes, 0)

        walk(self.top, "")
        return tree

    def _kept(self, changes: list[Names], step: int, rng: Random, loss: str, deaf: bool) -> list[Names]:
        certain = {change for change in changes if not deaf and self._is_synced(change.folder, change.step, step)}
        if loss == "in order":
            last = max((place for place, change in enumerate(changes) if change in certain), default=-1)
            return changes[: rng.randint(last + 1, len(changes))]
        share = rng.choice((0.0, 0.5, 0.9))
        return [change for change in changes if change in certain or rng.random() < share]

    def _is_synced(self, node: Node, after: int, before: int) -> bool:
        return any(after < synced < before for synced in (*node.synced, *self._all_synced))

    def _content(self, node: Node, step: int, rng: Random | None, deaf: bool) -> bytes:
        changes = [change for change in node.changes if change[0] < step]
        if rng is None:
            return _changed(node.content, changes)
        last = -1 if deaf else max((each for each in (*node.synced, *self._all_synced) if each < step), default=-1)
        certain = [change for change in changes if change[0] < last]
        rest = changes[len(certain) :]
        kind = rng.choice(("nothing", "beginning", "all", "zeros"))
        if not rest or kind == "nothing":
            return _changed(node.content, certain)
        if kind == "beginning":
            number = rng.randrange(len(rest))
            at, place, data = rest[number]
            torn = [] if data is None else [(at, place, data[: rng.randint(0, len(data))])]
            return _changed(node.content, [*certain, *rest[:number], *torn])
        whole = _changed(node.content, changes)
        if kind == "all":
            return whole
        sure = _changed(node.content, certain)[: len(whole)]
        return sure + bytes(len(whole) - len(sure))

    def _scan(self, path: Path) -> Node:
        node = Node(path.is_dir(), b"" if path.is_dir() else path.read_bytes())
        self._numbers[path.stat().st_ino] = node
        for inner in path.iterdir() if node.is_folder else ():
            node.names[inner.name] = self._scan(inner)
        return node

    def _find(self, path: bytes) -> tuple[Node, str]:
        *above, name = Path(os.fsdecode(path)).relative_to(self._root).parts
        folder = self.top
        for part in above:
            folder = folder.names[part]
        return folder, name

    def _change_names(self, *entries: tuple[Node, str, Node | None]) -> None:
        for folder, name, node in entries:
            if node is None:
                folder.names.pop(name, None)
            else:
                folder.names[name] = node
        self.names.append(Names(self.steps, entries, entries[0][0]))

    def _take(self, kind: str, a: int, b: int, one: bytes, two: bytes) -> None:
        node = self._numbers.get(a)
        if kind in "CM":
            self._numbers[a] = Node(kind == "M")
            self._change_names((*self._find(one), self._numbers[a]))
        elif kind == "W" and node:
            node.changes.append((self.steps, b, one))
        elif kind == "T" and node:
            node.changes.append((self.steps, b, None))
        elif kind == "F" and node:
            node.synced.append(self.steps)
        elif kind == "A":
            self._all_synced.append(self.steps)
        elif kind == "U":
            self._change_names((*self._find(one), None))
        elif kind == "L":
            folder, name = self._find(one)
            self._change_names((*self._find(two), folder.names[name]))
        elif kind == "R":
            (folder, name), (into, new) = self._find(one), self._find(two)
            other = into.names.get(new) if a == EXCHANGE else None
            self._change_names((into, new, folder.names[name]), (folder, name, other))
        elif kind == "K":
            self.marks.append((self.steps, os.fsdecode(one)))


def _changed(content: bytes, changes: list[tuple[int, int, bytes | None]]) -> bytes:
    whole = bytearray(content)
    for _, place, data in changes:
        if len(whole) < place:
            whole.extend(bytes(place - len(whole)))
        if data is None:
            del whole[place:]
        else:
            whole[place : place + len(data)] = data
    return bytes(whole)


def tree_of(folder: Path) -> Tree:
    """What is in a folder."""
    found = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes() for path in found}


def write_state(state: State, folder: Path) -> None:
    """Put files and folders into an empty folder, with times in the order in which they were written."""
    for name, data in state.items():
        if data is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(data)
            os.utime(folder / name, (BEGIN + state.changed[name],) * 2)


def moments(steps: int, count: int, rng: Random) -> Iterator[int]:
    """Steps after which the power is cut: the end first, then others, drawn."""
    yield steps
    for _ in range(count):
        yield rng.randint(1, steps)
