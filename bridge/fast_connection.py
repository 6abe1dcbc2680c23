"""Connections that write commands with hiredis: redis-py 5 does it in Python, argument by argument.

Of a call with five thousand arguments, as the batched scripts have, that was a third of the time.
"""

from typing import Any, Final

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

__all__ = ["fast"]

KNOWN: Final = (
    Connection, SSLConnection, UnixDomainSocketConnection, SentinelManagedConnection, SentinelManagedSSLConnection
)  # fmt: skip


class PacksWithHiredis:
    """Mixed into a connection class of redis-py."""

    def pack_command(self, *args: Any) -> list[bytes]:
        """The command in Redis' protocol; as redis-py's own, it takes a name of two words as one argument."""
        if " " in args[0]:
            args = (*args[0].split(), *args[1:])
        return [pack_command(args)]


def fast(connection_class: type[AbstractConnection]) -> type[AbstractConnection]:
    """The same class, writing with hiredis; any other than redis-py's own comes back as it is."""
    return FAST.get(connection_class, connection_class)


FAST: Final[dict[type[AbstractConnection], type[AbstractConnection]]] = {
    known: type(f"Fast{known.__name__}", (PacksWithHiredis, known), {}) for known in KNOWN
}
