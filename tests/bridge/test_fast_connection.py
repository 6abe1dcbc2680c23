"""Connections that end while nobody uses them are noticed before the next command, under either event loop."""

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from arq.connections import RedisSettings

from bridge.broker import open_at

ENDINGS = {"closed": struct.pack("ii", 0, 0), "reset": struct.pack("ii", 1, 0)}
"""What SO_LINGER makes of closing a socket."""


class Server:
    """Answers every command with OK."""

    def __init__(self) -> None:
        self.connections: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        while data := await reader.read(65536):
            writer.write(b"+OK\r\n" * (b"\n" + data).count(b"\n*"))

    def end_all(self, how: bytes) -> None:
        for writer in self.connections:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, how)
            writer.transport.abort()
        self.connections.clear()


async def commands_after_an_end(how: bytes) -> list[Any]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    client = open_at(RedisSettings(port=listening.sockets[0].getsockname()[1]))
    await client.set("x", 1)
    server.end_all(how)
    await asyncio.sleep(0.05)  # the end is on its way
    answers = [await client.set("x", number) for number in range(3)]
    await client.aclose(close_connection_pool=True)
    server.end_all(ENDINGS["closed"])
    listening.close()
    await listening.wait_closed()
    return answers


Run = Callable[[Coroutine[Any, Any, list[Any]]], list[Any]]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("how", ENDINGS.values(), ids=ENDINGS)
def test_connection_that_ended_is_replaced(run: Run, how: bytes) -> None:
    assert run(commands_after_an_end(how)) == [True, True, True]
