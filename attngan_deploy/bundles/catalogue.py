"""What is installed: every bundle with its facts, and damaged ones with their reason."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attngan_deploy.bundles.bundle import (
    DEFAULT_MODEL,
    GRAPHS,
    Bundle,
    bundle_folders,
    open_bundle,
    read_manifest,
)
from attngan_deploy.errors import BundleError


@dataclass(frozen=True)
class Entry:
    """An installed bundle.

    Attributes:
        name: by which commands know it.
        folder: where it is.
        bundle: what its manifest says; None where that is damaged.
        damaged: why it can't be used; "" where nothing is wrong.
    """

    name: str
    folder: Path
    bundle: Bundle | None
    damaged: str = ""

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
            told = {key: bundle.manifest.get(key) for key in ("variant", "licence")}
            scores = bundle.manifest.get("scores") or []
            known = {"kind": bundle.kind, "hash": bundle.hash, "bytes": bundle.bytes, **told, "scores": scores}
        place = {"folder": str(self.folder), "default": self.is_default}
        return {"name": self.name, **known, "precisions": self.precisions, **place, "damaged": self.damaged or None}


def list_models(check: bool = False) -> list[Entry]:
    """Every installed bundle, sorted by name.

    Args:
        check: also compare every file with its hash.
    """
    return [_entry(name, folder, check) for name, folder in sorted(bundle_folders().items())]


def _entry(name: str, folder: Path, check: bool) -> Entry:
    bundle = None
    try:
        bundle = read_manifest(folder)
        if check:
            open_bundle(folder, bundle.kind)
    except BundleError as error:
        return Entry(name, folder, bundle, str(error))
    except OSError as error:
        return Entry(name, folder, bundle, f"it can't be read: {error.strerror or error}")
    return Entry(name, folder, bundle)


def describe_scores(bundle: Bundle) -> list[str]:
    """A line for each score in a manifest, with its judge."""
    accuracy = _get(bundle.manifest, "provenance", "held_out_accuracy")
    lines = [f"right on {accuracy:.1%} of held-out real pictures"] if isinstance(accuracy, float) else []
    value, candidates = (_get(bundle.manifest, "real", key) for key in ("r_precision", "candidates"))
    if isinstance(value, int | float):
        lines.append(f"R-precision of real pictures {value:.1%}, 1 of {candidates}")
    scores = bundle.manifest.get("scores")
    return lines + [_describe(passport) for passport in (scores if isinstance(scores, list) else [])]


def _describe(passport: object) -> str:
    named = {
        "Inception Score": _get(passport, "scores", "inception_score", "mean"),
        "Fréchet distance": _get(passport, "scores", "frechet_distance", "value"),
        "kernel distance": _get(passport, "scores", "kernel_distance", "mean"),
    }
    shares = {
        "R-precision": _get(passport, "scores", "r_precision", "value"),
        "colour words followed": _get(passport, "scores", "word_fidelity", "accuracy"),
    }
    parts = [f"{name} {value:.4g}" for name, value in named.items() if isinstance(value, int | float)]
    parts += [f"{name} {value:.1%}" for name, value in shares.items() if isinstance(value, int | float)]
    if not parts:
        return f"a score that this version can't read: {passport}"[:100]
    if not _get(passport, "judge"):
        return ", ".join(parts)
    judge, pictures = _get(passport, "judge", "name"), _get(passport, "pictures", "used")
    digest = str(_get(passport, "judge", "hash"))[:12]
    return f"{', '.join(parts)} by judge {judge} {digest} of {pictures} pictures"


def _get(value: object, *keys: str) -> object:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
