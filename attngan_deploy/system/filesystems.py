"""Paths that are not on this machine: `s3://bucket/captions.jsonl` and whatever else fsspec knows."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import IO, Any, cast

from attngan_deploy.errors import MissingExtraError, T2IError, install_line

CLOUD_ERRORS = (("botocore.exceptions", "BotoCoreError"), ("aiohttp", "ClientError"))  # which are no OSError
READ_AHEAD = 2**20  # bytes of a remote file that are fetched at once


def is_url(path: str | Path) -> bool:
    """Whether a path names a file system of fsspec, such as s3://bucket/name."""
    scheme, mark, _ = str(path).partition("://")
    return bool(mark) and len(scheme) > 1 and scheme.replace("+", "").isalnum()


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path inside it.

    Raises:
        MissingExtraError: fsspec, or what it needs for this URL, is not installed.
        T2IError: fsspec does not know such URLs.
    """
    try:
        fsspec = import_module("fsspec.core")
        system, path = fsspec.url_to_fs(url)
    except ImportError as error:
        extra = "s3" if url.startswith("s3") else ""
        raise MissingExtraError(
            f"{url} needs a package that is not installed: {error}",
            next_step=install_line(extra) if extra else "install it",
        ) from error
    except ValueError as error:
        raise T2IError(
            f"{url} can't be opened: {error}",
            expected="s3://bucket/name, or another URL of fsspec",
            next_step="see that the address and its credentials are right",
        ) from error
    return system, str(path)


def open_binary(path: str | Path) -> IO[bytes]:
    """Open a file, here or at a URL, for reading bytes; both can be sought in. Raises as `open` and `file_system`."""
    if not is_url(path):
        return Path(path).open("rb")
    system, inside = file_system(str(path))
    return cast(IO[bytes], system.open(inside, "rb", block_size=READ_AHEAD))


@contextmanager
def explained(name: str, error_class: type[T2IError], next_step: str = "") -> Iterator[None]:
    """Turn what goes wrong with a remote file into one error that names it; local paths pass through."""
    if not is_url(name):
        yield
        return
    try:
        yield
    except _remote_errors() as error:
        raise error_class(f"{name} can't be reached: {error!r}"[:400], next_step=next_step) from error


def _remote_errors() -> tuple[type[Exception], ...]:
    """OSError, and errors of cloud packages that are loaded."""
    loaded = [getattr(sys.modules[module], name) for module, name in CLOUD_ERRORS if module in sys.modules]
    return (OSError, *loaded)
