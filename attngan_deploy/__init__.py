"""Captions to pictures, without torch. Names are loaded when they are first used."""

import os
import sys
from importlib import import_module, machinery
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attngan_deploy.bundles.bundle import Bundle
    from attngan_deploy.errors import T2IError
    from attngan_deploy.generate.features import Batch, Stages, TextFeatures
    from attngan_deploy.generate.pipeline import TextToImage
    from attngan_deploy.media.tokenizer import Tokenizer

    __version__: str

# Libraries that would tell a server how they are used read these when they are imported: they stay silent here. An
# application that set one of them decided for itself.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


class _Beside:
    """Finds `train`, `export` and `models` of a checkout beside this folder; what is installed has them inside it."""

    @staticmethod
    def find_spec(name: str, *_: object) -> machinery.ModuleSpec | None:
        if name.partition(".")[2] not in ("train", "export", "models") or not name.startswith(f"{__name__}."):
            return None
        return machinery.PathFinder.find_spec(name, [os.path.dirname(__path__[0])])  # noqa: PTH120 -- pathlib is slower to load


# Python prefers a checkout to what is installed when it is started in one.
if not os.path.isdir(os.path.join(__path__[0], "train")):  # noqa: PTH112, PTH118
    sys.meta_path.append(_Beside)

_HOMES = {
    "Batch": "generate.features",
    "Bundle": "bundles.bundle",
    "Stages": "generate.features",
    "T2IError": "errors",
    "TextFeatures": "generate.features",
    "TextToImage": "generate.pipeline",
    "Tokenizer": "media.tokenizer",
}

__all__ = ["Batch", "Bundle", "Stages", "T2IError", "TextFeatures", "TextToImage", "Tokenizer", "__version__"]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("attngan-deploy")
    if name in _HOMES:
        return getattr(import_module(f"attngan_deploy.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'attngan_deploy' has no attribute '{name}'")


def __dir__() -> list[str]:
    return list(__all__)
