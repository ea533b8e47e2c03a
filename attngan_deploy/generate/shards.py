"""The output of a run in parts: shards, which any number of workers make at once, and a manifest beside each.

Which pictures a shard holds depends on the run alone. A shard is there when its manifest is, which is written last.
"""

import json
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from attngan_deploy.errors import OutputError
from attngan_deploy.generate.features import Batch, Sheets
from attngan_deploy.generate.manifest import LARGEST_MANIFEST, manifest_line
from attngan_deploy.generate.plan import Part, Share, shard_captions
from attngan_deploy.generate.run import Run
from attngan_deploy.generate.run_record import EngineRecord, find_record, held_engine
from attngan_deploy.generate.storage import TAR, picture_store
from attngan_deploy.generate.target import ANOTHER_FOLDER, MANIFEST, RUN, Target, written
from attngan_deploy.media.images import encode_picture

MANIFEST_SUFFIX = "jsonl"
MOST_JOINED = 1_000_000  # pictures in one manifest.jsonl: 400 MB


@contextmanager
def open_shards(target: Target, run: Run) -> Iterator["OutputShards"]:
    """Take part in a run; a target whose run ended before its first shard is taken over.

    Raises:
        OutputError: the target belongs to another run, or another run is at work there.
    """
    out = OutputShards(target, run)
    if RUN in target and out.engine is None:
        target.clear()
    with target.hold():
        _ = out.engine  # nobody can have taken it over in between
        yield out


class OutputShards:
    """The shards of a run in a target; `open_shards` opens them."""

    def __init__(self, target: Target, run: Run) -> None:
        self.target, self.run, self.made = target, run, 0
        self._engine = EngineRecord()

    @property
    def engine(self) -> EngineRecord | None:
        """The engine of the run; None where the target is free. Raise OutputError where run or engine is another."""
        record = find_record(self.target, self.run.record, self.run.captions)
        if record is None:
            return None
        return held_engine(self.target, record, self.run.engine, self.run.batch_size)

    def settle(self, engine: EngineRecord) -> EngineRecord:
        """Make an engine that of the run, unless another worker was first; returns the run's, as `engine` does."""
        self.target.create(RUN, replace(self.run.record, engine=engine).json())
        settled = self.engine
        if settled is None:
            raise OutputError(f"{self.target.where} lost its {RUN}", next_step=ANOTHER_FOLDER)
        self._engine = settled
        return settled

    def pictures_of(self, share: Share) -> int:
        return self._size(share.of(self.run.plan.shards))

    def missing_shards(self, share: Share) -> tuple[int, list[int]]:
        """How many pictures are left to make, and the shards that they are in."""
        names = self.target.names()
        shards = [shard for shard in share.of(self.run.plan.shards) if not self.is_done(shard, names)]
        return self._size(shards), shards

    def missing(self, share: Share) -> tuple[int, Iterator[Part]]:
        """How many pictures are left to make, and their parts."""
        run, (size, shards) = self.run, self.missing_shards(share)
        read = shard_captions(run.captions, run.plan, shards)
        return size, (run.plan.part(shard, captions) for shard, captions in read)

    def is_done(self, shard: int, names: Container[str] | None = None) -> bool:
        """Whether a shard and its manifest are there, among the target's names; each picture, where it is a file."""
        names = self.target if names is None else names
        manifest = self.run.plan.name(shard, MANIFEST_SUFFIX)
        if manifest not in names:
            return False
        if self.run.file_format == TAR:
            return self.run.plan.name(shard) in names
        try:
            lines = self.target.read(manifest, LARGEST_MANIFEST).splitlines()
            return all(json.loads(line)["file"] in names for line in lines)
        except (ValueError, KeyError, TypeError, RecursionError):  # damaged: it is made again
            return False

    @contextmanager
    def writing(self, part: Part) -> Iterator[Callable[[Batch, Sheets | None], None] | None]:
        """Yield what takes the batches of a shard, or None where another worker is at it; raises as `Target.write`."""
        run, name, lines = self.run, self.run.plan.name(part.number), []
        with self.target.reserve(part.number, name) as is_ours:
            if not is_ours:
                yield None
                return
            with self.target.workspace(name) as folder:
                store = picture_store(folder, run.file_format, part.size, name)

                def add(batch: Batch, sheets: Sheets | None) -> None:
                    for place, caption, picture in zip(batch.places, batch.captions, batch.pictures, strict=True):
                        stem = run.name_of(caption, place[1])
                        record = run.picture_record(place, caption, store.file_of(stem), self._engine)
                        with written(str(folder)):
                            store.add(stem, encode_picture(picture, store.suffix, record), record)
                        lines.append(manifest_line(record))

                yield add
                for finished in sorted(folder.iterdir()):
                    self.target.take(finished)
            self.target.write(run.plan.name(part.number, MANIFEST_SUFFIX), b"".join(lines))  # from now on it is done
        self.made += part.size

    def join(self) -> tuple[int, int]:
        """How many shards are there, and how many the run has.

        Where all are there and a file of that size is of use, `manifest.jsonl` is written. Whoever comes last does it;
        two who do it at once write the same.
        """
        plan, names = self.run.plan, self.target.names()
        done = sum(self.is_done(shard, names) for shard in range(plan.shards))
        if done == plan.shards and plan.pictures <= MOST_JOINED and MANIFEST not in names:
            parts = (plan.name(shard, MANIFEST_SUFFIX) for shard in range(plan.shards))
            self.target.write(MANIFEST, (self.target.read(part, LARGEST_MANIFEST) for part in parts))
        return done, plan.shards

    def _size(self, shards: Sequence[int]) -> int:
        return sum(len(self.run.plan.numbers(shard)) for shard in shards)
