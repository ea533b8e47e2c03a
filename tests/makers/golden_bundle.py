"""Copies of a bundle whose golden cases, or manifest, were changed; their hashes fit, so that they open."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from attngan_deploy.bundles.bundle import write_manifest


def with_golden(source: Path, folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Copy a bundle to `folder` and let `change` work on the arrays of its golden cases."""
    shutil.copytree(source, folder)
    with np.load(folder / "golden.npz") as stored:
        arrays: dict[str, Any] = dict(stored)
    change(arrays)
    np.savez_compressed(folder / "golden.npz", **arrays)
    return with_manifest(folder)


def with_manifest(folder: Path, **fields: Any) -> Path:
    """Write the manifest of a changed bundle again; a field of None is left out."""
    manifest = json.loads((folder / "bundle.json").read_bytes()) | fields
    write_manifest(folder, {key: value for key, value in manifest.items() if value is not None})
    return folder
