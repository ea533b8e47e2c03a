"""A run on a Ray cluster: Ray Data reads captions, actors hold engines and make shards (extra `ray`).

Every row of the data set is one shard with its captions. When an actor or its machine dies, Ray gives what it was
making to another; shards that it had finished are there and are not made again.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pyarrow
import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError

from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.errors import EngineError, T2IError
from attngan_deploy.generate.generation import Generation, Report, UnknownWords
from attngan_deploy.generate.plan import Share, shard_captions
from attngan_deploy.generate.run import Run
from attngan_deploy.generate.shards import OutputShards, open_shards
from attngan_deploy.generate.target import open_target
from attngan_deploy.media.caption import Caption
from attngan_deploy.media.tokenizer import Tokenizer

READERS = 64  # tasks that read captions; each one's shards are neighbours
GPU_DEVICES = ("cuda", "gpu", "tensorrt", "tensorrt-rtx")


def _rows_of(batch: dict[str, Any], run: Run) -> Iterator[pyarrow.Table]:
    """Rows {"shard", "lines", "texts"}: the captions of some shards."""
    try:
        for shard, captions in shard_captions(run.captions, run.plan, map(int, batch["item"])):
            yield _row(shard, captions)
    except T2IError as error:
        yield _row(-1, [], str(error))


def _row(shard: int, captions: list[Caption], error: str = "") -> pyarrow.Table:
    lines, texts = [caption.line for caption in captions], [caption.text for caption in captions]
    kinds = [("shard", pyarrow.int64()), ("lines", pyarrow.list_(pyarrow.int64()))]
    schema = pyarrow.schema([*kinds, ("texts", pyarrow.list_(pyarrow.string())), ("error", pyarrow.string())])
    return pyarrow.Table.from_pylist([{"shard": shard, "lines": lines, "texts": texts, "error": error}], schema)


class ShardMaker:
    """An actor: it loads its engine when its first row comes, and keeps it."""

    def __init__(self, run: Run, out: str) -> None:
        self._run, self._output = run, OutputShards(open_target(out), run)
        self._generation: Generation | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Make one shard; errors come back as text."""
        shard, error = int(row["shard"]), str(row["error"])
        if error:
            return _result(shard, error=error)
        output, unknown = self._output, dict[str, int]()
        before = output.made
        try:
            self._generation = self._generation or Generation(self._run, output)
            if output.is_done(shard):
                return _result(shard)  # a task that is done again, as its actor died after this shard
            captions = [Caption(str(text), int(line)) for line, text in zip(row["lines"], row["texts"], strict=True)]
            self._generation.make(self._run.plan.part(shard, captions), tell=unknown.update)
        except T2IError as caught:
            return _result(shard, error=str(caught))
        about = self._generation.model.description
        return _result(shard, output.made - before, unknown, about=about)


def _result(
    shard: int, pictures: int = 0, unknown: dict[str, int] | None = None, error: str = "", about: str = ""
) -> dict[str, Any]:
    told = json.dumps(unknown or {})
    return {"shard": shard, "pictures": pictures, "unknown": told, "error": error, "about": about}


def make_on_ray(
    run: Run,
    out: str,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda line: None,
) -> Report:
    """Make the shards of a run that its target lacks, on the cluster that RAY_ADDRESS names, or on this machine.

    Every machine of the cluster must see the captions, the target and the model under the same names.

    Args:
        workers: actors; None for as many as there are GPUs, or processors.

    Raises:
        T2IError: as `generation.generate`, or no cluster can be had.
    """
    bundle = open_bundle(run.bundle)
    with open_shards(open_target(out), run) as output:
        total, missing = output.missing_shards(Share())
        start, made = time.perf_counter(), 0
        if missing:
            words = UnknownWords(Tokenizer.load(bundle.vocabulary), say)
            for row in _rows(run, out, missing, workers, say):
                if not made and row["about"]:
                    say(f"model {run.model} {run.model_hash[:12]}, {row['about']}")
                    progress(0, total)
                words.tell(json.loads(row["unknown"]))
                made += int(row["pictures"])
                progress(made, total)
        seconds = time.perf_counter() - start
        done, shards = output.join()
        return Report(made, run.pictures - made, seconds, done=done, shards=shards)


def _rows(
    run: Run, out: str, missing: list[int], workers: int | None, say: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """What the actors answer, as it comes."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what goes wrong comes back as an error
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    was_there = ray.is_initialized()
    if not was_there:
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise EngineError(
                f"no Ray cluster can be had: {error}", next_step="unset RAY_ADDRESS to use one here"
            ) from error
    try:
        gpus = int(run.engine.place in GPU_DEVICES or run.engine.backend in GPU_DEVICES)
        threads = run.engine.threads or 1
        there = ray.cluster_resources()
        room = int(there.get("GPU", 0)) if gpus else int(there.get("CPU", 1)) // threads
        count = min(workers or max(1, room), len(missing))
        if room < count:
            raise EngineError(
                f"this Ray cluster has no room for {count} workers",
                found=f"{room} {'GPUs' if gpus else f'times {threads} processors'}",
                next_step="--workers, or --threads for fewer processors each",
            )
        say(f"Ray {ray.__version__}, {count} workers")
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        run = replace(run, engine=replace(run.engine, threads=threads))
        data = (
            ray.data.from_items(missing, override_num_blocks=min(READERS, len(missing)))
            .map_batches(_rows_of, batch_size=None, fn_kwargs={"run": run}, num_cpus=0)
            .map(
                ShardMaker,
                fn_constructor_args=(run, out),
                compute=ActorPoolStrategy(size=count),
                num_cpus=threads,
                num_gpus=gpus,
            )
        )
        for row in data.iter_rows():
            if row["error"]:
                raise T2IError(str(row["error"]))
            yield row
    except RayError as error:
        what = " ".join(str(error).split())[-300:]
        raise EngineError(
            f"a worker on the Ray cluster failed: {what}", next_step="the same again: what is done is kept"
        ) from error
    finally:
        if not was_there:
            ray.shutdown()
