"""Pages, the latest events, following, and the events of one job."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from bridge import event_feed, job_events, keys
from bridge.aegis_redis import AegisRedis
from bridge.catalog import Catalog
from bridge.event_feed import EventFeed
from bridge.event_stream import EventFilter
from bridge.events import Event, JobEnqueued, JobSucceeded, WorkerStarted
from bridge.inspector import Inspector
from bridge.new_job import new_job_id
from bridge.scripts import NewEvent, Scripts

STARTED = WorkerStarted(host="h", pid=1, queue="mail", max_jobs=1)
EVERYTHING = EventFilter()
MAIL = EventFilter(queue="mail")


@pytest.fixture
async def feed(store: AegisRedis, scripts: Scripts, catalog: Catalog) -> AsyncIterator[EventFeed]:
    made = EventFeed(store, Inspector(store, catalog, scripts))
    yield made
    await made.aclose()


async def report(scripts: Scripts, *queues: str) -> list[str]:
    return await scripts.report([NewEvent(data=STARTED, queue=queue) for queue in queues])


def ids(events: list[Event]) -> list[str]:
    return [event.id for event in events]


async def test_pages_lead_through_all_that_matches(feed: EventFeed, scripts: Scripts) -> None:
    written = await report(scripts, *["mail", "sms"] * 5)
    found: list[str] = []
    after = "0-0"
    while (page := await feed.events(MAIL, after=after, limit=2)).events:
        assert len(page.events) <= 2
        found += ids(page.events)
        after = page.next_after
    assert found == written[::2]
    assert page.next_after == written[-1], "what does not match is not looked through again"


async def test_page_from_the_end_is_empty_and_tells_where_to_go_on(feed: EventFeed, scripts: Scripts) -> None:
    assert (await feed.events(EVERYTHING, after="$")).next_after == "0-0"
    written = await report(scripts, "mail")
    page = await feed.events(EVERYTHING, after="$")
    assert (page.events, page.next_after) == ([], written[-1])
    more = await report(scripts, "mail")
    assert ids((await feed.events(EVERYTHING, after=page.next_after)).events) == more


async def test_one_page_looks_through_so_much_and_no_more(
    feed: EventFeed, scripts: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_feed, "SCAN_MOST", 600)
    written = await report(scripts, *["sms"] * 1100, "mail")
    page = await feed.events(MAIL, wait_s=30)
    assert (page.events, page.next_after) == ([], written[999])
    assert ids((await feed.events(MAIL, after=page.next_after)).events) == written[-1:]


async def test_page_ends_where_it_would_be_too_large(
    feed: EventFeed, scripts: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_feed, "PAGE_MOST_BYTES", 150)
    written = await report(scripts, *["mail"] * 10)
    page = await feed.events(EVERYTHING)
    assert 0 < len(page.events) < 10
    assert page.next_after == page.events[-1].id
    assert ids((await feed.events(EVERYTHING, after=page.next_after)).events)[0] == written[len(page.events)]


async def test_page_waits_for_the_first_event_that_matches(feed: EventFeed, scripts: Scripts) -> None:
    before = await report(scripts, "sms")
    async with asyncio.timeout(20):
        waiting = asyncio.ensure_future(feed.events(MAIL, after="0-0", wait_s=60))
        while not feed.broadcast._groups:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
        await report(scripts, "sms")
        mail = await report(scripts, "mail")
        page = await waiting
    assert (ids(page.events), page.next_after) == (mail, mail[0])
    assert page.next_after > before[0]


async def test_page_that_has_waited_in_vain_tells_how_far_it_has_looked(feed: EventFeed, scripts: Scripts) -> None:
    written = await report(scripts, "sms")
    page = await feed.events(MAIL, after="0-0", wait_s=0.05)
    assert (page.events, page.next_after) == ([], written[-1])


@pytest.mark.parametrize("wait_s", [0, 30])
async def test_gap_leads_the_page_and_does_not_count(
    feed: EventFeed, store: AegisRedis, scripts: Scripts, wait_s: float
) -> None:
    written = await report(scripts, *["mail"] * 6)
    await store.xtrim(keys.EVENTS, maxlen=2, approximate=False)
    page = await feed.events(EVERYTHING, after=written[0], limit=1, wait_s=wait_s)
    assert [event.kind for event in page.events] == ["stream.gap", "worker.started"]
    assert page.next_after == written[4]
    page = await feed.events(EVERYTHING, after=page.next_after, limit=1, wait_s=wait_s)
    assert ids(page.events) == written[5:]


async def test_latest_are_the_newest_that_match(feed: EventFeed, scripts: Scripts) -> None:
    written = await report(scripts, *["mail", "sms"] * 5)
    assert ids(await feed.latest_events(MAIL, limit=3)) == written[4::2]
    assert ids(await feed.latest_events(EVERYTHING, limit=100)) == written


async def test_latest_looks_through_so_much_and_no_more(
    feed: EventFeed, scripts: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_feed, "LATEST_SCAN_MOST", 3)
    await report(scripts, *["mail", "sms"] * 5)
    assert len(await feed.latest_events(MAIL)) == 1


async def test_follow_goes_on_although_its_reader_was_too_slow(
    feed: EventFeed, scripts: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.broadcast.BUFFER_MOST_BYTES", 2000)
    written = await report(scripts, "mail")
    found: list[str] = []
    async with asyncio.timeout(20), aclosing(feed.follow(EVERYTHING, after="0-0")) as following:
        async for event in following:
            found.append(event.id)
            if len(written) < 200:
                for _ in range(10):
                    written += await report(scripts, "mail")
                    await asyncio.sleep(0)
            if len(found) == len(written):
                break
    assert found == written


async def test_follow_ends_when_the_feed_closes(feed: EventFeed, scripts: Scripts) -> None:
    await report(scripts, "mail")
    async with asyncio.timeout(20), aclosing(feed.follow(EVERYTHING, after="0-0")) as following:
        async for _ in following:
            feed.close()


def job(job_id: str) -> list[NewEvent]:
    begin, end = JobEnqueued(due_at_ms=1), JobSucceeded(ran_ms=1, queued_ms=1)
    return [NewEvent(data=data, job_id=job_id, queue="mail", task="send") for data in (begin, end)]


@pytest.mark.parametrize("job_id", ["order-17", new_job_id()], ids=["of the caller", "of ours"])
async def test_events_of_a_job_are_found_among_others(feed: EventFeed, scripts: Scripts, job_id: str) -> None:
    await scripts.report(job("other") * 10)
    begin, end = job(job_id)
    (first,) = await scripts.report([begin])
    await scripts.report(job("another") * 600)
    (last,) = await scripts.report([end])
    await scripts.report(job("other") * 10)
    assert ids(await feed.job_events(job_id)) == [first, last]
    assert await feed.job_events("unknown") == []


async def test_only_so_much_is_looked_through_from_both_ends(
    feed: EventFeed, scripts: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_events, "PAGE_COUNT", 10)
    monkeypatch.setattr(job_events, "LOOK_AT_MOST", 40)
    job_id = new_job_id()
    begin, end = job(job_id)
    (first,) = await scripts.report([begin])
    await scripts.report(job("other") * 15)
    await scripts.report([begin])
    await scripts.report(job("other") * 15)
    (last,) = await scripts.report([end])
    assert ids(await feed.job_events(job_id)) == [first, last]


def test_birth_of_an_id_is_that_of_ours_only() -> None:
    assert job_events.born_at_ms("0199f2a3b4c57abc8def0123456789ab") == 0x0199F2A3B4C5
    for other in ("order-17", "0199f2a3b4c54abc8def0123456789ab", "zzzzzzzzzzzz7zzzzzzzzzzzzzzzzzzz", ""):
        assert job_events.born_at_ms(other) is None
