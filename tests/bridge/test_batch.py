"""Many requests at once: a verdict for each, and Redis that goes away on the way."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.batch import CODES, MOST_ITEMS
from bridge.catalog import Catalog
from bridge.enqueue import JOBS_IN_ONE_CALL, Enqueuer, TaskRequest
from bridge.errors import InvalidRequest
from bridge.gateway.problems import STATUSES
from bridge.scripts import NewJob, Scripts

IO: dict[str, Any] = {"task_name": "io_simulation_task"}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def enqueuer(catalog: Catalog, scripts: Scripts) -> Enqueuer:
    return Enqueuer(catalog, scripts)


async def test_valid_items_are_stored_and_each_has_its_verdict(enqueuer: Enqueuer, store: AegisRedis) -> None:
    items = [IO, {**IO, "kwargs": {"delay_ms": "soon"}}, {**IO, "task_id": "a"}, {**IO, "task_id": "a"}]
    answer = await enqueuer.enqueue_batch([*items, {"task_name": "none"}, msgspec.Raw(b'{"task_name":'), 7])

    assert (answer.enqueued, answer.duplicates, answer.refused, answer.unknown, answer.untried) == (2, 1, 4, 0, 0)
    assert [one.index for one in answer.items] == list(range(7))
    told = [(one.status, one.error.code if one.error else "") for one in answer.items]
    assert told == [
        ("enqueued", ""),
        ("refused", "invalid_arguments"),
        ("enqueued", ""),
        ("duplicate", "duplicate_job"),
        ("refused", "invalid_task_name"),
        ("refused", "invalid_request"),
        ("refused", "invalid_request"),
    ]
    error = answer.items[1].error
    assert error
    assert error.path == "$.kwargs.delay_ms"
    assert await store.zcard(keys.queue("load_test")) == 2
    event_ids = [entry_id.decode() for entry_id, _ in await store.xrange(keys.EVENTS)]
    assert [one.event_id for one in answer.items if one.event_id] == event_ids


async def test_detail_of_an_item_is_short(enqueuer: Enqueuer) -> None:
    answer = await enqueuer.enqueue_batch([{"task_name": "x" * 100_000}])
    assert answer.items[0].error
    assert len(answer.items[0].error.detail) < 600


async def test_jobs_of_a_batch_have_its_trace(enqueuer: Enqueuer, store: AegisRedis) -> None:
    await enqueuer.enqueue_batch([IO, IO], trace=TRACE)
    assert [fields[b"trace"].decode() for _, fields in await store.xrange(keys.EVENTS)] == [TRACE, TRACE]


async def test_large_batch_goes_in_bounded_calls(store: AegisRedis, catalog: Catalog) -> None:
    scripts = LeavingScripts(store, answers=99)
    answer = await Enqueuer(catalog, scripts).enqueue_batch([IO] * (2 * JOBS_IN_ONE_CALL + 1))
    assert answer.enqueued == 2 * JOBS_IN_ONE_CALL + 1
    assert scripts.sizes == [JOBS_IN_ONE_CALL, JOBS_IN_ONE_CALL, 1]


async def test_an_id_is_taken_once_in_a_whole_batch(enqueuer: Enqueuer) -> None:
    answer = await enqueuer.enqueue_batch([{**IO, "task_id": "a"}, *[IO] * JOBS_IN_ONE_CALL, {**IO, "task_id": "a"}])
    assert (answer.enqueued, answer.items[-1].status) == (JOBS_IN_ONE_CALL + 1, "duplicate")


async def test_too_many_items_are_refused(enqueuer: Enqueuer, store: AegisRedis) -> None:
    with pytest.raises(InvalidRequest, match="at most 10000 items"):
        await enqueuer.enqueue_batch([IO] * (MOST_ITEMS + 1))
    assert await store.dbsize() == 0


class LeavingScripts(Scripts):
    """The scripts of a Redis that goes away after so many answers."""

    def __init__(self, redis: AegisRedis, *, answers: int) -> None:
        super().__init__(redis, events_max_len=100_000)
        self.answers = answers
        self.sizes: list[int] = []

    async def enqueue(self, jobs: Sequence[NewJob], *, cron_run: str = "") -> tuple[int, list[str]]:
        self.sizes.append(len(jobs))
        if len(self.sizes) > self.answers:
            raise RedisConnectionError("away")
        return await super().enqueue(jobs, cron_run=cron_run)


async def test_redis_that_goes_away_leaves_verdicts_that_are_true(store: AegisRedis, catalog: Catalog) -> None:
    scripts = LeavingScripts(store, answers=1)
    items = [*[IO] * (2 * JOBS_IN_ONE_CALL), {"task_name": "none"}, IO]
    answer = await Enqueuer(catalog, scripts).enqueue_batch(items)

    assert len(scripts.sizes) == 2, "what has gone is not asked again"
    assert (answer.enqueued, answer.unknown, answer.untried) == (JOBS_IN_ONE_CALL, JOBS_IN_ONE_CALL, 1)
    assert await store.zcard(keys.queue("load_test")) == answer.enqueued
    assert [one.status for one in answer.items[-3:]] == ["unknown", "refused", "untried"]
    assert answer.items[-3].task_id, "one can ask for it"
    assert not answer.items[-1].task_id


async def test_redis_that_was_away_from_the_beginning_is_an_error(store: AegisRedis, catalog: Catalog) -> None:
    with pytest.raises(RedisConnectionError):
        await Enqueuer(catalog, LeavingScripts(store, answers=0)).enqueue_batch([IO])


async def test_what_is_wrong_with_one_job_harms_no_other(enqueuer: Enqueuer, store: AegisRedis) -> None:
    await store.set(keys.queue("system"), "no zset", px=60_000)
    requests = [{"task_name": name} for name in ("io_simulation_task", "cleanup_temp_files", "io_simulation_task")]
    answers = await asyncio.gather(
        *(enqueuer.enqueue(msgspec.convert(one, type=TaskRequest)) for one in requests), return_exceptions=True
    )
    assert [isinstance(answer, Exception) for answer in answers] == [False, True, False]
    assert await store.zcard(keys.queue("load_test")) == 2


def test_items_have_the_codes_of_single_requests() -> None:
    assert {error: STATUSES[error][1] for error in CODES} == CODES
