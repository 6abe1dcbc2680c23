"""Many subscribers, one reader."""

import asyncio
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from bridge import broadcast as module
from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.broadcast import Broadcast, Subscription
from bridge.broker import is_away, open_redis
from bridge.event_stream import EventFilter
from bridge.events import Event, WorkerStarted
from bridge.scripts import NewEvent, Scripts
from bridge.settings import Settings

STARTED = WorkerStarted(host="h", pid=1, queue="mail", max_jobs=1)
EVERYTHING = EventFilter()


@pytest.fixture
async def broadcast(store: AegisRedis) -> AsyncIterator[Broadcast]:
    made = Broadcast(store)
    yield made
    await made.aclose()


async def report(scripts: Scripts, count: int = 1, **event: str) -> list[str]:
    return await scripts.report([NewEvent(data=STARTED, **event) for _ in range(count)])  # type: ignore[arg-type]


async def take(subscription: Subscription, count: int) -> list[Event]:
    found: list[Event] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            batch = await subscription.next_batch()
            assert not subscription.has_ended
            found += [shared.event for shared in batch.events]
    return found


def ids(events: list[Event]) -> list[str]:
    return [event.id for event in events]


async def ids_in_stream(redis: AegisRedis) -> list[str]:
    return [entry_id.decode() for entry_id, _ in await redis.xrange(keys.EVENTS)]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


async def test_subscriber_gets_what_comes_from_now_on(broadcast: Broadcast, scripts: Scripts) -> None:
    await report(scripts, 3)
    async with broadcast.subscribe(EVERYTHING, after="$") as subscription:
        new = await report(scripts, 3)
        assert ids(await take(subscription, 3)) == new


async def test_history_meets_what_comes_while_events_are_written(
    broadcast: Broadcast, store: AegisRedis, scripts: Scripts
) -> None:
    """Subscribers begin anywhere, at any time; each gets all that comes after its cursor, in order, once."""
    first = await report(scripts, 450)

    async def write() -> None:
        for _ in range(40):
            await report(scripts, 25)
            await asyncio.sleep(0)
        await report(scripts, queue="end")

    async def read(after: str, is_urgent: bool) -> list[str]:
        found: list[Event] = []
        async with broadcast.subscribe(EVERYTHING, after=after, is_urgent=is_urgent) as subscription:
            while not found or found[-1].queue != "end":
                found += [shared.event for shared in (await subscription.next_batch()).events]
        return ids(found)

    async def read_after(delay_turns: int, after: str) -> list[str]:
        for _ in range(delay_turns):
            await asyncio.sleep(0.005)
        return await read(after, is_urgent=bool(delay_turns % 2))

    cursors = ["0-0", first[0], first[200], first[-1]] * 4
    async with asyncio.timeout(30):
        *readers, _ = await asyncio.gather(*(read_after(turn, cursor) for turn, cursor in enumerate(cursors)), write())
    written = await ids_in_stream(store)
    for cursor, found in zip(cursors, readers, strict=True):
        assert found == [
            event_id for event_id in written if cursor == "0-0" or written.index(cursor) < written.index(event_id)
        ]


async def test_subscribers_get_only_what_their_filters_let_through(broadcast: Broadcast, scripts: Scripts) -> None:
    filters = {
        "all": EVERYTHING,
        "kind": EventFilter(kinds=["worker.started"]),
        "other kind": EventFilter(kinds=["job.failed"]),
        "queue": EventFilter(queue="mail"),
        "task": EventFilter(task="send"),
        "job": EventFilter(job_id="a"),
        "job and queue": EventFilter(job_id="a", queue="sms"),
    }
    async with asyncio.timeout(10):
        async with (
            broadcast.subscribe(filters["all"]) as all_,
            broadcast.subscribe(filters["kind"]) as kind,
            broadcast.subscribe(filters["other kind"]) as other_kind,
            broadcast.subscribe(filters["queue"]) as queue,
            broadcast.subscribe(filters["task"]) as task,
            broadcast.subscribe(filters["job"]) as job,
            broadcast.subscribe(filters["job and queue"]) as job_and_queue,
        ):
            both = await report(scripts, job_id="a", queue="mail", task="send")
            neither = await report(scripts, job_id="b", queue="sms", task="ring")
            after = await report(scripts, job_id="a", queue="sms", task="ring")
            assert ids(await take(all_, 3)) == [*both, *neither, *after]
            assert ids(await take(kind, 3)) == [*both, *neither, *after]
            assert ids(await take(queue, 1)) == both
            assert ids(await take(task, 1)) == both
            assert ids(await take(job, 2)) == [*both, *after]
            assert ids(await take(job_and_queue, 1)) == after
            other_kind.nudge()
            assert not await other_kind.next_batch()


async def test_equal_filters_share_their_bytes(broadcast: Broadcast, scripts: Scripts) -> None:
    async with (
        broadcast.subscribe(EventFilter(kinds=["worker.started"])) as one,
        broadcast.subscribe(EventFilter(kinds=("worker.started",))) as other,
    ):
        await until_live(one, other)
        await report(scripts, 2)
        batches = [await one.next_batch(), await other.next_batch()]
        assert batches[0].frames is batches[1].frames


async def until_live(*subscriptions: Subscription) -> None:
    """They have read what was there; afterwards nobody reads them until the test does."""
    reading = [asyncio.ensure_future(subscription.next_batch()) for subscription in subscriptions]
    await until(lambda: all(subscription.is_live for subscription in subscriptions))
    for task in reading:
        task.cancel()
    await asyncio.gather(*reading, return_exceptions=True)


async def test_frame_has_id_kind_and_json_on_one_line(broadcast: Broadcast, store: AegisRedis) -> None:
    async with broadcast.subscribe(EVERYTHING) as subscription:
        fields = {"kind": "com.example\n: odd", "job_id": "a\nb", "data": '{\n"a":\r\n 1}'}
        event_id = (await store.xadd(keys.EVENTS, fields)).decode()  # type: ignore[arg-type]
        frame = (await subscription.next_batch()).frames.decode()
    head, kind, data, *rest = frame.split("\n")
    assert (head, kind, rest) == (f"id: {event_id}", "event: com.example: odd", ["", ""])
    event = msgspec.json.decode(data.removeprefix("data: "))
    assert event == {
        "id": event_id,
        "kind": "com.example\n: odd",
        "job_id": "a\nb",
        "queue": "",
        "task": "",
        "attempt": 0,
        "at_ms": 0,
        "worker": "",
        "trace": "",
        "data": {"a": 1},
    }


async def test_slow_subscriber_is_cut_off_and_can_go_on_where_it_was(
    broadcast: Broadcast, scripts: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUFFER_MOST_BYTES", 20_000)
    async with broadcast.subscribe(EVERYTHING) as slow, broadcast.subscribe(EVERYTHING, is_urgent=True) as quick:
        await until_live(slow, quick)
        written: list[str] = []
        while not slow.is_cut:
            written += (new := await report(scripts, 10))
            assert ids(await take(quick, 10)) == new
        assert slow.has_ended
        assert not await slow.next_batch()
        async with broadcast.subscribe(EVERYTHING, after="0-0") as again:
            assert ids(await take(again, len(written))) == written


async def test_trimmed_entries_are_told_as_a_gap(broadcast: Broadcast, store: AegisRedis, scripts: Scripts) -> None:
    old = await report(scripts, 6)
    await store.xtrim(keys.EVENTS, maxlen=2, approximate=False)
    async with broadcast.subscribe(EventFilter(queue="nothing"), after=old[1]) as subscription:
        (gap,) = await take(subscription, 1)
    assert (gap.kind, gap.id) == ("stream.gap", old[1])
    assert msgspec.json.decode(gap.data) == {"from": old[1], "to": old[4]}


async def test_subscriber_who_was_here_a_moment_ago_costs_no_read(
    broadcast: Broadcast, store: AegisRedis, scripts: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with broadcast.subscribe(EVERYTHING) as first:
        written = await report(scripts, 50)
        await take(first, 50)
        monkeypatch.setattr(broadcast, "page_after", None)
        async with broadcast.subscribe(EVERYTHING, after=written[9]) as again:
            assert ids(await take(again, 40)) == written[10:]


async def test_clients_that_come_back_together_share_their_pages(
    broadcast: Broadcast, scripts: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = await report(scripts, 300)
    reads = 0
    history = broadcast.stream.history

    async def counted(*args: str, **options: int) -> list[Event]:
        nonlocal reads
        reads += 1
        return await history(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(broadcast.stream, "history", counted)

    async def come_back() -> list[str]:
        async with broadcast.subscribe(EVERYTHING, after=written[0]) as subscription:
            return ids(await take(subscription, 299))

    found = await asyncio.gather(*(come_back() for _ in range(50)))
    assert all(one == written[1:] for one in found)
    assert reads < 10


async def test_connection_lasts_as_long_as_somebody_subscribes(
    redis: AegisRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINGER_S", 0)
    monkeypatch.setattr("bridge.event_stream.BLOCK_MS", 50)
    broadcast = Broadcast(redis)

    async def blocked() -> int:
        return sum("xread" in client["cmd"] for client in await redis.client_list())

    for _ in range(2):
        async with broadcast.subscribe(EVERYTHING), broadcast.subscribe(EVERYTHING):
            while not await blocked():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
            assert await blocked() == 1
        async with asyncio.timeout(10):
            while await blocked():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
    await broadcast.aclose()


async def test_close_ends_everybody_at_once(broadcast: Broadcast) -> None:
    async with broadcast.subscribe(EVERYTHING) as subscription:
        waiting = asyncio.ensure_future(subscription.next_batch())
        await asyncio.sleep(0)
        broadcast.close()
        async with asyncio.timeout(10):
            assert not await waiting
        assert subscription.has_ended
        async with broadcast.subscribe(EVERYTHING) as late:
            assert late.has_ended


async def test_subscribing_while_redis_is_away_fails_and_leaves_nothing() -> None:
    away = open_redis(Settings(redis_url="redis://127.0.0.1:1/0"))
    broadcast = Broadcast(away)
    tasks = asyncio.all_tasks()
    for after in (None, "$", "0-0"):
        with pytest.raises(Exception) as caught:  # noqa: PT011
            async with broadcast.subscribe(EVERYTHING, after=after):
                raise AssertionError("not reached")
        assert is_away(caught.value)
    await until(lambda: asyncio.all_tasks() == tasks)
    await away.aclose(close_connection_pool=True)
