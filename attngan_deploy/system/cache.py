"""The folder for what may be deleted at any time, and is made again."""

import os
from pathlib import Path

CACHE_VARIABLE = "T2I_CACHE"


def cache_folder() -> Path:
    """T2I_CACHE, else the system's place for caches, e.g. ~/.cache/attngan-deploy on Linux. It need not exist yet."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("attngan-deploy", appauthor=False)
