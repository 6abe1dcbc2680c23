"""A worker whose own clock is an hour off does everything at the right time: Redis' clock is the one that counts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.catalog import Catalog
from bridge.codec import decode_result
from bridge.event_stream import EventStream
from bridge.events import Event, JobDeferred, JobEnqueued, JobRetrying, JobStarted
from bridge.scripts import Scripts
from bridge.verifier import Verifier
from tests.cli.processes import Commands
from tests.faults.chaos_queue import QUEUE, RUNS
from tests.faults.wrong_clock import wrong_clock

HOUR_S = 3600
SOON_MS = 60_000
"""Far less than an hour, and enough for a busy machine."""


@pytest.fixture
def commands(tmp_path: Path, valkey_url: str) -> Iterator[Commands]:
    started = Commands(tmp_path, REDIS_URL=valkey_url, AEGIS_QUEUES="tests.faults.chaos_queue")
    yield started
    started.close()


def burst(commands: Commands, skew_s: int) -> None:
    """A worker with a wrong clock has run all jobs."""
    folder = commands.folder / "skew"
    assert commands.start("burst", "chaos", **wrong_clock(folder, skew_s)).wait() == 0
    assert (folder / "sitecustomize.used").exists()


async def now_ms(redis: AegisRedis) -> int:
    seconds, microseconds = await redis.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


async def lease(redis: AegisRedis, job_id: str) -> float:
    """Another worker has claimed the job, and is never heard of again; its score."""
    await redis.enqueue_job("count", _queue_name=QUEUE, _job_id=job_id)
    claims = await Scripts(redis, events_max_len=1000).claim(
        "chaos", QUEUE, worker="w", token="w:1", wanted=1, ahead_ms=0, most_tries=b'{"":9}', heeds_aborts=False
    )
    assert claims.jobs
    score: float | None = await redis.zscore(QUEUE, job_id)
    assert score is not None
    return score


def due_times(told: list[Event]) -> list[int]:
    data = [event.read_data() for event in told]
    return [each.due_at_ms for each in data if isinstance(each, JobEnqueued | JobDeferred | JobRetrying)]


@pytest.mark.parametrize("skew_s", [HOUR_S, -HOUR_S])
async def test_worker_with_a_wrong_clock_does_everything_in_time(
    redis: AegisRedis, commands: Commands, monkeypatch: pytest.MonkeyPatch, skew_s: int
) -> None:
    monkeypatch.setattr(keys, "LEASE_MS", 3000)
    began_ms = await now_ms(redis)
    lease_ends_ms = await lease(redis, "leased")
    await redis.enqueue_job("count", _queue_name=QUEUE, _job_id="at once")
    await redis.enqueue_job("count", _queue_name=QUEUE, _job_id="deferred", _defer_by=3)
    await redis.enqueue_job("retry_once", 1, _queue_name=QUEUE, _job_id="retried")
    burst(commands, skew_s)
    ended_ms = await now_ms(redis)

    for job_id in ("leased", "at once", "deferred", "retried"):
        told = [event for event in await EventStream(redis).history() if event.job_id == job_id]
        assert told[-1].kind == "job.succeeded"
        assert all(began_ms <= event.at_ms <= ended_ms for event in told)
        starts = [event for event in told if event.kind == "job.started"]
        assert [event.attempt for event in starts] == ([1, 2] if job_id in {"leased", "retried"} else [1])
        for start, due_at_ms in zip(starts, due_times(told), strict=True):
            data = start.read_data()
            assert isinstance(data, JobStarted)
            assert due_at_ms <= start.at_ms
            assert 0 <= data.queued_ms < SOON_MS
        raw = await redis.get(keys.result(job_id))
        assert raw is not None
        result = decode_result(raw)
        for moment_ms in (result.et, result.st, result.ft):
            assert began_ms - SOON_MS < moment_ms < ended_ms + SOON_MS
        assert 0 < await redis.pttl(keys.result(job_id)) <= HOUR_S * 1000
    taken_over = next(e for e in await EventStream(redis).history() if (e.job_id, e.attempt) == ("leased", 2))
    assert taken_over.at_ms >= int(lease_ends_ms)
    assert (await Verifier(redis, Catalog([])).verify()).findings == []
    await redis.delete(RUNS)
