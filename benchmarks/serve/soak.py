"""`t2i serve` at saturation for ten minutes: errors, latency, and the slope of memory after the warm-up.

    python benchmarks/serve/soak.py                      # --minutes 10, all installed models
    python benchmarks/serve/soak.py --minutes 1 -- --model base --backend onnxruntime --precision fp32

Requests are of every kind: single PNG and WebP pictures, several as JSON, with attention, and one in twenty that must
be refused. What stands behind -- goes to `t2i serve`.
"""

import argparse
import asyncio
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import served

SAMPLE_SECONDS = 2.0
WHO: dict[str, Callable[[dict[str, float]], float]] = {
    "server": lambda sample: sample["server"],
    "worker": lambda sample: sample["worker"],
    "both": lambda sample: sample["server"] + sample["worker"],
}


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--warm-up", type=float, default=0.2, help="share of the time that memory may take to settle")
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--memory", type=Path, help="also write every sample of memory: a line of JSON each")
    parser.add_argument("options", nargs="*", help="of t2i serve, behind --")
    wanted = parser.parse_args()
    with served.serve(*wanted.options) as server:
        told, memory = asyncio.run(soak(server, wanted.minutes, wanted.warm_up, wanted.clients))
    if wanted.memory:
        wanted.memory.write_text("".join(json.dumps({"minute": minute, **sample}) + "\n" for minute, sample in memory))
    print(json.dumps(told, indent=2))


async def soak(
    server: served.Served, minutes: float, warm_up: float, clients: int
) -> tuple[dict[str, object], list[tuple[float, dict[str, float]]]]:
    """Run, and say what was measured, with the samples of memory: (minute, megabytes)."""
    models = [line.split()[1] for line in server.engines if line.startswith("model ")]
    start = time.monotonic()
    end = start + 60 * minutes
    memory: list[tuple[float, dict[str, float]]] = []

    async def watch() -> None:
        while (now := time.monotonic()) < end:
            memory.append(((now - start) / 60, await asyncio.to_thread(server.megabytes)))
            await asyncio.sleep(SAMPLE_SECONDS)

    watching = asyncio.create_task(watch())
    tally = await served.saturate(
        server.port, clients, lambda: time.monotonic() >= end, lambda dice: make_request(dice, models)
    )
    await watching
    seconds = time.monotonic() - start
    settled = [sample for sample in memory if sample[0] >= warm_up * minutes]
    told: dict[str, object] = {
        "machine": served.machine(),
        "engines": server.engines,
        "minutes": round(seconds / 60, 2),
        "clients": clients,
        "requests": sum(tally.statuses.values()),
        "statuses": tally.statuses,
        "not_as_expected": tally.wrong,
        "pictures": tally.pictures,
        "pictures_per_second": round(tally.pictures / seconds, 1),
        "latency_p50_seconds": round(tally.percentile(50), 3),
        "latency_p99_seconds": round(tally.percentile(99), 3),
        "latency_worst_seconds": round(tally.percentile(100), 3),
        "memory_mb": {
            who: {
                "start": round(of(memory[0][1]), 1),
                "settled": round(of(settled[0][1]), 1),
                "end": round(of(settled[-1][1]), 1),
                "slope_per_minute": round(slope([(minute, of(sample)) for minute, sample in settled]), 3),
            }
            for who, of in WHO.items()
        },
    }
    return told, memory


def make_request(dice: random.Random, models: list[str]) -> tuple[bytes, int, int]:
    """A request of any kind, the status that it should get, and its pictures."""
    kind, seed, model = dice.random(), dice.getrandbits(64), dice.choice(models)
    captions = [served.caption(dice)]
    if kind < 0.05:
        return served.body(captions=["zorp!"], model=model), 422, 0
    if kind < 0.15:
        captions += [served.caption(dice) for _ in range(dice.randrange(3))]
        return served.body(captions=captions, n=2, seed=seed, model=model, format="json"), 200, 2 * len(captions)
    if kind < 0.2:
        return served.body(captions=captions, seed=seed, model=model, format="json", attention=True), 200, 1
    return served.body(captions=captions, seed=seed, model=model, format=dice.choice(("png", "webp"))), 200, 1


def slope(samples: list[tuple[float, float]]) -> float:
    """Least squares: how the second value grows with the first."""
    count = len(samples)
    x, y = (sum(values) / count for values in zip(*samples, strict=True))
    above = sum((minute - x) * (megabytes - y) for minute, megabytes in samples)
    return above / max(sum((minute - x) ** 2 for minute, _ in samples), 1e-9)


if __name__ == "__main__":
    main()
