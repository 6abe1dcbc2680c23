import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.event_stream import EventStream
from bridge.events import JobProgressed
from bridge.scripts import NewProgress, Scripts
from workers import progress_writer
from workers.progress_writer import ProgressWriter


@dataclass(unsafe_hash=True)
class Attempt:
    job_id: str
    token: str = "w:1"
    task: str = "send"
    attempt: int = 1
    trace: str = ""


class HeldScripts(Scripts):
    """The scripts; each call waits for the gate before it goes to Redis."""

    def __init__(self, redis: AegisRedis) -> None:
        super().__init__(redis, events_max_len=1000)
        self.calls: list[int] = []
        self.gate = asyncio.Event()

    async def progress(self, queue: str, *, worker: str, reports: Sequence[NewProgress]) -> list[int]:
        self.calls.append(len(reports))
        await self.gate.wait()
        return await super().progress(queue, worker=worker, reports=reports)


@pytest.fixture
async def held(store: AegisRedis) -> HeldScripts:
    await store.set(keys.in_progress("job"), "w:1", px=60_000)
    return HeldScripts(store)


@asynccontextmanager
async def writing(scripts: Scripts) -> AsyncIterator[ProgressWriter]:
    writer = ProgressWriter(scripts, queue="mail", worker="w", attempt_of=lambda ctx: ctx.get("attempt"))
    running = asyncio.create_task(writer.run())
    yield writer
    while not running.done():
        running.cancel()
        await asyncio.wait({running}, timeout=0.1)


def report(writer: ProgressWriter, attempt: Attempt | None, current: int) -> None:
    writer.report({"attempt": attempt}, JobProgressed(current=current))


async def until_called(scripts: HeldScripts, times: int) -> None:
    async with asyncio.timeout(10):
        while len(scripts.calls) < times:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)


async def written(store: AegisRedis) -> list[Any]:
    return [msgspec.json.decode(event.data)["current"] for event in await EventStream(store).history()]


async def test_last_report_does_not_overtake_the_one_on_its_way(store: AegisRedis, held: HeldScripts) -> None:
    async with writing(held) as writer:
        report(writer, Attempt("job"), 1)
        await until_called(held, 1)
        report(writer, Attempt("job"), 2)
        settling = asyncio.create_task(writer.settle([Attempt("job")]))
        done, _ = await asyncio.wait({settling}, timeout=0.02)
        assert (done, held.calls) == (set(), [1])
        held.gate.set()
        await settling
        assert not writer.has_unwritten
    assert await written(store) == [1, 2]


async def test_end_of_a_silent_attempt_waits_for_no_other(held: HeldScripts) -> None:
    async with writing(held) as writer:
        report(writer, Attempt("job"), 1)
        await until_called(held, 1)
        async with asyncio.timeout(progress_writer.SETTLE_S / 2):
            await writer.settle([Attempt("other")])


async def test_write_that_hangs_holds_up_no_end(
    store: AegisRedis, held: HeldScripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_writer, "SETTLE_S", 0.02)
    async with writing(held) as writer:
        report(writer, Attempt("job"), 1)
        async with asyncio.timeout(10):
            await writer.settle([Attempt("job")])
    assert await written(store) == []


async def test_jobs_of_one_call_are_limited(held: HeldScripts) -> None:
    held.gate.set()
    async with writing(held) as writer:
        for number in range(2 * progress_writer.BATCH + 1):
            report(writer, Attempt(str(number)), 1)
        await until_called(held, 3)
    assert held.calls == [progress_writer.BATCH, progress_writer.BATCH, 1]


async def test_report_of_nobodys_is_forgotten(held: HeldScripts) -> None:
    async with writing(held) as writer:
        report(writer, None, 1)
        assert not writer.has_unwritten


def test_report_after_the_end_of_the_event_loop_is_forgotten() -> None:
    async def make() -> ProgressWriter:
        redis = AegisRedis()
        return ProgressWriter(
            Scripts(redis, events_max_len=1), queue="mail", worker="w", attempt_of=lambda _: Attempt("job")
        )

    report(asyncio.run(make()), None, 1)
