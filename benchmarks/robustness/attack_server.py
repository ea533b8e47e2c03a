"""Attacks a `t2i serve` from many connections, one kind after the other; prints Markdown.

    python benchmarks/robustness/attack_server.py -- --model base --backend onnxruntime --precision fp32 --threads 1

Under each attack, which comes from a process of its own, the memory of the server and its worker is sampled, and
`/health` is asked for again and again, from 127.0.0.1 as by many attackers. Exit status 1 where memory rises by more
than 100 MB above that of the idle server (which has answered a few large requests before), where `/health` is not
answered, or where the log grows without bound. What stands behind -- goes to `t2i serve`. On Linux, where 127.0.0.0/8
has addresses enough.
"""

import argparse
import asyncio
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.robustness.server_attacks import ATTACKS, ATTENDED, LARGE, Found, strike
from benchmarks.serve import served

HEALTH_SECONDS, SAMPLE_SECONDS = 30.0, 0.05


async def watch(server: served.Served, idle: float, name: str) -> Found:
    """One attack, watched from outside."""
    megabytes, health, lost, before = 0.0, list[float](), 0, len(server.said)
    loop, over = asyncio.get_running_loop(), asyncio.Event()

    async def sample() -> None:
        nonlocal megabytes
        while not over.is_set():
            megabytes = max(megabytes, sum(server.megabytes().values()) - idle)
            await asyncio.sleep(SAMPLE_SECONDS)

    async def ask_health() -> None:
        nonlocal lost
        while not over.is_set():
            start = time.perf_counter()
            if await is_well(server.port):
                health.append(time.perf_counter() - start)
            else:
                lost += 1
            await asyncio.sleep(0.1)

    watching = [asyncio.create_task(sample()), asyncio.create_task(ask_health())]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
        found = await loop.run_in_executor(other, strike, name, server.port)
        await asyncio.sleep(1.0)
        over.set()
        await asyncio.gather(*watching)
    return replace(found, megabytes=megabytes, health=health, lost=lost, log_bytes=len(server.said) - before)


async def is_well(port: int) -> bool:
    """Whether `/health` is answered in time, whatever it says."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(HEALTH_SECONDS):
            reader, writer = await asyncio.open_connection(served.HOST, port)
            try:
                writer.write(f"GET /health HTTP/1.1\r\nHost: {served.HOST}\r\nConnection: close\r\n\r\n".encode())
                return b'"status"' in await reader.read()
            finally:
                writer.transport.abort()
    return False


async def attack(server: served.Served, only: list[str]) -> bool:
    """All attacks, with a line of the table for each; returns whether the server withstood them."""
    async with served.client(server.port) as client:
        for _ in range(2):
            await client.post("/generate", LARGE)
            await client.post("/generate", ATTENDED)
    await asyncio.sleep(2)
    idle = sum(server.megabytes().values())
    print(f"idle: {idle:.0f} MB", file=sys.stderr)
    print("| attack | sent | its connections | memory above idle | `/health` answered, slowest | log |")
    print("|---|---:|---|---:|---:|---:|", flush=True)
    well = True
    for run, title in ATTACKS:
        if not run.__name__.startswith(tuple(only)):
            continue
        found = await watch(server, idle, run.__name__)
        ends = ", ".join(f"{count:,} {end}" for end, count in found.ends.most_common())
        answered = f"{len(found.health)} of {len(found.health) + found.lost}, {max(found.health, default=0):.2f} s"
        memory, log = f"{found.megabytes:.0f} MB", f"{found.log_bytes:,} B"
        print(f"| {' | '.join((title, f'{found.sent / 1e6:.1f} MB', ends, memory, answered, log))} |", flush=True)
        well &= found.well
        await asyncio.sleep(2)
    return well


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="attacks whose function's name begins so")
    parser.add_argument("options", nargs="*", help="of t2i serve, behind --")
    wanted = parser.parse_args()
    with served.serve(*wanted.options) as server:
        well = asyncio.run(attack(server, wanted.only))
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
