"""The folder of a training run: its resolved recipe, metrics, sample grids and checkpoints.

RUN/recipe.json  metrics.jsonl  tensorboard/  grids/  checkpoints/step-00001200/  best.json
"""

import json
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from attngan_deploy.errors import CheckpointError, OutputError
from attngan_deploy.system.durable import sync_files, sync_folder
from attngan_deploy.system.files import (
    append_whole,
    entries,
    inside,
    is_part,
    make_folder,
    read_json,
    remove_folder,
    sweep,
    write_atomically,
)
from attngan_deploy.system.lock import lock_folder
from attngan_deploy.system.records import JsonObject
from attngan_deploy.train.runs.checkpoint import (
    Best,
    Checkpoint,
    best_of,
    checkpoints_of,
    load_checkpoint,
    newest_whole,
    save_checkpoint,
)
from attngan_deploy.train.runs.progress import say

RECIPE, METRICS = "recipe.json", "metrics.jsonl"
GAP = 900.0  # seconds
KEPT = 2  # latest checkpoints; the best one is kept besides


class RunFolder:
    """Where a training run keeps what it makes. Only rank 0 of a distributed run writes.

    Args:
        writes: False on other ranks.

    Raises:
        OutputError: a run is there and `resume` is False.
        CheckpointError: `resume` is True and the run that is there has another recipe.
    """

    def __init__(self, path: Path, recipe: Any, *, resume: bool, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        resolved, defaults = (json.loads(json.dumps(asdict(each))) for each in (recipe, type(recipe)()))
        described = inside(path, RECIPE)
        self._release: Callable[[], object] = lambda: None
        if writes:
            make_folder(path)
            if (handle := lock_folder(path)) is not None:  # until `close`, or until nothing uses this object any more
                self._release = weakref.finalize(self, os.close, handle)
        self._tensorboard: Any = None
        self._resumed = resume and bool(checkpoints_of(path))
        if writes:  # other ranks find the folder as it is being filled
            if described.is_file() and checkpoints_of(path):
                self._check_same(described, resolved, resume, defaults)
            elif not described.is_file() and not all(map(is_part, entries(path))):
                raise OutputError(f"{path} holds other files", next_step="choose another --out")
            write_atomically(described, json.dumps(resolved, indent=1))  # first: it says whose the folder is
            for folder in (path, inside(path, "grids"), inside(path, "checkpoints")):
                make_folder(folder)
                sweep(folder)
            whole = checkpoints_of(path)
            for folder in (path / "checkpoints").glob("step-*"):
                if folder not in whole:  # whose removal was cut short
                    remove_folder(folder)
            if not self._resumed:
                self._truncate_metrics(-1)

    @staticmethod
    def _check_same(described: Path, resolved: dict[str, Any], resume: bool, defaults: dict[str, Any]) -> None:
        if not resume:
            raise OutputError(
                f"a run is already at {described.parent}",
                next_step="add --resume to continue it, or choose another --out",
            )
        before = _completed(recipe_of(described.parent), defaults)  # a run of an older version knew fewer settings
        changed = sorted(key for key in {*before, *resolved} if before.get(key) != resolved.get(key))
        if changed:
            raise CheckpointError(
                f"the run at {described.parent} has another recipe",
                found=", ".join(f"{key} {before.get(key)!r}" for key in changed),
                expected=", ".join(f"{resolved.get(key)!r}" for key in changed),
                next_step="resume with the options it was started with, or choose another --out",
            )

    def latest(self, say: Callable[[str], None] = say) -> Checkpoint | None:
        """The newest whole checkpoint; later ones, and metrics that a killed run wrote after it, are dropped.

        Args:
            say: told which checkpoints are damaged.
        """
        found, damaged = newest_whole(self.path)
        if not self._resumed or found is None:
            return None
        checkpoint = load_checkpoint(found)
        for folder, damage in damaged.items():
            say(f"{folder} is damaged: {damage}; the run goes on from {found.name}")
        if self.writes:
            for folder in damaged:
                remove_folder(folder)
            self._truncate_metrics(checkpoint.step)
        return checkpoint

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line of metrics, and to TensorBoard."""
        if not self.writes:
            return
        if self._tensorboard is None:
            from torch.utils.tensorboard import SummaryWriter

            _quiet_writers()
            self._tensorboard = SummaryWriter(str(inside(self.path, "tensorboard")))
        row = {"step": step, "time": round(time.time(), 1), **metrics}
        append_whole(inside(self.path, METRICS), json.dumps(row).encode() + b"\n")
        for name, value in metrics.items():
            self._tensorboard.add_scalar(name, value, step)

    def _truncate_metrics(self, step: int) -> None:
        path = inside(self.path, METRICS)
        if path.is_file():
            rows = [
                line
                for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
                if _step_of(line) <= step
            ]
            write_atomically(path, "".join(row + "\n" for row in rows))

    def save(
        self,
        step: int,
        description: JsonObject,
        tensors: Mapping[str, Mapping[str, Tensor]],
        vocabulary: Sequence[str] | None = None,
        *,
        score: tuple[str, float] | None = None,
        lower_is_better: bool = False,
    ) -> None:
        """Write a checkpoint, note whether it is the best so far, and delete those that are neither best nor latest.

        Args:
            score: name and value of the metric that decides which checkpoint is best.
        """
        if not self.writes:
            return
        if (metrics := self.path / METRICS).is_file():  # a run that goes on from here keeps its lines
            sync_files([metrics])
            sync_folder(self.path)
        folder = inside(self.path, "checkpoints") / f"step-{step:08d}"
        save_checkpoint(folder, {**description, "step": step}, tensors, vocabulary)
        if score is not None:
            name, value = score
            best = best_of(self.path)
            if best is None or (value < best.value if lower_is_better else value > best.value):
                fact = asdict(Best(folder.name, name, value, step))
                write_atomically(inside(self.path, "best.json"), json.dumps(fact))
        best = best_of(self.path)
        for old in checkpoints_of(self.path)[:-KEPT]:
            if best is None or old.name != best.checkpoint:
                remove_folder(old)

    def close(self) -> None:
        """Flush what TensorBoard still holds, and let others write into the folder."""
        if self._tensorboard is not None:
            self._tensorboard.close()
        self._release()


def recipe_of(run: Path) -> JsonObject:
    """What `recipe.json` of a run says; where a power cut emptied it, what the newest whole checkpoint says.

    Raises:
        CheckpointError: neither can be read.
    """
    try:
        recipe = read_json(run / RECIPE)
        if isinstance(recipe, dict):
            return recipe
        raise ValueError("it is no object")
    except (OSError, ValueError) as error:
        found, _ = newest_whole(run)
        recipe = load_checkpoint(found).document.get("recipe") if found else None
        if not isinstance(recipe, dict):
            what = f"{run / RECIPE} is damaged ({error})"
            raise CheckpointError(what, next_step="choose another --out") from error
        return recipe


def _completed(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, and settings within settings, with defaults for those that are missing."""
    inner = {
        name: _completed(values[name], default)
        for name, default in defaults.items()
        if isinstance(default, Mapping) and isinstance(values.get(name), Mapping)
    }
    return {**defaults, **values, **inner}


def _quiet_writers() -> None:
    """Keep the tracebacks of TensorBoard's thread from the screen: an error of the disk comes back to `log` too."""
    before = threading.excepthook
    if before.__module__ == __name__:
        return

    def tell(happened: threading.ExceptHookArgs) -> None:
        ours = type(happened.thread).__module__.startswith("tensorboard.")
        if not (ours and isinstance(happened.exc_value, OSError)):
            before(happened)

    threading.excepthook = tell


def training_curve(run: Path) -> list[dict[str, float]]:
    """What scoring on the way found: pictures seen, hours spent, Inception Score and Frechet distance of each time.

    Hours are the time between lines of metrics; longer gaps than `GAP` are pauses and do not count.
    """
    try:
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        if not all(isinstance(row, dict) and isinstance(row.get("time"), float) for row in rows):
            return []
    except (OSError, ValueError, RecursionError):
        return []
    curve, seconds, last = [], 0.0, None
    for row in rows:
        passed = 0.0 if last is None else row["time"] - last
        seconds, last = seconds + (passed if passed <= GAP else 0.0), row["time"]
        if "score/fid" in row:
            found = {"inception": row["score/inception"], "fid": row["score/fid"]}
            curve.append({"pictures": row["pictures"], "hours": round(seconds / 3600, 3), **found})
    return curve


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return 2**62  # a line cut short by a kill
