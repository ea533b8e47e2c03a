"""`t2i doctor`: what works here, what doesn't, and the line that mends it."""

import json
from typing import Annotated

import typer

from attngan_deploy.cli import app
from attngan_deploy.cli.options import example
from attngan_deploy.system.terminal import show


@app.command(cls=example("t2i doctor"))
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look at Python, packages, devices, models and caches, and make pictures. Exit status 1 when that fails."""
    from attngan_deploy.generate.doctor import Diagnosis, examine

    findings, area = [], ""
    for finding in examine():
        findings.append(finding)
        if as_json:
            continue
        if finding.area != area:
            area = finding.area
            show(area)
        label = "mend" if finding.status == "broken" else "for it"
        mend = f"\n          {label}: {finding.mend}" if finding.mend else ""
        show(f"  {finding.status:<7} {finding.name}: {finding.found}{mend}", lines=True)
    diagnosis = Diagnosis(findings)
    show(json.dumps(diagnosis.to_json(), indent=2) if as_json else diagnosis, lines=True)
    if not diagnosis.works:
        raise typer.Exit(1)
