import asyncio
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.catalog import Catalog
from bridge.enqueue import JOBS_IN_ONE_CALL, Enqueuer, TaskRequest, parse_request
from bridge.errors import DuplicateJob, InvalidArguments, InvalidRequest
from bridge.new_job import new_job_id
from bridge.scripts import NewJob, Scripts

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def enqueuer(catalog: Catalog, scripts: Scripts) -> Enqueuer:
    return Enqueuer(catalog, scripts)


async def test_enqueued_job_is_stored_under_its_id(enqueuer: Enqueuer, store: AegisRedis) -> None:
    enqueued = await enqueuer.enqueue(TaskRequest(task_name="io_simulation_task"))
    assert enqueued.queue_type == "load_test"
    assert await store.zscore(keys.queue("load_test"), enqueued.task_id) == enqueued.queued_at.timestamp() * 1000
    assert enqueued.estimated_start == enqueued.queued_at


async def test_delayed_job_says_when_it_starts(enqueuer: Enqueuer) -> None:
    enqueued = await enqueuer.enqueue(TaskRequest(task_name="io_simulation_task", delay_seconds=90))
    assert enqueued.estimated_start - enqueued.queued_at == timedelta(seconds=90)
    assert "0:01:30" in enqueued.message


async def test_chosen_id_is_taken_once(enqueuer: Enqueuer) -> None:
    request = TaskRequest(task_name="io_simulation_task", task_id="mine")
    assert (await enqueuer.enqueue(request)).task_id == "mine"
    with pytest.raises(DuplicateJob, match="'mine' exists"):
        await enqueuer.enqueue(request)


async def test_body_ends_with_what_was_asked_for_in_a_fixed_order(enqueuer: Enqueuer, store: AegisRedis) -> None:
    asked: dict[str, Any] = {"max_tries": 7, "timeout_seconds": 2.5}
    enqueued = await enqueuer.enqueue(TaskRequest(task_name="io_simulation_task", **asked), trace=TRACE)
    raw = await store.get(keys.job(enqueued.task_id))
    assert raw is not None
    tail = b',"timeout_s":2.5,"max_tries":7,"trace":"%b"}' % TRACE.encode()
    assert raw.endswith(b'"et":%d%b' % (enqueued.queued_at.timestamp() * 1000, tail))


async def test_requests_at_the_same_moment_share_a_call(enqueuer: Enqueuer, store: AegisRedis) -> None:
    calls: list[int] = []
    to_scripts = enqueuer.scripts.enqueue

    async def counted(jobs: Sequence[NewJob]) -> tuple[int, list[str]]:
        calls.append(len(jobs))
        return await to_scripts(jobs)

    enqueuer.scripts.enqueue = counted  # type: ignore[method-assign, assignment]
    request = TaskRequest(task_name="io_simulation_task")
    answers = await asyncio.gather(*(enqueuer.enqueue(request) for _ in range(JOBS_IN_ONE_CALL + 10)))
    assert calls == [JOBS_IN_ONE_CALL, 10]
    assert len({answer.event_id for answer in answers}) == await store.xlen(keys.EVENTS) == JOBS_IN_ONE_CALL + 10


async def test_wrong_argument_stores_nothing(enqueuer: Enqueuer, store: AegisRedis) -> None:
    with pytest.raises(InvalidArguments):
        await enqueuer.enqueue(TaskRequest(task_name="io_simulation_task", kwargs={"delay_ms": "soon"}))
    assert await store.dbsize() == 0


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"", "$"),
        (b"{", "$"),
        (b"[]", "$"),
        (b"null", "$"),
        (b"\xff", "$"),
        (b"[" * 100_000, "$"),
        (b'{"task_name":"x","kwargs":' + b"[" * 100_000, "$"),
        (b"{}", "$"),
        (b'{"task_name": 1}', "$.task_name"),
        (b'{"task_name": "x", "kwargs": []}', "$.kwargs"),
        (b'{"task_name": "x", "args": {}}', "$.args"),
        (b'{"task_name": "x", "surprise": 1}', "$"),
        (b'{"task_name": "x", "delay_seconds": -1}', "$.delay_seconds"),
        (b'{"task_name": "x", "delay_seconds": 1e300}', "$.delay_seconds"),
        (b'{"task_name": "x", "run_at": "2026-01-31T12:00:00"}', "$.run_at"),
        (b'{"task_name": "x", "expires_seconds": 0}', "$.expires_seconds"),
        (b'{"task_name": "x", "task_id": ""}', "$.task_id"),
        (b'{"task_name": "x", "task_id": "a b"}', "$.task_id"),
        (b'{"task_name": "x", "kwargs": {"n": NaN}}', "$"),
        (b'{"task_name": "x", "timeout_seconds": 0}', "$.timeout_seconds"),
        (b'{"task_name": "x", "timeout_seconds": 1e12}', "$.timeout_seconds"),
        (b'{"task_name": "x", "max_tries": 0}', "$.max_tries"),
        (b'{"task_name": "x", "max_tries": 1001}', "$.max_tries"),
        (b'{"task_name": "x", "max_tries": 1.5}', "$.max_tries"),
    ],
)
def test_malformed_request_names_the_field(body: bytes, path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_request(body)
    assert caught.value.path.startswith(path)


def test_new_ids_are_version_7_uuids_that_sort_by_time() -> None:
    before = datetime.now(UTC).timestamp() * 1000
    ids = [new_job_id() for _ in range(100)]
    assert len(set(ids)) == 100
    for job_id in ids:
        parsed = uuid.UUID(job_id)
        assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
        assert int(before) <= parsed.int >> 80 <= before + 10_000


@pytest.mark.parametrize("kwargs", [{"_defer_by": 5}, {"_defer_by": timedelta(seconds=5)}])
async def test_enqueue_job_of_the_client_takes_arqs_arguments(store: AegisRedis, kwargs: dict[str, Any]) -> None:
    job = await store.enqueue_job(
        "task", 1, _job_id="x", _queue_name=keys.queue("mail"), _expires=60, key="v", **kwargs
    )
    assert job is not None
    info = await job.info()
    assert info is not None
    assert (info.function, list(info.args), info.kwargs) == ("task", [1], {"key": "v"})
    assert info.score == round(info.enqueue_time.timestamp() * 1000) + 5000
    assert await store.enqueue_job("task", _job_id="x", _queue_name=keys.queue("mail")) is None
    assert 0 < await store.ttl(keys.job("x")) <= 60


async def test_enqueue_job_refuses_two_due_times(store: AegisRedis) -> None:
    with pytest.raises(RuntimeError, match="not both"):
        await store.enqueue_job("task", _defer_by=1, _defer_until=datetime.now(UTC))
