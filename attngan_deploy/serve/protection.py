"""What stands before the routes: names, the key, the size of the body and its time, and the count of requests."""

import asyncio
import hmac
import time
from collections.abc import Mapping
from urllib.parse import unquote

from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from attngan_deploy.serve.hosts import AllowedHosts
from attngan_deploy.serve.metrics import Metrics
from attngan_deploy.serve.settings import Settings

SENTENCE = 500  # letters of what an answer says was wrong: an engine's own words may be pages
BODIES = ("POST", "PUT", "PATCH", "DELETE")
DRAINED_BYTES = 2**20  # read and dropped of a body that is too large, so that its sender sees the answer
PAGE, HEALTH, OTHER = "/page/", "/health", "other"
OPEN_PATHS = ("/", HEALTH, "/openapi.json")  # without a key; so are the files of the page
CROWDED = "crowded"  # in the state of a connection's requests where there is no room for it
SAFE_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


class Protection:
    """ASGI middleware in front of `app`; requests must carry the key, where it is not "", and are counted by path."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, paths: frozenset[str] = frozenset()) -> None:
        self._app, self._limits, self._metrics, self._paths = app, settings.limits, metrics, paths
        self._key, self._above = settings.api_key.encode(), unquote(settings.root_path) + "/"
        self._hosts = AllowedHosts(settings.host, settings.allowed_hosts)
        self._below = settings.root_path.rpartition("/")[2] + "/"  # the same address, seen from the one without a slash

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] + "/" == self._above:  # the page's relative addresses would lead beside it
            await RedirectResponse(self._below, 308)(scope, receive, send)
            return
        scope = self._plain(scope)
        start, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                names = {name for name, _ in message.get("headers", ())}
                added = [pair for pair in SAFE_HEADERS if pair[0] not in names]
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        try:
            await self._answer(scope, receive, sending)
        finally:
            if status:
                path = scope["path"] if scope["path"] in self._paths else OTHER
                self._metrics.request(path, status, time.perf_counter() - start)

    def _plain(self, scope: Scope) -> Scope:
        """The path without what a proxy has put before it and did not take away, and HEAD as the GET that it is.

        A slash at the end is taken away here: a redirection would lead out of the proxy's path. The server itself
        leaves out the body of an answer to HEAD.
        """
        path = scope["path"]
        if path.startswith(self._above):
            path = path[len(self._above) - 1 :]
        return {**scope, "path": path.rstrip("/") or "/", "method": scope["method"].replace("HEAD", "GET")}

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        host = headers.get(b"host")
        if host is not None and host.decode("latin-1") not in self._hosts:
            await refusal(421, "this server has another name; its option --allowed-host adds one")(scope, receive, send)
            return
        if scope["path"] != HEALTH and scope.get("state", {}).get(CROWDED):
            close = {"Retry-After": "5", "Connection": "close"}
            await refusal(503, "there are too many connections; try again later", close)(scope, receive, send)
            return
        if self._key and not self._is_open(scope) and not hmac.compare_digest(_key_of(headers), self._key):
            await refusal(401, "this server wants an API key", {"WWW-Authenticate": "Bearer"})(scope, receive, send)
            return
        if scope["method"] not in BODIES:
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                body = await self._read(headers, receive)
        except TimeoutError:
            seconds = f"{self._limits.body_seconds:g}"
            await refusal(408, f"the body took longer than {seconds} s", {"Connection": "close"})(scope, receive, send)
            return
        if body is None:  # the client is gone
            return
        if len(body) > (limit := self._limits.body_bytes):
            await refusal(413, f"the body is larger than {limit} bytes", {"Connection": "close"})(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)

    def _is_open(self, scope: Scope) -> bool:
        return scope["path"] in OPEN_PATHS or scope["path"].startswith(PAGE) or scope["method"] == "OPTIONS"

    async def _read(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes | None:
        """The body; of one that is too large only the start, one byte beyond the limit; None where it broke off."""
        limit, body, size = self._limits.body_bytes, bytearray(), 0
        declared = headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > max(limit, DRAINED_BYTES):
            return bytes(limit + 1)
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            size += len(part)
            body += part[: limit + 1 - len(body)]
            if not message.get("more_body", False) or size > max(limit, DRAINED_BYTES):
                return bytes(body)


def refusal(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": sentence[:SENTENCE]}, status, headers)


def _key_of(headers: Mapping[bytes, bytes]) -> bytes:
    scheme, _, value = headers.get(b"authorization", b"").partition(b" ")
    return value.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body once, and then whatever else comes, such as the client's going."""
    given = False

    async def replaying() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replaying
