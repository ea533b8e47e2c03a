"""Ten thousand requests that nobody would send to `t2i serve`: no answer may be a 5xx, and the server stays well.

    python benchmarks/serve/fuzz.py                                   # --requests 10000, half of each kind
    python benchmarks/serve/fuzz.py --requests 500 -- --model base

Half come from schemathesis, which makes requests from the server's own OpenAPI schema, those that fit it and those that
do not, and holds the answers against it; half are bytes: noise, real requests with bytes changed, cut short or
doubled, and real heads with noise behind them. What stands behind -- goes to `t2i serve`.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from contextlib import suppress

import served

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
AT_ONCE, PATIENCE_SECONDS, ANSWER_SECONDS = 12, 1.0, 30.0
EXAMPLES = 400  # of each path in one run of schemathesis
BODIES = (
    {"captions": ["a small red bird with black wings"], "seed": 7},
    {"captions": ["a red bird", "a blue bird"], "n": 2, "format": "json", "attention": True},
    {"captions": ["a bird"], "format": "json", "stream": True},
)


def main() -> None:
    """Parse, run, print; exit status 1 where an answer was a 5xx, or not as the schema says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("options", nargs="*", help="of t2i serve, behind --")
    wanted = parser.parse_args()
    start = time.perf_counter()
    with served.serve(*wanted.options) as server:
        runs, failed, said, before = 0, 0, "", counted(server)
        while sum(counted(server).values()) - sum(before.values()) < wanted.requests // 2:
            status, said = by_schema(server, wanted.seed + runs, min(EXAMPLES, max(10, wanted.requests // 20)))
            runs, failed = runs + 1, failed + (status != 0)
            if status:
                print(said, file=sys.stderr)
                break
        schema = counted(server) - before
        bytes_answered = asyncio.run(by_bytes(server, wanted.seed, wanted.requests - wanted.requests // 2))
        health = json.load(urllib.request.urlopen(f"{server.url}/health", timeout=30))
        deaths = metric(server, "t2i_worker_deaths_total")
        everything = counted(server) - before
    worst = sum(count for status, count in (everything + bytes_answered).items() if status.startswith("5"))
    told = {
        "machine": served.machine(),
        "engines": server.engines,
        "schemathesis": {"requests": sum(schema.values()), "runs": runs, "failed_runs": failed, "statuses": schema},
        "bytes": {"requests": wanted.requests - wanted.requests // 2, "answers": bytes_answered},
        "requests_in_all": sum(schema.values()) + wanted.requests - wanted.requests // 2,
        "answers_5xx": worst,
        "worker_deaths": deaths,
        "health_afterwards": health["status"],
        "seconds": round(time.perf_counter() - start, 1),
    }
    print(json.dumps(told, indent=2))
    raise SystemExit(bool(worst or failed or deaths or health["status"] != "ok"))


def by_schema(server: served.Served, seed: int, examples: int) -> tuple[int, str]:
    """One run of schemathesis: its exit status, and what it said."""
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    command += ["run", f"{server.url}/openapi.json", "--checks", CHECKS]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", str(examples), "--seed", str(seed)]
    command += ["--no-shrink", "--warnings", "off"]
    with tempfile.TemporaryDirectory() as place:  # it keeps examples beside it
        environment = os.environ | {"NO_COLOR": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=place, env=environment)
    return done.returncode, done.stdout + done.stderr


async def by_bytes(server: served.Served, seed: int, count: int) -> Counter[str]:
    """Send bytes, a connection each; returns how often each status came, "closed" where none did."""
    statuses: Counter[str] = Counter()
    numbers = iter(range(count))

    async def one() -> None:
        for number in numbers:
            statuses[await send(server.port, odd_bytes(random.Random((seed << 32) + number)))] += 1

    await asyncio.gather(*(one() for _ in range(AT_ONCE)))
    return statuses


async def send(port: int, data: bytes) -> str:
    """The status of what comes back for some bytes."""
    reader, writer = await asyncio.open_connection(served.HOST, port)
    answer = b""
    try:
        with suppress(ConnectionError):
            writer.write(data)
            with suppress(TimeoutError):  # no answer so far: it was cut short, and ends here
                answer = await asyncio.wait_for(reader.read(65536), PATIENCE_SECONDS)
            writer.write_eof()
            async with asyncio.timeout(ANSWER_SECONDS):
                while part := await reader.read(65536):
                    answer = answer or part
    except TimeoutError:
        return "no end"
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    return answer.split(b" ", 2)[1].decode("ascii", "replace") if answer.startswith(b"HTTP/1.1 ") else "closed"


def odd_bytes(dice: random.Random) -> bytes:
    """Noise, a changed request, or a real head with noise behind it."""
    noise = dice.randbytes(dice.randrange(1, 400))
    kind = dice.random()
    if kind < 0.2:
        return noise
    body = json.dumps(dice.choice(BODIES)).encode()
    if kind < 0.4:
        return request(noise, dice)
    if kind < 0.75:
        return request(changed(body, dice), dice)
    return changed(request(body, dice), dice)


def request(body: bytes, dice: random.Random) -> bytes:
    """A request with this body; now and then with another length than it says."""
    path = dice.choice(("/generate", "/generate", "/words"))
    length = len(body) if dice.random() < 0.9 else dice.randrange(10**6)
    head = f"POST {path} HTTP/1.1\r\nHost: {served.HOST}\r\nContent-Type: application/json\r\n"
    return f"{head}Connection: close\r\nContent-Length: {length}\r\n\r\n".encode() + body


def changed(data: bytes, dice: random.Random) -> bytes:
    """The bytes with some of them changed, dropped, doubled or inserted."""
    found = bytearray(data)
    for _ in range(dice.randrange(1, 6)):
        place = dice.randrange(len(found) + 1)
        what = dice.randrange(4)
        if what == 0 and place < len(found):
            found[place] = dice.randrange(256)
        elif what == 1:
            del found[place : place + dice.randrange(1, 9)]
        elif what == 2:
            found[place:place] = found[place : place + dice.randrange(1, 30)]
        else:
            found[place:place] = dice.choice((b"\x00", b"\xff", b'"', b"]", b"9" * 30, b"\\ud800", b"NaN", b"\r\n"))
    return bytes(found)


def counted(server: served.Served) -> Counter[str]:
    """How often the server gave each status, by its own count, metrics left out."""
    found: Counter[str] = Counter()
    for line in metrics(server):
        if line.startswith("t2i_requests_total{"):
            labels, _, value = line.partition("} ")
            if 'path="/metrics"' not in labels:
                found[labels.rsplit('status="', 1)[1].rstrip('"')] += int(float(value))
    return found


def metric(server: served.Served, name: str) -> int:
    """The value of a metric without labels."""
    return next(int(float(line.split()[1])) for line in metrics(server) if line.startswith(f"{name} "))


def metrics(server: served.Served) -> list[str]:
    """The lines of GET /metrics."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=30) as answer:
        return str(answer.read().decode()).splitlines()


if __name__ == "__main__":
    main()
