"""What a user is told while something is made: its name, not a temporary one, and nothing meant for developers."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attngan_deploy.bundles.manifest import MANIFEST
from attngan_deploy.errors import T2IError
from attngan_deploy.system.files import PART_SUFFIX, atomic_folder


@contextmanager
def final_names(final: Path) -> Iterator[None]:
    """Put the name of `final` in the place of its `files.part_path`, in every error that leaves the block."""
    part = re.compile(rf"\.{re.escape(final.name)}\.[0-9a-f]+{re.escape(PART_SUFFIX)}\b")

    def told(text: str) -> str:
        return part.sub(lambda match: final.name, text)

    try:
        yield
    except T2IError as error:
        if not part.search(str(error)):
            raise
        raise type(error)(
            told(error.what),
            found=told(error.found),
            expected=told(error.expected),
            next_step=told(error.next_step),
        ) from error
    except OSError as error:
        if isinstance(error.filename, str):
            error.filename = told(error.filename)
        raise


@contextmanager
def new_folder(final: Path, marker: str = MANIFEST) -> Iterator[Path]:
    """`files.atomic_folder` with `final_names`."""
    with final_names(final), atomic_folder(final, marker) as folder:
        yield folder


@contextmanager
def errors_alone(logger_name: str | None = None) -> Iterator[None]:
    """Let a logger, the root where there is no name, pass on errors alone."""
    logger = logging.getLogger(logger_name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
