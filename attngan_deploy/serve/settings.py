"""What a server allows, and how it forms batches."""

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from urllib.parse import quote

from attngan_deploy.engines.request import ANY_ENGINE, EngineRequest
from attngan_deploy.errors import T2IError
from attngan_deploy.serve.hosts import AllowedHosts, origin_of
from attngan_deploy.system.files import read_file

KEY_VARIABLE = "T2I_API_KEY"
MOST_KEY = 65_536  # bytes of a file with a key
# Of a URL: percent-encoded are spaces and what is beyond ASCII.
ROOT_PATH = re.compile(r"(/(?!\.+(/|$))([\w.~-]|%20|%[89A-F][\dA-F])+)+", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class ServerLimits:
    """What protects the server; a request beyond one of them is refused with a sentence that names it."""

    caption_letters: int = 500
    captions: int = 16
    pictures: int = 64  # of a request: captions times `n`
    attended: int = 8  # pictures of a request that may bring their attention, which is larger than the picture
    body_bytes: int = 65536
    queue: int = 256  # pictures that were accepted and are not answered yet, of all requests together
    seconds: float = 60.0  # how long a request may wait for its pictures
    body_seconds: float = 10.0  # how long its body may take to arrive
    quiet_seconds: float = 10.0  # a worker that answers nothing for so long is not well: /health says so
    hanging_seconds: float = 120.0  # a batch that takes longer counts as hanging, and its worker is replaced
    url_bytes: int = 8192  # of a path with its query
    headers: int = 100
    head_bytes: int = 16384  # of path and headers together
    head_seconds: float = 10.0  # how long a connection may take until its first request's head is complete
    reading_seconds: float = 60.0  # how long a client may take to read what it was sent
    unread_bytes: int = 32 * 2**20  # answers that wait to be read, of all connections together
    connections: int = 512  # at a time; a few more are told whether the server is well
    connections_per_address: int = 256  # of one, which may be a proxy's

    def __post_init__(self) -> None:
        """Refuse limits with which no request could be answered."""
        for each in fields(self):
            if not getattr(self, each.name) > 0:
                raise T2IError(
                    f"the limit {each.name} is out of range",
                    found=str(getattr(self, each.name)),
                    expected="above 0",
                    next_step="t2i serve --help",
                )
        if self.queue < self.pictures:
            raise T2IError(
                "the queue is shorter than one request may be",
                found=f"{self.queue} pictures in the queue, {self.pictures} in a request",
                next_step="a larger --queue, or a smaller --max-pictures",
            )


@dataclass(frozen=True)
class Settings:
    """How to serve."""

    models: dict[str, Path]  # the folder of each bundle, by name; the first one is the default
    engine: EngineRequest = ANY_ENGINE
    host: str = "127.0.0.1"
    port: int = 8000  # 0 for a free one
    limits: ServerLimits = field(default_factory=ServerLimits)
    batch_size: int = 16  # pictures made together at most
    window: float = 0.004  # seconds that a picture waits for others to share its batch
    api_key: str = ""  # what requests must carry; "" for none
    cors_origins: tuple[str, ...] = ()  # whose pages may read answers
    root_path: str = ""  # of a proxy below which this server is met, e.g. "/birds", as a URL has it; "" for none
    allowed_hosts: tuple[str, ...] = ()  # names of the server besides those of loopback and `host`; "*" for any
    more_engines: tuple[EngineRequest, ...] = ()  # of more workers, such as on other GPUs, one each

    def __post_init__(self) -> None:
        """Refuse a root path, names and origins that are none; origins are kept as browsers write them."""
        AllowedHosts(self.host, self.allowed_hosts)
        object.__setattr__(self, "cors_origins", tuple(map(origin_of, self.cors_origins)))
        if self.root_path and not ROOT_PATH.fullmatch(self.root_path):
            path = re.sub(r"^[\w+.-]+://[^/]*|[?#].*", "", self.root_path)
            encoded = quote("/" + path.strip("/"), safe="/%", errors="replace")
            raise T2IError(
                "--root-path is not a path",
                found=ascii(self.root_path)[:100],
                expected="a path such as /birds, in ASCII; other letters percent-encoded",
                next_step=f"--root-path {encoded[:100]}" if ROOT_PATH.fullmatch(encoded) else "",
            )


def read_api_key(path: Path | None, variable: str) -> str:
    """The API key from a file, or else from the value of the environment variable; "" for none.

    A key on the command line would be seen by every user of the machine, so that there is no such option.

    Raises:
        T2IError: the file can't be read, or the key is empty, or has other characters than visible ASCII.
    """
    if path is None:
        key, where = variable, KEY_VARIABLE
        if not key:
            return ""
    else:
        try:
            key, where = read_file(path, MOST_KEY).decode().strip(), str(path)
        except (OSError, ValueError) as error:
            raise T2IError(f"the API key at {path} can't be read: {error}", next_step="t2i serve --help") from error
    if not key or not all("!" <= letter <= "~" for letter in key):
        raise T2IError(
            f"the API key of {where} is empty or has other characters than visible ASCII", next_step="t2i serve --help"
        )
    return key
