"""The key by which others see that a worker is alive."""

import re

import pytest
from arq.connections import ArqRedis, RedisSettings
from arq.worker import async_check_health

from bridge import keys
from tests.conformance.conftest import QUEUE, Context, MakeWorker, close, drain, enqueue, running, until

KEY = keys.health_check(QUEUE)


async def work(ctx: Context) -> None:
    pass


async def refuse(ctx: Context) -> None:
    raise ValueError("not today")


async def test_running_worker_is_seen_to_be_alive(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async with running(make_worker([work], burst=False)):
        await until(lambda: producer.exists(KEY))


async def test_burst_worker_is_seen_to_be_alive(make_worker: MakeWorker, producer: ArqRedis) -> None:
    await drain(make_worker([work]))
    assert await producer.exists(KEY)


async def test_closed_worker_is_not(make_worker: MakeWorker, producer: ArqRedis) -> None:
    worker = make_worker([work])
    await drain(worker)
    await close(worker)
    assert not await producer.exists(KEY)


async def test_sign_of_life_counts_the_jobs(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async with running(make_worker([work, refuse], burst=False, health_check_interval=0.01)):
        for name in ("work", "work", "refuse"):
            await enqueue(producer, name)

        async def has_counted() -> bool:
            sign = await producer.get(KEY) or b""
            return b"j_complete=2 j_failed=1 j_retried=0 j_ongoing=0 queued=0" in sign

        await until(has_counted)


async def test_sign_of_life_has_arqs_form(make_worker: MakeWorker, producer: ArqRedis) -> None:
    await drain(make_worker([work]))
    sign = (await producer.get(KEY)).decode()
    counters = r"j_complete=\d+ j_failed=\d+ j_retried=\d+ j_ongoing=\d+ queued=\d+"
    assert re.fullmatch(rf"[A-Z][a-z]{{2}}-\d\d \d\d:\d\d:\d\d {counters}", sign)


async def test_sign_of_life_outlasts_its_interval_by_a_second(make_worker: MakeWorker, producer: ArqRedis) -> None:
    await drain(make_worker([work], health_check_interval=60))
    assert 51_000 < await producer.pttl(KEY) <= 61_000


async def test_sign_of_life_may_have_a_key_of_its_own(make_worker: MakeWorker, producer: ArqRedis) -> None:
    await drain(make_worker([work], health_check_key="conformance:alive"))
    assert await producer.exists("conformance:alive")
    assert not await producer.exists(KEY)


async def test_key_of_ones_own_goes_with_the_worker_too(make_worker: MakeWorker, producer: ArqRedis) -> None:
    worker = make_worker([work], health_check_key="conformance:alive")
    await drain(worker)
    await close(worker)
    assert not await producer.exists("conformance:alive")


@pytest.mark.parametrize("key", [None, "conformance:alive"])
async def test_arqs_health_check_finds_it(
    make_worker: MakeWorker, producer: ArqRedis, redis_settings: RedisSettings, key: str | None
) -> None:
    async def exit_code() -> int:
        return await async_check_health(redis_settings, health_check_key=key, queue_name=QUEUE)

    assert await exit_code() == 1
    await drain(make_worker([work], health_check_key=key))
    assert await exit_code() == 0
