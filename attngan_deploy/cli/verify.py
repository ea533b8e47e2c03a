"""`t2i verify`: does a bundle make its golden pictures on this device?"""

import json
from typing import Annotated

import typer

from attngan_deploy.cli import app
from attngan_deploy.cli.options import Backends, Devices, Model, Precisions, Threads, example
from attngan_deploy.system.terminal import show


@app.command(cls=example("t2i verify base --backend all"))
def verify(
    model: Model = None,
    backend: Backends = "auto",
    device: Devices = "auto",
    precision: Precisions = "auto",
    threads: Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list, one entry an engine.")] = False,
) -> None:
    """Make a bundle's golden pictures here, and compare them with those that torch made.

    Every file is checked first. fp32 may differ by one of 255 levels; other precisions have a floor of PSNR. The exit
    status is 1 when an engine fails, or none can run. Where one of --backend, --device and --precision names several,
    auto in the others means all.
    """
    from attngan_deploy.bundles.bundle import DEFAULT_MODEL
    from attngan_deploy.engines.request import parse_requests, refusal_lines
    from attngan_deploy.score.verify import FAILED, REFUSED, open_any, verify_bundle

    requests = parse_requests(backend, device, precision, threads)
    bundle = open_any(DEFAULT_MODEL if model is None else model)
    outcomes = verify_bundle(bundle, requests)
    if as_json:
        print(json.dumps([outcome.to_json() for outcome in outcomes], indent=2))
    else:
        show(f"{bundle.name} {bundle.hash[:12]}: all {len(bundle.manifest.files)} files match their hashes")
        for outcome in outcomes:
            if outcome.verification:
                show(f"{outcome.verification.engine}: {outcome.verification}")
    for outcome in outcomes:
        if outcome.status == FAILED and outcome.why:
            show(f"t2i: {outcome.request}: FAILED: {outcome.why}", error=True)
    refusals = [(outcome.request, outcome.why) for outcome in outcomes if outcome.status == REFUSED]
    for line in refusal_lines(refusals, [outcome.request for outcome in outcomes if outcome.status != REFUSED]):
        show(f"t2i: {line}", error=True)
    statuses = {outcome.status for outcome in outcomes}
    if FAILED in statuses or statuses == {REFUSED}:
        raise typer.Exit(1)
