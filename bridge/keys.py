"""Every Redis key name, arq's and ours, with its type and time to live; no other file spells one.

Lua scripts get these names through `LUA_CONSTANTS`. ``docs/reference/redis-keys.md`` is the table
for people; a test compares the two.
"""

from typing import Final

from arq.constants import (
    abort_jobs_ss,
    default_queue_name,
    health_check_key_suffix,
    in_progress_key_prefix,
    job_key_prefix,
    result_key_prefix,
    retry_key_prefix,
)

__all__ = [
    "ABORT",
    "EVENTS",
    "IN_PROGRESS_PREFIX",
    "JOB_PREFIX",
    "LUA_CONSTANTS",
    "QUEUE_PREFIX",
    "RESULT_PREFIX",
    "RETRY_PREFIX",
    "WAKE_PREFIX",
    "burst_health_check",
    "health_check",
    "in_progress",
    "job",
    "queue",
    "queue_name",
    "result",
    "retry",
    "wake",
]

# arq's own, unchanged: stock producers and workers share them.
QUEUE_PREFIX: Final = f"{default_queue_name}:"
"""zset, no TTL: job id -> due time ms. The queue ``system`` is ``arq:queue:system``."""
JOB_PREFIX: Final = job_key_prefix
"""string, no TTL (or the caller's expiry; stock producers: 24 h): the job as JSON."""
IN_PROGRESS_PREFIX: Final = in_progress_key_prefix
"""string, TTL of the longest job or of the lease: who runs the job."""
RETRY_PREFIX: Final = retry_key_prefix
"""int, TTL 88 400 s: attempts so far."""
RESULT_PREFIX: Final = result_key_prefix
"""string, TTL ``keep_result``: the result as JSON."""
ABORT: Final = abort_jobs_ss
"""zset, pruned by workers: job id -> when its abort was asked for, ms."""

# Ours.
EVENTS: Final = "aegis:events"
"""stream, capped: every state change. See `bridge.events`."""
WAKE_PREFIX: Final = "aegis:wake:"
"""list, capped at 64 and expiring after a minute: a token for each enqueue, for idle workers to block on."""


def queue(name: str) -> str:
    """The zset of the queue with this short name."""
    return QUEUE_PREFIX + name


def queue_name(key: str) -> str:
    """The short name of a queue's zset: ``system`` for ``arq:queue:system``, ``default`` for arq's own ``arq:queue``.

    A key that follows neither pattern is its own name.
    """
    return "default" if key == default_queue_name else key.removeprefix(QUEUE_PREFIX)


def job(job_id: str) -> str:
    """The job's body."""
    return JOB_PREFIX + job_id


def in_progress(job_id: str) -> str:
    """The mark of a running job."""
    return IN_PROGRESS_PREFIX + job_id


def retry(job_id: str) -> str:
    """The job's attempts so far."""
    return RETRY_PREFIX + job_id


def result(job_id: str) -> str:
    """The job's result."""
    return RESULT_PREFIX + job_id


def health_check(queue_key: str) -> str:
    """The sign of life of the workers of a queue; expires when they are gone."""
    return queue_key + health_check_key_suffix


def burst_health_check(queue_key: str) -> str:
    """The same of a burst run, which must not take the standing workers' sign away when it ends."""
    return health_check(queue_key) + ":burst"


def wake(name: str) -> str:
    """The wake-up list of the queue with this short name."""
    return WAKE_PREFIX + name


LUA_CONSTANTS: Final = {
    "JOB": JOB_PREFIX,
    "IN_PROGRESS": IN_PROGRESS_PREFIX,
    "RETRY": RETRY_PREFIX,
    "RESULT": RESULT_PREFIX,
    "WAKE": WAKE_PREFIX,
    "EVENTS": EVENTS,
}
"""Name in a Lua script -> key or key prefix."""
