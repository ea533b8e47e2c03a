"""Attacks on a `t2i serve`, each from many connections: what `attack_server.py` runs, and what one of them found.

Each kind holds or floods what a server keeps for a client before it knows what that client wants, or after it said so.
"""

import asyncio
import json
import resource
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import repeat

from benchmarks.serve import served

MOST_MEGABYTES = 100.0  # above idle
MOST_LOG_BYTES = 200_000
PART = 65536
HEAD = f"POST /generate HTTP/1.1\r\nHost: {served.HOST}\r\nContent-Type: application/json\r\n".encode()
ATTENDED = served.body(captions=[" ".join(["bird"] * 100)] * 8, format="json", attention=True)
LARGE = served.body(captions=["a small red bird"], n=64, format="json")
GET = f"GET /page/app.js HTTP/1.1\r\nHost: {served.HOST}\r\n\r\n".encode()


@dataclass
class Found:
    """What one attack did.

    Attributes:
        sent: bytes.
        ends: how many connections ended how: by which status, or closed, or still open when the attack ended.
        megabytes: most memory above idle.
        health: seconds until each answer of `/health`.
        lost: how many questions of `/health` had no answer.
        log_bytes: what the server wrote to its log.
    """

    sent: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    megabytes: float = 0.0
    health: list[float] = field(default_factory=list)
    lost: int = 0
    log_bytes: int = 0

    @property
    def well(self) -> bool:
        """Whether the server withstood it."""
        return self.megabytes <= MOST_MEGABYTES and not self.lost and self.log_bytes <= MOST_LOG_BYTES


class Attacker:
    """Connections to a server, each counted by its end."""

    def __init__(self, port: int, found: Found) -> None:
        self.port, self.found = port, found

    @asynccontextmanager
    async def connection(
        self, address: str | None = None
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """One connection, from an address of loopback; a break is no error."""
        local = (address, 0) if address else None
        with suppress(ConnectionError):
            reader, writer = await asyncio.open_connection(served.HOST, self.port, local_addr=local)
            try:
                yield reader, writer
            finally:
                writer.transport.abort()

    async def send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        """Send bytes, and wait until the system has taken them."""
        writer.write(data)
        await writer.drain()
        self.found.sent += len(data)

    async def flood(self, parts: Iterator[bytes], seconds: float = 30.0, address: str | None = None) -> None:
        """Send parts as long as they are taken, then see how the server ended it."""
        async with self.connection(address) as (reader, writer):
            with suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(seconds):
                    for part in parts:
                        await self.send(writer, part)
                        if reader.at_eof():
                            break
            await self.see_end(reader, 1.0)

    async def hold(self, data: bytes, seconds: float, address: str | None = None, part: bytes = b"") -> None:
        """Send bytes, then a few more every second or nothing, until the server ends it or the time is over."""
        end = time.monotonic() + seconds
        async with self.connection(address) as (reader, writer):
            with suppress(ConnectionError):
                await self.send(writer, data)
                while part and time.monotonic() < end and not reader.at_eof():
                    await asyncio.sleep(1)
                    await self.send(writer, part)
            await self.see_end(reader, max(0.1, end - time.monotonic()))

    async def see_end(self, reader: asyncio.StreamReader, seconds: float) -> None:
        """Count how a connection ended."""
        answer = b""
        try:
            async with asyncio.timeout(seconds):
                answer = await reader.read(PART)
                while answer and await reader.read(PART):
                    pass
            end = "closed"
        except TimeoutError:
            end = "open"
        except ConnectionError:
            end = "closed"
        self.found.ends[answer.split(b" ", 2)[1].decode() if answer.startswith(b"HTTP/1.1 ") else end] += 1


def pieces(first: bytes, again: bytes, size: int) -> Iterator[bytes]:
    """So many bytes, in parts: a beginning, and then the same over and over."""
    yield first
    part = again * max(1, PART // len(again))
    yield from repeat(part, size // len(part))


def post(body: bytes) -> bytes:
    """A request with a body."""
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


def many(count: int, one: Callable[[int], Awaitable[None]]) -> Awaitable[object]:
    """So many at once."""
    return asyncio.gather(*(one(number) for number in range(count)))


def address(number: int) -> str:
    """One of many addresses of loopback."""
    return f"127.1.{number // 200}.{number % 200 + 1}"


async def headers(attacker: Attacker) -> None:
    """Sixty megabytes of headers, three times."""
    await many(3, lambda _: attacker.flood(pieces(GET[:-2], b"a: " + b"b" * 4000 + b"\r\n", 60_000_000)))


async def one_header(attacker: Attacker) -> None:
    """A header that never ends, on many connections."""
    await many(32, lambda _: attacker.flood(pieces(GET[:-2] + b"a: ", b"b", 60_000_000)))


async def small_headers(attacker: Attacker) -> None:
    """Heads of just less than the limit, of headers as small as they can be, that stay incomplete."""
    await many(500, lambda _: attacker.hold(GET[:-2] + b"a:\r\n" * 4000, 12))


async def url(attacker: Attacker) -> None:
    """Three hundred megabytes of path."""
    await many(2, lambda _: attacker.flood(pieces(b"GET /", b"a", 300_000_000)))


async def pipelined(attacker: Attacker) -> None:
    """Requests sent ahead, whose answers nobody reads."""

    async def one(number: int) -> None:
        async with attacker.connection(address(number)) as (reader, writer):
            reader._limit = 0  # type: ignore[attr-defined]  # nothing is read
            with suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(15):
                    for part in pieces(GET, GET, 37_000_000):
                        await attacker.send(writer, part)
            attacker.found.ends["closed" if writer.transport.is_closing() else "open"] += 1

    await many(200, one)


async def pipelined_behind_one_that_waits(attacker: Attacker) -> None:
    """Requests sent ahead behind one whose pictures take long."""
    request = post(LARGE)
    await many(100, lambda number: attacker.flood(pieces(request, GET, 37_000_000), 10, address(number)))


async def trickled_heads(attacker: Attacker) -> None:
    """A byte a second of a head, from many addresses."""
    await many(500, lambda number: attacker.hold(GET[:-2], 20, address(number), b"a"))


async def trickled_bodies(attacker: Attacker) -> None:
    """Bodies that are almost complete, and go on by a byte a second."""
    start = HEAD + b"Content-Length: 65536\r\n\r\n" + b" " * 65000
    await many(500, lambda number: attacker.hold(start, 15, address(number), b" "))


async def silent(attacker: Attacker) -> None:
    """Connections that say nothing, all of one address."""
    await many(2000, lambda _: attacker.hold(b"", 15))


async def silent_everywhere(attacker: Attacker) -> None:
    """Connections that say nothing, of many addresses."""
    await many(2000, lambda number: attacker.hold(b"", 15, address(number)))


async def resets(attacker: Attacker) -> None:
    """Connections that are broken off in the middle of a head."""

    async def one(number: int) -> None:
        for _ in range(100):
            async with attacker.connection(address(number)) as (_, writer):
                with suppress(ConnectionError):
                    await attacker.send(writer, GET[:-4] + b"x" * 10_000)
                break_off(writer)
                attacker.found.ends["broken off"] += 1

    await many(64, one)


async def unread(attacker: Attacker) -> None:
    """Answers of megabytes that nobody reads."""

    async def one(number: int) -> None:
        wanted = served.body(captions=["a small red bird"], n=64, format="json", stream=bool(number % 2))
        async with attacker.connection(address(number)) as (_, writer):
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            with suppress(ConnectionError):
                await attacker.send(writer, post(wanted))
            await asyncio.sleep(30)
            attacker.found.ends["open"] += 1

    async def later(number: int) -> None:
        await asyncio.sleep(number // 4 * 2)  # as many at once as the queue takes
        await one(number)

    await many(48, later)


async def attention(attacker: Attacker) -> None:
    """The largest answers that may be asked for: every word of eight long captions, from as many as the queue takes."""
    await many(24, lambda _: attacker.hold(post(ATTENDED), 40))


async def wrong_bodies(attacker: Attacker) -> None:
    """Bodies of which every value is wrong."""
    wanted = json.dumps({"captions": [1] * 21_000}).encode()
    await many(100, lambda number: attacker.hold(post(wanted), 30))


async def large_bodies(attacker: Attacker) -> None:
    """Bodies far beyond the limit, in chunks of a byte."""
    chunks = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    await many(16, lambda number: attacker.flood(pieces(chunks, b"1\r\na\r\n", 20_000_000), 20, address(number)))


async def broken_streams(attacker: Attacker) -> None:
    """Streams that are broken off after their first line."""
    wanted = served.body(captions=["a small red bird"], n=4, format="json", stream=True)

    async def one(number: int) -> None:
        for _ in range(20):
            async with attacker.connection() as (reader, writer):
                with suppress(ConnectionError):
                    await attacker.send(writer, post(wanted))
                    await reader.read(10)
                break_off(writer)
                attacker.found.ends["broken off"] += 1

    await many(16, one)


async def gone(attacker: Attacker) -> None:
    """Clients that ask for 64 pictures and go."""

    async def one(number: int) -> None:
        for _ in range(10):
            async with attacker.connection() as (_, writer):
                with suppress(ConnectionError):
                    await attacker.send(writer, post(LARGE))
                attacker.found.ends["gone"] += 1
            await asyncio.sleep(0.5)

    await many(16, one)


async def noise(attacker: Attacker) -> None:
    """Bytes that are no HTTP, on many connections."""
    await many(500, lambda number: attacker.hold(bytes(range(256)) * 40, 5, address(number)))


ATTACKS = (
    (headers, "3 connections, 60 MB of headers each"),
    (one_header, "32 connections, one header of 60 MB each"),
    (small_headers, "500 connections, heads of 4,000 headers, incomplete"),
    (url, "2 connections, a path of 300 MB each"),
    (pipelined, "200 connections, 37 MB of requests sent ahead each, nothing read"),
    (pipelined_behind_one_that_waits, "100 connections, 37 MB sent ahead behind 64 pictures each"),
    (trickled_heads, "500 connections, a byte of a head a second"),
    (trickled_bodies, "500 connections, 65,000 bytes of a body, then a byte a second"),
    (silent, "2,000 silent connections of one address"),
    (silent_everywhere, "2,000 silent connections of 2,000 addresses"),
    (resets, "6,400 connections broken off in a head"),
    (large_bodies, "16 connections, bodies of 20 MB in chunks of a byte"),
    (wrong_bodies, "100 bodies of 21,000 wrong captions each"),
    (attention, "24 requests for attention to 100 words of 8 captions"),
    (unread, "48 answers of 64 pictures each, nothing read"),
    (broken_streams, "320 streams broken off"),
    (gone, "160 clients that ask for 64 pictures and go"),
    (noise, "500 connections, noise"),
)


def break_off(writer: asyncio.StreamWriter) -> None:
    """End a connection by a reset."""
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def strike(name: str, port: int) -> Found:
    """One attack, in a process of its own."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8192), most))
    found = Found()
    (run,) = (run for run, _ in ATTACKS if run.__name__ == name)
    asyncio.run(run(Attacker(port, found)))
    return found
