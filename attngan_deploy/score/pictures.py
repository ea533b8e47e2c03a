"""Pictures on their way to a judge: found in a folder or in tar shards, decoded in threads, and never all in memory.

`PictureSource` is all that scoring knows of where pictures come from; `generated.py` has the other one.
"""

import io
import re
import tarfile
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from attngan_deploy.errors import DataError, ScoreError
from attngan_deploy.generate.writer import MANIFEST, read_manifest
from attngan_deploy.media.images import BAD_PICTURE, DECODERS, MAX_PIXELS
from attngan_deploy.media.shards import BAD_TAR, MAX_MEMBER_BYTES, NO_CLASS, PICTURE_SUFFIXES, iter_samples, read_facts
from attngan_deploy.system.files import read_file

ORDERS = ("auto", "manifest", "name", "stored")
NOT_SCORED = re.compile(r"(grid|attention)([^a-z].*)?$")  # sheets of several pictures
EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
SIDECAR = ".json"
NEXT_STEP = "t2i generate captions.txt -o out/"


class PictureSource(Protocol):
    """Where pictures come from, and in which order they count."""

    @property
    def source(self) -> str:
        """What to call it."""

    @property
    def order(self) -> str:
        """ "manifest", "name" or "stored"."""

    @property
    def other_files(self) -> list[str]:
        """What is there and is no picture to score."""

    @property
    def places(self) -> Mapping[str, int] | None:
        """Place of each picture by name, where a manifest says it: others don't count, and missing ones are broken."""

    @property
    def generated(self) -> Mapping[str, Any] | None:
        """What made the pictures, where they come straight from a generator."""

    def count(self) -> int:
        """How many pictures there are."""

    def arrange(self, names: list[str]) -> list[int]:
        """Places of the pictures `names`, as they came, in the order in which they count."""

    def prepared(self, size: int, crop: int | None, threads: int | None) -> Generator["Prepared", None, None]:
        """Yield every picture at the judge's size; closing it ends what goes on behind it."""


@dataclass(frozen=True)
class Found:
    """A picture that was found, still encoded.

    Attributes:
        name: its name.
        load: returns its bytes.
        caption: what it shows, or "".
        class_id: its class, or -1.
    """

    name: str
    load: Callable[[], bytes]
    caption: str = ""
    class_id: int = NO_CLASS


@dataclass(frozen=True)
class PictureFiles:
    """Where pictures are, and in which order they count: a `PictureSource`.

    Attributes:
        source: name of the folder or tar.
        order: "manifest", "name" or "stored".
        other_files: what is there and is no picture to score.
        loose: the picture files of a folder; empty where they are in shards.
        shards: the tar files to read, in order.
        places: place of each picture by name, where a manifest says it.
        captions: caption of each picture by name, where a manifest says it.
        described: loose pictures that have a `.json` of their class and captions beside them.
        generated: None; a folder of `t2i generate` is a folder.
    """

    source: str
    order: str
    other_files: list[str] = field(default_factory=list)
    loose: list[Path] = field(default_factory=list)
    shards: list[Path] = field(default_factory=list)
    places: Mapping[str, int] | None = None
    captions: Mapping[str, str] = field(default_factory=dict)
    described: frozenset[str] = frozenset()
    generated: Mapping[str, Any] | None = None

    def count(self) -> int:
        """How many pictures there are; reads the headers of shards only."""
        return len(self.loose) + sum(map(_count_members, self.shards))

    def arrange(self, names: list[str]) -> list[int]:
        """Places of the pictures `names`, as they were read, in the order in which they count.

        Where a manifest says the order, it must name them all.
        """
        if self.order == "stored":
            return list(range(len(names)))
        rank = self.places or {name: place for place, name in enumerate(sorted(names))}
        return sorted(range(len(names)), key=lambda place: rank[names[place]])

    def prepared(self, size: int, crop: int | None, threads: int | None) -> Generator["Prepared", None, None]:
        """See `prepare_all`."""
        return prepare_all(self, size, crop, threads)

    def read(self) -> Iterator[Found]:
        """Yield each picture with what is known of it: the manifest's caption, else the first of its `.json`.

        Raises:
            DataError: a damaged shard or `.json`.
        """
        for path in self.loose:
            class_id, captions = NO_CLASS, [""]
            if path.name in self.described:
                sidecar = path.with_suffix(SIDECAR)
                class_id, captions = read_facts(_read_sidecar(sidecar), str(sidecar))
            yield self._found(path.name, partial(read_file, path, MAX_MEMBER_BYTES), captions, class_id)
        for shard in self.shards:
            prefix = f"{shard.name}/" if len(self.shards) > 1 or self.places is not None else ""
            for sample in iter_samples(shard):
                name = f"{prefix}{sample.name}{sample.suffix}"
                yield self._found(name, partial(bytes, sample.picture), sample.captions, sample.class_id)

    def _found(self, name: str, load: Callable[[], bytes], captions: list[str], class_id: int) -> Found:
        return Found(name, load, self.captions.get(name, captions[0] if captions else ""), class_id)


def find_pictures(path: Path, order: str = "auto") -> PictureFiles:
    """Find the pictures of a folder or a tar shard. Sub-folders are not entered.

    In a folder with a `manifest.jsonl` the pictures that it names count; in another, every picture that is not called
    grid or attention; where there are no loose pictures, its tar shards.

    Args:
        order: "manifest"; "name"; "stored", as in a tar; "auto" is the manifest's, else by name, or stored for a tar.

    Raises:
        ScoreError: nothing there, no pictures, or an order that can't be had.
        OutputError: a damaged manifest.
    """
    if order not in ORDERS:
        raise ScoreError(f"no order '{order}'", expected=", ".join(ORDERS))
    if path.is_file():
        return _tar(path, order)
    if not path.is_dir():
        raise ScoreError(f"no folder or tar at {path}", expected="a folder of pictures, or a .tar shard of them")
    names = sorted(entry.name for entry in path.iterdir() if entry.is_file())
    folders = sorted(f"{entry.name}/" for entry in path.iterdir() if not entry.is_file())
    records = read_manifest(path) if MANIFEST in names else []
    places = _places(records) if MANIFEST in names and order in ("auto", "manifest") else None
    if order == "manifest" and places is None:
        raise ScoreError(f"{path} has no {MANIFEST}", expected="a folder of t2i generate", next_step="add --order name")
    loose = [name for name in names if _is_picture(name) and (places is None or name in places)]
    shards = [] if loose else [name for name in names if name.endswith(".tar")]
    if not loose and not shards:
        raise ScoreError(
            f"{path} has no pictures",
            found=", ".join([*names, *folders][:3]) or "an empty folder",
            expected=".png, .webp or .jpg files, or tar shards of them",
            next_step=NEXT_STEP,
        )
    if loose and order == "stored":
        raise ScoreError(f"{path} holds loose files, which have no stored order", next_step="add --order name")
    effective = "manifest" if places is not None else "name" if loose or order == "name" else "stored"
    sidecars = {PurePath(name).with_suffix(SIDECAR).name for name in loose} & {*names}
    other = [name for name in names if name not in {*loose, *shards, *sidecars}] + folders
    by_place = sorted(loose, key=lambda name: places[name]) if places is not None else loose
    return PictureFiles(
        source=path.resolve().name,
        order=effective,
        other_files=other,
        loose=[path / name for name in by_place],
        shards=[path / name for name in shards],
        places=places,
        captions={record["file"]: str(record.get("caption", "")) for record in records},
        described=frozenset(name for name in loose if PurePath(name).with_suffix(SIDECAR).name in sidecars),
    )


def _tar(path: Path, order: str) -> PictureFiles:
    if path.suffix.lower() != ".tar":
        raise ScoreError(f"{path} is neither a folder nor a .tar", next_step=NEXT_STEP)
    if order == "manifest":
        raise ScoreError(f"{path} has no {MANIFEST}", next_step="add --order stored or --order name")
    return PictureFiles(path.name, "name" if order == "name" else "stored", shards=[path])


def _places(records: list[dict[str, Any]]) -> dict[str, int]:
    places: dict[str, int] = {}
    for place, record in enumerate(records):
        places.setdefault(record["file"], place)
    return places


def _is_picture(name: str) -> bool:
    path = PurePath(name.lower())
    return path.suffix in PICTURE_SUFFIXES and not NOT_SCORED.match(path.stem) and not name.startswith(".")


def _read_sidecar(path: Path) -> bytes:
    try:
        return read_file(path, MAX_MEMBER_BYTES)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read: {error}", next_step="mend it, or remove it") from error


def _count_members(shard: Path) -> int:
    try:
        with tarfile.open(shard, "r:") as tar:
            return sum(member.name.lower().endswith(PICTURE_SUFFIXES) for member in tar)
    except (*BAD_TAR, OSError):
        return 0  # reading it says what is wrong


@dataclass(frozen=True, slots=True)
class Prepared:
    """A picture at the judge's size, or why there is none.

    Attributes:
        name: its name.
        pixels: uint8 [S, S, 3]; None when broken.
        size: width and height as found.
        file_format: "png", "webp", "lossy webp" or "jpeg"; "generated" where it never was a file.
        reason: why there are no pixels.
        caption: what it shows, or "".
        class_id: its class, or -1.
    """

    name: str
    pixels: NDArray[np.uint8] | None = None
    size: tuple[int, int] = (0, 0)
    file_format: str = ""
    reason: str = ""
    caption: str = ""
    class_id: int = NO_CLASS

    def without_pixels(self) -> "Prepared":
        """All but the pixels, for when they were looked at."""
        return replace(self, pixels=None)


def prepare(name: str, data: bytes, size: int, crop: int | None = None) -> Prepared:
    """Decode a picture, cut out its centre, and resize it (PIL, bilinear) where it is not `size` px already.

    A broken picture comes back without pixels.

    Args:
        crop: side of the centre crop in pixels; None takes the whole picture, which must be a square.

    Raises:
        ScoreError: too large to be decoded safely, not a square, or smaller than the crop.
    """
    try:
        with Image.open(io.BytesIO(data), formats=DECODERS) as picture:
            width, height = picture.size
            check_shape(name, width, height, crop)
            if picture.mode not in EIGHT_BIT_MODES:
                return Prepared(name, reason=f"pixels of type {picture.mode}, not 8 bits a channel")
            file_format = _format_of(data, picture.format or "")
            image = picture.convert("RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name, str(error)) from error
    except (OSError, *BAD_PICTURE) as error:
        return Prepared(name, reason=f"can't be decoded ({_short(error)})")
    return Prepared(name, fit(image, size, crop), (width, height), file_format)


def fit(image: Image.Image, size: int, crop: int | None = None) -> NDArray[np.uint8]:
    """A picture as uint8 [size, size, 3]: its centre of `crop` px, or all of it, resized (PIL, bilinear) if need be."""
    width, height = image.size
    if crop is not None and (width, height) != (crop, crop):
        left, top = (width - crop) // 2, (height - crop) // 2
        image = image.crop((left, top, left + crop, top + crop))
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def prepare_all(
    files: PictureFiles, size: int, crop: int | None = None, threads: int | None = None, ahead: int = 128
) -> Generator[Prepared, None, None]:
    """Yield every picture, prepared in threads, in the order of `files.read()`; at most `ahead` wait in memory.

    Raises:
        ScoreError: as `prepare`, or pictures of different sizes.
        DataError: a damaged shard.
    """
    first: Prepared | None = None
    for item in _in_threads(files, size, crop, threads, ahead):
        if item.pixels is not None:
            first = first or item
            if item.size != first.size:
                raise ScoreError(
                    "pictures of different sizes can't be scored together",
                    found=f"{first.name} of {_by(first.size)} px and {item.name} of {_by(item.size)} px",
                    expected="one size",
                    next_step="score each size by itself",
                )
        yield item


def _in_threads(
    files: PictureFiles, size: int, crop: int | None, threads: int | None, ahead: int
) -> Iterator[Prepared]:
    waiting: deque[Future[Prepared]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for found in files.read():
                waiting.append(pool.submit(_load_and_prepare, found, size, crop))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after an error nobody waits for the rest


def _load_and_prepare(found: Found, size: int, crop: int | None) -> Prepared:
    try:
        data = found.load()
    except OSError as error:
        return Prepared(found.name, reason=f"can't be read ({error.strerror})")
    except ValueError as error:
        return Prepared(found.name, reason=f"can't be read ({error})")
    return replace(prepare(found.name, data, size, crop), caption=found.caption, class_id=found.class_id)


def check_shape(name: str, width: int, height: int, crop: int | None) -> None:
    """Refuse pictures that are too large, no square, or smaller than the crop.

    Raises:
        ScoreError: says which, and what to do.
    """
    if width * height > MAX_PIXELS:
        raise _too_large(name, f"{width} x {height} px")
    if crop is not None and crop > min(width, height):
        raise ScoreError(
            f"{name} is smaller than the crop",
            found=f"{width} x {height} px",
            expected=f"at least {crop} px",
            next_step="lower --crop, or leave it out",
        )
    if crop is None and width != height:
        raise ScoreError(
            f"{name} is not a square",
            found=f"{width} x {height} px",
            expected="as wide as high",
            next_step=f"add --crop {min(width, height)}",
        )


def _too_large(name: str, found: str) -> ScoreError:
    return ScoreError(
        f"{name} is too large to be decoded safely", found=found, expected=f"at most {MAX_PIXELS} pixels a picture"
    )


def _format_of(data: bytes, decoder: str) -> str:
    if decoder == "WEBP" and b"VP8 " in (data[12:16], data[30:34]):  # the first chunk, or after an extended header
        return "lossy webp"
    return decoder.lower()


def _short(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # whose text holds an address in memory
        return "no PNG, WebP or JPEG"
    return " ".join(str(error).split())[:80] or type(error).__name__


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
