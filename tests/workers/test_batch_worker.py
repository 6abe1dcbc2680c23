"""What `BatchWorker` promises beyond arq; what both promise is in tests/conformance."""

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from arq import Retry, func
from redis import Redis as SyncRedis

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.codec import decode_result
from bridge.event_stream import EventStream
from bridge.events import Event, JobAborted, JobFailed, JobRetrying, JobSucceeded
from bridge.scripts import Ending
from bridge.settings import Settings
from bridge.worker_registry import read_workers
from workers import lease
from workers.batch_worker import BatchWorker
from workers.claim import Run
from workers.heartbeat import Heart
from workers.outcome import Outcome
from workers.retry import RetryLater

Context = dict[Any, Any]
QUEUE = keys.queue("lab")


class Gate:
    """A task that tells that it runs, and waits."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def task(self, ctx: Context) -> str:
        self.reached.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "through"


async def double(ctx: Context, number: int) -> int:
    return number * 2


async def fail(ctx: Context) -> None:
    raise ValueError("on purpose")


def make(redis: AegisRedis, *functions: Any, **options: Any) -> BatchWorker:
    view = AegisRedis(pool_or_conn=redis.connection_pool)
    return BatchWorker(functions, queue_name=QUEUE, redis_pool=view, handle_signals=False, **options)


@asynccontextmanager
async def running(worker: BatchWorker) -> AsyncIterator[BatchWorker]:
    task = asyncio.create_task(worker.async_run())
    try:
        yield worker
    finally:
        worker.handle_sig(15)  # type: ignore[arg-type]
        async with asyncio.timeout(10):
            await task


async def until(condition: Callable[[], Awaitable[Any]], *, timeout_s: float = 10) -> None:
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110 - it is in Redis
            await asyncio.sleep(0.005)


async def events(redis: AegisRedis, job_id: str = "job") -> list[Event]:
    return [event for event in await EventStream(redis).history() if event.job_id == job_id]


async def kinds(redis: AegisRedis, job_id: str = "job") -> list[str]:
    return [event.kind.removeprefix("job.") for event in await events(redis, job_id)]


async def enqueue(redis: AegisRedis, task: str, *args: Any, job_id: str = "job", **options: Any) -> None:
    await redis.enqueue_job(task, *args, _queue_name=QUEUE, _job_id=job_id, **options)


async def last_data(redis: AegisRedis) -> Any:
    return (await events(redis))[-1].read_data()


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> float:
    """Leases of half a second."""
    monkeypatch.setattr(keys, "LEASE_MS", 500)
    monkeypatch.setattr(lease, "RENEW_EVERY_S", 0.1)
    return 0.5


# --- events and results ------------------------------------------------------------------------------


async def test_job_leaves_its_events_and_arqs_result(redis: AegisRedis) -> None:
    await enqueue(redis, "double", 21)
    await make(redis, double, burst=True).async_run()
    assert await kinds(redis) == ["enqueued", "started", "succeeded"]
    raw = await redis.get(keys.result("job"))
    assert raw is not None
    assert raw.startswith(b'{"t":1,"f":"double","a":[21],"k":{},"et":')
    result = decode_result(raw)
    assert (result.s, result.r, result.q, result.id) == (True, 42, QUEUE, "job")
    assert result.et <= result.st <= result.ft
    data = await last_data(redis)
    assert isinstance(data, JobSucceeded)
    assert data.result == 42


async def test_failure_is_a_dead_letter_too(redis: AegisRedis) -> None:
    await enqueue(redis, "fail")
    await make(redis, fail, burst=True, keep_result=0).async_run()
    assert not await redis.exists(keys.result("job"))
    letter = await redis.get(f"{keys.DEAD_PREFIX}lab:job")
    assert letter is not None
    assert decode_result(letter).r.message == "on purpose"


@pytest.mark.parametrize(
    ("enqueue_as", "reason"),
    [({"task": "missing"}, "unknown_task"), ({"task": "slow"}, "timeout"), ({"task": "retry"}, "tries_exhausted")],
)
async def test_every_failure_tells_its_reason(redis: AegisRedis, enqueue_as: dict[str, str], reason: str) -> None:
    async def retry(ctx: Context) -> None:
        raise Retry

    slow = func(Gate().task, name="slow", timeout=0.05)
    await enqueue(redis, enqueue_as["task"])
    await make(redis, slow, func(retry, name="retry"), burst=True, max_tries=2).async_run()
    data = await last_data(redis)
    assert isinstance(data, JobFailed)
    assert data.reason == reason


@pytest.mark.parametrize(
    ("break_it", "reason"), [(b"\x80\x04N.", "undecodable"), (b"{}", "undecodable"), (None, "expired")]
)
async def test_job_that_cannot_be_read_fails_with_its_reason(
    redis: AegisRedis, break_it: bytes | None, reason: str
) -> None:
    await enqueue(redis, "double", 1)
    if break_it is None:
        await redis.delete(keys.job("job"))
    else:
        await redis.set(keys.job("job"), break_it)
    await make(redis, double, burst=True).async_run()
    data = await last_data(redis)
    assert isinstance(data, JobFailed)
    assert data.reason == reason
    assert not await redis.exists(QUEUE)


async def test_retry_of_a_policy_tells_its_error(redis: AegisRedis) -> None:
    async def flaky(ctx: Context) -> None:
        if ctx["job_try"] == 1:
            raise RetryLater(0, "error", ConnectionError("reset"))

    await enqueue(redis, "flaky")
    await make(redis, func(flaky, name="flaky"), burst=True).async_run()
    assert await kinds(redis) == ["enqueued", "started", "retrying", "started", "succeeded"]
    data = (await events(redis))[2].read_data()
    assert isinstance(data, JobRetrying)
    assert (data.reason, data.error.message) == ("error", "reset")  # type: ignore[union-attr]


async def test_task_that_cancels_itself_uses_its_attempts_up(redis: AegisRedis) -> None:
    async def cancel(ctx: Context) -> None:
        raise asyncio.CancelledError

    await enqueue(redis, "cancel")
    await make(redis, func(cancel, name="cancel"), burst=True, max_tries=3).async_run()
    assert await kinds(redis) == ["enqueued", *(["started", "retrying"] * 2), "started", "failed"]


async def test_hook_that_raises_ends_neither_worker_nor_outcome(redis: AegisRedis) -> None:
    async def refuse(ctx: Context) -> None:
        raise LookupError("hook")

    await enqueue(redis, "double", 1)
    await enqueue(redis, "double", 2, job_id="other")
    await make(redis, double, burst=True, on_job_end=refuse, after_job_end=refuse).async_run()
    assert [(await kinds(redis, j))[-1] for j in ("job", "other")] == ["succeeded", "succeeded"]


async def test_failure_whose_text_json_cannot_hold_still_ends_the_job(
    redis: AegisRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytest-xdist cannot send a log line with such a text from process to process
    monkeypatch.setattr(logging.getLogger("aegis.workers"), "disabled", True)

    async def open_file(ctx: Context) -> None:
        raise FileNotFoundError("caf\udce9.txt")

    await enqueue(redis, "open_file")
    await make(redis, func(open_file, name="open_file"), burst=True).async_run()
    data = await last_data(redis)
    assert isinstance(data, JobFailed)
    assert data.error.message == "caf?.txt"


async def test_id_that_is_no_text_holds_up_no_other_job(redis: AegisRedis) -> None:
    await redis.zadd(QUEUE, {b"\xff\xfe": 1})
    async with running(make(redis, double)):
        await enqueue(redis, "double", 1)
        await until(lambda: redis.exists(keys.result("job")))
    await redis.flushdb()  # the marks of the strange id


# --- waking up ---------------------------------------------------------------------------------------


async def test_idle_worker_sends_at_most_two_commands_a_second(redis: AegisRedis) -> None:
    observed_s, commands = 10.0, []  # whole periods of all that an idle worker does
    async with redis.monitor() as monitor, running(make(redis, double, health_check_interval=5)):
        blocked = 0
        while blocked < 2:  # its start is over
            blocked += (await monitor.next_command())["command"].startswith("BLPOP")
        end_s = time.monotonic() + observed_s
        while (left_s := end_s - time.monotonic()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    command = await monitor.next_command()
                    if command["client_type"] != "lua":
                        commands.append(command["command"])
    assert 2 <= len(commands) <= 2 * observed_s, commands


async def test_idle_worker_starts_a_job_without_waiting_for_its_poll(
    redis: AegisRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.batch_worker.POLL_S", 60)
    async with running(make(redis, double)):
        await until(lambda: somebody_blocks(redis))
        await enqueue(redis, "double", 1)
        await until(lambda: redis.exists(keys.result("job")))


async def somebody_blocks(redis: AegisRedis) -> bool:
    return any(client["cmd"] == "blpop" for client in await redis.client_list())


async def test_worker_finds_a_job_though_no_wake_up_arrives(redis: AegisRedis) -> None:
    async with running(make(redis, double)):
        await enqueue(redis, "double", 1, _defer_by=0.05)
        await redis.delete(keys.wake("lab"))
        await until(lambda: redis.exists(keys.result("job")))


async def test_deferred_job_starts_when_it_is_due(redis: AegisRedis) -> None:
    async with running(make(redis, double)):
        for number in range(5):
            await enqueue(redis, "double", 1, job_id=str(number), _defer_by=0.1 + number / 20)
        await until(lambda: redis.exists(keys.result("4")))
    for number in range(5):
        deferred, started, _ = await events(redis, str(number))
        late_ms = started.at_ms - deferred.read_data().due_at_ms  # type: ignore[union-attr]
        assert 0 <= late_ms < 500, "a poll would be later"


async def test_batch_wakes_as_many_workers_as_it_needs(redis: AegisRedis) -> None:
    gate, workers = Gate(), []
    for _ in range(4):
        workers.append(make(redis, func(gate.task, name="wait"), max_jobs=1))
    async with running(workers[0]), running(workers[1]), running(workers[2]), running(workers[3]):
        for number in range(4):
            await enqueue(redis, "wait", job_id=str(number))

        async def all_busy() -> bool:
            return all(len(worker.running) == 1 for worker in workers)

        await until(all_busy)
        gate.open.set()
        await until(lambda: all_have_results(redis, 4))


async def all_have_results(redis: AegisRedis, number: int) -> bool:
    return bool(await redis.exists(*[keys.result(str(n)) for n in range(number)]) == number)


# --- leases ------------------------------------------------------------------------------------------


async def test_lease_is_kept_while_the_job_runs(redis: AegisRedis, short_lease: float) -> None:
    gate = Gate()
    async with running(make(redis, func(gate.task, name="wait"))), running(make(redis, func(gate.task, name="wait"))):
        await enqueue(redis, "wait")
        await gate.reached.wait()
        await asyncio.sleep(3 * short_lease)
        gate.open.set()
        await until(lambda: redis.exists(keys.result("job")))
    assert await kinds(redis) == ["enqueued", "started", "succeeded"]


async def test_lease_is_kept_while_a_task_blocks_the_event_loop(redis: AegisRedis, short_lease: float) -> None:
    async def block(ctx: Context) -> None:
        time.sleep(4 * short_lease)  # noqa: ASYNC251 - the point

    await enqueue(redis, "block")
    await make(redis, func(block, name="block"), burst=True).async_run()
    assert await kinds(redis) == ["enqueued", "started", "succeeded"]
    assert await redis.get(keys.result("job")) is not None


async def test_worker_that_lost_its_lease_cancels_the_run_and_commits_nothing(
    redis: AegisRedis, short_lease: float
) -> None:
    gate = Gate()
    async with running(make(redis, func(gate.task, name="wait"))):
        await enqueue(redis, "wait")
        await gate.reached.wait()
        await redis.set(keys.in_progress("job"), b"stolen", px=60_000)
        async with asyncio.timeout(10):
            await gate.cancelled.wait()
    assert await kinds(redis) == ["enqueued", "started"]
    assert await redis.get(keys.in_progress("job")) == b"stolen"


async def test_outcome_of_a_stolen_job_is_refused(redis: AegisRedis) -> None:
    gate = Gate()
    async with running(make(redis, func(gate.task, name="wait"))):
        await enqueue(redis, "wait")
        await gate.reached.wait()
        await redis.set(keys.in_progress("job"), b"stolen", px=60_000)
        gate.open.set()  # before the next renewal
    assert not await redis.exists(keys.result("job"))
    assert await kinds(redis) == ["enqueued", "started"]


# --- heartbeats --------------------------------------------------------------------------------------


async def worker_kinds(redis: AegisRedis) -> list[str]:
    return [e.kind for e in await EventStream(redis).history() if e.kind.startswith("worker.")]


async def test_worker_is_registered_with_its_counts_while_it_runs(
    redis: AegisRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Heart, "every_s", 0.02)
    gate = Gate()

    async def is_counted() -> bool:
        return [(w.queue, w.runner, w.max_jobs, w.running, w.done, w.failed) for w in await read_workers(redis)] == [
            ("lab", "BatchWorker", 3, 1, 1, 1)
        ]

    async with running(make(redis, func(gate.task, name="wait"), double, fail, max_jobs=3)) as worker:
        await enqueue(redis, "wait")
        await enqueue(redis, "double", 1, job_id="other")
        await enqueue(redis, "fail", job_id="third")
        await until(is_counted)
        (registered,) = await read_workers(redis)
        assert (registered.id, registered.state) == (worker.worker_id, "running")
    assert await read_workers(redis) == []
    assert await worker_kinds(redis) == ["worker.started", "worker.stopped"]


async def test_worker_that_was_taken_for_lost_is_registered_again(
    redis: AegisRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Heart, "every_s", 0.02)
    async with running(make(redis, double)):
        await until(lambda: redis.zcard(keys.WORKERS))
        await redis.delete(keys.WORKERS)
        await until(lambda: redis.zcard(keys.WORKERS))
    assert await worker_kinds(redis) == ["worker.started", "worker.started", "worker.stopped"]


async def test_worker_lives_while_a_task_blocks_its_event_loop(
    redis: AegisRedis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Heart, "every_s", 0.02)
    beats = []

    async def block(ctx: Context) -> None:
        with SyncRedis.from_url(settings.redis_url) as other:
            for _ in range(2):
                beats.append(latest := other.zrange(keys.WORKERS, 0, -1, withscores=True))
                deadline_s = time.monotonic() + 10
                while other.zrange(keys.WORKERS, 0, -1, withscores=True) == latest and time.monotonic() < deadline_s:
                    time.sleep(0.01)  # noqa: ASYNC251 - the point

    await enqueue(redis, "block")
    await make(redis, func(block, name="block"), burst=True).async_run()
    assert beats[0] != beats[1]


@pytest.mark.parametrize("defer_s", [-1, 0])
async def test_retry_that_is_due_already_holds_up_nothing(redis: AegisRedis, defer_s: int) -> None:
    async def try_again(ctx: Context) -> int:
        if ctx["job_try"] == 1:
            raise Retry(defer=defer_s)
        return int(ctx["job_try"])

    await enqueue(redis, "try_again")
    await make(redis, func(try_again, name="try_again"), burst=True).async_run()
    assert await kinds(redis) == ["enqueued", "started", "retrying", "started", "succeeded"]


async def test_outcome_that_cannot_be_written_holds_up_no_other(
    redis: AegisRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make(redis, double)

    def record_badly(run: Run, outcome: Outcome) -> Ending:
        ending = worker._recorder.record(run, outcome)
        return ending._replace(number=-1) if run.job_id == "bad" else ending

    monkeypatch.setattr(worker, "_record", record_badly)
    for job_id in ("bad", "good", "better"):
        await enqueue(redis, "double", 1, job_id=job_id)
    async with running(worker):
        await until(lambda: redis.exists(keys.result("better")))
        await until(lambda: redis.exists(keys.result("good")))
        monkeypatch.undo()
        worker._buffer.waiting[0] = (worker._buffer.waiting[0][0], worker._buffer.waiting[0][1]._replace(number=0))
    assert await redis.exists(keys.result("bad"))


async def test_deferred_job_starts_in_time_though_the_connections_were_cut(redis: AegisRedis) -> None:
    async with running(make(redis, double)):
        await until(lambda: somebody_blocks(redis))
        await enqueue(redis, "double", 1, _defer_by=1.5)
        await asyncio.sleep(1)
        await redis.client_kill_filter(_type="normal", skipme=True)
        await until(lambda: redis.exists(keys.result("job")))
    deferred, started, _ = await events(redis)
    assert started.at_ms - deferred.at_ms < 1500 + 1000, "a whole poll would take longer"


async def test_worker_that_takes_no_more_jobs_leaves_the_wake_up_to_others(
    redis: AegisRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.batch_worker.POLL_S", 30)
    gate = Gate()
    leaving = make(redis, func(gate.task, name="wait"), double, job_completion_wait=20)
    await enqueue(redis, "wait", job_id="wait")
    async with running(leaving):
        await gate.reached.wait()
        await until(lambda: somebody_blocks(redis))
        async with running(make(redis, double)):
            await until(lambda: somebody_blocks(redis))
            leaving.stop(signal.SIGTERM)
            await enqueue(redis, "double", 1)
            await until(lambda: redis.exists(keys.result("job")))
        gate.open.set()


# --- an event loop that is blocked -------------------------------------------------------------------


@pytest.mark.parametrize("other_queue", [False, True])
async def test_blocked_event_loop_is_given_no_job(redis: AegisRedis, valkey_url: str, other_queue: bool) -> None:
    seen: list[bool] = []
    queue = keys.queue("beside") if other_queue else QUEUE

    async def block(ctx: Context) -> None:
        with SyncRedis.from_url(valkey_url) as client:  # not asyncio's: the loop stands still
            client.set(keys.job("late"), b'{"t":null,"f":"double","a":[1],"k":{},"et":1795499541204}')
            client.zadd(queue, {"late": 1795499541204})
            client.rpush(keys.wake(keys.queue_name(queue)), "1")
            end_s = time.monotonic() + 0.3
            while time.monotonic() < end_s:
                seen.append(bool(client.exists(keys.in_progress("late"))))

    beside = BatchWorker(
        [func(double, name="double")],
        queue_name=keys.queue("beside"),
        redis_pool=AegisRedis(pool_or_conn=redis.connection_pool),
        handle_signals=False,
    )
    async with running(make(redis, func(block, name="block"), double)), running(beside):
        await until(lambda: somebody_blocks(redis))
        await enqueue(redis, "block", job_id="block")
        await until(lambda: redis.exists(keys.result("late")))
    assert seen
    assert not any(seen), "an idle worker elsewhere could have had it"


# --- stopping ----------------------------------------------------------------------------------------


async def test_stopped_worker_gives_its_jobs_back_without_spending_an_attempt(redis: AegisRedis) -> None:
    gate = Gate()
    await enqueue(redis, "wait")
    async with running(make(redis, func(gate.task, name="wait"))):
        await gate.reached.wait()
    assert not await redis.exists(keys.in_progress("job"), keys.retry("job"))
    data = await last_data(redis)
    assert isinstance(data, JobRetrying)
    assert data.reason == "interrupted"
    gate.open.set()
    await make(redis, func(gate.task, name="wait"), burst=True).async_run()
    assert [event.attempt for event in await events(redis)] == [0, 1, 1, 1, 1]


async def test_job_that_heeds_no_cancellation_still_ends_well(redis: AegisRedis) -> None:
    reached = asyncio.Event()

    async def stubborn(ctx: Context) -> str:
        reached.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "tidied up"
        return "slept"

    await enqueue(redis, "stubborn")
    async with running(make(redis, func(stubborn, name="stubborn"))):
        await reached.wait()
    data = await last_data(redis)
    assert isinstance(data, JobSucceeded)
    assert data.result == "tidied up"


async def test_after_job_end_runs_once_the_result_is_stored(redis: AegisRedis) -> None:
    found = []

    async def look(ctx: Context) -> None:
        found.append(await ctx["redis"].get(keys.result(ctx["job_id"])))

    await enqueue(redis, "double", 4)
    await make(redis, double, burst=True, after_job_end=look).async_run()
    assert len(found) == 1
    assert found[0] is not None


# --- operators ---------------------------------------------------------------------------------------


async def test_running_job_is_aborted_at_once(redis: AegisRedis) -> None:
    gate = Gate()
    async with running(make(redis, func(gate.task, name="wait"))):
        await enqueue(redis, "wait")
        await gate.reached.wait()
        scripts = redis.scripts
        answer = await scripts.abort("lab", QUEUE, "job", keep_result_ms=1000, note=b'{"by":"ada"}')
        assert answer == "asked"
        async with asyncio.timeout(1):  # arq's poll would do it too, if only it were asked to
            await gate.cancelled.wait()
        await until(lambda: redis.exists(keys.result("job")))
    assert await last_data(redis) == JobAborted(was="in_progress", by="ada")
    assert not await redis.exists(keys.ABORT)


async def test_order_for_an_earlier_run_does_not_abort_a_later_one(redis: AegisRedis) -> None:
    gate = Gate()
    async with running(make(redis, func(gate.task, name="wait"))) as worker:
        await enqueue(redis, "wait")
        await gate.reached.wait()
        order = b'{"job_id":"job","token":"%b:0","note":"{}"}' % worker.worker_id.encode()
        pushing: Any = redis.rpush(keys.orders(worker.worker_id), order)
        await pushing
        await until(lambda: is_gone(redis, keys.orders(worker.worker_id)))
        gate.open.set()
        await until(lambda: redis.exists(keys.result("job")))
    assert await kinds(redis) == ["enqueued", "started", "succeeded"]


async def is_gone(redis: AegisRedis, key: str) -> bool:
    return not await redis.exists(key)


async def test_paused_queue_starts_nothing_until_it_is_resumed(redis: AegisRedis) -> None:
    async with running(make(redis, double)) as worker:
        await redis.scripts.pause("lab", is_paused=True)
        await enqueue(redis, "double", 1)
        claims = worker._claims
        worker._wake_up()

        async def has_looked() -> bool:
            return worker._claims > claims

        await until(has_looked)
        assert not await redis.exists(keys.result("job"))
        await redis.scripts.pause("lab", is_paused=False)
        await until(lambda: redis.exists(keys.result("job")))
