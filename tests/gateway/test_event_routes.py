"""Pages of events over HTTP, and what the stream refuses; the stream itself needs a real server (tests/end_to_end)."""

import asyncio

import httpx
import pytest

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.events import ErrorSummary, Event, JobEnqueued, JobFailed, WorkerStarted
from bridge.scripts import NewEvent, Scripts
from tests.gateway.problem import problem_in

EVENTS = "/api/v1/events"
STREAM = f"{EVENTS}/stream"
STARTED = WorkerStarted(host="h", pid=1, queue="mail", max_jobs=1)
ENQUEUED = JobEnqueued(due_at_ms=1)
FAILED = JobFailed(reason="error", error=ErrorSummary(type="ValueError", message="no"), ran_ms=1)


@pytest.fixture
async def written(redis: AegisRedis) -> list[str]:
    """Ids of a worker's event, and of two jobs' events."""
    return await Scripts(redis, events_max_len=1000).report(
        [
            NewEvent(data=STARTED, queue="mail", worker="w"),
            NewEvent(data=ENQUEUED, queue="mail", job_id="a", task="send"),
            NewEvent(data=ENQUEUED, queue="sms", job_id="b", task="ring"),
            NewEvent(data=FAILED, queue="mail", job_id="a", task="send", attempt=1),
        ]
    )


async def page(gateway: httpx.AsyncClient, query: str) -> tuple[list[str], str]:
    answer = await gateway.get(f"{EVENTS}?{query}")
    assert answer.status_code == 200, answer.text
    return [event["id"] for event in answer.json()["events"]], answer.json()["next_after"]


async def test_event_has_every_field_always(gateway: httpx.AsyncClient, written: list[str]) -> None:
    events = (await gateway.get(EVENTS)).json()["events"]
    assert all(event.keys() == set(Event.__struct_fields__) for event in events)
    assert events[0]["job_id"] == events[1]["worker"] == ""
    assert events[1]["data"] == {"due_at_ms": 1}


async def test_pages_follow_each_other(gateway: httpx.AsyncClient, written: list[str]) -> None:
    assert await page(gateway, "limit=3") == (written[:3], written[2])
    assert await page(gateway, f"after={written[2]}") == (written[3:], written[3])
    assert await page(gateway, f"after={written[3]}") == ([], written[3])
    assert await page(gateway, "after=$") == ([], written[3])
    assert await page(gateway, "after=2001-01-01T00:00:00Z&limit=1") == (written[:1], written[0])


@pytest.mark.parametrize(
    ("query", "places"),
    [
        ("kind=job.enqueued", [1, 2]),
        ("kind=job.enqueued&kind=job.failed", [1, 2, 3]),
        ("kind=worker.started,%20job.failed", [0, 3]),
        ("kind=com.example.sent", []),
        ("kind=", [0, 1, 2, 3]),
        ("queue=mail", [0, 1, 3]),
        ("task=ring", [2]),
        ("task_id=a", [1, 3]),
        ("task_id=a&kind=job.failed&queue=mail&task=send", [3]),
        ("task_id=%F0%9F%A6%84&queue=%00", []),
    ],
)
async def test_filters(gateway: httpx.AsyncClient, written: list[str], query: str, places: list[int]) -> None:
    found, next_after = await page(gateway, query)
    assert (found, next_after) == ([written[place] for place in places], written[3])


async def test_latest_are_told_with_where_to_go_on(gateway: httpx.AsyncClient, written: list[str]) -> None:
    assert await page(gateway, "latest=true&limit=2") == (written[2:], written[3])
    assert await page(gateway, "latest=true&task=ring") == ([written[2]], written[3])


async def test_page_waits(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    async with asyncio.timeout(20):
        waiting = asyncio.create_task(page(gateway, "after=$&wait=60&kind=worker.started"))
        while not waiting.done():
            (event_id,) = await Scripts(redis, events_max_len=1000).report([NewEvent(data=STARTED, queue="mail")])
            await asyncio.sleep(0.02)
        found, next_after = waiting.result()
    assert found[-1] == next_after <= event_id


@pytest.mark.parametrize(
    ("query", "name"),
    [
        *((f"limit={text}", "limit") for text in ("0", "1001", "-1", "1.5", "ten", "", "nan", "1&limit=2")),
        *((f"wait={text}", "wait") for text in ("-1", "61", "inf", "nan", "x")),
        *((f"after={text}", "after") for text in ("yesterday", "1-2-3", "%D9%A1", "$&after=0", "%00", "9" * 30)),
        *((f"latest={text}", "latest") for text in ("yes", "true&after=0", "true&wait=1")),
        ("kind=job.nothing", "kind"),
        ("queue=a&queue=b", "queue"),
        ("task=a&task=b", "task"),
        ("task_id=a&task_id=b", "task_id"),
    ],
)
async def test_parameter_that_cannot_be_read_is_named(gateway: httpx.AsyncClient, query: str, name: str) -> None:
    problem = problem_in(await gateway.get(f"{EVENTS}?{query}"), 400, "invalid_request")
    assert problem["path"] == name


async def test_largest_id_of_all_is_a_place(gateway: httpx.AsyncClient, written: list[str]) -> None:
    found, _ = await page(gateway, "after=18446744073709551615-18446744073709551615")
    assert found == []


async def test_unknown_kind_of_ours_is_told_with_the_kinds_there_are(gateway: httpx.AsyncClient) -> None:
    for path in (EVENTS, STREAM):
        problem = problem_in(await gateway.get(f"{path}?kind=job.succeded"), 400, "invalid_request")
        assert "job.succeeded" in problem["detail"]


@pytest.mark.parametrize("query", ["after=yesterday", "queue=a&queue=b"])
async def test_stream_refuses_what_a_page_refuses(gateway: httpx.AsyncClient, query: str) -> None:
    problem_in(await gateway.get(f"{STREAM}?{query}"), 400, "invalid_request")


async def test_stream_names_the_header_that_cannot_be_read(gateway: httpx.AsyncClient) -> None:
    answer = await gateway.get(f"{STREAM}?after=0", headers={"Last-Event-ID": "yesterday"})
    assert problem_in(answer, 400, "invalid_request")["path"] == "Last-Event-ID"


async def test_data_of_somebody_else_does_no_harm(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    for data in ("nonsense", "[1]", '{"a":', b'{"a":"\xff"}', '{"a":\n1}', ""):
        await redis.xadd(keys.EVENTS, {"kind": "odd", "data": data})
    events = (await gateway.get(EVENTS)).json()["events"]
    assert [event["data"] for event in events] == [{}, {}, {}, {}, {"a": 1}, {}]
