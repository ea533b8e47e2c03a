"""One connection: uvicorn's HTTP over h11, with limits on what a client may send before it is known to have asked.

h11 reads a request's head as a whole, and nothing of the next request before the answer to this one was sent, so that a
connection holds one head, one part of a body and one read at most.
"""

import asyncio
import json
import selectors
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from attngan_deploy.serve.crowd import Crowd
from attngan_deploy.serve.protection import CROWDED, SAFE_HEADERS
from attngan_deploy.serve.settings import ServerLimits

READ_BYTES = 16384  # read from a connection at once; asyncio's own would be 262,144
CHUNKS = 1000  # of a body: each costs the server as much as many bytes
SELECTOR: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)
PROBE_SECONDS, NEXT_PROBE_SECONDS = 5.0, 1.0


def limited_protocol(limits: ServerLimits) -> "type[LimitedProtocol]":
    """The protocol of one server, whose connections are one crowd."""
    return type("ServerProtocol", (LimitedProtocol,), {"crowd": Crowd(limits)})


class LimitedConnection(h11.Connection):
    """What h11 makes of the bytes of a client, with limits on the parts of a head."""

    def __init__(self, limits: ServerLimits) -> None:
        super().__init__(h11.SERVER, limits.head_bytes)
        self._limits, self._chunks = limits, 0
        # what was wrong where `next_event` raised: a status, and a sentence
        self.problem = (400, "this is not a request of HTTP/1.1")

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """As h11's; raise h11.RemoteProtocolError where a request is too large, or says two lengths of its body."""
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == 431:
                self.problem = self._too_large()
            raise
        problem = None
        if isinstance(event, h11.Request):
            self._chunks, problem = 0, self._problem_of(event)
        elif isinstance(event, h11.Data):
            self._chunks += event.chunk_start
            if self._chunks > CHUNKS:
                problem = 413, f"the body comes in more than {CHUNKS} chunks"
        if problem is not None:
            self.problem = problem
            raise h11.RemoteProtocolError(problem[1], problem[0])
        return event

    def _problem_of(self, request: h11.Request) -> tuple[int, str] | None:
        limits, names = self._limits, [name for name, _ in request.headers]
        if len(request.target) > limits.url_bytes:
            return 414, f"the path is longer than {limits.url_bytes} bytes"
        if len(names) > limits.headers:
            return 431, f"there are more than {limits.headers} headers"
        if len(request.target) + sum(len(name) + len(value) for name, value in request.headers) > limits.head_bytes:
            return self._too_large()
        # A proxy in front of the server may believe the other length, and take the rest for a request of its own.
        if b"transfer-encoding" in names and (b"content-length" in names or request.http_version != b"1.1"):
            return 400, "the length of the body is not clear"
        return None

    def _too_large(self) -> tuple[int, str]:
        return 431, f"the head of the request is larger than {self._limits.head_bytes} bytes"


class LimitedProtocol(H11Protocol, asyncio.BufferedProtocol):
    """A connection of a server; `limited_protocol` makes the class that knows the others.

    A head must be complete `head_seconds` after the connection was made, or before the time to keep it alive ends, and
    an answer must be taken within `reading_seconds`.
    """

    crowd: Crowd

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = self.crowd.limits
        self.conn: LimitedConnection = LimitedConnection(self._limits)
        self._incoming = bytearray()
        self._is_half_closed = False
        self._reading: asyncio.TimerHandle | None = None

    @property
    def is_replaceable(self) -> bool:
        """Whether it has sent no request that waits for its answer; what it has just sent may be one."""
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY) and not self._has_sent_more()

    @property
    def unread_bytes(self) -> int:
        """What its client was sent and has not taken."""
        return self.transport.get_write_buffer_size()

    def drop(self) -> None:
        """End it at once."""
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to count the time until there is a request."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # so that pause_writing and resume_writing tell of every unread byte
        self.timeout_keep_alive_task = self.loop.call_later(self._limits.head_seconds, self.timeout_keep_alive_handler)
        if not self.crowd.enter(self, self.client[0] if self.client else ""):
            self.app_state = {**self.app_state, CROWDED: True}

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything, also where the client broke it off, upon which uvicorn would keep the timer."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self.resume_writing()
        self.crowd.leave(self)

    def get_buffer(self, sizehint: int) -> bytearray:
        """Where the next bytes go: little, as h11 keeps what is more than it can use now."""
        self._incoming = bytearray(READ_BYTES)
        return self._incoming

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        data, self._incoming = bytes(memoryview(self._incoming)[:nbytes]), bytearray()
        self.data_received(data)

    def data_received(self, data: bytes) -> None:
        """As uvicorn's, but that a part of a head does not stop the time until the head is complete."""
        self.conn.receive_data(data)
        self.handle_events()

    def handle_events(self) -> None:
        """As uvicorn's; the time until a head is complete ends with it, which not every version of uvicorn sees to."""
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._unset_keepalive_if_required()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection of a client that has said everything and waits for its answer."""
        waits = self.cycle is not None and not (self.cycle.response_complete or self.cycle.more_body)
        if waits and not self._is_half_closed:
            self._is_half_closed = True
            self.loop.call_later(PROBE_SECONDS, self._probe)
        return waits

    def on_response_complete(self) -> None:
        """Go on with what was sent ahead; after the last answer, a client that sends no more is gone."""
        super().on_response_complete()
        if self._is_half_closed and self.cycle.response_complete:
            self.transport.close()

    def timeout_keep_alive_handler(self) -> None:
        """No request came in time."""
        if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0] and not self.transport.is_closing():
            self._refuse(408, f"the head of the request took longer than {self._limits.head_seconds:g} s")
        else:
            super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request, where that is still possible, and read no more."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._refuse(*self.conn.problem)

    def pause_writing(self) -> None:
        """Begin to count the time that a client takes for what it was sent."""
        super().pause_writing()
        self._reading = self.loop.call_later(self._limits.reading_seconds, self.drop)
        self.crowd.add_unread(self)

    def resume_writing(self) -> None:
        """The client has taken everything."""
        super().resume_writing()
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        self.crowd.remove_unread(self)

    def _has_sent_more(self) -> bool:
        with SELECTOR() as selector:
            selector.register(self.transport.get_extra_info("socket"), selectors.EVENT_READ)
            return bool(selector.select(0))

    def _refuse(self, status: int, sentence: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps({"detail": sentence}).encode()
            length = (b"content-length", str(len(body)).encode())
            headers = [(b"content-type", b"application/json"), length, (b"connection", b"close"), *SAFE_HEADERS]
            reason = HTTPStatus(status).phrase.encode()
            for event in (
                h11.Response(status_code=status, headers=headers, reason=reason),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _probe(self) -> None:
        """Ask whether a client that sends no more is still there: only writing to it tells.

        Every client of HTTP/1.1 reads over an interim answer (RFC 9110, section 15.2); what comes back from one that
        is gone breaks the connection, so that its pictures need not be made.
        """
        if self.transport.is_closing() or self.conn.our_state is not h11.SEND_RESPONSE:
            return
        if self.conn.their_http_version == b"1.1":
            interim = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
            self.transport.write(self.conn.send(interim))
            self.loop.call_later(NEXT_PROBE_SECONDS, self._probe)
