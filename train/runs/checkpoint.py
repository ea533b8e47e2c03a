"""Checkpoints: a folder of safetensors and JSON that appears whole or not at all, and is read without running code."""

import errno
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from attngan_deploy.errors import CheckpointError
from attngan_deploy.media.tokenizer import LARGEST, split_words
from attngan_deploy.system.files import atomic_folder, read_file, read_json
from attngan_deploy.system.records import JsonObject, Record, RecordError, decode

FORMAT = 1
DESCRIPTION = "checkpoint.json"
VOCABULARY = "vocabulary.txt"

Network = TypeVar("Network", bound=torch.nn.Module)


@dataclass(frozen=True)
class Head:
    """What every `checkpoint.json` says."""

    format: int
    kind: str


@dataclass(frozen=True)
class Best:
    """What `best.json` of a run says: the checkpoint with the best value of a metric."""

    checkpoint: str
    metric: str
    value: float
    step: int


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk."""

    folder: Path  # where it is
    kind: str  # "gan", "damsm" or "judge"
    document: JsonObject  # all that `checkpoint.json` says: kind, configurations, progress, provenance

    @property
    def step(self) -> int:
        """How many steps its run had done.

        Raises:
            CheckpointError: its description does not say.
        """
        step = self.document.get("step")
        if type(step) is not int or step < 0:
            raise CheckpointError(
                f"{self.folder / DESCRIPTION} does not say after which step it was written",
                found="nothing" if step is None else ascii(step)[:80],
                expected="a whole number",
                next_step="use an earlier checkpoint of this run",
            )
        return step

    def config(self, kind: type[Record], key: str) -> Record:
        """A configuration that it was made with, e.g. "generator".

        Raises:
            CheckpointError: it is missing, or has unknown fields or values of the wrong type.
        """
        return self._decoded(kind, self.document.get(key), exact=True)

    def facts(self, kind: type[Record]) -> Record:
        """What it says of the things that `kind` asks for, and perhaps more.

        Raises:
            CheckpointError: one is missing or of the wrong type.
        """
        return self._decoded(kind, self.document, exact=False)

    def _decoded(self, kind: type[Record], values: object, exact: bool) -> Record:
        try:
            return decode(kind, values, exact=exact)
        except RecordError as error:
            raise CheckpointError(
                f"{self.folder}: {kind.__name__} can't be read", found=error.found, expected=error.expected
            ) from error
        except ValueError as error:
            raise CheckpointError(f"{self.folder}: {kind.__name__} can't be built: {error}") from error

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Read one of its weight files, e.g. "generator".

        Raises:
            CheckpointError: it has no such file, or the file is damaged.
        """
        path = self.folder / f"{name}.safetensors"
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path} is no file", expected="a complete safetensors file")
        try:
            return load_file(path)
        except FileNotFoundError as error:
            have = ", ".join(sorted(item.stem for item in self.folder.glob("*.safetensors"))) or "none"
            raise CheckpointError(f"{self.folder} has no {name} weights", found=have, expected=path.name) from error
        except (SafetensorError, OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path} is damaged: {error}", expected="a complete safetensors file") from error

    def check_fits(self, name: str, make: Callable[[], torch.nn.Module]) -> None:
        """Compare names and shapes of the weights `name` with those of a network, before it takes any memory.

        Raises:
            CheckpointError: they differ, or no network can be built; a size of a billion costs nothing here.
        """
        what = f"{name} does not fit its configuration: '{{}}'"
        check_fits(self.folder, make, lambda: self.tensors(name), what)

    def vocabulary(self, rows: int) -> list[str]:
        """Its words; line 0 is the padding word.

        Raises:
            CheckpointError: it has none, another number of words, or none that the tokenizer makes of a caption.
        """
        try:
            words = read_file(self.folder / VOCABULARY, LARGEST).decode("utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.folder / VOCABULARY} can't be read: {error}") from error
        if len(words) != rows:
            raise CheckpointError(
                f"{self.folder}: the vocabulary does not fit the embedding",
                found=f"{len(words)} words",
                expected=str(rows),
            )
        if not any(split_words(word) == [word] for word in words[1:]):
            raise CheckpointError(
                f"{self.folder}: no caption can say a word of the vocabulary",
                found=ascii(words[1:4])[:80],
                expected="words in lower case, without spaces and marks",
            )
        return words

    def network(self, name: str, make: Callable[[], Network]) -> Network:
        """The network that `make` builds, with its weights `name`; see `check_fits` and `load_into`."""
        self.check_fits(name, make)
        network = make()
        self.load_into(name, network)
        return network

    def load_into(self, name: str, module: torch.nn.Module) -> None:
        """Load the weights `name` into a module of the same shape.

        Raises:
            CheckpointError: names or shapes differ, or a value is not finite.
        """
        state = self.tensors(name)
        if bad := [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]:
            raise CheckpointError(
                f"{self.folder}: {name} has values that are not finite",
                found=", ".join(bad[:3]),
                next_step="use an earlier checkpoint of this run",
            )
        try:
            module.load_state_dict(state)
        except RuntimeError as error:
            raise CheckpointError(f"{self.folder}: {name} does not fit its configuration: {error}") from error


def _first_line(error: Exception) -> str:
    """What torch says, without the frames of C++ that it shows below."""
    return str(error).partition("\n")[0]


def save_checkpoint(
    folder: Path,
    description: JsonObject,
    tensors: Mapping[str, Mapping[str, Tensor]],
    vocabulary: Sequence[str] | None = None,
) -> None:
    """Write a checkpoint folder: first under a temporary name, then renamed when it is on the disk.

    A kill or a power cut at any moment leaves either the whole folder or none under its final name.

    Raises:
        OSError: the disk is full or the folder can't be written; nothing is left of it.
    """
    with atomic_folder(folder, marker=DESCRIPTION) as part:
        for name, state in tensors.items():
            whole = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
            _save(whole, part / f"{name}.safetensors", folder)
        if vocabulary is not None:
            (part / VOCABULARY).write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
        text = json.dumps({"format": FORMAT, **description}, indent=1)
        (part / DESCRIPTION).write_text(text, encoding="utf-8")


def load_checkpoint(path: Path, kind: str | None = None) -> Checkpoint:
    """Open a checkpoint folder, or the best (else the latest) checkpoint of a run folder.

    Raises:
        CheckpointError: nothing there, a pickle, a damaged or newer description, or another kind.
    """
    if path.is_file():
        raise CheckpointError(
            f"{path} is a single file, and a pickle could run code",
            expected=f"a checkpoint folder with {DESCRIPTION} and safetensors",
        )
    folder = path if (path / DESCRIPTION).is_file() else _of_run(path)
    try:
        document = read_json(folder / DESCRIPTION)
        head = decode(Head, document)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / DESCRIPTION} can't be read: {error!r}") from error
    if head.format != FORMAT:
        raise CheckpointError(
            f"{folder} has another format",
            found=str(head.format),
            expected=str(FORMAT),
            next_step="pip install --upgrade attngan-deploy",
        )
    if kind is not None and head.kind != kind:
        raise CheckpointError(f"{folder} is another kind of checkpoint", found=head.kind[:80], expected=kind)
    return Checkpoint(folder, head.kind, document)


def _save(state: dict[str, Tensor], path: Path, final: Path) -> None:
    try:
        save_file(state, path)
    except SafetensorError as error:  # of which only the text tells what the system said
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise OSError(errno.EIO, str(error), str(final)) from error
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(final)) from error


def check_fits(
    where: Path, make: Callable[[], torch.nn.Module], state: Callable[[], Mapping[str, Tensor]], misfit: str
) -> None:
    """Compare names and shapes of weights with those of a network, which takes no memory here.

    Args:
        state: gives the weights; asked only where there is a network.
        misfit: what to say of a weight that does not fit, with {} for its name.

    Raises:
        CheckpointError: they differ, or no network can be built.
    """
    try:
        with torch.device("meta"):
            wanted = {name: tuple(value.shape) for name, value in make().state_dict().items()}
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(f"{where}: its sizes make no network: {_first_line(error)}") from error
    found = {name: tuple(value.shape) for name, value in state().items()}
    for name in (*wanted, *found):
        if found.get(name) != wanted.get(name):
            shapes = [str(shapes.get(name, "nothing")) for shapes in (found, wanted)]
            raise CheckpointError(
                f"{where}: {misfit.format(ascii(name)[1:-1][:80])}", found=shapes[0], expected=shapes[1]
            )


def checkpoints_of(run: Path) -> list[Path]:
    """Complete checkpoints of a run folder, oldest first."""
    found = (path for path in (run / "checkpoints").glob("step-*") if (path / DESCRIPTION).is_file())
    return sorted(found, key=lambda path: path.name)


def newest_whole(run: Path) -> tuple[Path | None, dict[Path, str]]:
    """The newest whole checkpoint of a run folder, and what is wrong with those after it.

    Where none is whole, the newest one, as if nothing were wrong with it: reading it says what is.

    Raises:
        OSError: one is there and can't be read.
    """
    found = checkpoints_of(run)
    names = {path.name for folder in found for path in folder.glob("*")}  # all of a run have the same files
    damaged: dict[Path, str] = {}
    for folder in reversed(found):
        if not (damage := _damage_of(folder, names)):
            return folder, damaged
        damaged[folder] = damage
    return (found[-1] if found else None), {}


def _damage_of(folder: Path, names: Iterable[str]) -> str:
    """What a power cut took of a checkpoint that should have these files; "" where it is whole."""
    for name in sorted(names):
        path = folder / name
        try:
            if not path.stat().st_size:
                return f"{name} is empty"
            if name == DESCRIPTION:
                decode(Head, read_json(path))
            elif path.suffix == ".safetensors":
                with safe_open(path, "pt"):
                    pass
        except (FileNotFoundError, ValueError, SafetensorError) as error:
            return f"{name} can't be read ({error})"
    return ""


def document_of(run: Path) -> JsonObject:
    """What the latest whole checkpoint of a run folder says of itself; nothing where it has none yet."""
    found, _ = newest_whole(run)
    return load_checkpoint(found).document if found else {}


def best_of(run: Path) -> Best | None:
    """The best checkpoint of a run folder, where it is there: a run without one yet has its latest."""
    try:
        best = decode(Best, read_json(run / "best.json"))
        return best if (run / "checkpoints" / best.checkpoint / DESCRIPTION).is_file() else None
    except (OSError, ValueError):
        return None


def _of_run(run: Path) -> Path:
    if (best := best_of(run)) is not None:
        return run / "checkpoints" / best.checkpoint
    found = checkpoints_of(run)
    if not found:
        inside = ", ".join(sorted(item.name for item in run.iterdir())[:5]) if run.is_dir() else "no such folder"
        raise CheckpointError(
            f"no checkpoint at {run}",
            found=inside or "an empty folder",
            expected=f"{DESCRIPTION}, or a run folder with checkpoints/",
            next_step="t2i train --help",
        )
    return found[-1]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's state as flat names, so that it fits into safetensors."""
    state = optimizer.state_dict()["state"]
    return {f"{index}/{name}": value for index, values in state.items() for name, value in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Undo `optimizer_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for flat, value in tensors.items():
        index, _, name = flat.partition("/")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
