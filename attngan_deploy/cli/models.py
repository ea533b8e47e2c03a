"""`t2i models`: what is installed."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from attngan_deploy.cli import app
from attngan_deploy.cli.options import example
from attngan_deploy.system.terminal import show

if TYPE_CHECKING:
    from attngan_deploy.bundles.bundle import Entry


@app.command(cls=example("t2i models --check"))
def models(
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Compare every file with its hash; exit 1 on damage, or on a folder of T2I_MODELS that is missing.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List the installed bundles: sizes, precisions, scores, licences. T2I_MODELS adds folders to look in."""
    from attngan_deploy.bundles.bundle import list_models, missing_roots

    entries = list_models(check)
    if as_json:
        print(json.dumps([entry.to_json() for entry in entries], indent=2))
    for entry in entries:
        if not as_json:
            _print(entry, check)
        if entry.damaged:
            show(f"t2i: {entry.damaged}", error=True)
    missing = missing_roots()
    for root in missing:
        show(f"t2i: T2I_MODELS names {root}, which is no folder", error=True)
    if not entries:
        show("no bundles are installed: t2i export --variant base --checkpoint RUN makes one", error=True)
    if check and (missing or any(entry.damaged for entry in entries)):
        raise typer.Exit(1)


def _print(entry: "Entry", checked: bool) -> None:
    from attngan_deploy.score.metrics.registry import describe_scores

    bundle, default = entry.bundle, "  (default)" if entry.is_default else ""
    if bundle is None:
        show(f"{entry.name:<12} damaged  {entry.folder}")
        return
    size, state = f"{bundle.bytes / 1e6:.1f} MB", "  damaged" if entry.damaged else "  whole" if checked else ""
    show(f"{entry.name:<12} {bundle.kind:<14} {bundle.hash[:12]} {size:>9}  {entry.folder}{default}{state}")
    facts = {"precisions": ", ".join(entry.precisions), "licence": bundle.manifest.licence or "not stated"}
    for what, text in [*facts.items(), *(("score", line) for line in describe_scores(bundle))]:
        show(f"    {what}: {text}")
