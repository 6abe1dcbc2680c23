"""`GatewayClient`: a gateway answers as Redis does, and what goes wrong on the way is told."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

import httpx
import msgspec
import pytest

from bridge.aegis_redis import AegisRedis
from bridge.batch import BatchAnswer, BatchVerdict
from bridge.broker import open_redis
from bridge.catalog import Catalog
from bridge.enqueue import TaskRequest
from bridge.errors import (
    AegisError,
    ConfigurationError,
    DuplicateJob,
    Forbidden,
    GatewayProblem,
    GatewayUnreachable,
    IdempotencyKeyReused,
    InvalidArguments,
    InvalidQueueType,
    InvalidRequest,
    InvalidTaskName,
    JobNotFound,
    StoreUnreachable,
    Unauthorized,
)
from bridge.event_stream import BEGINNING, END, EventFilter
from bridge.events import Event
from bridge.gateway import problems
from bridge.gateway.app import create_app
from bridge.gateway_client import ERRORS, TRIES, GatewayClient
from bridge.redis_backend import RedisBackend
from bridge.settings import Settings

URL: Final = "http://localhost"
TOKEN: Final = "aegis_secret"
IO: Final = TaskRequest(task_name="io_simulation_task")
NOT_FOR_CLIENTS: Final = {
    "cross_site_request",
    "wrong_host",
    "request_too_slow",
    "too_many_streams",
}
"""Codes that tell a client no more than their text."""


# --- the same as from Redis -----------------------------------------------------------------------


@pytest.fixture
async def client(catalog: Catalog, redis: AegisRedis, settings: Settings) -> AsyncIterator[GatewayClient]:
    """A client of a gateway on the Redis of the fixture `redis`, without a socket in between."""
    own_redis = open_redis(settings)
    app: Any = create_app(settings, catalog, own_redis)
    async with GatewayClient(URL.replace("gateway", "localhost"), transport=httpx.ASGITransport(app)) as one:
        yield one
    await own_redis.aclose(close_connection_pool=True)


@pytest.fixture
def store(catalog: Catalog, redis: AegisRedis, settings: Settings) -> RedisBackend:
    return RedisBackend(settings, catalog, redis)


async def told_by(asked: Any) -> tuple[type[AegisError], str, dict[str, Any]]:
    with pytest.raises(AegisError) as raised:
        await asked
    return type(raised.value), str(raised.value), vars(raised.value)


WRONG: Final[list[tuple[type[AegisError], Callable[[Any], Any]]]] = [
    (InvalidTaskName, lambda backend: backend.enqueue(TaskRequest(task_name="nothing"))),
    (InvalidTaskName, lambda backend: backend.enqueue(TaskRequest(task_name="nothing", queue_type="system"))),
    (InvalidQueueType, lambda backend: backend.enqueue(TaskRequest(task_name="noop_task", queue_type="nothing"))),
    (InvalidArguments, lambda backend: backend.enqueue(TaskRequest(task_name="noop_task", kwargs={"x": 1}))),
    (InvalidArguments, lambda backend: backend.enqueue(TaskRequest(task_name="io_simulation_task", args=["x"]))),
    (JobNotFound, lambda backend: backend.status("nothing")),
    (JobNotFound, lambda backend: backend.result("no%thing?")),
    (JobNotFound, lambda backend: backend.abort("nothing")),
    (JobNotFound, lambda backend: backend.retry("nothing")),
    (InvalidQueueType, lambda backend: backend.queue("nothing")),
    (InvalidQueueType, lambda backend: backend.jobs("nothing")),
    (InvalidQueueType, lambda backend: backend.jobs("../workers")),
    (InvalidQueueType, lambda backend: backend.queue("")),
    (InvalidQueueType, lambda backend: backend.pause("nothing")),
    (InvalidRequest, lambda backend: backend.jobs("system", cursor="nothing")),
]


@pytest.mark.parametrize(("error_type", "ask"), WRONG)
async def test_error_is_the_one_that_redis_gives_with_the_same_facts(
    client: GatewayClient, store: RedisBackend, error_type: type[AegisError], ask: Callable[[Any], Any]
) -> None:
    over_http, on_redis = await told_by(ask(client)), await told_by(ask(store))
    assert over_http == on_redis
    assert over_http[0] is error_type


async def test_taken_id_and_used_key_are_told(client: GatewayClient) -> None:
    request = msgspec.structs.replace(IO, task_id="a")
    first = await client.enqueue(request, idempotency_key='order "17"')
    again = await client.enqueue(request, idempotency_key='order "17"')
    assert (again.task_id, again.event_id) == ("a", first.event_id)
    assert await told_by(client.enqueue(IO, idempotency_key='order "17"')) == (
        IdempotencyKeyReused,
        str(IdempotencyKeyReused()),
        {},
    )
    assert (await told_by(client.enqueue(request)))[::2] == (DuplicateJob, {"task_id": "a"})


async def test_text_becomes_numbers_where_it_may(client: GatewayClient) -> None:
    request = TaskRequest(task_name="io_simulation_task", kwargs={"delay_ms": "5"})
    assert (await told_by(client.enqueue(request)))[0] is InvalidArguments
    assert (await client.enqueue(request, strict=False)).task_name == "io_simulation_task"


def test_every_code_has_its_error() -> None:
    told = {code: error_type for error_type, (_, code) in problems.STATUSES.items() if code not in NOT_FOR_CLIENTS}
    assert told == ERRORS


# --- a gateway that is busy, away, or none --------------------------------------------------------

Handler = Callable[[httpx.Request], httpx.Response]


def scripted(*answers: httpx.Response | Exception) -> tuple[GatewayClient, list[httpx.Request]]:
    """A client of something that gives these answers, and the requests it has got; the last answer stays."""
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        given = answers[min(len(asked), len(answers)) - 1]
        if isinstance(given, Exception):
            raise given
        return httpx.Response(given.status_code, headers=given.headers, content=given.content)

    return GatewayClient(URL, TOKEN, transport=httpx.MockTransport(answer)), asked


def problem(status: int, code: str, *, retry_after: str | None = None, **facts: Any) -> httpx.Response:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    content = {"type": f"urn:{code}", "title": "", "status": status, "detail": f"it is {code}", "code": code, **facts}
    return httpx.Response(status, json=content, headers=headers)


NO_QUEUES: Final = httpx.Response(200, json={"queues": [], "event_id": "1-0"})
BUSY: Final = problem(429, "rate_limited", retry_after="0", rate="1/s", retry_after_s=0)
AWAY: Final = problem(503, "store_unreachable", retry_after="0")


@pytest.mark.parametrize("answer", [BUSY, AWAY])
async def test_busy_gateway_is_asked_again(answer: httpx.Response) -> None:
    client, asked = scripted(answer, answer, NO_QUEUES)
    assert (await client.queues()).event_id == "1-0"
    assert len(asked) == 3


async def test_it_is_not_asked_for_ever() -> None:
    client, asked = scripted(AWAY)
    assert (await told_by(client.queues()))[0] is StoreUnreachable
    assert len(asked) == TRIES


@pytest.mark.parametrize("retry_after", [None, "3600", "Wed, 21 Oct 2026 07:28:00 GMT", "-1"])
async def test_it_is_not_asked_again_when_that_would_take_long(retry_after: str | None) -> None:
    client, asked = scripted(problem(503, "store_unreachable", retry_after=retry_after))
    assert (await told_by(client.queues()))[0] is StoreUnreachable
    assert len(asked) == 1


async def test_enqueue_is_repeated_only_where_no_second_job_can_come_of_it() -> None:
    client, asked = scripted(AWAY)
    assert (await told_by(client.enqueue(IO)))[0] is StoreUnreachable
    assert len(asked) == 1
    assert (await told_by(client.enqueue(IO, idempotency_key="k")))[0] is StoreUnreachable
    assert len(asked) == 1 + TRIES
    client, asked = scripted(BUSY, problem(409, "duplicate_job", task_id="a"))
    assert (await told_by(client.enqueue(IO)))[::2] == (DuplicateJob, {"task_id": "a"})
    assert len(asked) == 2


async def test_kept_connection_that_was_closed_is_no_error() -> None:
    client, asked = scripted(httpx.RemoteProtocolError("closed"), NO_QUEUES)
    await client.queues()
    assert len(asked) == 2
    client, asked = scripted(httpx.RemoteProtocolError("closed"), NO_QUEUES)
    assert (await told_by(client.enqueue(IO)))[0] is GatewayUnreachable
    assert len(asked) == 1


@pytest.mark.parametrize(
    "answer", [httpx.ConnectError("refused"), httpx.ReadTimeout(""), httpx.Response(502, text="<html>Bad Gateway")]
)
async def test_gateway_that_is_away_is_told_with_its_address(answer: httpx.Response | Exception) -> None:
    client, asked = scripted(answer)
    error_type, message, facts = await told_by(client.queues())
    assert (error_type, facts["address"], len(asked)) == (GatewayUnreachable, URL, 1)
    assert message.startswith(f"the gateway at {URL} cannot be reached: ")


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(404, text="<html>Not Found"),
        httpx.Response(302, headers={"Location": "https://elsewhere"}),
        httpx.Response(200, text="<html>Welcome"),
        httpx.Response(200, json={"queues": "many"}),
        httpx.Response(404, json=[]),
        problem(404, "not_found"),
    ],
)
async def test_what_is_no_gateway_of_ours_is_told(answer: httpx.Response) -> None:
    client, _ = scripted(answer)
    error_type, message, facts = await told_by(client.queues())
    assert (error_type, facts["status"]) == (GatewayProblem, answer.status_code)
    assert f"{URL} answers GET /api/v1/queues with {answer.status_code}: " in message


async def test_token_is_sent_and_never_told() -> None:
    client, asked = scripted(problem(401, "unauthorized"), problem(403, "forbidden", needed_scope="admin"))
    error_type, message, _ = await told_by(client.queues())
    assert error_type is Unauthorized
    assert "--token or AEGIS_TOKEN" in message
    assert (await told_by(client.pause("mail")))[::2] == (Forbidden, {"needed_scope": "admin"})
    assert [request.headers["Authorization"] for request in asked] == [f"Bearer {TOKEN}"] * 2
    assert TOKEN not in message + repr(client) + str(vars(client))


@pytest.mark.parametrize(
    "url", ["", "gateway", "ftp://gateway", "http://", "http://me:secret@gateway", "http://[", "http://g?x"]
)
def test_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--url .or AEGIS_URL. must be like") as raised:
        GatewayClient(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("url", ["http://localhost/aegis", "http://localhost/aegis/", "http://localhost/aegis/api/v1"])
async def test_address_may_have_a_path(url: str) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return NO_QUEUES

    async with GatewayClient(url, transport=httpx.MockTransport(answer)) as client:
        await client.queues()
    assert asked == ["/aegis/api/v1/queues"]


# --- batches and waiting --------------------------------------------------------------------------


async def test_batch_that_is_too_large_is_sent_in_parts() -> None:
    sizes: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        items = json.loads(request.content)
        sizes.append(len(items))
        if len(items) > 2:
            return problem(413, "request_too_large", limit_bytes=100)
        verdicts = [BatchVerdict(index=n, status="enqueued", task_id=item["task_id"]) for n, item in enumerate(items)]
        whole = BatchAnswer(enqueued=len(items), duplicates=0, refused=0, items=verdicts)
        return httpx.Response(202, content=msgspec.json.encode(whole))

    async with GatewayClient(URL, transport=httpx.MockTransport(answer)) as client:
        found = await client.enqueue_batch([{"task_id": name} for name in "abcde"])
    assert sizes == [5, 2, 3, 1, 2]
    assert (found.enqueued, [(item.index, item.task_id) for item in found.items]) == (5, [*enumerate("abcde")])


async def test_long_wait_is_asked_for_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.gateway_client.LONG_POLL_S", 0.01)
    queued = httpx.Response(202, json={"task_id": "a", "status": "queued"})
    client, asked = scripted(
        queued, queued, httpx.Response(200, json={"task_id": "a", "status": "succeeded", "result": 7})
    )
    assert (await client.result("a", wait_s=600)).result == 7
    assert [request.url.params["wait"] for request in asked] == ["0.01"] * 3


# --- following ------------------------------------------------------------------------------------


def frames(*ids: str) -> bytes:
    events = [Event(id=one, kind="job.enqueued", data=msgspec.Raw(b"{}")) for one in ids]
    return b": hello\n\n" + b"".join(
        b"id: %b\nevent: job.enqueued\ndata: %b\n\n" % (event.id.encode(), msgspec.json.encode(event))
        for event in events
    )


class Parts(httpx.AsyncByteStream):
    """A body that comes in these parts, and breaks off."""

    def __init__(self, parts: Sequence[bytes]) -> None:
        self.parts = parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            yield part
        raise httpx.ReadError("broken off")


async def test_following_goes_on_after_the_last_event_that_came_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.gateway_client.RECONNECT_EVERY_S", 0)
    whole, asked = frames("1-0", "2-0", "3-0"), []
    cut = len(frames("1-0", "2-0")) + 20
    bodies: list[httpx.Response] = [
        httpx.Response(200, stream=Parts([whole[:70], whole[70:cut]])),
        AWAY,
        httpx.Response(200, stream=Parts([frames("3-0")])),
    ]

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.url.path, request.url.params.get("after"), request.url.params.get_list("kind")))
        return bodies.pop(0)

    found: list[str] = []
    async with GatewayClient(URL, transport=httpx.MockTransport(answer)) as client:
        async for event in client.follow(EventFilter(kinds=["job.enqueued", "job.failed"]), after=BEGINNING):
            found.append(event.id)
            if len(found) == 3:
                break
    assert found == ["1-0", "2-0", "3-0"]
    kinds = ["job.enqueued", "job.failed"]
    assert asked == [("/api/v1/events/stream", place, kinds) for place in ("0-0", "2-0", "2-0")]


async def test_following_from_the_end_knows_where_that_is_before_it_connects() -> None:
    """Else an event between the end and a connection that breaks at once would be missed."""
    client, asked = scripted(httpx.Response(200, json={"events": [], "next_after": "7-0"}), problem(403, "forbidden"))
    with pytest.raises(Forbidden):
        await anext(client.follow(EventFilter(), after=END))
    assert [request.url.params.get("after") for request in asked] == ["$", "7-0"]


@pytest.mark.parametrize("answer", [httpx.ConnectError("refused"), AWAY, problem(429, "rate_limited")])
async def test_following_does_not_begin_where_nobody_answers(answer: httpx.Response | Exception) -> None:
    client, asked = scripted(answer)
    with pytest.raises(AegisError):
        await anext(client.follow(EventFilter(), after=BEGINNING))
    assert len(asked) == 1
