"""The output of a run in parts: shards, which any number of workers make at once, and a manifest beside each.

Which pictures a shard holds depends on the run alone. A shard is there when its manifest is, which is written last, and
its files have the sizes and hashes that the manifest tells. (An object store hashes what it keeps, so that there sizes
are enough.)
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from attngan_deploy.errors import OutputError
from attngan_deploy.generate.features import Batch, Sheets
from attngan_deploy.generate.manifest import LARGEST_MANIFEST, file_line, manifest_line, metadata_line, records_in
from attngan_deploy.generate.plan import Part, Share, shard_captions
from attngan_deploy.generate.recovery import recover_shared_record
from attngan_deploy.generate.run import Run
from attngan_deploy.generate.run_record import DamagedRecordError, EngineRecord, find_record, held_engine
from attngan_deploy.generate.storage import TAR, picture_store
from attngan_deploy.generate.target import MANIFEST, METADATA, RUN, Target, written
from attngan_deploy.media.images import encode_picture
from attngan_deploy.system.files import ANOTHER_FOLDER

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
        with target.hold(alone=True):
            target.clear()
    with target.hold():
        _ = out.engine  # nobody can have taken it over in between
        yield out


class OutputShards:
    """The shards of a run in a target; `open_shards` opens them."""

    def __init__(self, target: Target, run: Run) -> None:
        self.target, self.run, self.made = target, run, 0
        self._engine = EngineRecord()
        self._sound: set[int] = set()  # shards whose hashes were compared, or that were made here

    @property
    def engine(self) -> EngineRecord | None:
        """The engine of the run; None where the target is free. Raise OutputError where run or engine is another."""
        try:
            record = find_record(self.target, self.run.record, self.run.captions)
        except DamagedRecordError as error:
            record = recover_shared_record(self.target, self.run, error)
        if record is None:
            return None
        return held_engine(self.target, record, self.run.engine, self.run.batch_size)

    def settle(self, engine: EngineRecord) -> EngineRecord:
        """Make an engine that of the run, unless another worker was first; returns the run's, as `engine` does."""
        data = replace(self.run.record, engine=engine).json()
        try:
            find_record(self.target, self.run.record, self.run.captions)
        except DamagedRecordError:
            self.target.write(RUN, data)
        self.target.create(RUN, data)
        settled = self.engine
        if settled is None:
            raise OutputError(f"{self.target.where} lost its {RUN}", next_step=ANOTHER_FOLDER)
        self._engine = settled
        return settled

    def pictures_of(self, share: Share) -> int:
        return self._size(share.of(self.run.plan.shards))

    def missing_shards(self, share: Share) -> tuple[int, list[int]]:
        """How many pictures are left to make, and the shards that they are in."""
        sizes = self.target.sizes()
        shards = [shard for shard in share.of(self.run.plan.shards) if not self.is_done(shard, sizes.get)]
        return self._size(shards), shards

    def missing(self, share: Share) -> tuple[int, Iterator[Part]]:
        """How many pictures are left to make, and their parts."""
        run, (size, shards) = self.run, self.missing_shards(share)
        read = shard_captions(run.captions, run.plan, shards)
        return size, (run.plan.part(shard, captions) for shard, captions in read)

    def is_done(self, shard: int, size_of: Callable[[str], int | None] | None = None) -> bool:
        """Whether a shard is there as its manifest says; its hashes are compared once.

        Args:
            size_of: the bytes of a file that is there; None asks the target for each.
        """
        files = self._files(shard, size_of or self.target.size)
        if files is None:
            return False
        if shard not in self._sound and all(self.target.is_intact(*each) for each in files.items()):
            self._sound.add(shard)
        return shard in self._sound

    def _files(self, shard: int, size_of: Callable[[str], int | None]) -> dict[str, str] | None:
        """The hashes of a shard's files, which are there in the right sizes; None where they are not."""
        manifest = self.run.plan.name(shard, MANIFEST_SUFFIX)
        if (size_of(manifest) or 0) <= 0:
            return None
        try:
            lines = self.target.read(manifest, LARGEST_MANIFEST).splitlines()
        except ValueError:  # no file, or too large a one, and no manifest of ours
            return None
        pictures, names = len(self.run.plan.numbers(shard)), {self.run.plan.name(shard)}
        if not all(line.startswith(b"{") and line.endswith(b"}") for line in lines):
            return None
        if self.run.file_format != TAR:
            names = {record["file"] for record in records_in(lines[:pictures])}
        if len(lines) == pictures:  # of an older version, which told no sizes
            return {} if names and all(self.target.is_whole(name) for name in names) else None
        files = {record["file"]: record for record in records_in(lines[pictures:])}
        if files.keys() != names or any(size_of(name) != files[name].get("bytes") for name in names):
            return None
        return {name: str(files[name].get("sha256")) for name in names}

    @contextmanager
    def writing(self, part: Part) -> Iterator[Callable[[Batch, Sheets | None], None] | None]:
        """Yield what takes the batches of a shard, or None where another worker is at it; raises as `Target.write`."""
        run, name, lines = self.run, self.run.plan.name(part.number), []
        manifest = run.plan.name(part.number, MANIFEST_SUFFIX)
        with self.target.reserve(part.number, name, manifest) as is_ours:
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
                with written(str(folder)):
                    store.finish()
                    lines += map(file_line, sorted(folder.iterdir()))
                self.target.take(folder)
            self.target.write(manifest, b"".join(lines))  # from now on it is done
        self._sound.add(part.number)
        self.made += part.size

    def join(self) -> tuple[int, int]:
        """How many shards are there, and how many the run has.

        Where all are there and a file of that size is of use, `manifest.jsonl` is written, and beside loose pictures
        `metadata.jsonl`, where there is none. Whoever comes last does it;
        two who do it at once write the same.
        """
        plan, sizes = self.run.plan, self.target.sizes()
        if plan.pictures > MOST_JOINED:  # their manifests would take long to read
            manifests = (plan.name(shard, MANIFEST_SUFFIX) for shard in range(plan.shards))
            done = sum(sizes.get(manifest, 0) > 0 for manifest in manifests)
            return done, plan.shards
        done = sum(self._files(shard, sizes.get) is not None for shard in range(plan.shards))
        if done == plan.shards and sizes.get(MANIFEST) != sum(map(len, self._joined())):
            self.target.write(MANIFEST, self._joined())
        if done == plan.shards and self.run.file_format != TAR and METADATA not in sizes:
            records = (record for lines in self._joined() for record in records_in(lines.splitlines()))
            self.target.write(METADATA, map(metadata_line, records))
        return done, plan.shards

    def _joined(self) -> Iterator[bytes]:
        """What the manifests of all shards say of their pictures."""
        for shard in range(self.run.plan.shards):
            lines = self.target.read(self.run.plan.name(shard, MANIFEST_SUFFIX), LARGEST_MANIFEST)
            yield b"".join(lines.splitlines(keepends=True)[: len(self.run.plan.numbers(shard))])

    def _size(self, shards: Sequence[int]) -> int:
        return sum(len(self.run.plan.numbers(shard)) for shard in shards)
