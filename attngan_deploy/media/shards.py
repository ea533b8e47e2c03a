"""Reading WebDataset shards: tar files of pictures, each with a `.json` of its class and captions.

Both scoring and training read pictures through this file. Nothing is ever extracted to the disk.
"""

import errno
import json
import tarfile
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from posixpath import dirname, join, normpath

from attngan_deploy.errors import DataError
from attngan_deploy.media.caption import NO_VALUES, is_no_value, split_lines
from attngan_deploy.media.list_marks import without_marks
from attngan_deploy.media.packed import packer_of, unpacking_line
from attngan_deploy.system.files import is_ignored
from attngan_deploy.system.os_errors import advice, reason

PICTURE_SUFFIXES = (".webp", ".png", ".jpg", ".jpeg", ".jfif")
# Pictures all the same, to be named where they are met: `t2i data build` reads some of them.
OTHER_SUFFIXES = (
    *(".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif", ".jxl", ".jp2", ".ppm", ".mpo", ".jpe", ".psd"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef"),  # of cameras
)
SIDECAR = ".json"
# Of WebDataset: captions, one a line, and a class's number, where no `.json` has them.
TEXT, CLASS = ".txt", ".cls"
MAX_TEXT_BYTES = 2**20
MOST_LINKS = 40  # that lead from one to the next, as in Linux
MOST_LINKED = 10  # times the bytes of a tar that its links may lead to, all together
FOLLOWED = "pack the folder again with tar -chf, which packs what links lead to"
MAX_MEMBER_BYTES = 64 * 2**20  # a picture or a caption list larger than this is not one
NO_CLASS, MAX_CLASS = -1, 2**31 - 1
# What tarfile raises on damaged and hostile files, found by feeding it some: numbers below 0, chains of headers, sizes.
BAD_TAR = (tarfile.TarError, ValueError, OverflowError, RecursionError, MemoryError, EOFError)
Parts = dict[str, dict[str, tuple[int, tarfile.TarInfo]]]  # by name, then by suffix: where it stands, and the file


@dataclass(frozen=True)
class Sample:
    """One picture of a shard, still encoded."""

    name: str  # path inside the tar, without its suffix
    suffix: str  # one of `PICTURE_SUFFIXES`
    picture: bytes  # the encoded picture
    class_id: int = NO_CLASS  # class number, or -1 where the shard does not say
    captions: list[str] = field(default_factory=list)  # captions of the picture, possibly none


def iter_samples(path: str | Path, lost: list[str] | None = None) -> Iterator[Sample]:
    """Yield the samples of one tar, pictures in stored order, each with the `.json` of its name, wherever that stands;
    or with the captions of a `.txt` and the class of a `.cls`.

    A link, such as `tar` makes of a file's second name, is read as the file of the tar that it leads to.

    Args:
        lost: takes a line for each link to what the tar does not hold; None makes that an error.

    Raises:
        DataError: not an uncompressed tar, a truncated or damaged tar, a link to what it does not hold, or a `.json`
            that is not an object with a class and captions. A tar whose end is missing is found out after the samples
            in front of it.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise IsADirectoryError
        with tarfile.open(path, "r:") as tar:
            found: Parts = {}
            failure: Exception | None = None
            try:
                for member in tar:
                    name, suffix = sample_part(member)
                    if suffix and not _is_link(member):
                        _check_size(path, member)
                        found.setdefault(name, {})[suffix] = member.offset, member
                _check_end(tar)
                lines = _follow(path, tar.getmembers(), found)
                if lost is None and lines:
                    raise DataError(f"{path}: {lines[0]}", found=f"{len(lines)} such links", next_step=FOLLOWED)
                (lost if lost is not None else []).extend(lines)
            except (DataError, OSError, *BAD_TAR) as error:
                failure = error
            pictures = {name: parts[suffix][0] for name, parts in found.items() if (suffix := _picture_suffix(parts))}
            for name in sorted(pictures, key=pictures.__getitem__):
                yield _join(path, tar, name, found[name])
            if failure is not None:
                raise failure
    except BAD_TAR as error:
        with path.open("rb") as stream:
            packer = packer_of(stream.read(8))
        if packer:
            raise DataError(
                f"{path} is not a complete tar file: it is packed by {packer}",
                next_step=unpacking_line(str(path), packer),
            ) from error
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
                f"{path} is not a complete tar file",
                expected="an uncompressed WebDataset shard",
                next_step="copy or make the shard again",
            ) from error
        raise DataError(f"{path} can't be read: {reason(error)}", next_step=advice(error)) from error


def _check_end(tar: tarfile.TarFile) -> None:
    """Raise unless the block that ended the reading is the empty one at a tar's end: tarfile stops at any bad block."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    block = tar.fileobj.read(tarfile.BLOCKSIZE)
    if block != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"it {'is damaged' if any(block) else 'ends'} at byte {tar.offset}")


def _is_link(member: tarfile.TarInfo) -> bool:
    return member.issym() or member.islnk()


def _follow(path: Path, members: Sequence[tarfile.TarInfo], found: Parts) -> list[str]:
    """Add the files behind links to what was found; returns a line for each link that leads out of the tar.

    Raises:
        DataError: a link to what is too large, or links to more than `MOST_LINKED` times the tar.
    """
    links = [member for member in members if _is_link(member) and not is_ignored(member.name.rpartition("/")[2])]
    names = {normpath(link.name): link for link in reversed(links)}  # one named twice leads to its first
    names |= {normpath(member.name): member for member in members if not _is_link(member)} if links else {}
    lost, linked, most = [], 0, MOST_LINKED * path.stat().st_size
    for link in links:
        end: tarfile.TarInfo | None = link
        for _ in range(MOST_LINKS):
            if end is None or not _is_link(end):
                break
            end = names.get(normpath(join(dirname(end.name) if end.issym() else "", end.linkname)))
        name, suffix = sample_part(link)
        if end is None or _is_link(end):
            lost.append(f"{link.name} is a link to {link.linkname}, which the tar does not hold")
        elif suffix and end.isfile():
            _check_size(path, end)
            linked += end.size
            if linked > most:  # each of 512 bytes may have a large picture decoded again
                raise DataError(
                    f"{path}: {link.name} is a link too many",
                    found=f"links to {linked:,} bytes",
                    expected=f"at most {most:,}, {MOST_LINKED} times the tar",
                    next_step=FOLLOWED,
                )
            found.setdefault(name, {}).setdefault(suffix, (link.offset, end))
    return lost


def sample_part(member: tarfile.TarInfo) -> tuple[str, str]:
    """Name and suffix of a part of a sample, or of a link that may be one; no suffix for anything else."""
    folder, slash, file = member.name.removeprefix("./").rpartition("/")
    name, dot, suffix = file.rpartition(".")
    suffix = (dot + suffix).lower()
    is_file = member.isfile() or _is_link(member)
    is_part = is_file and not is_ignored(file) and suffix in (SIDECAR, TEXT, CLASS, *PICTURE_SUFFIXES)
    return folder + slash + name, suffix if is_part else ""


def _check_size(path: Path, member: tarfile.TarInfo) -> None:
    if not 0 <= member.size <= MAX_MEMBER_BYTES or member.issparse():
        raise DataError(
            f"{path}: {member.name} is too large",
            found=f"{member.size} bytes" + (", most of which are not stored" * member.issparse()),
            expected=f"a stored file of at most {MAX_MEMBER_BYTES} bytes",
            next_step="leave it out of the shard",
        )


def _join(path: Path, tar: tarfile.TarFile, name: str, parts: dict[str, tuple[int, tarfile.TarInfo]]) -> Sample:
    def read(suffix: str) -> bytes:
        stream = tar.extractfile(parts[suffix][1])
        return stream.read() if stream else b""

    facts = read_facts(read(SIDECAR), f"{path}: {name}{SIDECAR}") if SIDECAR in parts else (NO_CLASS, [])
    class_id, captions = facts
    if not captions and TEXT in parts:
        captions = _lines(read(TEXT), f"{path}: {name}{TEXT}")
    if class_id == NO_CLASS and CLASS in parts and (number := read(CLASS)[:10].strip()).isdigit():
        class_id = min(int(number), MAX_CLASS)
    suffix = _picture_suffix(parts)
    return Sample(name, suffix, read(suffix), class_id, captions)


def _lines(data: bytes, where: str) -> list[str]:
    """The captions of a text, one a line."""
    try:
        if len(data) > MAX_TEXT_BYTES:
            raise ValueError("it is too large")
        return [line for line in without_marks(split_lines(data.decode("utf-8-sig"))) if not is_no_value(line)]
    except ValueError as error:
        raise DataError(
            f"{where} can't be read ({error})",
            expected="one caption a line, in UTF-8",
            next_step="mend that member, or make the shard again",
        ) from error


def _picture_suffix(parts: Container[str]) -> str:
    """The picture that counts where a name has several; "" for none."""
    return next((suffix for suffix in PICTURE_SUFFIXES if suffix in parts), "")


def read_facts(data: bytes, where: str) -> tuple[int, list[str]]:
    """The class (-1 for none) and the captions that the `.json` of a picture holds; img2dataset has one `caption`.

    Args:
        where: what to call it in an error.

    Raises:
        DataError: not an object with a class and captions.
    """
    try:
        facts = json.loads(data)
        class_id = facts.get("class", NO_CLASS)
        captions = facts["captions"] if "captions" in facts else [facts["caption"]] if facts.get("caption") else []
        if type(class_id) is not int or not NO_CLASS <= class_id <= MAX_CLASS or not isinstance(captions, list):
            raise TypeError("its class is no whole number from -1 up, or its captions are no list")
        if not all(isinstance(caption, str) for caption in captions):
            raise TypeError("a caption is no text")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{where} can't be read ({error})",
            expected='{"class": 3, "captions": ["a red bird", ...]}',
            next_step="mend that member, or make the shard again",
        ) from error
    return class_id, [caption for caption in captions if caption.strip().casefold() not in NO_VALUES]
