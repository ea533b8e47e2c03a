"""The folder for what may be deleted at any time, and is made again."""

import atexit
import os
import shutil
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

CACHE_VARIABLE = "T2I_CACHE"


def cache_folder() -> Path:
    """T2I_CACHE, else the system's place for caches, e.g. ~/.cache/attngan-deploy on Linux. It need not exist yet.

    Where there is no home folder, as for a user without an entry in a container, it is one of this process alone: what
    is cached is run, so that a place that others may write to won't do.
    """
    with suppress(RuntimeError):  # there is no home folder
        if chosen := os.environ.get(CACHE_VARIABLE):
            return Path(chosen).expanduser()
        from platformdirs import user_cache_path

        found = user_cache_path("attngan-deploy", appauthor=False)
        if found.is_absolute():  # older versions leave the ~ as it is
            return found
    return _own_folder()


@cache
def _own_folder() -> Path:
    folder = Path(mkdtemp(prefix="attngan-deploy-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
