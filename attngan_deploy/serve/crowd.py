"""Which connections may stay where there are too many, and how much of their answers may wait to be read."""

import ipaddress
from typing import Protocol

from attngan_deploy.serve.settings import ServerLimits

RESERVED = 32  # connections beyond the limit, which are only told whether the server is well


class Connection(Protocol):
    """What a crowd knows of a connection."""

    @property
    def is_replaceable(self) -> bool:
        """Whether it has sent no request that waits for its answer."""
        ...

    @property
    def unread_bytes(self) -> int:
        """What its client was sent and has not taken."""
        ...

    def drop(self) -> None:
        """End it at once."""
        ...


class Crowd:
    """The connections of a server.

    A new one takes the place of the oldest that waits for no answer: of its own address where that has its share, of
    any where all places are taken. So silent connections lock nobody out, however many there are.
    """

    def __init__(self, limits: ServerLimits) -> None:
        self.limits = limits
        self._all: dict[Connection, str] = {}  # with their addresses, the oldest first
        self._of: dict[str, dict[Connection, None]] = {}
        self._unread: dict[Connection, None] = {}

    def enter(self, connection: Connection, address: str) -> bool:
        """Add a connection, which is dropped where even the reserve is taken; returns whether there is room for it."""
        network = network_of(address)
        own = self._of.setdefault(network, {})
        if len(own) >= self.limits.connections_per_address:
            self._drop_oldest(own)
        elif len(self._all) >= self.limits.connections:
            self._drop_oldest(self._all)
        own = self._of.setdefault(network, {})
        self._all[connection] = network
        own[connection] = None
        if len(self._all) > self.limits.connections + RESERVED:
            self._drop(connection)
        return len(self._all) <= self.limits.connections and len(own) <= self.limits.connections_per_address

    def leave(self, connection: Connection) -> None:
        """Forget a connection."""
        self._unread.pop(connection, None)
        network = self._all.pop(connection, None)
        if network is not None:
            self._of[network].pop(connection)
            if not self._of[network]:
                del self._of[network]

    def add_unread(self, connection: Connection) -> None:
        """Count what a client leaves unread; those that do so for longest are dropped where it is too much."""
        self._unread[connection] = None
        for oldest in list(self._unread):
            if sum(each.unread_bytes for each in self._unread) <= self.limits.unread_bytes or oldest is connection:
                break
            self._drop(oldest)

    def remove_unread(self, connection: Connection) -> None:
        """Everything was read."""
        self._unread.pop(connection, None)

    def _drop_oldest(self, connections: dict[Connection, str] | dict[Connection, None]) -> None:
        oldest = next((each for each in connections if each.is_replaceable), None)
        if oldest is not None:
            self._drop(oldest)

    def _drop(self, connection: Connection) -> None:
        self.leave(connection)
        connection.drop()


def network_of(address: str) -> str:
    """What counts as one address: the first half of one of IPv6, as a single client has all of the second."""
    try:
        number = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(number, ipaddress.IPv4Address):
        return address
    return str(number.ipv4_mapped or int(number) >> 64)
