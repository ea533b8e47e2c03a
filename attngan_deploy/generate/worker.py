"""One worker: an engine that makes whole shards of a run, the same ones whoever makes them."""

import json
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from attngan_deploy.bundles.bundle import Bundle, open_bundle
from attngan_deploy.errors import OutputError
from attngan_deploy.generate.claim import ANOTHER_FOLDER, LAYOUT, RUN, another_run, check_folder
from attngan_deploy.generate.pipeline import DEFAULT_BATCH_SIZE, TextToImage
from attngan_deploy.generate.plan import Plan, Window
from attngan_deploy.generate.storage import LooseFiles, PictureStore, TarShards
from attngan_deploy.generate.target import LocalTarget, Target, open_target, written
from attngan_deploy.generate.writer import RUN_VERSION
from attngan_deploy.generate.writer import Run as Records
from attngan_deploy.media.caption import Caption
from attngan_deploy.media.caption_streams import CaptionFile, Extent
from attngan_deploy.media.captions import tokenize
from attngan_deploy.media.images import encode_picture

ENGINE = "engine"  # in run.json
AUTO = "auto"
MANIFEST_SUFFIX = "jsonl"
TAR = "tar"


@dataclass(frozen=True)
class EngineRequest:
    """Which engine was asked for; what is "auto" is what the run began with, or else chosen by its first worker.

    Attributes:
        backend: as for `TextToImage.load`, like the others.
        device: see there.
        precision: see there.
        threads: CPU threads of one worker.
        allow_fallback: take what can be had.
        batch_size: pictures made together; None for the run's, or else the model's default.
    """

    backend: str = AUTO
    device: str = AUTO
    precision: str = AUTO
    threads: int | None = None
    allow_fallback: bool = False
    batch_size: int | None = None


@dataclass(frozen=True)
class Job:
    """All that a worker has to know; it can be sent to other machines.

    Attributes:
        file: the captions.
        extent: what looking through them found.
        plan: which pictures stand in which shard.
        model: name or folder of the bundle.
        model_hash: its hash.
        out: where shards go, a folder or a URL.
        engine: which engine was asked for.
        seed: the seed.
        shared_noise: whether every caption has the same noise.
        strict: whether an unknown word is an error.
        file_format: "tar", or "png", "webp" or "jpg" for one file a picture.
    """

    file: CaptionFile
    extent: Extent
    plan: Plan
    model: str
    model_hash: str
    out: str
    engine: EngineRequest
    seed: int = 0
    shared_noise: bool = False
    strict: bool = False
    file_format: str = TAR

    def identity(self, bundle: Bundle) -> dict[str, Any]:
        """What must be the same for workers to share a target; with the engine, it is what `run.json` holds."""
        return {
            "version": RUN_VERSION,
            LAYOUT: "shards",
            **asdict(self.plan),
            "captions_sha256": self.extent.digest,
            "column": self.file.column,
            "seed": self.seed,
            "shared_noise": self.shared_noise,
            "model": bundle.name,
            "model_hash": bundle.hash,
            "format": self.file_format,
        }

    def done(self, target: Target, names: Container[str], shard: int) -> bool:
        """Whether a shard and its manifest are among the names of a target; each picture, where it is a file."""
        manifest = self.plan.name(shard, MANIFEST_SUFFIX)
        if manifest not in names:
            return False
        if self.file_format == TAR:
            return self.plan.name(shard) in names
        try:
            return all(json.loads(line)["file"] in names for line in target.read(manifest).splitlines())
        except (ValueError, KeyError, TypeError, RecursionError):  # damaged: it is made again
            return False


@dataclass(frozen=True)
class Made:
    """A shard that was made.

    Attributes:
        pictures: how many; 0 where another worker is at it.
        unknown: each word that was left out, with the first line that it stood on.
    """

    pictures: int
    unknown: dict[str, int]


def check_target(job: Job, bundle: Bundle, target: Target) -> None:
    """Refuse a target that belongs to another run, or can't be had, before an engine is loaded; nothing is made.

    Raises:
        OutputError: it belongs to another run, holds other things, or can't be written.
    """
    if isinstance(target, LocalTarget):
        check_folder(target.folder, job.identity(bundle))
    _recorded(job, bundle, target)


@contextmanager
def taking_part(job: Job, target: Target) -> Iterator[None]:
    """Be at work on a run; a target whose run ended before its first shard is taken over.

    Raises:
        OutputError: the target belongs to another run, or another run is at work there.
    """
    bundle = open_bundle(job.model)
    if RUN in target.names() and _recorded(job, bundle, target) is None:
        with target.hold(alone=True):
            target.remove(RUN)
    with target.hold():
        _recorded(job, bundle, target)  # nobody can have taken it over in between
        yield


class Worker:
    """Makes shards. Its engine is that of the run: the one that its first worker had.

    Attributes:
        model: the engine.

    Raises:
        OutputError: the target belongs to another run, or to one on another engine than was asked for.
        T2IError: the bundle or the engine can't be loaded.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.target = job, open_target(job.out)
        bundle = open_bundle(job.model)
        if bundle.hash != job.model_hash:
            raise OutputError(
                f"{bundle.folder} is not the model of this run", found=bundle.hash[:16], expected=job.model_hash[:16]
            )
        self._engine = _recorded(job, bundle, self.target)
        self.model = self._load(bundle)
        if self._engine is None:
            self._claim(bundle)
            self._engine = _recorded(job, bundle, self.target)
            if self._engine is None:
                raise OutputError(f"{job.out} lost its {RUN}", next_step=ANOTHER_FOLDER)
        if self._engine != self._present():  # another worker was first, and chose otherwise
            self.model = self._load(bundle)
            if self._engine != self._present():
                raise _another_engine(job, self._engine, self._present())

    def make(
        self, shard: int, captions: Sequence[Caption], progress: Callable[[int], None] = lambda pictures: None
    ) -> Made:
        """Make a shard and its manifest, and give them their final names.

        Args:
            captions: those that the plan gives the shard.
            progress: called with the number of pictures of each batch.

        Raises:
            CaptionError: a caption without a known word, or one that is too long.
            OutputError: the target can't be written.
        """
        job, plan, name = self.job, self.job.plan, self.job.plan.name(shard)
        is_tar = job.file_format == TAR
        start = plan.captions_of(shard).start
        window = Window(captions, start, plan.captions, job.extent.last_line)
        bundle = self.model.bundle
        records = Records(window, job.seed, job.shared_noise, bundle.name, bundle.hash, job.file_format)
        tokenized = tokenize(captions, self.model.tokenizer, job.strict)
        ids = dict(enumerate(tokenized.ids, start))
        batch_size = int(self._present()["batch_size"])
        engine = {key: self._present()[key] for key in ("backend", "precision")}
        places, lines = plan.places(shard), []
        with self.target.reserve(shard, name) as is_ours:
            if not is_ours:
                return Made(0, {})
            with self.target.workspace(name) as folder:
                store: PictureStore = TarShards(folder, len(places)) if is_tar else LooseFiles(folder, job.file_format)
                for batch in self.model.stream_tokenized(ids, places, job.seed, batch_size, job.shared_noise):
                    for place, picture in zip(batch.places, batch.pictures, strict=True):
                        stem = records.name_of(place)
                        file = f"{stem}.{store.suffix}"
                        record = records.record(place, f"{name}/{file}" if is_tar else file) | engine
                        with written(str(folder)):
                            store.add(stem, encode_picture(picture, store.suffix, record), record)
                        lines.append(json.dumps(record) + "\n")
                    progress(len(batch.places))
                for finished in sorted(folder.iterdir()):
                    self.target.take(name if is_tar else finished.name, finished)
            self.target.write(plan.name(shard, MANIFEST_SUFFIX), "".join(lines).encode())  # from now on it is done
        return Made(len(places), tokenized.unknown)

    def _load(self, bundle: Bundle) -> TextToImage:
        asked, found = self.job.engine, self._engine
        backend, device, precision = (
            (found or {}).get(key, getattr(asked, key)) for key in ("backend", "device", "precision")
        )
        return TextToImage.load(bundle.folder, backend, precision, asked.threads, device, asked.allow_fallback)

    def _present(self) -> dict[str, Any]:
        """What the engine that is loaded is, as `run.json` holds it."""
        facts = self.model.facts
        recorded = (self._engine or {}).get("batch_size")
        return {
            "backend": facts.backend,
            "device": facts.device.partition(":")[0],
            "precision": facts.precision,
            "batch_size": recorded or self.job.engine.batch_size or DEFAULT_BATCH_SIZE,
        }

    def _claim(self, bundle: Bundle) -> None:
        identity = self.job.identity(bundle)
        self.target.create(RUN, (json.dumps(identity | {ENGINE: self._present()}, indent=2) + "\n").encode())


def _recorded(job: Job, bundle: Bundle, target: Target) -> dict[str, Any] | None:
    """The engine of the run that the target belongs to; None where it is free.

    Raises:
        OutputError: it belongs to another run or another engine, or its `run.json` is damaged.
    """
    names = target.names()
    if RUN not in names:
        if not names:
            return None
        raise OutputError(f"{target.where} holds other files, and no {RUN} of t2i generate", next_step=ANOTHER_FOLDER)
    identity = job.identity(bundle)
    try:
        found = json.loads(target.read(RUN))
        engine = dict(found[ENGINE]) if isinstance(found, dict) and LAYOUT in found else {}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise OutputError(f"{RUN} of {target.where} is damaged ({error!r})", next_step=ANOTHER_FOLDER) from error
    if differences := [key for key, value in identity.items() if found.get(key) != value]:
        if names == {RUN} and isinstance(target, LocalTarget):
            return None
        raise another_run(target.where, found, identity, differences)
    asked = {key: getattr(job.engine, key) for key in ("backend", "device", "precision", "batch_size")}
    given = {key: value for key, value in asked.items() if value not in (AUTO, None)}
    if not job.engine.allow_fallback and any(engine.get(key) != value for key, value in given.items()):
        raise _another_engine(job, engine, given)
    return engine


def _another_engine(job: Job, found: dict[str, Any], wanted: dict[str, Any]) -> OutputError:
    return OutputError(
        f"{job.out} is a run on another engine, whose pictures may differ in their last bits",
        found=", ".join(f"{key} {value}" for key, value in found.items()),
        expected=", ".join(f"{key} {value}" for key, value in wanted.items()),
        next_step="ask for the same engine, or choose another -o",
    )
