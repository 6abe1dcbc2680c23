"""The id of each request, and its line in the access log."""

import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from bridge.aegis_redis import AegisRedis
from bridge.broker import open_redis
from bridge.catalog import Catalog
from bridge.gateway.access_log import FACTS, AccessLog
from bridge.gateway.app import create_app
from bridge.gateway.http_counts import HttpCounts, merge
from bridge.gateway.request_log import RequestLog
from bridge.gateway.shutdown import Shutdown
from bridge.settings import Settings
from cli.log import JsonHandler
from tests.gateway.problem import ENQUEUE, problem_in

STATUS = "/api/v1/tasks/status/"


class Sink(logging.Handler):
    """Keeps the records, as any handler that knows nothing of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def sink() -> Iterator[Sink]:
    logger, sink = logging.getLogger("aegis.access"), Sink()
    logger.addHandler(sink)
    logger.setLevel(logging.INFO)
    yield sink
    logger.removeHandler(sink)
    logger.setLevel(logging.NOTSET)


@asynccontextmanager
async def logged_gateway(settings: Settings, catalog: Catalog) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway whose lines are written when it is left."""
    redis = open_redis(settings)
    app: Any = create_app(settings, catalog, redis)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        yield client
    if app.asgi_handler.access_log:
        app.asgi_handler.access_log.flush()
    await redis.aclose(close_connection_pool=True)


async def test_sane_id_of_the_caller_comes_back(gateway: httpx.AsyncClient) -> None:
    for given in ("a", "checkout-7", "0af7651916cd43dd8448eb211c80319c", "a" * 128, "A/b+c=:@~._-"):
        assert (await gateway.get("/health", headers={"X-Request-ID": given})).headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", ["", " ", "a b", "a" * 129, 'x"y', "a\tb", "ä", "{}", "<script>", "a;b", "a,b"])
async def test_id_that_could_do_harm_is_replaced(gateway: httpx.AsyncClient, given: str) -> None:
    answer = await gateway.get("/health", headers={b"X-Request-ID": given.encode()})
    assert answer.headers["X-Request-ID"] not in {given, ""}


async def test_each_request_without_an_id_gets_another(gateway: httpx.AsyncClient) -> None:
    assert len({(await gateway.get("/health")).headers["X-Request-ID"] for _ in range(10)}) == 10


async def test_problems_and_log_lines_of_errors_name_the_request(
    gateway: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    headers = {"X-Request-ID": "mine"}
    assert problem_in(await gateway.get("/nothing", headers=headers), 404, "not_found")["request_id"] == "mine"
    monkeypatch.setattr(AegisRedis, "execute_command", fail)
    monkeypatch.setattr("bridge.scripts.Scripts.enqueue", fail)
    answer = await gateway.post(ENQUEUE, json={"task_name": "io_simulation_task"}, headers=headers)
    assert problem_in(answer, 500, "internal_error")["request_id"] == "mine"
    (record,) = [record for record in caplog.records if record.name == "aegis.gateway"]
    assert record.__dict__["request_id"] == "mine"


async def test_line_has_the_facts_and_no_secret(settings: Settings, catalog: Catalog, sink: Sink) -> None:
    async with logged_gateway(settings, catalog) as gateway:
        headers = {"X-Request-ID": "mine", "Authorization": "Bearer s3cret"}
        body = {"task_name": "io_simulation_task", "kwargs": {"delay_ms": 54321}}
        answer = await gateway.post(f"{ENQUEUE}?token=s3cret", json=body, headers=headers)
        await gateway.get(f"{STATUS}a%0Ab")

    first, second = sink.records
    facts = {name: first.__dict__[name] for name in FACTS}
    assert facts.pop("duration_ms") > 0
    assert facts == {
        "method": "POST", "route": ENQUEUE, "path": ENQUEUE, "status": 202, "bytes": len(answer.content),
        "caller": "anonymous", "request_id": "mine",
    }  # fmt: skip
    assert (second.__dict__["route"], second.__dict__["path"]) == (f"{STATUS}{{task_id}}", f"{STATUS}a%0Ab")
    told = first.getMessage() + second.getMessage() + repr(vars(first))
    assert "s3cret" not in told
    assert "54321" not in told
    assert "\n" not in first.getMessage() + second.getMessage()


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/api/v1/health", "/metrics"])
async def test_what_machines_ask_all_the_time_is_told_at_debug(
    settings: Settings, catalog: Catalog, sink: Sink, path: str
) -> None:
    async with logged_gateway(settings, catalog) as gateway:
        await gateway.get(path)
        logging.getLogger("aegis.access").setLevel(logging.DEBUG)
        await gateway.get(path)
    assert [record.levelno for record in sink.records] == [logging.DEBUG]


async def test_setting_turns_the_lines_off_but_not_the_ids(catalog: Catalog, sink: Sink) -> None:
    async with logged_gateway(Settings(redis_url="memory://", access_log=False), catalog) as gateway:
        assert (await gateway.get("/nothing")).headers["X-Request-ID"]
    assert sink.records == []


async def test_json_handler_writes_the_same_at_once(settings: Settings, catalog: Catalog, sink: Sink) -> None:
    handler = JsonHandler()
    handler.setStream(io.StringIO())
    logger = logging.getLogger("aegis.access")
    logger.addHandler(handler)
    try:
        async with logged_gateway(settings, catalog) as gateway:
            for number in range(3):
                await gateway.get(f"{STATUS}{number}")
        lines = [json.loads(line) for line in handler.stream.getvalue().splitlines()]  # type: ignore[attr-defined]
        assert [{name: line[name] for name in FACTS} for line in lines] == [
            {name: record.__dict__[name] for name in FACTS} for record in sink.records
        ]
        as_record = json.loads(handler.format(sink.records[0]))
        assert set(as_record) == set(lines[0])
        assert as_record["at"][:19] == lines[0]["at"][:19]
    finally:
        logger.removeHandler(handler)


async def test_request_that_ends_without_an_answer_is_told_too(sink: Sink) -> None:
    async def vanish(*_: object) -> None:
        raise ConnectionResetError

    counts, lines = HttpCounts(), AccessLog()
    layer = RequestLog(vanish, counts, lines, Shutdown())
    scope = {"type": "http", "method": "GET", "path": "/a b", "headers": []}
    with pytest.raises(ConnectionResetError):
        await layer(scope, None, None)  # type: ignore[arg-type]
    lines.flush()
    (record,) = sink.records
    assert (record.__dict__["status"], record.__dict__["path"]) == (499, "/a%20b")
    assert counts.in_flight == 0
    assert merge(counts.facts())[0].status == 499


async def test_answers_close_their_connection_once_the_end_has_begun(settings: Settings, catalog: Catalog) -> None:
    redis = open_redis(settings)
    app: Any = create_app(settings, catalog, redis)
    told = []
    app.state.shutdown.before(lambda: told.append("streams"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        assert "connection" not in (await client.get("/health/ready")).headers
        app.state.shutdown.begin()
        answer = await client.get("/health/ready")
        assert (answer.status_code, answer.json()["reasons"]) == (503, ["shutting down"])
        assert answer.headers["connection"] == "close"
        assert (await client.get("/health")).status_code == 200
    assert told == ["streams"]
    await redis.aclose(close_connection_pool=True)


def test_hook_that_raises_does_not_keep_the_others_from_being_told(caplog: pytest.LogCaptureFixture) -> None:
    shutdown, told = Shutdown(), []
    shutdown.before(lambda: 1 / 0)
    shutdown.before(lambda: told.append("second"))
    shutdown.begin()
    assert told == ["second"]
    assert "not told" in caplog.text
