import asyncio
from contextlib import aclosing

import pytest

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.errors import InvalidRequest
from bridge.event_stream import EventFilter, EventStream, parse_cursor
from bridge.events import Event, StreamGap, WorkerStarted
from bridge.scripts import NewEvent, Scripts

STARTED = WorkerStarted(host="h", pid=1, queue="mail", max_jobs=1)


async def report(scripts: Scripts, *worker_ids: str) -> list[str]:
    return await scripts.report([NewEvent(data=STARTED, queue="mail", worker=name) for name in worker_ids])


async def take(stream: EventStream, after: str, count: int) -> list[Event]:
    found: list[Event] = []
    async with asyncio.timeout(10), aclosing(stream.follow(after)) as following:
        async for event in following:
            found.append(event)
            if len(found) == count:
                break
    return found


async def test_history_is_in_order_and_pages_on(store: AegisRedis, scripts: Scripts) -> None:
    ids = await report(scripts, "a", "b", "c")
    stream = EventStream(store)
    first = await stream.history(count=2)
    assert [event.id for event in first] == ids[:2]
    assert [event.id for event in await stream.history(first[-1].id)] == ids[2:]


async def test_backwards_yields_the_newest_first(store: AegisRedis, scripts: Scripts) -> None:
    ids = await report(scripts, *(str(number) for number in range(1200)))
    assert [event.id async for event in EventStream(store).backwards()] == ids[::-1]


async def test_follow_yields_what_was_there_and_what_comes(store: AegisRedis, scripts: Scripts) -> None:
    before = await report(scripts, "a", "b")
    following = asyncio.create_task(take(EventStream(store), "0-0", 3))
    after = await report(scripts, "c")
    assert [event.id for event in await following] == [*before, *after]


async def test_follow_from_the_end_yields_only_what_comes(store: AegisRedis, scripts: Scripts) -> None:
    await report(scripts, "a")
    stream = EventStream(store)
    async with asyncio.timeout(10), aclosing(stream.follow("$")) as following:
        next_event = asyncio.ensure_future(anext(following))
        await asyncio.sleep(0)
        while not next_event.done():
            (event_id,) = await report(scripts, "b")
            await asyncio.sleep(0.05)
        assert next_event.result().worker == "b"
        assert next_event.result().id <= event_id


async def test_follow_from_a_trimmed_place_says_so_first(store: AegisRedis, scripts: Scripts) -> None:
    ids = await report(scripts, *"abcdef")
    await store.xtrim(keys.EVENTS, maxlen=2, approximate=False)
    gap, *events = await take(EventStream(store), ids[1], 3)
    assert (gap.kind, gap.id) == ("stream.gap", ids[1])
    assert gap.read_data() == StreamGap(from_id=ids[1], to_id=ids[4])
    assert [event.id for event in events] == ids[4:]


async def test_no_gap_is_told_where_none_is(store: AegisRedis, scripts: Scripts) -> None:
    ids = await report(scripts, *"abcdef")
    await store.xtrim(keys.EVENTS, maxlen=3, approximate=False)
    assert [event.id for event in await take(EventStream(store), ids[3], 2)] == ids[4:]
    assert [event.id for event in await EventStream(store).history()] == ids[3:], "from the beginning of what there is"
    assert [event.id for event in await EventStream(store).history(ids[4])] == ids[5:]


async def test_last_id_is_the_newest_event(store: AegisRedis, scripts: Scripts) -> None:
    stream = EventStream(store)
    assert await stream.last_id() == "0-0"
    ids = await report(scripts, "a", "b")
    assert await stream.last_id() == ids[-1]


@pytest.mark.parametrize(
    ("text", "cursor"),
    [
        ("$", "$"),
        ("0", "0-0"),
        ("0-0", "0-0"),
        ("1700000000000-3", "1700000000000-3"),
        ("1700000000000", "1699999999999-18446744073709551615"),
        ("2023-11-14T22:13:20Z", "1699999999999-18446744073709551615"),
        ("2023-11-14T22:13:20", "1699999999999-18446744073709551615"),
        ("2023-11-15T00:13:20+02:00", "1699999999999-18446744073709551615"),
        ("1969-01-01T00:00:00Z", "0-0"),
        ("007-003", "7-3"),
        ("18446744073709551615-18446744073709551615", "18446744073709551615-18446744073709551614"),
    ],
)
def test_cursor_is_read_from_an_id_or_a_time(text: str, cursor: str) -> None:
    assert parse_cursor(text) == cursor


@pytest.mark.parametrize(
    "text", ["", "yesterday", "1-2-3", "-1", "99999999999999999999", "1 OR 1", "12:00", "\u0661-\u0662"]
)
def test_cursor_that_is_neither_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="no place in the event stream"):
        parse_cursor(text)


def test_filter_lets_through_what_matches_all_its_parts() -> None:
    event = Event(id="1-0", kind="job.started", job_id="a", queue="mail", task="send")
    assert EventFilter().matches(event)
    assert EventFilter(kinds={"job.started"}, queue="mail", task="send", job_id="a").matches(event)
    for other in ({"kinds": {"job.failed"}}, {"queue": "x"}, {"task": "x"}, {"job_id": "x"}):
        assert not EventFilter(**other).matches(event)
    assert EventFilter(queue="x").matches(Event(id="1-0", kind="stream.gap"))
