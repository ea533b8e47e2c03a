"""Saturation throughput of `t2i serve` against `t2i bench` for the same engine, in turns within one run.

    python benchmarks/serve/throughput.py --model base --backend onnxruntime --precision fp32

Each round times the bench's own process at the server's batch size (captions to uint8 pictures, no HTTP, no files),
and then the server with each form of request, over HTTP, files made. The client's time is the server's loss: both run
on this machine.
"""

import argparse
import asyncio
import json
import random
import time
from collections.abc import Callable
from statistics import median

import served

from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.engines.request import AUTO, EngineRequest
from attngan_deploy.generate.bench.rounds import Process

TARGET = 0.85  # of the bench's pictures a second
BATCH = 16


def main() -> None:
    """Parse, run, print; exit status 1 where a form of request is below the target."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="base")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each turn")
    parser.add_argument("--clients", type=int, default=48)
    wanted = parser.parse_args()
    options = ("--model", wanted.model, "--backend", wanted.backend, "--precision", wanted.precision)
    with Process() as bench, served.serve(*options, "--batch-size", str(BATCH)) as server:
        bundle = open_bundle(wanted.model)
        loaded = bench.ask("load", bundle.folder, EngineRequest(wanted.backend, AUTO, wanted.precision))
        speeds: dict[str, list[float]] = {"t2i bench": []}
        for number in range(wanted.rounds + 1):  # the first one warms up
            calls = bench.ask("time", BATCH, wanted.seconds if number else 0.5, 1)
            found = {"t2i bench": len(calls) * BATCH / sum(calls)}
            for name, make in FORMS.items():
                clients = max(4, wanted.clients // (1 if name.startswith("1") else 8))
                found[name] = asyncio.run(_speed(server, clients, wanted.seconds if number else 1.0, make))
            if number:
                for name, speed in found.items():
                    speeds.setdefault(name, []).append(speed)
    base = median(speeds["t2i bench"])
    ratios = {
        name: median(speed / reference for speed, reference in zip(values, speeds["t2i bench"], strict=True))
        for name, values in speeds.items()
    }
    told = {
        "machine": served.machine(),
        "engine": loaded.facts.short,
        "rounds": wanted.rounds,
        "seconds_of_a_turn": wanted.seconds,
        "bench_pictures_per_second": round(base, 1),
        "pictures_per_second": {name: [round(speed, 1) for speed in values] for name, values in speeds.items()},
        "ratio_to_bench": {name: round(ratio, 3) for name, ratio in ratios.items()},
        "target": TARGET,
    }
    print(json.dumps(told, indent=2))
    raise SystemExit(min(ratios.values()) < TARGET)


def one_png(dice: random.Random) -> tuple[bytes, int, int]:
    """A picture a request."""
    return served.body(captions=[served.caption(dice)], seed=dice.getrandbits(64), format="png"), 200, 1


def one_webp(dice: random.Random) -> tuple[bytes, int, int]:
    """A picture a request, as WebP."""
    return served.body(captions=[served.caption(dice)], seed=dice.getrandbits(64), format="webp"), 200, 1


def eight_json(dice: random.Random) -> tuple[bytes, int, int]:
    """Eight pictures a request."""
    captions = [served.caption(dice) for _ in range(8)]
    return served.body(captions=captions, seed=dice.getrandbits(64), format="json"), 200, 8


FORMS: dict[str, Callable[[random.Random], tuple[bytes, int, int]]] = {
    "1 PNG a request": one_png,
    "1 WebP a request": one_webp,
    "8 PNG in JSON a request": eight_json,
}


async def _speed(
    server: served.Served, clients: int, seconds: float, make: Callable[[random.Random], tuple[bytes, int, int]]
) -> float:
    """Pictures a second at saturation; the requests under way at the end are answered and counted."""
    start = time.perf_counter()
    tally = await served.saturate(server.port, clients, lambda: time.perf_counter() - start > seconds, make)
    taken = time.perf_counter() - start
    if tally.wrong:
        raise SystemExit(f"not as expected: {tally.wrong}")
    return tally.pictures / taken


if __name__ == "__main__":
    main()
