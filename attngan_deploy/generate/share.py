"""A part of a run by one process: what `t2i generate --shard i/n` does, without the command."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.generate.plan import Share, shard_captions
from attngan_deploy.generate.target import Target, open_target
from attngan_deploy.generate.worker import MANIFEST_SUFFIX, Job, Worker, check_target, taking_part
from attngan_deploy.generate.writer import MANIFEST
from attngan_deploy.media.captions import describe_unknown
from attngan_deploy.media.tokenizer import Tokenizer

MOST_JOINED = 1_000_000  # pictures in one manifest.jsonl: 400 MB
MOST_TOLD = 100  # unknown words


@dataclass(frozen=True)
class Report:
    """What was done.

    Attributes:
        made: pictures that were made now.
        skipped: pictures of this part whose shards were there already, or are another worker's at this moment.
        seconds: how long making and writing took.
        done: shards of the whole run that are there now.
        shards: shards of the whole run.
    """

    made: int
    skipped: int
    seconds: float
    done: int
    shards: int


class UnknownWords:
    """Tells each word that was left out once, and stops after a hundred."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._told = tokenizer, set[str]()

    def tell(self, unknown: dict[str, int]) -> None:
        """Print the words that are new."""
        for word, line in unknown.items():
            if word not in self._told and len(self._told) < MOST_TOLD:
                self._told.add(word)
                more = "; more are not told" if len(self._told) == MOST_TOLD else ""
                print(f"t2i: line {line}: left out {describe_unknown(word, self._tokenizer)}{more}", file=sys.stderr)


def make_share(job: Job, share: Share, progress: Callable[[int, int], None] = lambda done, total: None) -> Report:
    """Make the shards of a part of a run that its target lacks.

    Args:
        progress: called with (done, total) pictures of what this process makes: at the start and after each batch.

    Raises:
        CaptionError: a caption that can't be read, or without a known word.
        OutputError: the target belongs to another run, or can't be written.
        T2IError: the bundle or the engine can't be loaded.
    """
    plan, target = job.plan, open_target(job.out)
    check_target(job, open_bundle(job.model), target)
    with taking_part(job, target):
        names = target.names()
        own = share.of(plan.shards)
        missing = [shard for shard in own if not job.done(target, names, shard)]
        total = sum(len(plan.places(shard)) for shard in missing)
        start, made, seen = time.perf_counter(), 0, 0
        if missing:
            worker = Worker(job)
            print(f"t2i: model {worker.model.bundle.name}, {worker.model.description}", file=sys.stderr)
            words = UnknownWords(worker.model.tokenizer)
            progress(0, total)
            start = time.perf_counter()

            def step(pictures: int) -> None:
                nonlocal seen
                seen += pictures
                progress(seen, total)

            for shard, captions in shard_captions(job.file, job.extent, plan, missing):
                done = worker.make(shard, captions, step)
                words.tell(done.unknown)
                made += done.pictures
        seconds = time.perf_counter() - start
        pictures = sum(len(plan.places(shard)) for shard in own)
        return Report(made, pictures - made, seconds, join_manifests(job, target), plan.shards)


def join_manifests(job: Job, target: Target) -> int:
    """Write `manifest.jsonl` where all shards are there and a file of that size is of use; returns how many are there.

    Whoever comes last does it; two who do it at once write the same.
    """
    plan, names = job.plan, target.names()
    done = sum(job.done(target, names, shard) for shard in range(plan.shards))
    if done == plan.shards and plan.pictures <= MOST_JOINED and MANIFEST not in names:
        target.join(MANIFEST, (plan.name(shard, MANIFEST_SUFFIX) for shard in range(plan.shards)))
    return done
