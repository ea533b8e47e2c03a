"""Whose a folder of pictures is: `run.json`, and what is refused before any work is done."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attngan_deploy.errors import OutputError
from attngan_deploy.system.files import is_part, part_path, read_json
from attngan_deploy.system.os_errors import FULL, advice, reason

RUN = "run.json"
LAYOUT = "layout"  # in run.json: "shards" where a shard's place decides its pictures, see `plan`
ANOTHER_FOLDER = "choose another -o"


def check_folder(folder: Path, identity: Mapping[str, Any]) -> None:
    """Refuse what a run can't have as its folder, before minutes of work; nothing is made.

    Args:
        folder: where pictures shall go; it may be missing, and those above it.
        identity: what `run.json` will hold.

    Raises:
        OutputError: a file is in the way, nothing can be written there, or the folder is not for this run.
    """
    try:
        place = next(each for each in (folder, *folder.absolute().parents) if each.exists() or each.is_symlink())
        if not place.is_dir():
            raise OutputError(f"{place} is not a folder", next_step=ANOTHER_FOLDER)
        if place == folder:
            is_claimed(folder, identity)
        part = part_path(place / RUN)
        part.touch()
        part.unlink()
    except OSError as error:
        raise OutputError(f"{folder} can't be written: {reason(error)}", next_step=advice(error)) from error


def is_claimed(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Whether the folder is this run's already; else it is free.

    Raises:
        OutputError: it holds other things, belongs to another run, or its `run.json` is damaged.
    """
    path = folder / RUN
    try:
        found = read_json(path)
        if not isinstance(found, dict):
            raise ValueError("not an object")
    except FileNotFoundError:
        if any(not is_part(other) for other in folder.iterdir()):
            raise OutputError(
                f"{folder} holds other files, and no {RUN} of t2i generate", next_step=ANOTHER_FOLDER
            ) from None
        return False
    except ValueError as error:
        raise OutputError(f"{path} is damaged ({error})", next_step=ANOTHER_FOLDER) from error
    differences = [key for key, value in identity.items() if found.get(key) != value]
    if differences and not _holds_nothing(folder):
        raise another_run(str(folder), found, identity, differences)
    return not differences


def another_run(
    where: str, found: Mapping[str, Any], identity: Mapping[str, Any], differences: Sequence[str]
) -> OutputError:
    """What is said of a place that belongs to another run."""
    in_shards = found.get(LAYOUT), identity.get(LAYOUT)
    if in_shards[0] != in_shards[1]:
        kind = "a run in parts" if in_shards[0] else "a run that is not in parts"
        return OutputError(f"{where} belongs to {kind} (--shard, --engine ray)", next_step=ANOTHER_FOLDER)
    return OutputError(
        f"{where} belongs to another run" + (" of other captions" * ("captions_sha256" in differences)),
        found=_shown(found, differences),
        expected=_shown(identity, differences),
        next_step=ANOTHER_FOLDER,
    )


def not_written(where: str, error: OSError) -> OutputError:
    """What is said of a place of pictures that can't be written any more: what is whole there is kept."""
    kept = ", then the same command again: what is done is kept" if error.errno in FULL else ""
    return OutputError(f"{where} can't be written: {reason(error)}", next_step=advice(error) + kept)


def _holds_nothing(folder: Path) -> bool:
    """Whether the folder's run ended before its first picture."""
    return all(other.name == RUN or is_part(other) or not other.stat().st_size for other in folder.iterdir())


def _shown(identity: Mapping[str, Any], keys: Sequence[str]) -> str:
    return ", ".join(f"{key} {str(identity.get(key))[:16]}" for key in keys)
