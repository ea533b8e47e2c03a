"""`t2i models`: what is installed."""

import json
import sys
from typing import Annotated, Any

import typer

from attngan_deploy.cli import app


@app.command()
def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List the installed bundles."""
    from attngan_deploy.bundle import DEFAULT_MODEL, bundle_folders, read_manifest
    from attngan_deploy.errors import BundleError

    rows: list[dict[str, Any]] = []
    for name, folder in sorted(bundle_folders().items()):
        try:
            bundle = read_manifest(folder)
        except BundleError as error:
            print(f"t2i: {error}", file=sys.stderr)
            continue
        rows.append(
            {
                "name": name,
                "kind": bundle.kind,
                "hash": bundle.hash,
                "bytes": bundle.bytes,
                "folder": str(folder),
                "default": name == DEFAULT_MODEL,
            }
        )
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        default = "  (default)" if row["default"] else ""
        megabytes = f"{row['bytes'] / 1e6:.1f} MB"
        print(f"{row['name']:<12} {row['kind']:<14} {row['hash'][:12]} {megabytes:>9}  {row['folder']}{default}")
    if not rows:
        print("no bundles are installed: t2i export makes one", file=sys.stderr)
