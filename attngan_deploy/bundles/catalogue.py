"""What is installed: every bundle with its facts, and damaged ones with their reason."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attngan_deploy.bundles.bundle import DEFAULT_MODEL, Bundle, bundle_folders, open_bundle, read_manifest
from attngan_deploy.bundles.manifest import GRAPHS
from attngan_deploy.errors import BundleError


@dataclass(frozen=True)
class Entry:
    """An installed bundle."""

    name: str  # by which commands know it
    folder: Path  # where it is
    bundle: Bundle | None  # what its manifest says; None where that is damaged
    damaged: str = ""  # why it can't be used; "" where nothing is wrong

    @property
    def is_default(self) -> bool:
        """Whether commands use it when none is named."""
        return self.name == DEFAULT_MODEL

    @property
    def precisions(self) -> list[str]:
        """Precisions that its pictures, or its judgement, can be computed in from what it stores."""
        graphs = GRAPHS.get(self.bundle.kind, ()) if self.bundle else ()
        return list(self.bundle.precisions(graphs[-1])) if self.bundle and graphs else []

    def to_json(self) -> dict[str, Any]:
        """The entry as JSON values."""
        known: dict[str, Any] = {"kind": None}
        if (bundle := self.bundle) is not None:
            manifest = bundle.manifest
            known = {"kind": bundle.kind, "hash": bundle.hash, "bytes": bundle.bytes}
            known |= {"variant": manifest.variant, "licence": manifest.licence, "scores": manifest.told("scores") or []}
        place = {"folder": str(self.folder), "default": self.is_default}
        return {"name": self.name, **known, "precisions": self.precisions, **place, "damaged": self.damaged or None}


def list_models(check: bool = False) -> list[Entry]:
    """Every installed bundle, sorted by name.

    Args:
        check: also compare every file with its hash.
    """
    return [_entry(name, folder, check) for name, folder in sorted(bundle_folders().items())]


def installed_bundles() -> list[Bundle]:
    """Every installed bundle with a usable manifest, sorted by name; their files are not checked."""
    return [entry.bundle for entry in list_models() if entry.bundle is not None]


def _entry(name: str, folder: Path, check: bool) -> Entry:
    bundle = None
    try:
        bundle = read_manifest(folder)
        if check:
            open_bundle(folder, None)
    except BundleError as error:
        return Entry(name, folder, bundle, str(error))
    except OSError as error:
        return Entry(name, folder, bundle, f"it can't be read: {error.strerror or error}")
    return Entry(name, folder, bundle)
