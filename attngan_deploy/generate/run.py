"""A run: what decides its pictures, how they are named, and what is said of them."""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from json.encoder import encode_basestring_ascii
from typing import Any

from attngan_deploy.bundles.bundle import Bundle, open_bundle
from attngan_deploy.bundles.manifest import CRITIC
from attngan_deploy.bundles.truncation import truncated
from attngan_deploy.engines.request import EngineRequest
from attngan_deploy.errors import OutputError
from attngan_deploy.generate.critic import DEFAULT_CRITIC
from attngan_deploy.generate.plan import Place, Plan
from attngan_deploy.generate.run_record import SHARDS, EngineRecord, RunRecord, without_usual
from attngan_deploy.media.caption import Caption
from attngan_deploy.media.captions import CaptionFile, Captions

FORMATS = ("png", "webp", "jpg", "tar")


@dataclass(frozen=True)
class Run:
    """From captions to pictures: what decides them, and how they are made. It can be sent to other machines.

    A run that is not in parts has one share, which goes on picture by picture; its number of samples may grow.
    """

    captions: Captions  # the whole input, in order; of a run in parts, a file that was measured
    seed: int  # 0 to 2**64 - 1
    shared_noise: bool  # whether every caption has the same noise
    model: str  # name of the bundle; its hash and folder follow
    model_hash: str
    file_format: str = "png"  # one of `FORMATS`
    samples: int = 1  # pictures of each caption
    shard_size: int | None = None  # pictures that are made as a whole, of a run in parts; None of one that is not
    bundle: str = ""
    engine: EngineRequest = field(default_factory=EngineRequest)
    batch_size: int | None = None  # pictures made together; None for the run's, or else the model's default
    strict: bool = False  # whether an unknown word is an error
    grid: bool = False  # also write `grid.png`
    attention: bool = False  # also write a sheet of each picture's attention into `attention/`
    truncation: float = 1.0  # times z, whose numbers far out are drawn again; 1 for z as it is
    best_of: int = 1  # candidates of each picture; the one is kept that the critic ranks first
    critic: str = ""  # hash of its bundle, where there are several

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        captions: Captions,
        seed: int = 0,
        shared_noise: bool = False,
        truncation: float | None = None,
        **how: Any,
    ) -> "Run":
        """A run of a bundle, with its truncation where that is None; `how` are further attributes.

        Raises:
            OutputError: attention was asked for, and the bundle has none.
            BundleError: the best of several was asked for, and there is no critic.
        """
        if how.get("attention") and not bundle.manifest.sizes.attention:
            raise OutputError(
                f"model {bundle.name} has no attention: its generator looks at the sentence as a whole",
                next_step="leave out --attention, or choose another --model",
            )
        if how.get("best_of", 1) > 1:
            how["critic"] = open_bundle(DEFAULT_CRITIC, CRITIC).hash
        cut = truncated(bundle.manifest.truncation, truncation)
        how["truncation"] = 1.0 if cut is None else cut.scale
        return cls(captions, seed, shared_noise, bundle.name, bundle.hash, bundle=str(bundle.folder), **how)

    @property
    def pictures(self) -> int:
        return self.captions.count * self.samples

    @cached_property
    def plan(self) -> Plan:
        """Which pictures stand in which shard, of a run in parts."""
        assert self.shard_size is not None
        return Plan(self.captions.count, self.samples, self.shard_size)

    @cached_property
    def record(self) -> RunRecord:
        """What `run.json` shall hold, but for the engine."""
        parts: dict[str, Any] = {}
        if self.shard_size is not None:
            assert isinstance(self.captions, CaptionFile)
            parts = {"layout": SHARDS, **asdict(self.plan), "column": self.captions.column}
            digest = self.captions.digest
        else:
            digest = _digest(self.captions.read())
        return RunRecord(
            captions_sha256=digest,
            seed=self.seed,
            shared_noise=self.shared_noise,
            model=self.model,
            model_hash=self.model_hash,
            format=self.file_format,
            truncation=self.truncation,
            best_of=self.best_of,
            critic=self.critic,
            **parts,
        )

    def name_of(self, caption: Caption, sample: int) -> str:
        """Name of a picture without suffix: line and sample number, e.g. "00001_00"."""
        return f"{caption.line:0{self.digits}d}_{sample:02d}"

    def places_of(self, names: Iterable[str]) -> dict[str, Place]:
        """The places that names were made from; names that this run does not make are left out."""
        samples: dict[int, list[tuple[str, int]]] = {}
        for name in names:
            line, _, sample = name.partition("_")
            if line.isdecimal() and sample.isdecimal():
                samples.setdefault(int(line), []).append((name, int(sample)))
        places: dict[str, Place] = {}
        for index, caption in enumerate(self.captions.read()):
            if not samples:
                break
            for name, number in samples.pop(caption.line, ()):
                if self.name_of(caption, number) == name:
                    places[name] = index, number
        return places

    def picture_record(self, place: Place, caption: Caption, file: str, engine: EngineRecord) -> dict[str, Any]:
        """What the manifest, and a PNG's metadata, say of a picture."""
        return {
            "caption": caption.text,
            "line": caption.line,
            "index": place[0],
            "sample": place[1],
            "seed": self.seed,
            "file": file,
            "model": self.model,
            "model_hash": self.model_hash,
            "shared_noise": self.shared_noise,
            **self._choices,
            **engine.told_of_picture,
        }

    @cached_property
    def _choices(self) -> dict[str, Any]:
        """What is told of each picture where it is not as usual."""
        return without_usual({"truncation": self.truncation, "best_of": self.best_of, "critic": self.critic})

    @cached_property
    def digits(self) -> int:
        """Digits of a line in the names of pictures."""
        return max(5, len(str(self.captions.last_line)))


def _digest(captions: Iterable[Caption]) -> str:
    """SHA-256 of a JSON list of [line, text]."""
    digest, before = hashlib.sha256(b"["), b""
    for caption in captions:
        digest.update(before + f"[{caption.line}, {encode_basestring_ascii(caption.text)}]".encode())
        before = b", "
    digest.update(b"]")
    return digest.hexdigest()
