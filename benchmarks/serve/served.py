"""A server of `t2i serve` for the benchmarks, on 127.0.0.1 alone, and a client that costs little beside it."""

import asyncio
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

HOST = "127.0.0.1"
START_SECONDS = 300
COLOURS = ("red", "blue", "yellow", "black", "white", "brown", "grey", "green", "orange")
PARTS = ("wings", "belly", "bill", "crown", "tail", "breast", "head", "throat")


@dataclass
class Served:
    """A server that runs.

    Attributes:
        process: it.
        port: where it listens.
        engines: the lines that say what runs each model.
        said: what it wrote on standard error since it serves.
    """

    process: subprocess.Popen[bytes]
    port: int
    engines: list[str]
    said: bytearray

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{HOST}:{self.port}"

    def workers(self) -> list[int]:
        """Process ids of its children."""
        pid = self.process.pid
        tasks = Path(f"/proc/{pid}/task")
        with suppress(OSError):
            return [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]
        return []

    def megabytes(self) -> dict[str, float]:
        """Memory of the server and of its worker that is theirs alone: pages of no file, which no one shares."""
        return {"server": _megabytes(self.process.pid), "worker": sum(map(_megabytes, self.workers()))}


def _megabytes(pid: int) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Anonymous:"):
                return int(line.split()[1]) / 1024
    return 0.0


@contextmanager
def serve(*options: str) -> Iterator[Served]:
    """Start a server with these options on a free port, and stop it gracefully afterwards."""
    command = [sys.executable, "-m", "attngan_deploy.cli", "serve", "--host", HOST, "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert process.stderr
    engines, port = [], 0
    for raw in process.stderr:
        text = raw.decode(errors="replace").strip()
        print(text, file=sys.stderr)
        if "serving at" in text:
            port = int(text.split(" (")[0].rsplit(":", 1)[1])
            break
        engines.append(text.removeprefix("t2i: "))
    if not port:
        raise SystemExit(f"the server did not start: exit status {process.wait()}")
    said = bytearray()
    reading = threading.Thread(target=lambda: [said.extend(line) for line in process.stderr or ()])
    reading.start()  # a pipe that nobody reads would stop the server
    try:
        yield Served(process, port, engines, said)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(120)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        reading.join()
        process.stderr.close()
        print(said.decode(errors="replace"), end="", file=sys.stderr)
        if status != 0 and sys.exc_info()[0] is None:
            raise SystemExit(f"the server ended with exit status {status}")


class Client:
    """One connection that stays open: HTTP/1.1 with answers of known length."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of an answer."""
        if self._writer is None or self._writer.is_closing():
            self._reader, self._writer = await asyncio.open_connection(HOST, self._port, limit=2**22)
        assert self._reader and self._writer
        head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        self._writer.write(head.encode() + b"\r\n\r\n" + body)
        lines = (await self._reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in lines[1:] if b": " in line)
        answer = await self._reader.readexactly(int(fields[b"content-length"]))
        if fields.get(b"connection") == b"close":
            await self.close()
        return int(lines[0].split()[1]), answer

    async def close(self) -> None:
        """Close the connection."""
        if self._writer is not None:
            self._writer.close()
            with suppress(OSError):
                await self._writer.wait_closed()
            self._writer = None


@asynccontextmanager
async def client(port: int) -> AsyncIterator[Client]:
    """A client that is closed afterwards."""
    one = Client(port)
    try:
        yield one
    finally:
        await one.close()


def caption(dice: random.Random) -> str:
    """A caption of the usual length."""
    size, (first, second) = dice.choice(("small", "large")), dice.sample(COLOURS, 2)
    return f"this {size} bird has a {first} {dice.choice(PARTS)} and {second} {dice.choice(PARTS)}"


def body(**wanted: object) -> bytes:
    """The body of POST /generate."""
    return json.dumps(wanted).encode()


@dataclass
class Tally:
    """What came of many requests.

    Attributes:
        seconds: latency of each that succeeded.
        pictures: how many pictures came.
        statuses: how often each status came.
        wrong: what was not as expected, the first few.
    """

    seconds: list[float] = field(default_factory=list)
    pictures: int = 0
    statuses: dict[int, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def percentile(self, percent: float) -> float:
        """A percentile of the latencies, in seconds."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


async def saturate(
    port: int, clients: int, until: Callable[[], bool], make: Callable[[random.Random], tuple[bytes, int, int]]
) -> Tally:
    """Keep so many requests under way, each client the next as soon as the last is answered.

    Args:
        until: whether to stop.
        make: a body, the status that it should get, and the pictures that it should bring.
    """
    tally = Tally()

    async def one(number: int) -> None:
        dice = random.Random(number)
        async with client(port) as connection:
            while not until():
                wanted, expected, pictures = make(dice)
                start = time.perf_counter()
                try:
                    status, answer = await connection.post("/generate", wanted)
                except (OSError, EOFError, asyncio.IncompleteReadError) as error:
                    status, answer = 0, repr(error).encode()
                    await connection.close()
                tally.statuses[status] = tally.statuses.get(status, 0) + 1
                if status != expected:
                    if len(tally.wrong) < 5:
                        tally.wrong.append(f"{status} instead of {expected}: {answer[:200]!r}")
                elif status == 200:
                    tally.seconds.append(time.perf_counter() - start)
                    tally.pictures += pictures

    await asyncio.gather(*(one(number) for number in range(clients)))
    return tally


def machine() -> str:
    """What this is measured on."""
    from attngan_deploy.system.machine import this_machine

    return str(this_machine())
