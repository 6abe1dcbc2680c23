"""arq's Redis client, whose ``enqueue_job`` writes the job and its event in one call."""

import asyncio
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final, cast

from arq.connections import ArqRedis
from arq.jobs import Job, ResultNotFound, SerializationError, serialize_job
from arq.utils import timestamp_ms, to_ms, to_unix_ms

from bridge import keys, tracing
from bridge.codec import job_serializer
from bridge.new_job import job_body, new_job_id
from bridge.scripts import NewJob, Scripts

__all__ = ["AegisJob", "AegisRedis"]

KEEP_ABORTED_MS: Final = 3600 * 1000
"""How long the result of a job is kept that was aborted before a worker had it: arq's default for any result."""


class AegisJob(Job):
    """A `Job` in all but ``abort``, which takes effect at once: arq's waits until a worker looks."""

    async def abort(self, *, timeout: float | None = None, poll_delay: float = 0.05) -> bool:  # noqa: ASYNC109 - arq's
        """Whether the job ended because of this, rather than before it or in spite of it.

        Args:
            timeout: seconds to wait for a job that runs; by default as long as it takes.
            poll_delay: how often, in seconds, its result is looked for.

        Raises:
            TimeoutError: it has not ended in time.
        """
        scripts = cast("AegisRedis", self._redis).scripts
        queue = keys.queue_name(self._queue_name)
        caller = asyncio.current_task()
        cancellations = caller.cancelling() if caller is not None else 0
        answer = await scripts.abort(queue, self._queue_name, self.job_id, keep_result_ms=KEEP_ABORTED_MS)
        if answer == "aborted":
            return True
        try:
            await self.result(timeout=timeout, poll_delay=poll_delay)
        except ResultNotFound:
            return False
        except asyncio.CancelledError:
            if caller is not None and caller.cancelling() > cancellations:
                raise
            return True
        return False


class AegisRedis(ArqRedis):
    """An `ArqRedis` in all but ``enqueue_job``: one round trip instead of three, and a ``job.enqueued`` event.

    The body does not expire after a day, as arq's does, unless ``_expires`` says so.
    """

    events_max_len: int = 1_000_000

    @cached_property
    def scripts(self) -> Scripts:
        """The scripts, on this client."""
        return Scripts(self, events_max_len=self.events_max_len)

    async def enqueue_job(
        self,
        function: str,
        *args: Any,
        _job_id: str | None = None,
        _queue_name: str | None = None,
        _defer_until: datetime | None = None,
        _defer_by: int | float | timedelta | None = None,
        _expires: int | float | timedelta | None = None,
        _job_try: int | None = None,
        **kwargs: Any,
    ) -> Job | None:
        """Enqueues a job, with arq's arguments and meaning.

        Args:
            function: name of the task.
            args: its positional arguments.
            _job_id: an id of your choice; a live or kept job with it makes this return ``None``.
            _queue_name: key of the queue, by default this pool's own.
            _defer_until: instant before which it does not start.
            _defer_by: seconds before which it does not start.
            _expires: seconds after which it is dropped unless it has started; by default never.
            _job_try: attempts that count as made already, plus one.
            kwargs: its keyword arguments.

        Raises:
            SerializationError: JSON cannot hold an argument.
        """
        if _defer_until and _defer_by:
            raise RuntimeError("use either '_defer_until' or '_defer_by' or neither, not both")
        job_id, queue_key = _job_id or new_job_id(), _queue_name or self.default_queue_name
        queue = keys.queue_name(queue_key)
        job = NewJob(
            job_id=job_id,
            task=function,
            queue=queue,
            queue_key=queue_key,
            body=self._body(
                function, args, kwargs, _job_try, trace=tracing.trace_of_enqueue(function, queue, job_id, "")
            ),
            delay_ms=to_ms(_defer_by) or 0,
            due_at_ms=to_unix_ms(_defer_until) if _defer_until else 0,
            expires_ms=to_ms(_expires) or 0,
        )
        return await self._store(job)

    async def enqueue_cron_run(
        self, function: str, *, job_id: str | None, queue_key: str, due_at_ms: int
    ) -> Job | None:
        """Enqueues a run of a cron job, unless another worker has; with ``job_id`` ``None`` each worker's is one.

        Args:
            function: name of the cron job.
            job_id: the same for all workers.
            queue_key: the queue's zset.
            due_at_ms: when it is to run; with the name it tells the run.
        """
        job = NewJob(
            job_id=job_id or new_job_id(),
            task=function,
            queue=keys.queue_name(queue_key),
            queue_key=queue_key,
            body=self._body(function, (), {}, None),
            due_at_ms=due_at_ms,
        )
        return await self._store(job, cron_run=f"{function}:{due_at_ms}" if job_id else "")

    async def _store(self, job: NewJob, *, cron_run: str = "") -> Job | None:
        _, (event_id,) = await self.scripts.enqueue([job], cron_run=cron_run)
        if not event_id:
            return None
        return AegisJob(job.job_id, redis=self, _queue_name=job.queue_key, _deserializer=self.job_deserializer)

    def _body(
        self, function: str, args: tuple[Any, ...], kwargs: dict[str, Any], job_try: int | None, *, trace: str = ""
    ) -> tuple[bytes, bytes]:
        """The job as JSON; as the pool's own serializer writes it where that is another than ours."""
        if self.job_serializer not in {None, job_serializer}:
            now_ms = timestamp_ms()
            return serialize_job(function, args, kwargs, job_try, now_ms, serializer=self.job_serializer), b""
        try:
            return job_body(function, args, kwargs, job_try=job_try, asked={"trace": trace} if trace else None)
        except Exception as error:
            raise SerializationError(f'unable to serialize job "{function}"') from error
