"""The script that writes what running jobs report."""

from typing import Any

import msgspec
import pytest

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.event_stream import EventStream
from bridge.events import Event
from bridge.scripts import NewProgress, Scripts


def report(job_id: str, **changes: Any) -> NewProgress:
    return NewProgress(job_id=job_id, token="w:1", task="send", attempt=1, data=b'{"current":1}')._replace(**changes)


async def run(store: AegisRedis, *job_ids: str, token: str = "w:1") -> None:
    for job_id in job_ids:
        await store.set(keys.in_progress(job_id), token, px=60_000)


async def write(scripts: Scripts, *reports: NewProgress) -> list[int]:
    return await scripts.progress("mail", worker="w", reports=reports)


async def events(store: AegisRedis) -> list[Event]:
    return await EventStream(store).history()


async def test_progress_is_stored_for_an_hour_with_its_event(store: AegisRedis, scripts: Scripts) -> None:
    await run(store, "a")
    data = b'{"current":30,"total":100,"message":"res\xc3\xbcme \\"x\\""}'
    assert await write(scripts, report("a", attempt=2, data=data)) == [1]
    (event,) = await events(store)
    assert (event.kind, event.job_id, event.queue, event.task, event.attempt, event.worker) == (
        "job.progressed", "a", "mail", "send", 2, "w"
    )  # fmt: skip
    assert bytes(event.data) == data
    stored = msgspec.json.decode(await store.get(keys.progress("a")) or b"")
    assert stored == {"token": "w:1", "at_ms": event.at_ms, **msgspec.json.decode(data)}
    assert 0 < await store.pttl(keys.progress("a")) <= keys.PROGRESS_TTL_MS


async def test_later_progress_replaces_the_earlier(store: AegisRedis, scripts: Scripts) -> None:
    await run(store, "a")
    await write(scripts, report("a"))
    await write(scripts, report("a", data=b'{"current":2.5}'))
    assert msgspec.json.decode(await store.get(keys.progress("a")) or b"")["current"] == 2.5
    assert len(await events(store)) == 2


async def test_job_with_another_token_or_none_gets_nothing(store: AegisRedis, scripts: Scripts) -> None:
    await run(store, "stolen", token="other:7")
    await run(store, "stock", token="1")
    await run(store, "ours")
    answers = await write(scripts, report("stolen"), report("stock"), report("gone"), report("ours"))
    assert answers == [0, 0, 0, 1]
    assert [event.job_id for event in await events(store)] == ["ours"]
    assert not await store.exists(*[keys.progress(job_id) for job_id in ("stolen", "stock", "gone")])


async def test_stock_workers_token_is_the_value_that_arq_writes(store: AegisRedis, scripts: Scripts) -> None:
    await run(store, "a", token="1")
    assert await write(scripts, report("a", token="1"), report("a", token="")) == [1, 0]


async def test_empty_token_is_nobodys(store: AegisRedis, scripts: Scripts) -> None:
    assert await write(scripts, report("a", token="")) == [0]


async def test_many_jobs_fit_into_one_call(store: AegisRedis, scripts: Scripts) -> None:
    names = [str(number) for number in range(1000)]
    await run(store, *names)
    assert await write(scripts, *map(report, names)) == [1] * 1000
    assert await store.xlen(keys.EVENTS) == 1000


async def test_mark_of_another_type_is_nobodys_token(store: AegisRedis, scripts: Scripts) -> None:
    pushing: Any = store.rpush(keys.in_progress("a"), "w:1")
    await pushing
    await run(store, "b")
    assert await write(scripts, report("a"), report("b")) == [0, 1]
    await store.delete(keys.in_progress("a"))


async def test_key_of_another_type_is_replaced(store: AegisRedis, scripts: Scripts) -> None:
    await run(store, "a")
    pushing: Any = store.rpush(keys.progress("a"), "x")
    await pushing
    assert await write(scripts, report("a")) == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attempt": "many"}, "an attempt is no whole number"),
        ({"attempt": -1}, "an attempt is no whole number"),
        ({"attempt": 1.5}, "an attempt is no whole number"),
        ({"data": b"7"}, "not a JSON object"),
        ({"data": b""}, "not a JSON object"),
        ({"data": b"{}"}, "not a JSON object"),
    ],
)
async def test_garbage_stops_the_script_before_it_writes(
    store: AegisRedis, scripts: Scripts, change: dict[str, Any], message: str
) -> None:
    await run(store, "a", "b")
    with pytest.raises(Exception, match=message):
        await write(scripts, report("a"), report("b", **change))
    assert await events(store) == []
    assert not await store.exists(keys.progress("a"))


async def test_cap_that_is_no_number_stops_the_script_before_it_writes(store: AegisRedis, scripts: Scripts) -> None:
    await run(store, "a")
    scripts.events_max_len = "many"  # type: ignore[assignment]
    with pytest.raises(Exception, match="the cap is no whole number"):
        await write(scripts, report("a"))
    assert not await store.exists(keys.progress("a"))


async def test_stream_of_another_type_stops_the_script_before_it_writes(store: AegisRedis, scripts: Scripts) -> None:
    await run(store, "a")
    await store.set(keys.EVENTS, b"text", px=60_000)
    with pytest.raises(Exception, match="WRONGTYPE"):
        await write(scripts, report("a"))
    assert not await store.exists(keys.progress("a"))
    await store.delete(keys.EVENTS)


async def test_half_a_report_is_refused(scripts: Scripts) -> None:
    with pytest.raises(Exception, match="not a whole number of jobs"):
        await scripts._progress(args=[1000, "mail", "w", "a", "w:1"])
