"""`manifest.jsonl`: a line for each picture, which says what made it.

The manifest of a shard has lines of its files behind those of its pictures, with their sizes and hashes.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from attngan_deploy.errors import OutputError
from attngan_deploy.generate.run_record import EngineRecord
from attngan_deploy.generate.target import MANIFEST
from attngan_deploy.system.files import LARGEST_JSON, open_file, read_lines, sha256_of

LARGEST_LINE = 2**20  # bytes of what is said of one picture
LARGEST_MANIFEST = 4 * 2**30  # bytes; a picture has some 350


class ForeignManifestError(OutputError):
    """A `manifest.jsonl` of another program."""


def manifest_line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record).encode() + b"\n"


def metadata_line(record: Mapping[str, Any]) -> bytes:
    """The line of a picture in `metadata.jsonl`: a loader that finds it there takes no other file for a picture."""
    return json.dumps({"file_name": record["file"], "text": record["caption"]}).encode() + b"\n"


def is_metadata_of_ours(path: Path) -> bool:
    """Whether a `metadata.jsonl` is empty or begins with a line of ours; false for one that somebody put more into."""
    with suppress(ValueError, RecursionError), open_file(path) as stream:
        if not (first := stream.readline(LARGEST_JSON)):
            return True
        line = json.loads(first)
        return isinstance(line, dict) and line.keys() == {"file_name", "text"}
    return False


def file_line(path: Path) -> bytes:
    """The line of a file that a shard consists of."""
    return manifest_line({"file": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path)})


def records_in(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The records of pictures and files in lines of which some may be damaged."""
    for line in lines:
        with suppress(ValueError, RecursionError):
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("file"), str):
                yield record


def read_manifest(folder: Path) -> list[dict[str, Any]]:
    """All records that `iter_manifest` yields."""
    return list(iter_manifest(folder))


def iter_manifest(folder: Path) -> Iterator[dict[str, Any]]:
    """The records of a folder's `manifest.jsonl`, in order; a last line that a killed run cut short is left out.

    Raises:
        OutputError: there is no manifest, or a line of it is not one of ours.
        ForeignManifestError: a line of it is an object, but not of a picture.
    """
    path = folder / MANIFEST
    try:
        with open_file(path) as stream:
            if os.fstat(stream.fileno()).st_size > LARGEST_MANIFEST:
                raise ValueError(f"it has more than {LARGEST_MANIFEST:,} bytes")
            for line in read_lines(stream, LARGEST_LINE):
                if line.endswith(b"\n"):
                    yield _checked(path, json.loads(line))
                elif line.endswith(b"}"):  # whole, by a program that ends no last line
                    with suppress(ValueError):
                        yield _checked(path, json.loads(line))
    except FileNotFoundError as error:
        raise OutputError(
            f"{folder} has no {MANIFEST}", expected="a folder made by t2i generate", next_step="t2i generate --help"
        ) from error
    except (ValueError, RecursionError) as error:
        raise OutputError(
            f"{path} is damaged ({error})", next_step="run t2i generate into that folder again"
        ) from error


def _checked(path: Path, record: Any) -> dict[str, Any]:
    """A record, as it comes: a file of nothing else would take fifty times its bytes together."""
    if isinstance(record, dict) and isinstance(record.get("file"), str):
        return record
    kind = ForeignManifestError if isinstance(record, dict) else OutputError
    raise kind(f"{path} is not a manifest of t2i generate", expected='lines with a "file"')


def engines_in(path: Path) -> dict[str, EngineRecord]:
    """What a manifest says of the engines, by picture file; lines that are damaged say nothing."""
    engines: dict[str, EngineRecord] = {}
    known: dict[EngineRecord, EngineRecord] = {}  # one object for each engine, however many pictures it made
    if path.is_file():
        with path.open("rb") as stream, suppress(ValueError):
            for record in records_in(read_lines(stream, LARGEST_LINE)):
                engine = EngineRecord.of_picture(record)
                engines[record["file"]] = known.setdefault(engine, engine)
    return engines


def holds(path: Path, lines: Iterable[bytes]) -> bool:
    """Whether a file is these lines and nothing more, and has no other name, under which lines would be added too."""
    if not path.is_file() or path.stat().st_nlink > 1:
        return False
    with path.open("rb") as stream:
        return all(stream.read(len(line)) == line for line in lines) and not stream.read(1)
