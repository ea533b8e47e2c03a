"""Which names of the server in a request are its own, and of which origins pages may read its answers.

A page of another site can let its own name lead to 127.0.0.1 (DNS rebinding), and is then of the same origin as the
server for a browser; but its requests still say that name.
"""

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from attngan_deploy.errors import T2IError

ANY = "*"
DEFAULT_PORTS = {"http": 80, "https": 443}  # which no browser writes
SCHEME = re.compile(r"[a-z][a-z\d+.-]*://", re.IGNORECASE | re.ASCII)
NAME = re.compile(r"[\w-]+(\.[\w-]+)*\.?", re.ASCII)


class AllowedHosts:
    """The names that requests may give the server.

    Those of loopback, the one that it listens on, and `others`. One that listens on all addresses also has all of these
    addresses: a browser that is led astray says a name.
    """

    def __init__(self, listening: str, others: Sequence[str]) -> None:
        for other in others:
            if other != ANY and not NAME.fullmatch(other) and _address(_bare(other)) is None:
                host = _host_in(other)
                raise T2IError(
                    "--allowed-host is not a host",
                    found=ascii(other)[:100],
                    expected="a name such as birds.example.org",
                    next_step=f"--allowed-host {host}" if NAME.fullmatch(host) else "",
                )
        self._names = {"localhost", _bare(listening), *map(_bare, others)}
        own = _address(_bare(listening))
        self._every_address = own is not None and own.is_unspecified
        self._every = ANY in others

    def __contains__(self, header: str) -> bool:
        """Whether the value of a header Host, with a port or without, is a name of the server."""
        name = _bare(re.sub(r":\d*$", "", header) if not header.endswith("]") else header)
        address = _address(name)
        return (
            self._every or name in self._names or (address is not None and (self._every_address or address.is_loopback))
        )


def origin_of(written: str) -> str:
    """An origin as browsers write it: in lower case, in ASCII, without a slash, or the port of its scheme, at its end.

    Raises:
        T2IError: not an origin, which no page could have.
    """
    origin = re.sub(r"(?<=[^/:])/$", "", written.strip())
    if origin in (ANY, "null"):
        return origin
    host, port = _host_in(origin), _port_in(origin)
    scheme = origin.partition("://")[0].lower() if SCHEME.match(origin) else ""
    usual = scheme or ("http" if host in ("localhost", "127.0.0.1") else "https")
    shown = f"[{host}]" if ":" in host else host
    found = f"{usual}://{shown}" + (f":{port}" if port and port != DEFAULT_PORTS.get(usual) else "")
    is_host = NAME.fullmatch(host) is not None or _address(host) is not None
    rest = origin[len(scheme) + 3 :].rpartition("]")[2] if scheme else "/"
    if not is_host or re.search(r"[/?#@\s]", rest) or port is None:
        raise T2IError(
            "--cors-origin is not an origin",
            found=ascii(written)[:100],
            expected="a scheme and a host, with a port or without, such as https://example.org; each by itself",
            next_step=f"--cors-origin {found}" if is_host and port is not None else "",
        )
    return found


def _host_in(written: str) -> str:
    """The host of a URL, or of what lacks its scheme, in lower case and in ASCII; "" where there is none."""
    try:
        host = urlsplit(written if SCHEME.match(written) else f"//{written}").hostname or ""
        return host if host.isascii() else host.encode("idna").decode()
    except ValueError:
        return ""


def _port_in(written: str) -> int | None:
    """The port of a URL; 0 for none, None for a wrong one."""
    try:
        return urlsplit(written if SCHEME.match(written) else f"//{written}").port or 0
    except ValueError:
        return None


def _bare(host: str) -> str:
    return host.strip("[]").rstrip(".").lower()


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
