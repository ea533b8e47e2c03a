"""Pictures on their way to a judge: found in a folder or in tar shards, decoded in threads, and never all in memory."""

import os
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePath
from shlex import quote

from attngan_deploy.errors import DataError, OutputError, ScoreError
from attngan_deploy.generate.manifest import ForeignManifestError, iter_manifest
from attngan_deploy.generate.plan import Plan
from attngan_deploy.generate.run_record import SHARDS, RunRecord
from attngan_deploy.generate.target import MANIFEST, RUN
from attngan_deploy.media.caption import SUFFIXES
from attngan_deploy.media.decoder import load_picture
from attngan_deploy.media.packed import ARCHIVES, archive_line
from attngan_deploy.media.shards import (
    BAD_TAR,
    MAX_MEMBER_BYTES,
    NO_CLASS,
    OTHER_SUFFIXES,
    PICTURE_SUFFIXES,
    SIDECAR,
    iter_samples,
    read_facts,
    sample_part,
)
from attngan_deploy.score.passport import GeneratedFacts
from attngan_deploy.score.preprocessing import CropError, PreparedPicture, prepare
from attngan_deploy.system.files import entries, is_ignored, read_file, read_json
from attngan_deploy.system.records import decode
from attngan_deploy.system.threads import results_ahead

ORDERS = ("auto", "manifest", "name", "stored")
NOT_SCORED = re.compile(r"(grid|attention)([^a-z].*)?$")  # sheets of several pictures
NEXT_STEP = "t2i generate captions.txt -o out/"
AHEAD = 128  # pictures that wait for the judge


@dataclass(frozen=True)
class PictureFiles:
    """Where pictures are, and in which order they count."""

    source: str  # name of the folder or tar
    order: str  # "manifest", "name" or "stored"
    other_files: list[str] = field(default_factory=list)  # what is there and is no picture to score
    loose: list[Path] = field(default_factory=list)  # the picture files of a folder; empty where they are in shards
    shards: list[Path] = field(default_factory=list)  # the tar files to read, in order
    places: Mapping[str, int] | None = None  # place of each picture by name, where a manifest says it
    # caption of each picture by name, where a manifest says it
    captions: Mapping[str, str] = field(default_factory=dict)
    # loose pictures that have a `.json` of their class and captions beside them
    described: frozenset[str] = frozenset()
    lost: list[str] = field(default_factory=list)  # links of shards that lead out of them, filled while they are read
    folder: Path = Path()  # in which the loose pictures lie, or its sub-folders
    notes: tuple[str, ...] = ()  # what of it is another program's, and how it was read
    left_out: tuple[str, ...] = ()  # what is said of pictures that the manifest does not name
    generated: GeneratedFacts | None = None  # None; a folder of `t2i generate` is a folder
    best_of: int = 1  # candidates that each was chosen from

    def name_of(self, loose: Path) -> str:
        """The name of a loose picture, with the sub-folder that it lies in."""
        return loose.relative_to(self.folder).as_posix()

    def count(self) -> int:
        """How many pictures there are; reads the headers of shards only."""
        return len(self.loose) + sum(map(_count_members, self.shards))

    def arrange(self, names: list[str]) -> list[int]:
        """Places of the pictures `names`, as they came, in the order in which they count; a manifest names them all."""
        if self.order == "stored":
            return list(range(len(names)))
        rank = self.places or {name: place for place, name in enumerate(sorted(names))}
        return sorted(range(len(names)), key=lambda place: rank[names[place]])

    def prepared(
        self, size: int, crop: int | None = None, threads: int | None = None, ahead: int = AHEAD
    ) -> Generator[PreparedPicture, None, None]:
        """Yield every picture, prepared in threads, in stored order; at most `ahead` wait in memory.

        Raises:
            ScoreError: as `prepare`, or pictures of different sizes without a crop.
            DataError: a damaged shard or `.json`.
        """
        first: PreparedPicture | None = None
        for item in results_ahead(self._calls(size, crop), ahead, threads):
            if item.pixels is not None:
                first = first or item
                if crop is None and item.size != first.size:
                    raise CropError(
                        "pictures of different sizes can't be scored together",
                        found=f"{first.name} of {_by(first.size)} px and {item.name} of {_by(item.size)} px",
                        expected="one size",
                        next_step=f"add --crop {min(*first.size, *item.size)}, or score each size by itself",
                    )
            yield item

    def smallest_side(self) -> tuple[int, str]:
        """The shorter side in pixels of the smallest picture that can be read, and its name; headers are read only."""
        stored: Iterator[tuple[str, bytes | Path]] = ((self.name_of(path), path) for path in self.loose)
        if self.shards:
            samples = (sample for shard in self.shards for sample in iter_samples(shard, []))
            stored = ((f"{sample.name}{sample.suffix}", sample.picture) for sample in samples)
        sides = []
        for name, source in stored:
            with suppress(OSError):
                sides.append((min(load_picture(source, pixels=False).size), name))
        return min(sides)

    def _calls(self, size: int, crop: int | None) -> Iterator[Callable[[], PreparedPicture]]:
        """What prepares each picture, with the caption of the manifest, else the first one of its `.json`."""

        def call(name: str, load: Callable[[], bytes], captions: list[str], class_id: int) -> partial[PreparedPicture]:
            caption = self.captions.get(name, captions[0] if captions else "")
            return partial(_load_and_prepare, name, load, size, crop, caption, class_id)

        for path in self.loose:
            class_id, captions, name = NO_CLASS, [""], self.name_of(path)
            if name in self.described:
                sidecar = path.with_suffix(SIDECAR)
                class_id, captions = read_facts(_read_sidecar(sidecar), str(sidecar))
            yield call(name, partial(read_file, path, MAX_MEMBER_BYTES), captions, class_id)
        self.lost.clear()
        for shard in self.shards:
            prefix = f"{shard.name}/" if len(self.shards) > 1 or self.places is not None else ""
            for sample in iter_samples(shard, self.lost):
                name = f"{prefix}{sample.name}{sample.suffix}"
                yield call(name, partial(bytes, sample.picture), sample.captions, sample.class_id)


def find_pictures(path: Path, order: str = "auto", instead: str = NEXT_STEP) -> PictureFiles:
    """Find the pictures of a folder or a tar shard.

    In a folder with a `manifest.jsonl` the pictures that it names count; in another, every picture that is not called
    grid or attention; where there are no loose pictures, its tar shards; without them, the pictures of its sub-folders.

    Args:
        order: "manifest"; "name"; "stored", as in a tar; "auto" is the manifest's, else by name, or stored for a tar.
        instead: what to do where there are none.

    Raises:
        ScoreError: nothing there, no pictures, or an order that can't be had.
        OutputError: a damaged manifest.
    """
    if order not in ORDERS:
        raise ScoreError(f"no order '{order}'", expected=", ".join(ORDERS), next_step="t2i score --help")
    if path.is_file():
        return _tar(path, order, instead)
    if not path.is_dir():
        raise ScoreError(
            f"no folder or tar at {path}",
            expected="a folder of pictures, or a .tar shard of them",
            next_step="t2i score --help",
        )
    is_file = {entry.name: entry.is_file() for entry in entries(path)}
    names = [name for name in is_file if is_file[name]]
    folders = [f"{name}/" for name in is_file if not is_file[name]]
    records, notes = _records(path, order) if MANIFEST in names else (None, [])
    shards = [name for name in names if name.endswith(".tar")]
    below = [] if shards or any(map(_is_picture, names)) else _walk(path)
    if any(map(_is_picture, below)):
        names, folders = below, []
        holding = {PurePath(name).parent for name in names if _is_picture(name)}
        notes.append(f"the pictures lie in {len(holding)} sub-folders, which were entered")
    loose = [name for name in names if _is_picture(name)]
    if order == "auto" and records and loose and not shards and {*loose}.isdisjoint(_places(records)):
        records = None
        notes.append(f"{MANIFEST} names none of the pictures that are there, and was not used")
    places = _places(records) if records is not None and order in ("auto", "manifest") else None
    if order == "manifest" and places is None:
        raise ScoreError(f"{path} has no {MANIFEST}", expected="a folder of t2i generate", next_step="add --order name")
    there, left_out = len(loose), tuple[str, ...]()
    loose = [name for name in loose if places is None or name in places]
    if order == "auto" and loose and len(loose) < there:
        left_out = (f"{MANIFEST} names {len(loose)} of {there} pictures; --order name scores all that are there",)
    shards = [] if loose else shards
    if not loose and not shards:
        others = Counter(
            suffix for name in below or names if (suffix := PurePath(name).suffix.lower()) in OTHER_SUFFIXES
        )
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common())
        raise ScoreError(
            f"{path} has no pictures that can be scored" if others else f"{path} has no pictures",
            found=", ".join([*names, *folders][:3]) + f" ({kinds})" * bool(kinds) or "an empty folder",
            expected=".png, .webp or .jpg files, or tar shards of them",
            next_step="make PNGs of them" if others else _shards_below(path) or instead,
        )
    if loose and folders and places is None and not below and (lower := sum(map(_is_picture, _walk(path))) - there):
        notes.append(
            f"{lower} pictures in sub-folders were not entered, as {there} above them came first: to score them, move "
            "away what lies above, or name a sub-folder"
        )
    if loose and order == "stored":
        raise ScoreError(f"{path} holds loose files, which have no stored order", next_step="add --order name")
    run = _run(path) if RUN in names else None
    if run is not None and places is None and (missing := _missing_parts(run, loose, shards)):
        notes.append(missing)
    effective = "manifest" if places is not None else "name" if loose or order == "name" else "stored"
    sidecars = {_sidecar(name) for name in loose} & {*names}
    other = [name for name in names if name not in {*loose, *shards, *sidecars}] + folders
    by_place = sorted(loose, key=lambda name: places[name]) if places is not None else loose
    return PictureFiles(
        source=path.resolve().name,
        order=effective,
        other_files=other,
        loose=[path / name for name in by_place],
        shards=[path / name for name in shards],
        places=places,
        captions=dict(records or []),
        described=frozenset(name for name in loose if _sidecar(name) in sidecars),
        folder=path,
        notes=tuple(notes),
        left_out=left_out,
        best_of=1 if run is None else run.best_of,
    )


def _tar(path: Path, order: str, instead: str) -> PictureFiles:
    if path.suffix.lower() != ".tar":
        raise ScoreError(
            f"{path} is neither a folder nor a .tar",
            found="a picture" if _is_picture(path.name) else "a file",
            expected="a folder of pictures, or a .tar shard of them",
            next_step=_instead_of(path, instead),
        )
    if order == "manifest":
        raise ScoreError(f"{path} has no {MANIFEST}", next_step="add --order stored or --order name")
    return PictureFiles(path.name, "name" if order == "name" else "stored", shards=[path])


def _instead_of(path: Path, instead: str) -> str:
    """What to do where a file was named that holds no pictures, or is one."""
    suffix = path.suffix.lower()
    if suffix in (*PICTURE_SUFFIXES, *OTHER_SUFFIXES):
        return f"name the folder that it is in: {path.parent}"
    if suffix in ARCHIVES:
        return archive_line(path)
    if suffix in SUFFIXES and instead == NEXT_STEP:
        return f"t2i generate {path} -o out/, which makes pictures of captions"
    return instead


def _shards_below(folder: Path) -> str:
    """The line that scores the first of the sub-folders that hold shards."""
    below = next((name for name in _walk(folder) if name.lower().endswith(".tar")), None)
    return f"t2i score {quote(str((folder / below).parent))}" if below is not None else ""


def _records(path: Path, order: str) -> tuple[list[tuple[str, str]] | None, list[str]]:
    """File and caption of each picture, as the manifest says.

    None, and a note, of another program's, or of a damaged one that nobody asked for.
    """
    try:
        return [(record["file"], str(record.get("caption", ""))) for record in iter_manifest(path)], []
    except OutputError as error:
        if order == "manifest" or (order == "auto" and not isinstance(error, ForeignManifestError)):
            raise
        return None, [f"{MANIFEST} is not of t2i generate, and was not used"]


def _run(folder: Path) -> RunRecord | None:
    """What `run.json` says; None where it is damaged, or another program's."""
    try:
        return decode(RunRecord, read_json(folder / RUN))
    except (OSError, ValueError):
        return None


def _missing_parts(run: RunRecord, loose: Sequence[str], shards: Sequence[str]) -> str:
    """What a run in parts has not made, or has lost; "" where nothing is missing."""
    if run.layout != SHARDS or not (run.captions and run.samples and run.shard_size):
        return ""
    plan = Plan(run.captions, run.samples, run.shard_size)
    wanted, there, what = (plan.shards, shards, "shards") if shards else (plan.pictures, loose, "pictures")
    missing = wanted - len(there)
    return f"{missing:,} of {wanted:,} {what} of the run {'is' if missing == 1 else 'are'} missing" * (missing > 0)


def _walk(folder: Path) -> list[str]:
    """Names of all files below a folder, also behind links; none is entered twice."""
    names: list[str] = []
    entered: set[str] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(root)) in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not is_ignored(name))
        names += [Path(root, file).relative_to(folder).as_posix() for file in files if not is_ignored(file)]
    return sorted(names)


def _sidecar(name: str) -> str:
    return PurePath(name).with_suffix(SIDECAR).as_posix()


def _places(records: list[tuple[str, str]]) -> dict[str, int]:
    places: dict[str, int] = {}
    for place, (file, _) in enumerate(records):
        places.setdefault(file, place)
    return places


def _is_picture(name: str) -> bool:
    path = PurePath(name.lower())
    hidden = any(part.startswith(".") for part in path.parts)
    sheets = any(map(NOT_SCORED.match, (path.stem, *path.parts[:-1])))
    return path.suffix in PICTURE_SUFFIXES and not hidden and not sheets


def _read_sidecar(path: Path) -> bytes:
    try:
        return read_file(path, MAX_MEMBER_BYTES)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read: {error}", next_step="mend it, or remove it") from error


def _count_members(shard: Path) -> int:
    try:
        with tarfile.open(shard, "r:") as tar:
            parts = map(sample_part, tar)
            return len({name for name, suffix in parts if suffix in PICTURE_SUFFIXES})
    except (*BAD_TAR, OSError):
        return 0  # reading it says what is wrong


def _load_and_prepare(
    name: str, load: Callable[[], bytes], size: int, crop: int | None, caption: str, class_id: int
) -> PreparedPicture:
    try:
        data = load()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return PreparedPicture(name, reason=f"can't be read ({reason})")
    return replace(prepare(name, data, size, crop), caption=caption, class_id=class_id)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
