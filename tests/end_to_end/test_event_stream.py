"""Server-Sent Events of a real server, inside this process so that what it leaves behind can be counted."""

import asyncio
import gc
import random
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec
import psutil
import pytest
from litestar import Litestar

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.broker import is_away, open_redis
from bridge.catalog import Catalog
from bridge.event_feed import EventFeed
from bridge.events import WorkerStarted
from bridge.gateway import event_clients
from bridge.gateway.app import create_app
from bridge.gateway.server import serve_app
from bridge.scripts import NewEvent, Scripts
from bridge.settings import Settings
from tests.cli.processes import ValkeyChild, find_free_port

STREAM = "/api/v1/events/stream"


@dataclass
class Gateway:
    """A server that answers on a port of this machine."""

    app: Litestar
    port: int
    stop: asyncio.Event
    serving: "asyncio.Task[None]"

    @property
    def feed(self) -> EventFeed:
        feed: EventFeed = self.app.state.backend.feed
        return feed

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self, query: str = "") -> socket.socket:
        """A socket that has asked for the stream and has read nothing yet."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        connection.sendall(f"GET {STREAM}{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return connection


@asynccontextmanager
async def gateway_at(settings: Settings, catalog: Catalog) -> AsyncIterator[Gateway]:
    app = create_app(settings, catalog, open_redis(settings))
    stop, port = asyncio.Event(), find_free_port()
    begin = app.state.shutdown.begin
    serving = asyncio.create_task(serve_app(app, host="127.0.0.1", port=port, stop=stop, before_stop=begin))
    async with httpx.AsyncClient() as client:
        while True:
            with suppress(httpx.TransportError):
                await client.get(f"http://127.0.0.1:{port}/health")
                break
            await asyncio.sleep(0.01)
    try:
        yield Gateway(app, port, stop, serving)
    finally:
        stop.set()
        async with asyncio.timeout(20):
            await serving


@pytest.fixture
async def gateway(settings: Settings, catalog: Catalog, redis: AegisRedis) -> AsyncIterator[Gateway]:
    async with gateway_at(settings, catalog) as running:
        yield running


@dataclass
class Client:
    """A client as browsers are: it comes again after the last id it has seen, whenever it is cut off."""

    base: str
    query: str = ""
    last: str = ""
    ids: list[str] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    is_following: bool = True
    response: httpx.Response | None = None

    async def run(self) -> None:
        async with httpx.AsyncClient(timeout=20) as client:
            while self.is_following:
                with suppress(httpx.TransportError, httpx.StreamError):
                    await self.follow(client)
                await asyncio.sleep(0.01)

    async def follow(self, client: httpx.AsyncClient) -> None:
        """One connection, as long as it lasts."""
        headers = {"Last-Event-ID": self.last} if self.last else {}
        async with client.stream("GET", f"{self.base}{STREAM}{self.query}", headers=headers) as self.response:
            if self.response.status_code != 200:
                return
            async for line in self.response.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "data":
                    event = msgspec.json.decode(value)
                    self.events.append(event)
                    self.ids.append(event["id"])
                elif not line and self.ids:
                    self.last = self.ids[-1]
                else:
                    self.said.append(line)

    async def lose_connection(self) -> None:
        if self.response is not None:
            await self.response.aclose()


async def report(scripts: Scripts, count: int = 1, size: int = 1, queue: str = "mail") -> list[str]:
    data = WorkerStarted(host="x" * size, pid=1, queue=queue, max_jobs=1)
    return await scripts.report([NewEvent(data=data, queue=queue) for _ in range(count)])


async def until(condition: Callable[[], object], timeout_s: float = 20) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


@pytest.fixture
def scripts(redis: AegisRedis) -> Scripts:
    return Scripts(redis, events_max_len=100_000)


async def ids_in_stream(redis: AegisRedis) -> list[str]:
    return [entry_id.decode() for entry_id, _ in await redis.xrange(keys.EVENTS)]


@asynccontextmanager
async def following(*clients: Client) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(client.run()) for client in clients]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def live(gateway: Gateway) -> int:
    return sum(
        len(group.subscriptions) for groups in gateway.feed.broadcast._groups.values() for group in groups.values()
    )


async def test_clients_that_lose_their_connections_under_load_miss_nothing_and_get_nothing_twice(
    gateway: Gateway, redis: AegisRedis, scripts: Scripts
) -> None:
    first = await report(scripts)
    clients = [Client(gateway.base, query=f"?after={first[0]}") for _ in range(20)]
    async with following(*clients):
        for _ in range(60):
            await report(scripts, 20)
            await asyncio.sleep(random.random() * 0.01)
            await random.choice(clients).lose_connection()
        written = (await ids_in_stream(redis))[1:]
        await until(lambda: all(client.ids[-1:] == written[-1:] for client in clients))
    assert all(client.ids == written for client in clients)


async def test_clients_go_on_without_a_hole_when_redis_is_back(catalog: Catalog, valkey: ValkeyChild) -> None:
    settings = Settings(redis_url=valkey.url)
    redis = open_redis(settings)
    scripts = Scripts(redis, events_max_len=100_000)
    await redis.config_set("appendfsync", "always")
    async with gateway_at(settings, catalog) as gateway:
        clients = [Client(gateway.base) for _ in range(5)]
        async with following(*clients):
            await until(lambda: live(gateway) == 5)
            await report(scripts, 20)
            valkey.kill()
            with pytest.raises(Exception) as caught:  # noqa: PT011
                await report(scripts)
            assert is_away(caught.value)
            valkey.start()
            await report(scripts, 20)
            written = await ids_in_stream(redis)
            await until(lambda: all(client.ids[-1:] == written[-1:] for client in clients))
        assert len(written) == 40
        assert all(client.ids == written for client in clients)
        assert all(client.said.count(": events follow") == 1 for client in clients), "they stayed connected"
    await redis.aclose(close_connection_pool=True)


async def test_filters_and_gap(gateway: Gateway, redis: AegisRedis, scripts: Scripts) -> None:
    old = await report(scripts, 10)
    await redis.xtrim(keys.EVENTS, maxlen=3, approximate=False)
    behind = Client(gateway.base, query=f"?after={old[2]}&kind=worker.started,job.failed")
    other = Client(gateway.base, query=f"?after={old[9]}&queue=sms")
    async with following(behind, other):
        (sms,) = await report(scripts, queue="sms")
        await until(lambda: behind.ids[-1:] == [sms] and other.ids)
    assert behind.events[0]["kind"] == "stream.gap"
    assert behind.events[0]["data"] == {"from": old[2], "to": old[7]}
    assert behind.ids[1:] == [*old[7:], sms]
    assert other.ids == [sms]


async def test_header_wins_over_the_query(gateway: Gateway, scripts: Scripts) -> None:
    written = await report(scripts, 5)
    client = Client(gateway.base, query="?after=0", last=written[3])
    async with following(client):
        await until(lambda: client.ids)
    assert client.ids == written[4:]


async def test_answer_begins_at_once_with_what_proxies_and_browsers_need(gateway: Gateway) -> None:
    async with httpx.AsyncClient() as client, client.stream("GET", f"{gateway.base}{STREAM}") as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache, no-transform"
        assert answer.headers["x-accel-buffering"] == "no"
        lines = answer.aiter_lines()
        assert [await anext(lines) for _ in range(3)] == ["retry: 2000", ": events follow", ""]


async def test_comment_is_sent_when_nothing_else_was(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_clients, "QUIET_S", 0.5)
    client = Client(gateway.base)
    async with following(client):
        await until(lambda: client.said.count(": nothing new") == 2)


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
async def test_http_2_serves_streams_too(gateway: Gateway, scripts: Scripts) -> None:
    (first, second) = await report(scripts, 2)
    curl = await asyncio.create_subprocess_exec(
        *("curl", "-sNi", "--http2-prior-knowledge", f"{gateway.base}{STREAM}?after={first}"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert curl.stdout
    async with asyncio.timeout(20):
        said = await curl.stdout.readuntil(f"id: {second}".encode())
        gateway.stop.set()
        rest = await curl.stdout.read()
        assert await curl.wait() == 0
    assert said.startswith(b"HTTP/2 200")
    assert b"the server stops" in rest


async def test_client_that_does_not_read_is_cut_off_and_others_go_on(
    gateway: Gateway, scripts: Scripts, caplog: pytest.LogCaptureFixture
) -> None:
    other = Client(gateway.base)
    written: list[str] = []
    with gateway.connect() as slow:
        async with following(other):
            await until(lambda: live(gateway) == 2)
            tasks = len(asyncio.all_tasks())
            async with asyncio.timeout(60):
                while live(gateway) > 1:
                    written += await report(scripts, 10, size=50_000)
                    await until(lambda: len(other.ids) == len(written))  # noqa: B023
            assert other.ids == written
            await until(lambda: len(asyncio.all_tasks()) <= tasks - 2)
            assert "did not read" in caplog.text
            assert is_reset(slow)


def is_reset(connection: socket.socket) -> bool:
    """Whether the other side has dropped the connection, with what was not sent yet."""
    connection.settimeout(10)
    try:
        while connection.recv(1 << 20):
            pass
    except ConnectionResetError:
        return True
    return False


async def test_client_that_blocks_for_too_long_is_cut_off(
    gateway: Gateway, scripts: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although little waits for it: what it left unread has filled the buffers of both machines."""
    monkeypatch.setattr("bridge.broadcast.BUFFER_MOST_BYTES", 1 << 40)
    monkeypatch.setattr(event_clients, "BLOCKED_S", 1.0)
    with gateway.connect():
        await until(lambda: live(gateway) == 1)
        async with asyncio.timeout(60):
            while live(gateway):
                await report(scripts, 10, size=50_000)
                await asyncio.sleep(0.01)


async def test_clients_that_leave_leave_nothing(
    settings: Settings, catalog: Catalog, redis: AegisRedis, scripts: Scripts
) -> None:
    silent = msgspec.structs.replace(settings, access_log=False)  # the test's own log would keep every line
    async with gateway_at(silent, catalog) as gateway:
        await assert_that_clients_leave_nothing(gateway, redis, scripts)


async def assert_that_clients_leave_nothing(gateway: Gateway, redis: AegisRedis, scripts: Scripts) -> None:
    process = psutil.Process()

    async def come_and_go(count: int) -> None:
        for _ in range(count // 50):
            connections = [gateway.connect(f"?queue={number}") for number in range(50)]
            await until(lambda: live(gateway) == 50)
            await report(scripts, 3, queue="7")
            for connection in connections:
                connection.close()
            await until(lambda: live(gateway) == 0)

    def left() -> tuple[int, int, int]:
        gc.collect()
        return len(asyncio.all_tasks()), process.num_fds(), len(gc.get_objects())

    await come_and_go(200)  # what is made once is there
    tasks, files, objects = left()
    await come_and_go(1000)
    await until(lambda: left()[1] <= files)
    assert left()[0] <= tasks
    assert left()[2] < objects + 500
    assert gateway.feed.broadcast._groups == {}
    assert gateway.feed.broadcast._subscriptions == set()
    assert len([client for client in await redis.client_list() if "xread" in client["cmd"]]) <= 1


async def test_too_many_clients_are_refused(settings: Settings, catalog: Catalog, redis: AegisRedis) -> None:
    limited = msgspec.structs.replace(settings, max_stream_clients=1)
    async with gateway_at(limited, catalog) as gateway, httpx.AsyncClient() as client:
        with gateway.connect():
            await until(lambda: live(gateway) == 1)
            answer = await client.get(f"{gateway.base}{STREAM}")
            assert (answer.status_code, answer.json()["code"]) == (503, "too_many_streams")
            assert int(answer.headers["retry-after"]) >= 1
        await until(lambda: live(gateway) == 0)
        async with client.stream("GET", f"{gateway.base}{STREAM}") as again:
            assert again.status_code == 200


async def test_stream_is_refused_while_redis_is_away(catalog: Catalog) -> None:
    async with (
        gateway_at(Settings(redis_url="redis://127.0.0.1:1/0"), catalog) as gateway,
        httpx.AsyncClient() as client,
    ):
        answer = await client.get(f"{gateway.base}{STREAM}?after=0")
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unreachable")


async def test_clients_are_told_to_come_again_when_the_server_stops(gateway: Gateway, scripts: Scripts) -> None:
    """And so ends a client that does not read, and whoever waits for a result or an event."""
    async with httpx.AsyncClient(timeout=20) as client:
        reading = [asyncio.create_task(client.get(f"{gateway.base}{STREAM}")) for _ in range(5)]
        page = asyncio.create_task(client.get(f"{gateway.base}/api/v1/events?after=$&wait=60"))
        stuck = gateway.connect()
        await until(lambda: live(gateway) == 7)
        for _ in range(15):
            await report(scripts, 10, size=50_000)
        gateway.stop.set()
        async with asyncio.timeout(20):
            answers = await asyncio.gather(*reading)
            assert (await page).status_code == 200
            await gateway.serving
        for answer in answers:
            lines = answer.text.rstrip().splitlines()
            assert lines[-1] == ": the server stops, come again"
            assert 0 < int(lines[-2].removeprefix("retry: ")) < 3000
        stuck.close()
