"""What came of a queue's jobs since its first one: read from the counters that the scripts write and nobody resets."""

from collections.abc import Mapping, Sequence

import msgspec
from redis.asyncio import Redis

from bridge import keys

__all__ = ["QueueTotals", "read_totals", "totals_of"]


class QueueTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers that only grow, whichever process asks.

    Attributes:
        enqueued: jobs that were stored to run at once.
        deferred: jobs that were stored for later.
        requeued: dead jobs that were put back.
        succeeded, failed, aborted: jobs that ended so, as far as `BatchWorker` ran them or none had begun to.
        retried: attempts that another one follows.
        waits: bucket of `bridge.time_buckets` -> attempts that were claimed so long after they were due.
        runs: bucket -> attempts that ran so long.
    """

    enqueued: int
    deferred: int
    requeued: int
    succeeded: int
    failed: int
    aborted: int
    retried: int
    waits: dict[int, int]
    runs: dict[int, int]


async def read_totals(redis: Redis, queues: Sequence[str]) -> list[QueueTotals]:
    """Of each queue, by its short name, in one round trip."""
    async with redis.pipeline(transaction=False) as pipe:
        for queue in queues:
            pipe.hgetall(keys.totals(queue))
        return [totals_of(fields) for fields in await pipe.execute()]


def totals_of(fields: Mapping[bytes, bytes]) -> QueueTotals:
    """The counters in this hash; fields that we do not know are ignored."""
    numbers = {name.decode(errors="replace"): int(number) for name, number in fields.items()}
    return QueueTotals(
        enqueued=numbers.get("job.enqueued", 0),
        deferred=numbers.get("job.deferred", 0),
        requeued=numbers.get("requeued", 0),
        succeeded=numbers.get("job.succeeded", 0),
        failed=numbers.get("job.failed", 0),
        aborted=numbers.get("job.aborted", 0),
        retried=numbers.get("job.retrying", 0),
        waits=histogram(numbers, "wait:"),
        runs=histogram(numbers, "run:"),
    )


def histogram(numbers: Mapping[str, int], prefix: str) -> dict[int, int]:
    found = {name.removeprefix(prefix): number for name, number in numbers.items() if name.startswith(prefix)}
    return {int(bucket): number for bucket, number in found.items() if bucket.isdecimal()}
