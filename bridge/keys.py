"""Every Redis key name, arq's and ours, with its type and time to live; no other file spells one.

Lua scripts get these names through `LUA_CONSTANTS`. ``docs/reference/redis-keys.md`` is the table
for people; a test compares the two.
"""

from typing import Final
from urllib.parse import quote

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
    "CRON_PREFIX",
    "CRON_TTL_MS",
    "DEAD_MAX",
    "DEAD_PREFIX",
    "DEAD_TTL_MS",
    "EVENTS",
    "IDEMPOTENCY_PREFIX",
    "IDEMPOTENCY_TTL_MS",
    "IN_PROGRESS_PREFIX",
    "JOB_PREFIX",
    "LEASE_MS",
    "LUA_CONSTANTS",
    "ORDERS_PREFIX",
    "PAUSED_PREFIX",
    "PROGRESS_PREFIX",
    "PROGRESS_TTL_MS",
    "QUEUE_PREFIX",
    "RATE_PREFIX",
    "RESULT_PREFIX",
    "RETRY_PREFIX",
    "RING_PREFIX",
    "STATS_PREFIX",
    "STATS_TTL_MS",
    "TOTALS_PREFIX",
    "WAKE_PREFIX",
    "WORKERS",
    "WORKER_LOST_MS",
    "WORKER_PREFIX",
    "WORKER_TTL_MS",
    "burst_health_check",
    "cron",
    "dead",
    "dead_letter",
    "health_check",
    "idempotency",
    "in_progress",
    "job",
    "orders",
    "paused",
    "progress",
    "queue",
    "queue_name",
    "rate",
    "result",
    "retry",
    "ring",
    "stats",
    "totals",
    "wake",
    "worker",
]

# arq's own, unchanged: stock producers and workers share them.
QUEUE_PREFIX: Final = f"{default_queue_name}:"
"""zset, no TTL: job id -> due time ms. The queue ``system`` is ``arq:queue:system``."""
JOB_PREFIX: Final = job_key_prefix
"""string, no TTL (or the caller's expiry; stock producers: 24 h): the job as JSON."""
IN_PROGRESS_PREFIX: Final = in_progress_key_prefix
"""string, TTL of the longest job or of the lease: who runs the job."""
RETRY_PREFIX: Final = retry_key_prefix
"""int, no TTL (stock workers: 88 400 s), removed when the job ends: attempts so far."""
RESULT_PREFIX: Final = result_key_prefix
"""string, TTL ``keep_result``: the result as JSON."""
ABORT: Final = abort_jobs_ss
"""zset, pruned by workers: job id -> when its abort was asked for, ms."""

# Ours.
EVENTS: Final = "aegis:events"
"""stream, capped: every state change. See `bridge.events`."""
WAKE_PREFIX: Final = "aegis:wake:"
"""list of at most one token, no TTL: there may be work; idle workers block on it."""
RING_PREFIX: Final = "aegis:ring:"
"""list, TTL of a minute: a worker, named by its id, ends its own blocking read with it."""
PAUSED_PREFIX: Final = "aegis:paused:"
"""string, no TTL: while it is there, our workers start no job of the queue."""
ORDERS_PREFIX: Final = "aegis:orders:"
"""list, TTL of a minute: what a worker, named by its id, is to abort; it blocks on it while it runs jobs."""
PROGRESS_PREFIX: Final = "aegis:progress:"
"""string, TTL of an hour: the latest progress of a running job, as JSON."""
DEAD_PREFIX: Final = "aegis:dead:"
"""zset, pruned by age and number: job id -> failed at ms; and for each a string ``…:<id>``, TTL of 7 days."""
STATS_PREFIX: Final = "aegis:stats:"
"""hash for each queue and minute, TTL of two hours: how many attempts ended how, waited and ran how long."""
TOTALS_PREFIX: Final = "aegis:totals:"
"""hash for each queue, no TTL: the same since its first job, and how many jobs were stored."""
CRON_PREFIX: Final = "aegis:cron:"
"""zset for each queue, TTL of an hour: which runs of cron jobs have been enqueued -> when, ms."""
IDEMPOTENCY_PREFIX: Final = "aegis:idempotency:"
"""string, TTL of a day: which request of a caller had an idempotency key, and what it was answered."""
WORKERS: Final = "aegis:workers"
"""zset, no TTL: worker id -> its latest heartbeat, ms. Living workers take silent ones off."""
WORKER_PREFIX: Final = "aegis:worker:"
"""hash, TTL of a day after the latest heartbeat: what a worker, named by its id, tells of itself."""
RATE_PREFIX: Final = "aegis:rate:"
"""string, TTL of at most the limit's period: when a caller, by name, has all its requests again, µs."""

LEASE_MS: Final = 10_000
"""How long a claimed job is safe from other workers unless its lease is renewed."""
DEAD_TTL_MS: Final = 7 * 24 * 3600 * 1000
DEAD_MAX: Final = 10_000
"""Dead letters kept of one queue."""
STATS_TTL_MS: Final = 2 * 3600 * 1000
CRON_TTL_MS: Final = 3600 * 1000
"""How late a worker may come and still see that another one has enqueued a run."""
IDEMPOTENCY_TTL_MS: Final = 24 * 3600 * 1000
"""How long an idempotency key gives the same answer."""
WORKER_LOST_MS: Final = 12_500
"""A worker that is silent for longer, which is four heartbeats missed for certain, counts as lost."""
WORKER_TTL_MS: Final = 24 * 3600 * 1000
"""How long what is known of a silent worker waits for a living one to tell that it is lost."""
PROGRESS_TTL_MS: Final = 3600 * 1000


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


def paused(name: str) -> str:
    """The mark of a paused queue, by its short name."""
    return PAUSED_PREFIX + name


def dead(name: str) -> str:
    """Which jobs of the queue with this short name have failed."""
    return DEAD_PREFIX + name


def dead_letter(name: str, job_id: str) -> str:
    """The dead letter of one of them."""
    return f"{dead(name)}:{job_id}"


def progress(job_id: str) -> str:
    """The latest progress of a running job."""
    return PROGRESS_PREFIX + job_id


def orders(worker_id: str) -> str:
    """The orders of a worker."""
    return ORDERS_PREFIX + worker_id


def cron(name: str) -> str:
    """The runs of cron jobs of the queue with this short name."""
    return CRON_PREFIX + name


def idempotency(caller: str, key: str) -> str:
    """The record of the request with this idempotency key; no two pairs have the same name, whatever is in them."""
    return f"{IDEMPOTENCY_PREFIX}{quote(caller, safe='')}:{key}"


def ring(worker_id: str) -> str:
    """The list with which a worker rings for itself."""
    return RING_PREFIX + worker_id


def wake(name: str) -> str:
    """The wake-up list of the queue with this short name."""
    return WAKE_PREFIX + name


def worker(worker_id: str) -> str:
    """What is known of a worker."""
    return WORKER_PREFIX + worker_id


def rate(caller: str) -> str:
    """How much of its limit a caller has used."""
    return RATE_PREFIX + caller


def stats(name: str, minute: int) -> str:
    """The counters of a queue, by its short name, for a Unix time in whole minutes."""
    return f"{STATS_PREFIX}{name}:{minute}"


def totals(name: str) -> str:
    """The counters of a queue, by its short name, that only grow."""
    return TOTALS_PREFIX + name


LUA_CONSTANTS: Final[dict[str, str | int]] = {
    "JOB": JOB_PREFIX,
    "IN_PROGRESS": IN_PROGRESS_PREFIX,
    "RETRY": RETRY_PREFIX,
    "RESULT": RESULT_PREFIX,
    "WAKE": WAKE_PREFIX,
    "EVENTS": EVENTS,
    "ABORT": ABORT,
    "ORDERS": ORDERS_PREFIX,
    "PAUSED": PAUSED_PREFIX,
    "HEALTH_CHECK": health_check_key_suffix,
    "PROGRESS": PROGRESS_PREFIX,
    "DEAD": DEAD_PREFIX,
    "STATS": STATS_PREFIX,
    "TOTALS": TOTALS_PREFIX,
    "CRON": CRON_PREFIX,
    "WORKERS": WORKERS,
    "WORKER": WORKER_PREFIX,
    "RATE": RATE_PREFIX,
    "DEAD_TTL_MS": DEAD_TTL_MS,
    "DEAD_MAX": DEAD_MAX,
    "STATS_TTL_MS": STATS_TTL_MS,
    "CRON_TTL_MS": CRON_TTL_MS,
    "IDEMPOTENCY_TTL_MS": IDEMPOTENCY_TTL_MS,
    "PROGRESS_TTL_MS": PROGRESS_TTL_MS,
}
"""Name in a Lua script -> key, key prefix, or bound."""
