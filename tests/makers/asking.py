"""Requests to a server that a test started, with nothing but the standard library."""

import http.client
import io
import json
import socket
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.serve.served import Served
from tests.makers.commands import PATIENCE


class Answer:
    """What came back."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def json(self) -> Any:
        """The body as JSON values."""
        return json.loads(self.body)


def ask(
    server: Served, path: str, body: object = None, method: str = "", headers: dict[str, str] | None = None
) -> Answer:
    """The answer to a request: POST where it has a body."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    sent = ({"Content-Type": "application/json"} if data is not None else {}) | (headers or {})
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        connection.request(method or ("GET" if data is None else "POST"), path, data, sent)
        return Answer(connection.getresponse())
    finally:
        connection.close()


def pixels(data: bytes) -> NDArray[np.uint8]:
    """A picture file as uint8 [H, W, 3]."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def raw(server: Served, data: bytes) -> bytes:
    """The first bytes that come back for some bytes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
        connection.sendall(data)
        return connection.recv(65536)
