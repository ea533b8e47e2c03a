"""The limits of a connection, on a real socket: uvicorn with the protocol of `t2i serve`, and an app of the test."""

import asyncio
import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest
import uvicorn
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from attngan_deploy.serve.crowd import RESERVED, network_of
from attngan_deploy.serve.log import LETTERS, RECORDS, BoundedLog
from attngan_deploy.serve.metrics import Metrics
from attngan_deploy.serve.protection import Protection
from attngan_deploy.serve.protocol import CHUNKS, limited_protocol
from attngan_deploy.serve.settings import ServerLimits, Settings
from tests.makers.commands import PATIENCE, wait_for

LIMITS = ServerLimits(head_seconds=0.5, body_seconds=PATIENCE, reading_seconds=PATIENCE)
KEEP_ALIVE_SECONDS = 1
LARGE = 8 * 2**20  # more than the system takes for a client that reads nothing
GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
SLOW = GET.replace(b"health", b"slow")
OPENED = list[socket.socket]()


class Toy:
    """An app behind `Protection`: answers at once, with much, in parts, or when the test says so."""

    def __init__(self) -> None:
        self.answering, self.gone, self.seen = threading.Event(), 0, list[bytes]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive()).get("body", b"")
        self.seen.append(scope["method"].encode() + b" " + scope["path"].encode() + b" " + body)
        if scope["path"] == "/busy":
            time.sleep(1.0)
        if scope["path"] == "/slow":
            left = asyncio.create_task(receive())
            while not self.answering.is_set() and not left.done():
                await asyncio.sleep(0.01)
            self.gone += left.done()
            left.cancel()
        await self._response(scope["path"])(scope, receive, send)

    def _response(self, path: str) -> Response:
        if path == "/large":
            return Response(bytes(LARGE))
        if path == "/stream":
            return StreamingResponse(bytes(LARGE // 8) for _ in range(8))
        return PlainTextResponse("well")


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    """Close what a test connected."""
    yield
    while OPENED:
        OPENED.pop().close()


@contextmanager
def running(limits: ServerLimits = LIMITS) -> Iterator[tuple[int, Toy]]:
    """A server on a port of 127.0.0.1."""
    toy, listener = Toy(), socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(
            Protection(toy, Settings({}, limits=limits), Metrics()),
            http=limited_protocol(limits),
            ws="none",
            lifespan="off",
            log_config=None,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=1,
        )
    )
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        wait_for(lambda: server.started)
        yield listener.getsockname()[1], toy
    finally:
        toy.answering.set()
        server.should_exit = True
        thread.join()


def connect(port: int, data: bytes = b"", source: str = "127.0.0.1") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), PATIENCE, source_address=(source, 0))
    OPENED.append(connection)
    connection.sendall(data)
    return connection


def rest(connection: socket.socket) -> bytes:
    """Everything that comes until the server ends it."""
    data = b""
    with suppress(ConnectionError):
        while part := connection.recv(65536):
            data += part
    return data


def exchange(port: int, data: bytes) -> bytes:
    with connect(port, data) as connection:
        return rest(connection)


def status(port: int, path: str, source: str = "127.0.0.1") -> int:
    asking = http.client.HTTPConnection("127.0.0.1", port, PATIENCE, source_address=(source, 0))
    try:
        asking.request("GET", path, headers={"Host": "localhost"})
        return asking.getresponse().status
    finally:
        asking.close()


@pytest.mark.parametrize(
    ("data", "code", "sentence"),
    [
        (GET[:-2] + b"a: b\r\n" * 100 + b"\r\n", 431, "there are more than 100 headers"),
        (b"GET /" + b"a" * 8192 + GET[11:], 414, "the path is longer than 8192 bytes"),
        (GET[:-2] + b"a: " + b"b" * 16384 + b"\r\n\r\n", 431, "the head of the request is larger than 16384 bytes"),
        (GET[:-2] + b"a: " + b"b" * 40000, 431, "the head of the request is larger than 16384 bytes"),
        (b"GET /" + b"a" * 40000, 431, "the head of the request is larger than 16384 bytes"),
        (b"\x16\x03\x01 no HTTP\r\n\r\n", 400, "this is not a request of HTTP/1.1"),
        (GET.replace(b"Host: localhost\r\n", b""), 400, "this is not a request of HTTP/1.1"),
    ],
)
def test_a_head_beyond_a_limit_is_refused_in_a_sentence(data: bytes, code: int, sentence: str) -> None:
    with running() as (port, toy):
        head, _, body = exchange(port, data).partition(b"\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {code} ".encode())
        assert json.loads(body) == {"detail": sentence}
        assert b"connection: close" in head and b"x-content-type-options: nosniff" in head
        assert toy.seen == []


def test_what_is_just_within_the_limits_is_answered() -> None:
    with running() as (port, _):
        for data in (
            GET[:-2] + b"a: b\r\n" * 99 + b"\r\n",
            b"GET /" + b"a" * 8000 + GET[11:],
            GET[:-2] + b"a: " + b"b" * 16000 + b"\r\n\r\n",
        ):
            with connect(port, data) as connection:
                assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


CHUNKED, LENGTH = b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n"
POST, HIDDEN = (
    b"POST /post HTTP/1.1\r\nHost: localhost\r\n",
    b"0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n",
)


@pytest.mark.parametrize(
    "data",
    [
        POST + CHUNKED + LENGTH + b"\r\n" + HIDDEN,
        POST + LENGTH + CHUNKED + b"\r\n" + HIDDEN,
        POST.replace(b"1.1", b"1.0") + CHUNKED + b"\r\n" + HIDDEN,
        POST + LENGTH + b"Content-Length: 0\r\n\r\n" + HIDDEN,
        POST + b"Content-Length: 5, 0\r\n\r\n" + HIDDEN,
        POST + b"Content-Length: +5\r\n\r\n" + HIDDEN,
        POST + b"Content-Length: -5\r\n\r\n" + HIDDEN,
        POST + b"Content-Length : 5\r\n\r\n" + HIDDEN,
        POST + b"Content-Length\x0b: 5\r\n\r\n" + HIDDEN,
        POST + b"Transfer-Encoding: xchunked\r\n\r\n" + HIDDEN,
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n" + HIDDEN,
        POST + b"Transfer-Encoding : chunked\r\n\r\n" + HIDDEN,
        POST + CHUNKED + CHUNKED + b"\r\n" + HIDDEN,
        POST + CHUNKED + b"\r\n0x0\r\n\r\n" + HIDDEN,
        POST + CHUNKED + b"\r\n-1\r\n\r\n" + HIDDEN,
        POST + CHUNKED + b"\r\n" + b"1\r\na\r\n" * (CHUNKS + 1) + HIDDEN,
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n" + HIDDEN[5:],
    ],
)
def test_a_body_of_unclear_length_hides_no_request(data: bytes) -> None:
    with running() as (port, toy):
        answer = exchange(port, data)
        assert answer.startswith(b"HTTP/1.1 4") and answer.count(b"HTTP/1.1 ") == 1
        assert not any(b"/hidden" in request for request in toy.seen)


def test_silent_and_trickled_connections_end() -> None:
    with running() as (port, _), connect(port) as silent, connect(port, GET[:9]) as part, connect(port, GET) as kept:
        assert kept.recv(65536).startswith(b"HTTP/1.1 200 ")
        kept.sendall(GET[:9])
        start = time.monotonic()
        with connect(port) as trickled:
            with suppress(ConnectionError):
                for letter in GET[:-4]:
                    time.sleep(0.1)
                    trickled.sendall(bytes([letter]))
            assert rest(trickled)[:13] in (b"HTTP/1.1 408 ", b"")  # its reset may be faster
        assert rest(silent) == b""
        assert b"the head of the request took longer than 0.5 s" in rest(part)
        assert b"408" in rest(kept)
        assert time.monotonic() - start < PATIENCE


def test_what_is_sent_ahead_is_answered_in_order_and_not_read_before() -> None:
    with running() as (port, toy):
        with connect(port, GET * 50 + GET.replace(b"1.1\r\n", b"1.1\r\nConnection: close\r\n")) as connection:
            assert rest(connection).count(b"HTTP/1.1 200 ") == 51
        with connect(port, SLOW) as ahead:
            wait_for(lambda: toy.seen[-1:] == [b"GET /slow "])
            ahead.settimeout(0.5)
            sent = 0
            with pytest.raises(TimeoutError):
                while sent < 2**26:
                    sent += ahead.send(GET * 1000)
            assert sent < 2**26  # the system kept some, the server next to nothing
            assert len(toy.seen) == 52


@pytest.mark.parametrize("path", [b"large", b"stream"])
def test_a_client_that_does_not_read_is_left(path: bytes) -> None:
    request = GET.replace(b"health", path)
    with running(replace(LIMITS, reading_seconds=0.5)) as (port, _):
        with connect(port, request) as connection:
            time.sleep(1.5)
            assert len(rest(connection)) < LARGE
        with connect(port, request) as connection:
            found = 0
            while found < LARGE:
                found += len(connection.recv(65536))


def test_answers_that_nobody_reads_are_bounded_together() -> None:
    with running(replace(LIMITS, unread_bytes=LARGE)) as (port, _):
        waiting = [connect(port, GET.replace(b"health", b"large")) for _ in range(4)]
        time.sleep(1.0)
        got = [len(rest_of_large(each)) for each in waiting]
        assert got[-1] > LARGE and min(got) < LARGE


def rest_of_large(connection: socket.socket) -> bytes:
    data = b""
    with connection, suppress(ConnectionError):
        while len(data) <= LARGE and (part := connection.recv(2**20)):
            data += part
    return data


def test_the_oldest_silent_connection_gives_way_first_of_the_own_address() -> None:
    limits = replace(LIMITS, connections=8, connections_per_address=4, head_seconds=PATIENCE)
    with running(limits) as (port, _):
        own = [connect(port) for _ in range(3)]
        others = [connect(port, source=f"127.0.0.{number}") for number in range(2, 7)]
        assert status(port, "/any") == 200
        flood = [connect(port) for _ in range(50)]
        assert status(port, "/health") == 200
        assert rest(own[1]) == rest(own[2]) == b""
        assert sum(is_open(each) for each in flood) <= 4
        assert sum(is_open(each) for each in others) >= 4
        flood += [connect(port, source=f"127.0.1.{number}") for number in range(1, 50)]
        assert status(port, "/any", "127.0.2.1") == 200
        assert sum(is_open(each) for each in [*flood, *others]) <= 8


def is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def test_where_every_place_waits_for_an_answer_health_is_still_answered() -> None:
    with running(replace(LIMITS, connections=4, connections_per_address=4)) as (port, toy):
        waiting = [connect(port, SLOW) for _ in range(4)]
        wait_for(lambda: len(toy.seen) == 4)
        for _ in range(RESERVED + 8):
            connect(port)
        assert status(port, "/health") == 200
        refused = exchange(port, GET.replace(b"health", b"any"))
        assert refused.startswith(b"HTTP/1.1 503 ") and b"too many connections" in refused
        toy.answering.set()
        assert all(each.recv(65536).startswith(b"HTTP/1.1 200 ") for each in waiting)
        assert status(port, "/any") == 200


def test_who_has_asked_keeps_the_place_until_the_server_comes_to_read_it() -> None:
    with running(replace(LIMITS, connections=4)) as (port, toy):
        busy = connect(port, GET.replace(b"health", b"busy"))
        wait_for(lambda: toy.seen)
        asking = connect(port, GET)
        flood = [connect(port) for _ in range(50)]  # made while the server has no time, and newer
        assert asking.recv(65536).startswith(b"HTTP/1.1 200 ") and busy.recv(9) == b"HTTP/1.1 "
        assert sum(is_open(each) for each in flood) <= 4


def test_addresses() -> None:
    assert network_of("10.0.0.1") == network_of("::ffff:10.0.0.1") != network_of("10.0.0.2")
    assert network_of("2001:db8:0:1::1") == network_of("2001:db8:0:1:ffff::2%eth0") != network_of("2001:db8:0:2::1")
    assert network_of("") == "" and network_of("/run/socket") == "/run/socket"


def test_a_half_closed_client_gets_its_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as (port, toy):
        for data, answers in ((GET, 1), (GET * 3, 3), (POST + LENGTH + b"\r\nabcde", 1), (GET + GET[:9], 1)):
            with connect(port, data) as connection:
                connection.shutdown(socket.SHUT_WR)
                assert rest(connection).count(b"HTTP/1.1 200 ") == answers
        with connect(port, POST + LENGTH + b"\r\nabc") as connection:  # the end of the body will never come
            connection.shutdown(socket.SHUT_WR)
            assert rest(connection) == b""
        monkeypatch.setattr("attngan_deploy.serve.protocol.PROBE_SECONDS", 0.1)
        with connect(port, SLOW) as connection:
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(65536).startswith(b"HTTP/1.1 100 Continue\r\n")
            toy.answering.set()
            assert b"HTTP/1.1 200 OK\r\n" in rest(connection)


@pytest.mark.parametrize("reset", [False, True])
def test_a_client_that_is_gone_is_not_waited_for(reset: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attngan_deploy.serve.protocol.PROBE_SECONDS", 0.1)
    monkeypatch.setattr("attngan_deploy.serve.protocol.NEXT_PROBE_SECONDS", 0.1)
    with running() as (port, toy):
        connection = connect(port, SLOW)
        wait_for(lambda: toy.seen)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
        wait_for(lambda: toy.gone == 1)


def test_broken_bodies_and_streams_leave_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    with running() as (port, _), caplog.at_level(logging.ERROR):
        for _ in range(20):
            assert exchange(port, POST + CHUNKED + b"\r\n5\r\nabcdeX").startswith(b"HTTP/1.1 400 ")
            connection = connect(port, GET.replace(b"health", b"stream"))
            connection.recv(10)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()
        assert status(port, "/health") == 200
        assert caplog.records == []


def test_the_log_is_bounded(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.Logger("test")
    logger.addHandler(BoundedLog())
    now = [1000.0]
    monkeypatch.setattr("attngan_deploy.serve.log.time.monotonic", lambda: now[0])
    for _ in range(1000):
        logger.error("x" * 10**5 + "end")
    told = capsys.readouterr().err
    assert told.count("end\n") == RECORDS and len(told) == RECORDS * (LETTERS + 1)
    now[0] += 61
    logger.error("again")
    assert capsys.readouterr().err == f"t2i: {1000 - RECORDS} more errors were left out\nagain\n"
