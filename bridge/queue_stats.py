"""What came of a queue's jobs in the last minutes: read from the counters that ``finish.lua`` writes."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec
from redis.asyncio import Redis

from bridge import keys
from bridge.time_buckets import quantile_ms

__all__ = ["MINUTES", "QueueStats", "read_stats"]

MINUTES: Final = 5


class QueueStats(msgspec.Struct, frozen=True, kw_only=True):
    """The attempts on a queue that ended within some time until now.

    Attributes:
        seconds: how long that time is: whole minutes, and so much of this one as is over.
        succeeded, failed, aborted: jobs that ended so.
        retried: attempts that another one follows.
        per_second: jobs that ended, on average.
        failure_rate: failed jobs among those that succeeded or failed; ``None`` when there was none.
        wait_p50_ms, wait_p95_ms: how long after it was due an attempt was claimed; ``None`` when none ran.
        run_p50_ms, run_p95_ms: how long an attempt ran; ``None`` when none did.
    """

    seconds: float
    succeeded: int
    failed: int
    aborted: int
    retried: int
    per_second: float
    failure_rate: float | None
    wait_p50_ms: int | None
    wait_p95_ms: int | None
    run_p50_ms: int | None
    run_p95_ms: int | None


async def read_stats(redis: Redis, queues: Sequence[str], *, minutes: int = MINUTES) -> list[QueueStats]:
    """Of each queue, by its short name; all of them in one round trip after one that asks for the time.

    Args:
        redis: the store.
        queues: short names.
        minutes: whole minutes before this one; counters are kept for about two hours.
    """
    seconds, microseconds = await redis.time()
    minute, elapsed_s = divmod(seconds + microseconds / 1e6, 60)
    async with redis.pipeline(transaction=False) as pipe:
        for queue in queues:
            for back in range(minutes + 1):
                pipe.hgetall(keys.stats(queue, int(minute) - back))
        counts = await pipe.execute()
    per_queue = [counts[start : start + minutes + 1] for start in range(0, len(counts), minutes + 1)]
    return [summarize(of_queue, seconds=minutes * 60 + elapsed_s) for of_queue in per_queue]


def summarize(minutes: Sequence[dict[bytes, bytes]], *, seconds: float) -> QueueStats:
    """The sum of the counters of these minutes; fields that we do not know are ignored."""
    ends: Counter[str] = Counter()
    waits: Counter[int] = Counter()
    runs: Counter[int] = Counter()
    for fields in minutes:
        for raw_name, number in fields.items():
            name, _, bucket = raw_name.decode(errors="replace").partition(":")
            if name in ("wait", "run") and bucket.isdecimal():
                (waits if name == "wait" else runs)[int(bucket)] += int(number)
            else:
                ends[name.removeprefix("job.")] += int(number)
    succeeded, failed, aborted = ends["succeeded"], ends["failed"], ends["aborted"]
    return QueueStats(
        seconds=round(seconds, 3),
        succeeded=succeeded,
        failed=failed,
        aborted=aborted,
        retried=ends["retrying"],
        per_second=round((succeeded + failed + aborted) / seconds, 3),
        failure_rate=round(failed / (succeeded + failed), 4) if succeeded + failed else None,
        wait_p50_ms=quantile_ms(waits, 0.5),
        wait_p95_ms=quantile_ms(waits, 0.95),
        run_p50_ms=quantile_ms(runs, 0.5),
        run_p95_ms=quantile_ms(runs, 0.95),
    )
