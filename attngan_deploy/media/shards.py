"""Reading WebDataset shards: tar files of pictures, each with a `.json` of its class and captions.

Both scoring and training read pictures through this file. Nothing is ever extracted to the disk.
"""

import errno
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from attngan_deploy.errors import DataError
from attngan_deploy.system.os_errors import advice, reason

PICTURE_SUFFIXES = (".webp", ".png", ".jpg", ".jpeg")
MAX_MEMBER_BYTES = 64 * 2**20  # a picture or a caption list larger than this is not one
NO_CLASS, MAX_CLASS = -1, 2**31 - 1
# What tarfile raises on damaged and hostile files, found by feeding it some: numbers below 0, chains of headers, sizes.
BAD_TAR = (tarfile.TarError, ValueError, OverflowError, RecursionError, MemoryError, EOFError)


@dataclass(frozen=True)
class Sample:
    """One picture of a shard, still encoded."""

    name: str  # path inside the tar, without its suffix
    suffix: str  # ".webp", ".png", ".jpg" or ".jpeg"
    picture: bytes  # the encoded picture
    class_id: int = NO_CLASS  # class number, or -1 where the shard does not say
    captions: list[str] = field(default_factory=list)  # captions of the picture, possibly none


def iter_samples(path: str | Path) -> Iterator[Sample]:
    """Yield the samples of one tar in stored order; a `.json` next to its picture is joined to it.

    Raises:
        DataError: not an uncompressed tar, a truncated or damaged tar, or a `.json` that is not an object with a class
            and captions. A tar whose end is missing is found out after the samples in front of it.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise IsADirectoryError
        with tarfile.open(path, "r:") as tar:
            stem = ""
            parts: dict[str, bytes] = {}
            for member in tar:
                if not member.isfile():
                    continue
                name, dot, suffix = member.name.rpartition(".")
                suffix = (dot + suffix).lower()
                if suffix != ".json" and suffix not in PICTURE_SUFFIXES:
                    continue
                if not 0 <= member.size <= MAX_MEMBER_BYTES or member.issparse():
                    raise DataError(
                        f"{path}: {member.name} is too large",
                        found=f"{member.size} bytes" + (", most of which are not stored" * member.issparse()),
                        expected=f"a stored file of at most {MAX_MEMBER_BYTES} bytes",
                    )
                if name != stem:
                    yield from _join(path, stem, parts)
                    stem, parts = name, {}
                stream = tar.extractfile(member)
                parts[suffix] = stream.read() if stream else b""
            _check_end(tar)
            yield from _join(path, stem, parts)
    except BAD_TAR as error:
        raise DataError(
            f"{path} is not a complete tar file: {str(error) or type(error).__name__}",
            expected="an uncompressed WebDataset shard",
            next_step="t2i data build --help",
        ) from error
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DataError(
            f"no shard at {path}", expected="a .tar file of pictures and captions", next_step="t2i data build --help"
        ) from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # a place in front of the file, which a damaged header asked for
            raise DataError(
                f"{path} is not a complete tar file", expected="an uncompressed WebDataset shard"
            ) from error
        raise DataError(f"{path} can't be read: {reason(error)}", next_step=advice(error)) from error


def _check_end(tar: tarfile.TarFile) -> None:
    """Raise unless the block that ended the reading is the empty one at a tar's end: tarfile stops at any bad block."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    block = tar.fileobj.read(tarfile.BLOCKSIZE)
    if block != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"it {'is damaged' if any(block) else 'ends'} at byte {tar.offset}")


def _join(path: Path, stem: str, parts: dict[str, bytes]) -> Iterator[Sample]:
    suffix = next((suffix for suffix in PICTURE_SUFFIXES if suffix in parts), None)
    if suffix is None:
        return
    class_id, captions = read_facts(parts[".json"], f"{path}: {stem}.json") if ".json" in parts else (NO_CLASS, [])
    yield Sample(stem, suffix, parts[suffix], class_id, captions)


def read_facts(data: bytes, where: str) -> tuple[int, list[str]]:
    """The class (-1 for none) and the captions that the `.json` of a picture holds.

    Args:
        where: what to call it in an error.

    Raises:
        DataError: not an object with a class and captions.
    """
    try:
        facts = json.loads(data)
        class_id, captions = facts.get("class", NO_CLASS), facts.get("captions", [])
        if type(class_id) is not int or not NO_CLASS <= class_id <= MAX_CLASS or not isinstance(captions, list):
            raise TypeError("its class is no whole number from -1 up, or its captions are no list")
        if not all(isinstance(caption, str) for caption in captions):
            raise TypeError("a caption is no text")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{where} can't be read ({error})", expected='{"class": 3, "captions": ["a red bird", ...]}'
        ) from error
    return class_id, captions
