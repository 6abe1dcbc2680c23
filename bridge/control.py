"""What operators do to jobs and queues: abort, pause, resume."""

from typing import Literal

import msgspec
from arq.utils import to_seconds
from redis.asyncio import Redis

from bridge.catalog import Catalog, Queue
from bridge.errors import JobNotFound
from bridge.scripts import Scripts

__all__ = ["Control"]

NOT_AT_ALL = -1


class Control:
    """Changes what is stored, each change with its event in one step.

    Args:
        redis: the store.
        catalog: the queues to look in.
        scripts: on the same store.
        keep_result_s: how long results are kept where a queue's class does not say.
    """

    def __init__(self, redis: Redis, catalog: Catalog, scripts: Scripts, *, keep_result_s: float) -> None:
        self.redis = redis
        self.catalog = catalog
        self.scripts = scripts
        self.keep_result_s = keep_result_s

    async def abort(
        self, job_id: str, *, by: str | None = None, reason: str | None = None
    ) -> Literal["aborted", "asked", "ended"]:
        """Aborts a job: one that waits ends now, of one that runs the worker is told, which cancels it.

        Returns:
            ``aborted``: it has ended; ``asked``: its worker ends it in a moment; ``ended``: it had ended before.

        Raises:
            JobNotFound: nothing is known of it.
        """
        note = msgspec.json.encode({name: text for name, text in (("by", by), ("reason", reason)) if text})
        answer = "unknown"
        for queue in await self._queues_of(job_id):
            answer = await self.scripts.abort(
                queue.name, queue.key, job_id, keep_result_ms=self._keep_result_ms(queue), note=note
            )
            if answer not in {"unknown", "ended"}:
                break
        match answer:
            case "aborted" | "asked" | "ended":
                return answer
            case _:
                raise JobNotFound(job_id)

    async def pause(self, queue_name: str, *, by: str | None = None) -> bool:
        """No worker of ours starts a job of this queue any more; those that run go on. Whether it ran before.

        Raises:
            InvalidQueueType: there is no such queue.
        """
        return await self._set_paused(queue_name, True, by)

    async def resume(self, queue_name: str, *, by: str | None = None) -> bool:
        """Workers start jobs of this queue again. Whether it was paused.

        Raises:
            InvalidQueueType: there is no such queue.
        """
        return await self._set_paused(queue_name, False, by)

    async def _set_paused(self, queue_name: str, is_paused: bool, by: str | None) -> bool:
        name = self.catalog.queue(queue_name).name
        return await self.scripts.pause(name, is_paused=is_paused, note=msgspec.json.encode({"by": by} if by else {}))

    async def _queues_of(self, job_id: str) -> list[Queue]:
        """The queue that has the job first: of an ended one any queue can tell."""
        queues = list(self.catalog.queues.values())
        async with self.redis.pipeline(transaction=False) as pipe:
            for queue in queues:
                pipe.zscore(queue.key, job_id)
            scores = await pipe.execute()
        return [queue for queue, score in zip(queues, scores, strict=True) if score is not None] or queues[:1]

    def _keep_result_ms(self, queue: Queue) -> int:
        own = vars(queue.settings_class)
        if own.get("keep_result_forever"):
            return 0
        keep_s = to_seconds(own.get("keep_result", self.keep_result_s))
        return round(keep_s * 1000) if keep_s else NOT_AT_ALL
