"""The limit on a caller's requests, on the real Valkey and on fakeredis."""

import asyncio

import pytest
from redis.exceptions import ResponseError

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.broker import open_redis
from bridge.errors import RateLimited
from bridge.rate import read_rate
from bridge.rate_limit import RateLimit
from bridge.scripts import Scripts
from bridge.settings import Settings

HOURLY = read_rate("5/h")  # nothing comes back while a test runs


async def admitted(limit: RateLimit, caller: str, requests: int, rate: str = "5/h") -> int:
    """How many of these requests, sent at once, are."""
    answers = await asyncio.gather(
        *(limit.take(caller, read_rate(rate)) for _ in range(requests)), return_exceptions=True
    )
    assert all(answer is None or isinstance(answer, RateLimited) for answer in answers), answers
    return sum(answer is None for answer in answers)


async def test_whole_limit_may_come_at_once_and_no_more(scripts: Scripts) -> None:
    limit = RateLimit(scripts)
    assert await admitted(limit, "shop", 7) == 5
    with pytest.raises(RateLimited) as refused:
        await limit.take("shop", HOURLY)
    assert 700 < refused.value.retry_after_seconds <= 720
    assert refused.value.rate == "5/h"


async def test_one_at_a_time_is_the_same(scripts: Scripts) -> None:
    limit = RateLimit(scripts)
    for _ in range(5):
        await limit.take("shop", HOURLY)
    with pytest.raises(RateLimited):
        await limit.take("shop", HOURLY)


async def test_callers_have_limits_of_their_own(scripts: Scripts) -> None:
    limit = RateLimit(scripts)
    counts = await asyncio.gather(
        admitted(limit, "one", 10, "3/h"), admitted(limit, "two", 10, "7/h"), admitted(limit, "three", 10, "100/h")
    )
    assert list(counts) == [3, 7, 10]


async def test_requests_come_back_one_by_one(scripts: Scripts) -> None:
    limit, rate = RateLimit(scripts), read_rate("50/s")
    answers = await asyncio.gather(*(limit.take("shop", rate) for _ in range(300)), return_exceptions=True)
    waits = [answer.retry_after_seconds for answer in answers if isinstance(answer, RateLimited)]
    assert waits
    assert all(0 < wait_s <= 0.02 for wait_s in waits)
    await asyncio.sleep(max(waits))
    await limit.take("shop", rate)


async def test_refused_request_does_not_count(scripts: Scripts, store: AegisRedis) -> None:
    limit = RateLimit(scripts)
    await admitted(limit, "shop", 5)
    before = await store.get(keys.rate("shop"))
    await admitted(limit, "shop", 100)
    assert await store.get(keys.rate("shop")) == before


async def test_key_expires_when_the_whole_limit_is_there_again(scripts: Scripts, store: AegisRedis) -> None:
    await admitted(RateLimit(scripts), "shop", 1)
    assert 700_000 < await store.pttl(keys.rate("shop")) <= 720_000


async def test_smaller_limit_makes_nobody_wait_for_longer_than_its_period(scripts: Scripts) -> None:
    limit = RateLimit(scripts)
    await admitted(limit, "shop", 5)
    with pytest.raises(RateLimited) as refused:
        await limit.take("shop", read_rate("1/s"))
    assert refused.value.retry_after_seconds <= 1


async def test_odd_value_of_the_key_counts_as_none(scripts: Scripts, store: AegisRedis) -> None:
    await store.set(keys.rate("shop"), "soon", px=60_000)
    assert await admitted(RateLimit(scripts), "shop", 7) == 5


async def test_key_of_another_type_is_an_error_and_nothing_is_written(scripts: Scripts, store: AegisRedis) -> None:
    await store.rpush(keys.rate("shop"), "x")  # type: ignore[misc]
    await store.pexpire(keys.rate("shop"), 60_000)
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await scripts.rate_limit([("first", HOURLY, 1), ("shop", HOURLY, 1)])
    assert not await store.exists(keys.rate("first"))


async def test_limit_holds_across_clients(redis: AegisRedis, settings: Settings) -> None:
    """As each gateway process has a client of its own."""
    clients = [open_redis(settings) for _ in range(3)]
    limits = [RateLimit(Scripts(client, events_max_len=1000)) for client in clients]
    counts = await asyncio.gather(*(admitted(limit, "shop", 40, "50/h") for limit in limits))
    assert sum(counts) == 50
    for client in clients:
        await client.aclose(close_connection_pool=True)


async def test_requests_that_come_together_share_a_call(redis: AegisRedis) -> None:
    limit = RateLimit(Scripts(redis, events_max_len=1000))
    await limit.take("shop", read_rate("1000/h"))
    before = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    assert await admitted(limit, "shop", 500, "1000/h") == 500
    assert (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"] - before <= 2
