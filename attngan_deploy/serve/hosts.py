"""Which names of the server in a request are its own.

A page of another site can let its own name lead to 127.0.0.1 (DNS rebinding), and is then of the same origin as the
server for a browser; but its requests still say that name.
"""

import ipaddress
import re
from collections.abc import Sequence

from attngan_deploy.errors import T2IError

ANY = "*"
NAME = re.compile(r"[\w-]+(\.[\w-]+)*\.?", re.ASCII)


class AllowedHosts:
    """The names that requests may give the server.

    Those of loopback, the one that it listens on, and `others`. One that listens on all addresses also has all of these
    addresses: a browser that is led astray says a name.
    """

    def __init__(self, listening: str, others: Sequence[str]) -> None:
        for other in others:
            if other != ANY and not NAME.fullmatch(other) and _address(_bare(other)) is None:
                raise T2IError(
                    "--allowed-host is not a host",
                    found=ascii(other)[:100],
                    expected="a name such as birds.example.org",
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


def _bare(host: str) -> str:
    return host.strip("[]").rstrip(".").lower()


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
