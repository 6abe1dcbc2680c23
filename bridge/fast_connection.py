"""Connections and pools of redis-py that do in Python, for each command, no more than they must.

redis-py 5 writes commands argument by argument, which was a third of the time of a call with five thousand
arguments, as the batched scripts have. Before each command it reads with a timeout of 0, which takes a turn of the
event loop and, on Python 3.11, swallows a cancellation of the caller that arrives just then; and each write gets an
asyncio task of its own there.
"""

from typing import Any, Final

from hiredis import pack_command
from redis.asyncio.connection import (
    AbstractConnection,
    BlockingConnectionPool,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError

__all__ = ["FastBlockingPool", "FastPool", "fast"]

KNOWN: Final = (
    Connection, SSLConnection, UnixDomainSocketConnection, SentinelManagedConnection, SentinelManagedSSLConnection
)  # fmt: skip


class Fast(AbstractConnection):
    """Mixed into a connection class of redis-py."""

    def pack_command(self, *args: Any) -> list[bytes]:
        """The command in Redis' protocol; as redis-py's own, it takes a name of two words as one argument."""
        if isinstance(args[0], str) and " " in args[0]:
            args = (*args[0].split(), *args[1:])
        return [pack_command(args)]

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """The command is written; it is waited for only if the other side does not take it."""
        writer: Any = self._writer
        if not self.is_connected or not isinstance(command, list) or is_full(writer):
            await super().send_packed_command(command, check_health)
            return
        if check_health:
            await self.check_health()  # type: ignore[no-untyped-call]
        try:
            writer.writelines(command)
        except RuntimeError as error:  # uvloop's word for a transport that has closed meanwhile
            await self.disconnect(nowait=True)
            raise RedisConnectionError(f"the connection is closed: {error}") from error
        if is_full(writer):
            await super().send_packed_command([], check_health=False)

    async def can_read_destructive(self) -> bool:
        """Whether the connection cannot be used as it is; what is unread is left there."""
        return self.is_stale

    @property
    def is_stale(self) -> bool:
        """Whether the connection has ended, or holds a reply that nobody has read, as far as the event loop knows."""
        reader: Any = self._reader
        parser: Any = self._parser
        if reader is None or reader.at_eof() or reader.exception() is not None:
            return True
        return bool(reader._buffer) or bool(parser._reader.has_data())


def is_full(writer: Any) -> bool:
    """Whether more waits to be written than a socket takes at once."""
    high: int = writer.transport.get_write_buffer_limits()[1]
    return bool(writer.transport.get_write_buffer_size() > high)


class FastPool(ConnectionPool):
    """Gives a connection that is there and clean at once; redis-py's takes a lock and a timeout each time."""

    async def get_connection(self, *args: Any, **options: Any) -> AbstractConnection:
        """A connection that is ready to send a command."""
        if self._available_connections:
            connection = self._available_connections[-1]
            if isinstance(connection, Fast) and not connection.is_stale:
                self._available_connections.pop()
                self._in_use_connections.add(connection)
                return connection
        found: AbstractConnection = await super().get_connection(*args, **options)
        return found


class FastBlockingPool(FastPool, BlockingConnectionPool):
    """The same for the pool whose callers wait until a connection is free."""


def fast(connection_class: type[AbstractConnection]) -> type[AbstractConnection]:
    """The same class, made fast; any other than redis-py's own comes back as it is."""
    return FAST.get(connection_class, connection_class)


FAST: Final[dict[type[AbstractConnection], type[AbstractConnection]]] = {
    known: type(f"Fast{known.__name__}", (Fast, known), {}) for known in KNOWN
}
