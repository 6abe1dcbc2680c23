"""`BatchWorker`: arq's worker, which claims and finishes jobs in batches and loses none when it dies.

The loop is poll -> claim -> execute -> finish. One script claims as many due jobs as there are free
places (`bridge/lua/claim.lua`), each job runs as its own asyncio task (`workers.execution`), and
whatever has ended goes to `bridge/lua/finish.lua` together (`workers.finish_buffer`). A thread
(`workers.duties`) renews leases (`workers.lease`) and tells that the worker lives (`workers.heartbeat`),
an idle worker waits on a blocking read (`workers.bell`).
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from time import time
from typing import Any, Final, cast
from weakref import WeakSet

import msgspec
from arq.constants import abort_job_max_age
from arq.utils import to_unix_ms
from arq.worker import Function, Worker

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.broker import STORE_AWAY, is_away, open_at, same_place
from bridge.codec import job_deserializer, job_serializer
from bridge.scripts import Claims, Ending, Scripts
from workers.backoff import Backoff
from workers.bell import Bell
from workers.claim import FIELDS, Run, runs_of
from workers.deadlines import Deadlines
from workers.duties import DutyThread
from workers.execution import ATTEMPT, Execution
from workers.finish_buffer import FinishBuffer
from workers.heartbeat import Heart, new_worker_id
from workers.lease import LeaseKeeper
from workers.orders import Abort, Orders
from workers.outcome import Aborted, Failed, Outcome, Recorder, Retrying, Succeeded
from workers.progress import PROGRESS
from workers.progress_writer import ProgressWriter

__all__ = ["BatchWorker"]

logger = logging.getLogger("aegis.workers")

POLL_S: Final = 1.75
"""How often an idle worker looks for jobs though nobody rang."""
TICK_S: Final = 0.5
"""How often aborts of arq's clients, cron jobs and the sign of life are looked after; arq's own poll."""
WAITING_LIMIT: Final = 2000
"""Outcomes that may wait to be written; above, no job is claimed."""
CLAIM_VALID_MS: Final = 2500
"""A claim that Redis has not come to by then takes nothing: its answer might find nobody who waits for it."""
WRITE_LAST_S: Final = 5.0
"""How long a worker that stops tries to write its last outcomes."""
in_this_process: "Final[WeakSet[BatchWorker]]" = WeakSet()
"""Workers that are running, mostly in the same event loop."""


class BatchWorker(Worker):
    """A worker with arq's constructor and behaviour, many times as fast.

    What it writes appears together with its event, in one script. A job it has claimed is safe for
    10 s at a time; when the worker dies, another one starts it within that time, and whatever the
    dead one may still send is refused. When Redis is away it waits, and goes on.

    Deliberate differences to arq are listed in ``docs/guides/batch-worker.md``; the first: job
    bodies are read, and results written, as JSON by `bridge.codec`, unless ``job_deserializer`` and
    ``job_serializer`` say otherwise.

    Args:
        functions: as in arq.
        events_max_len: entries that the event stream keeps, approximately.
        options: arq's options. ``poll_delay`` and ``queue_read_limit`` are accepted and not needed.
    """

    def __init__(
        self, functions: Sequence[Function | Any] = (), *, events_max_len: int = 1_000_000, **options: Any
    ) -> None:
        options["job_serializer"] = options.get("job_serializer") or job_serializer
        options["job_deserializer"] = options.get("job_deserializer") or job_deserializer
        super().__init__(functions, **options)
        self.events_max_len = events_max_len
        self.queue = keys.queue_name(self.queue_name)
        self.worker_id = new_worker_id()
        self.leases: dict[str, Run] = {}
        self.running: set[Run] = set()
        self._clock_offset_ms = 0.0
        self._claims = 0
        self._started = 0
        self._is_stopping = self._is_cut_off = False
        self._tick_backoff = Backoff("the sign of life cannot be written", logger)
        self._hooks: set[asyncio.Task[None]] = set()
        self._slot: asyncio.Event | None = None
        self._bell: Bell | None = None

    # --- life -----------------------------------------------------------------------------------

    async def main(self) -> None:
        """The worker has run until it was told to stop, or until its burst is done."""
        self._pool = pool = await self._open_pool()
        logger.info("starting worker of %s for %d functions", self.queue, len(self.functions))
        self.ctx["redis"] = pool
        if self.on_startup:
            await self.on_startup(self.ctx)
        self._open()
        in_this_process.add(self)
        await self._tell(self._heart.do)
        await self._tick()  # cron jobs of the start come before a burst looks whether there is work
        loops = [
            asyncio.create_task(loop)
            for loop in (
                self._orders.listen(),
                self._buffer.run(),
                self._progress.run(),
                self._tick_forever(),
            )
        ]
        self._duties.start()
        claiming = asyncio.create_task(self._claim_forever())
        try:
            done, _ = await asyncio.wait([claiming, *loops], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await self._wind_down(claiming, loops)

    async def _open_pool(self) -> AegisRedis:
        pool = self._pool
        if isinstance(pool, AegisRedis):
            return pool
        if pool is None:
            assert self.redis_settings is not None  # noqa: S101 - arq's constructor sets it where there is no pool
            view = open_at(self.redis_settings)
        else:
            view = AegisRedis(pool_or_conn=pool.connection_pool)
        view.job_serializer, view.job_deserializer = self.job_serializer, self.job_deserializer
        view.default_queue_name = self.queue_name
        view.events_max_len = self.events_max_len
        return view

    def _open(self) -> None:
        """Everything that belongs to the running event loop."""
        self._slot = asyncio.Event()
        self._claim_client = same_place(self.pool)
        self._bell_client = same_place(self.pool)
        self._orders_client = same_place(self.pool)
        self._orders = Orders(
            self._orders_client, keys.orders(self.worker_id), has_work=lambda: bool(self.running), obey=self._abort
        )
        self._scripts = Scripts(self._claim_client, events_max_len=self.events_max_len)
        self._waiting_scripts = Scripts(self._bell_client, events_max_len=self.events_max_len)
        self._bell = Bell(self._bell_client, queue=self.queue, worker_id=self.worker_id)
        self._buffer = FinishBuffer(self._finish, self._committed)
        self._progress = self.ctx[PROGRESS] = ProgressWriter(
            self._scripts, queue=self.queue, worker=self.worker_id, attempt_of=self._attempt_of
        )
        self._deadlines = Deadlines(self.running)
        self._recorder = Recorder(
            queue_key=self.queue_name,
            serializer=self.job_serializer or job_serializer,
            keep_result_ms=self._keep_result_ms,
        )
        self._execution = Execution(
            queue=self.queue,
            functions=self.functions,
            deserializer=self.job_deserializer or job_deserializer,
            ctx=self.ctx,
            timeout_s=self.job_timeout_s,
            max_tries=self.max_tries,
            retries=self.retry_jobs,
            on_job_start=self.on_job_start,
            on_job_end=self.on_job_end,
            now_ms=self._now_ms,
            clock_s=self._deadlines.loop.time,
            watch=self._deadlines.watch,
        )
        self._heart = Heart(
            self.worker_id, queue=self.queue, max_jobs=self.max_jobs, runner="BatchWorker", counts=self._counts
        )
        leases = LeaseKeeper(queue_key=self.queue_name, leases=self.leases, lost=self._lost)
        self._duties = DutyThread(
            self.pool, [leases, self._heart], name=f"duties of {self.queue}", events_max_len=self.events_max_len
        )
        most_tries = {name: f.max_tries for name, f in self.functions.items() if f.max_tries is not None}
        self._most_tries = msgspec.json.encode({**most_tries, "": self.max_tries})

    async def _wind_down(self, claiming: "asyncio.Task[None]", loops: "Sequence[asyncio.Task[None]]") -> None:
        """Running jobs are given back, outcomes written, connections closed."""
        was_stopped, self._is_stopping = self._is_stopping, True
        in_this_process.discard(self)
        self._wake_up()
        end_s = self.loop.time() + WRITE_LAST_S
        self._stop_runs()
        await asyncio.wait({claiming}, timeout=CLAIM_VALID_MS / 1000)  # Redis may be silent
        self._stop_runs()
        if tasks := list(self.tasks.values()):
            await asyncio.wait(tasks)
        drained = asyncio.ensure_future(self._buffer.drained())
        await asyncio.wait({drained}, timeout=max(WRITE_LAST_S / 2, end_s - self.loop.time()))
        if self._hooks:
            await asyncio.wait(self._hooks)
        await self._duties.stop()
        self._is_cut_off = not drained.done()
        if not self._is_cut_off:
            await self._tell(self._heart.stop)
        self._deadlines.close()
        while pending := {task for task in (claiming, *loops) if not task.done()}:
            for task in pending:
                task.cancel()  # again and again: on 3.11 redis-py may swallow a cancellation
            await asyncio.wait(pending, timeout=0.1)
        for client in (self._claim_client, self._bell_client, self._orders_client):
            with contextlib.suppress(*STORE_AWAY):
                await client.connection_pool.disconnect()
        self._is_stopping = was_stopped  # a burst that is done may be run again
        if not claiming.cancelled() and (error := claiming.exception()):
            raise error

    async def close(self) -> None:
        """The worker has ended and is no longer seen as alive; its pool is closed."""
        if self.main_task is not None and not self.main_task.done():
            self._is_stopping = True
            self._wake_up()
            await asyncio.wait({self.main_task})
        if not self._pool:
            return
        if not self._is_cut_off:
            with contextlib.suppress(*STORE_AWAY):
                await self.pool.delete(self.health_check_key)
        if self.on_shutdown:
            await self.on_shutdown(self.ctx)
        with contextlib.suppress(*STORE_AWAY):
            await self.pool.aclose(close_connection_pool=True)
        self._pool = None

    def stop(self, signum: signal.Signals) -> None:
        """The worker ends: at once, or when its jobs have, or ``job_completion_wait`` is over."""
        if self._job_completion_wait:
            self.handle_sig_wait_for_completion(signum)
        else:
            self.handle_sig(signum)

    def handle_sig(self, signum: signal.Signals) -> None:
        """No job is claimed any more, and those that run are cancelled and given back."""
        logger.info("stopping on %s: %r", signal.Signals(signum).name, self)
        self._is_stopping = True
        self._stop_runs()
        self._wake_up()
        if self.on_stop:
            self.on_stop(signum)

    def handle_sig_wait_for_completion(self, signum: signal.Signals) -> None:
        """No job is claimed any more; those that run have ``job_completion_wait`` seconds to end."""
        logger.info("stopping on %s when jobs have ended: %r", signal.Signals(signum).name, self)
        self.allow_pick_jobs = False
        self._wake_up()
        self._grace = self.loop.create_task(self._wait_for_tasks_to_complete(signum))

    async def _wait_for_tasks_to_complete(self, signum: signal.Signals) -> None:
        if self.tasks:
            await asyncio.wait(list(self.tasks.values()), timeout=self._job_completion_wait)
        self.handle_sig(signum)

    def _stop_runs(self) -> None:
        for run in list(self.running):
            run.stop("stop")

    def _wake_up(self) -> None:
        if self._slot is not None:
            self._slot.set()
        if self._bell is not None and not self.burst:
            self._bell.ring()

    @property
    def pool(self) -> AegisRedis:
        """The worker's client, once it runs."""
        return cast(AegisRedis, self._pool)

    def __repr__(self) -> str:
        return (
            f"<BatchWorker j_complete={self.jobs_complete} j_failed={self.jobs_failed} "
            f"j_retried={self.jobs_retried} j_ongoing={len(self.running)}>"
        )

    # --- claim ----------------------------------------------------------------------------------

    async def _claim_forever(self) -> None:
        """Jobs are claimed while there are free places, until the worker stops or its burst is done."""
        assert self._slot is not None  # noqa: S101 - _open() made it
        backoff = Backoff("jobs cannot be claimed", logger)
        pause_s = 0.0
        while not self._is_stopping:
            self._slot.clear()
            wanted = self._wanted()
            try:
                if wanted <= 0:
                    if await self._is_burst_done():
                        return
                    await self._slot.wait()
                    await asyncio.sleep(0)  # whatever ends in this turn of the loop frees its place too
                    pause_s = 0.0
                    continue
                if pause_s and self._may_block():
                    await self._pause(pause_s)
                    backoff.reset()
                    pause_s = 0.0
                    continue
                claims = await self._claim(wanted, pause_s=pause_s)
                if not claims.jobs and await self._is_burst_done():
                    return
            except Exception as error:
                pause_s = 0.0
                await backoff.after(error, is_expected=is_away(error))
                continue
            if pause_s or claims.jobs:  # waiting may fail where claiming does not
                backoff.reset()
            pause_s = self._pause_s(claims) if len(claims.jobs) < wanted * FIELDS else 0.0
            await asyncio.sleep(0)

    def _may_block(self) -> bool:
        """Whether something may block the event loop: what Redis gave us then would wait although others are idle."""
        return bool(self.burst or self.running or self._hooks or len(in_this_process) > 1)

    def _wanted(self) -> int:
        """How many jobs to claim now."""
        if not self.allow_pick_jobs or len(self._buffer) > WAITING_LIMIT:
            return 0
        free = self.max_jobs - len(self.running)
        if self.burst and self.max_burst_jobs >= 0:
            free = min(free, self.max_burst_jobs - self._started)
        return free

    async def _claim(self, wanted: int, *, pause_s: float = 0.0) -> Claims:
        """Jobs have been claimed and started: at once, or when somebody rings or the pause is over."""
        assert self._bell is not None  # noqa: S101 - _open() made it
        self._claims += 1
        token = f"{self.worker_id}:{self._claims}"
        with self._alarm(pause_s):
            claims = await (self._waiting_scripts if pause_s else self._scripts).claim(
                self.queue,
                self.queue_name,
                worker=self.worker_id,
                token=token,
                wanted=wanted,
                ahead_ms=int(POLL_S * 1000),
                most_tries=self._most_tries,
                heeds_aborts=self.allow_abort_jobs,
                valid_until_ms=self._now_ms() + CLAIM_VALID_MS if self._claims > 1 else 0,
                rung_by=self._bell.lists if pause_s else (),
                block_s=POLL_S,
            )
        self._clock_offset_ms = claims.now_ms - time() * 1000
        for run in runs_of(claims, token):
            self._start(run)
        return claims

    async def _pause(self, pause_s: float) -> None:
        """Somebody rang, or the pause is over; a burst, which waits for its own jobs alone, does not listen."""
        assert self._slot is not None and self._bell is not None  # noqa: S101, PT018 - _open() made them
        with self._alarm(pause_s):
            if self.burst:
                await self._slot.wait()
            elif await self._bell.wait(POLL_S) and (self._is_stopping or self._wanted() <= 0):
                await self._bell.pass_on()

    @contextlib.contextmanager
    def _alarm(self, pause_s: float) -> Iterator[None]:
        """While inside, the worker is woken up after the pause, if Redis does not do it, or not to the ms."""
        if pause_s <= 0 or (pause_s >= POLL_S and not self.burst):
            yield
            return
        alarm = self.loop.call_later(pause_s, self._wake_up)
        try:
            yield
        finally:
            alarm.cancel()

    def _start(self, run: Run) -> None:
        if earlier := self.leases.get(run.job_id):
            earlier.stop("lost")
        if self._is_stopping or not self.allow_pick_jobs:
            run.stop_reason = "stop"
        self.leases[run.job_id] = run
        self.running.add(run)
        self._orders.wanted.set()
        self._started += 1
        self.tasks[run.token + run.job_id] = run.handle = self.loop.create_task(self._execute(run))

    def _pause_s(self, claims: Claims) -> float:
        """How long to wait for the bell: until the next job is due, or one could be."""
        if not claims.next_due_ms:
            return POLL_S
        return min(POLL_S, max(0.0, (claims.next_due_ms - self._now_ms()) / 1000))

    async def _is_burst_done(self) -> bool:
        if not self.burst or self.running or self._hooks or len(self._buffer):
            return False
        if 0 <= self.max_burst_jobs <= self._started:
            return True
        return not await self._claim_client.zcard(self.queue_name)

    # --- execute and finish ---------------------------------------------------------------------

    async def _execute(self, run: Run) -> None:
        """One job's asyncio task: the outcome is in the buffer at its end."""
        try:
            outcome = await self._execution.run(run)
        except BaseException as error:
            logger.exception("job %s: a bug in the worker", run.job_id)
            outcome = Failed("error", error)
        self.running.discard(run)
        del self.tasks[run.token + run.job_id]
        if run.stop_reason == "lost":
            self._forget(run)
            logger.warning("job %s attempt %d: the lease was lost, another worker has it", run.job_id, run.attempt)
        else:
            self._count(run, outcome)
            self._buffer.add(run, self._record(run, outcome))
        self._slot.set()  # type: ignore[union-attr]  # _open() made it

    def _record(self, run: Run, outcome: Outcome) -> Ending:
        """What is written; an outcome that cannot be is a failure that says so, for every job must end."""
        try:
            return self._recorder.record(run, outcome)
        except Exception as error:
            logger.exception("job %s: its outcome cannot be written", run.job_id)
            reason = f"the outcome cannot be written: {type(error).__name__}"
            return self._recorder.record(run, Failed("error", RuntimeError(reason)))

    def _count(self, run: Run, outcome: Outcome) -> None:
        if type(outcome) is Succeeded:
            self.jobs_complete += 1
        elif type(outcome) is Retrying:
            self.jobs_retried += 1
        else:
            self.jobs_failed += 1
            if type(outcome) is Failed and run.function is not None:
                logger.error("job %s (%s) failed", run.job_id, run.task, exc_info=outcome.error)
        if type(outcome) is not Succeeded and not isinstance(outcome, Aborted) and run.function is None:
            logger.warning("job %s cannot run: %s", run.job_id, getattr(outcome, "error", ""))

    async def _finish(self, endings: Sequence[Ending]) -> list[int]:
        if self._progress.has_unwritten:
            await self._progress.settle([self.leases[e.job_id] for e in endings if e.job_id in self.leases])
        leases = self.leases
        traces = {e.job_id: run.trace for e in endings if (run := leases.get(e.job_id)) is not None and run.trace}
        return await self._scripts.finish(
            self.queue, self.queue_name, worker=self.worker_id, endings=endings, traces=traces
        )

    def _committed(self, batch: Sequence[tuple[Run, Ending]], answers: Sequence[int]) -> None:
        """A batch is stored: its leases are over, and its hooks may run."""
        is_told = logger.isEnabledFor(logging.INFO)
        for (run, ending), is_committed in zip(batch, answers, strict=True):
            self._forget(run)
            if not is_committed:
                logger.warning("job %s attempt %d: its lease was over, the outcome is dropped", run.job_id, run.attempt)
                continue
            if is_told:
                logger.info(
                    "%.3fs %s %s (%s) attempt %d", run.ran_ms / 1000, ending.kind, run.job_id, run.task, run.attempt
                )
            if self.after_job_end is not None and run.started_ms:
                hook = asyncio.create_task(self._run_after_job_end(run))
                self._hooks.add(hook)
                hook.add_done_callback(self._hook_ended)
        self._slot.set()  # type: ignore[union-attr]  # _open() made it

    def _hook_ended(self, hook: "asyncio.Task[None]") -> None:
        self._hooks.discard(hook)
        self._slot.set()  # type: ignore[union-attr]  # _open() made it

    async def _run_after_job_end(self, run: Run) -> None:
        assert self.after_job_end is not None  # noqa: S101
        await self._execution.tell_end(run.ctx, self.after_job_end)

    def _forget(self, run: Run) -> None:
        if self.leases.get(run.job_id) is run:
            del self.leases[run.job_id]

    def _attempt_of(self, ctx: Mapping[Any, Any]) -> Run | None:
        run = self.leases.get(ctx.get("job_id", ""))
        return run if run is not None and run.token == ctx.get(ATTEMPT) else None

    def _abort(self, order: Abort) -> None:
        run = self.leases.get(order.job_id)
        if run is not None and run.token == order.token and run in self.running:
            run.note = order.note.encode()
            run.stop("abort")

    def _lost(self, runs: Sequence[Run]) -> None:
        for run in runs:
            if run in self.running:
                run.stop("lost")

    def _keep_result_ms(self, run: Run) -> int | None:
        """How long the result is kept: 0 for ever, ``None`` not at all."""
        function = run.function
        forever = None if function is None else function.keep_result_forever
        if self.keep_result_forever if forever is None else forever:
            return 0
        own_s = None if function is None else function.keep_result_s
        keep_s = self.keep_result_s if own_s is None else own_s
        return round(keep_s * 1000) or None if keep_s else None

    # --- the rest -------------------------------------------------------------------------------

    def _now_ms(self) -> int:
        """Redis' clock, as of the latest claim."""
        return int(time() * 1000 + self._clock_offset_ms)

    async def _tick_forever(self) -> None:
        """Signs of life, cron jobs and aborts of arq's clients are looked after."""
        while True:
            await asyncio.sleep(TICK_S)
            await self._tick()

    async def _tick(self) -> None:
        try:
            await self.heart_beat()
            if self.allow_abort_jobs and self.running:
                await self._cancel_aborted_jobs()
        except Exception as error:
            await self._tick_backoff.after(error, is_expected=is_away(error))
        else:
            self._tick_backoff.reset()

    async def heart_beat(self) -> None:
        """The sign of life is written if it is time, and cron jobs that are near are enqueued."""
        await self.record_health()
        now = datetime.fromtimestamp(self._now_ms() / 1000, UTC).astimezone(self.timezone)
        await self.run_cron(now, TICK_S)

    async def run_cron(self, n: datetime, delay: float, num_windows: int = 2) -> None:
        """Runs of cron jobs that are near are enqueued, each unique one once, however many workers there are.

        As arq's method, but for the guard: a worker that comes late finds that the run has been, even if it has ended.
        """
        soon = n + timedelta(seconds=delay * num_windows)
        for job in self.cron_jobs:
            if job.next_run is None:
                if not job.run_at_startup:
                    job.calculate_next(n)
                    continue
                job.next_run = n
            if job.next_run >= soon:
                continue
            due_at_ms = to_unix_ms(job.next_run)
            job_id = job.job_id or (f"{job.name}:{due_at_ms}" if job.unique else None)
            await self.pool.enqueue_cron_run(job.name, job_id=job_id, queue_key=self.queue_name, due_at_ms=due_at_ms)
            job.calculate_next(job.next_run)

    async def _cancel_aborted_jobs(self) -> None:
        """Running jobs in arq's abort set are cancelled; entries that nobody took for a day are removed."""
        async with self.pool.pipeline(transaction=True) as pipe:
            pipe.zrange(keys.ABORT, 0, -1, withscores=True)
            pipe.zremrangebyscore(keys.ABORT, "-inf", self._now_ms() - abort_job_max_age)
            entries, _ = await pipe.execute()
        for job_id, asked_at_ms in entries:
            run = self.leases.get(job_id.decode())
            if run is not None and run in self.running and asked_at_ms >= run.enqueued_at_ms:
                run.stop("abort")
                await self.pool.zrem(keys.ABORT, job_id)

    def _counts(self) -> tuple[int, int, int, int]:
        return len(self.running), self.jobs_complete, self.jobs_failed, self.jobs_retried

    async def _tell(self, tell: Callable[[Scripts], Awaitable[None]]) -> None:
        try:
            await tell(self._scripts)
        except Exception as error:
            logger.warning("that this worker came or went cannot be written: %s", error)
