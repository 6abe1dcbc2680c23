"""Makes a plain arq ``WorkerSettings`` class a queue of this project."""

import dataclasses
from collections.abc import Callable
from typing import Any, Final, TypeVar

from arq.connections import ArqRedis
from arq.cron import CronJob
from arq.typing import StartupShutdown
from arq.utils import to_seconds
from arq.worker import Function, func

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.broker import arq_redis_settings
from bridge.catalog import ARQ_JOB_TIMEOUT_S
from bridge.codec import job_deserializer, job_deserializer_accepting_pickle, job_serializer
from bridge.errors import ConfigurationError
from bridge.scripts import Scripts
from bridge.settings import Settings, read_settings
from workers.arq_log import hide_arguments
from workers.conversion import converting
from workers.lifecycle_hooks import REPORTER, RUN, Context, Reporter, noting_what_is_asked, observe, quietly
from workers.progress import PROGRESS

__all__ = ["adopt", "queue"]

HEALTH_CHECK_INTERVAL_S: Final = 5
"""How soon a dead worker shows; arq's default of an hour would call it alive for that long."""

OBSERVED_HOOKS: Final = ("on_startup", "on_shutdown", "after_job_end")
"""The hooks of a class that ours are put around, under the stock command."""

SettingsClass = TypeVar("SettingsClass", bound=type)


def queue(name: str, *, settings: Settings | None = None) -> Callable[[SettingsClass], SettingsClass]:
    """A decorator after which the class runs as this queue, under the stock ``arq`` command and under ours.

    What the class sets itself stays. What it leaves out is filled in: ``queue_name``, ``redis_settings``,
    our serializers, ``keep_result``, ``max_tries``, ``health_check_interval`` and ``allow_abort_jobs``.
    Its functions and cron jobs get their arguments as their annotated types, and every start and end is
    an event. Its own hooks run as before.

    >>> @queue("mail")
    ... class WorkerSettings:
    ...     functions = []
    ...     max_jobs = 15
    >>> WorkerSettings.queue_name == keys.queue("mail")
    True

    Args:
        name: the queue's short name.
        settings: where Redis is and what the defaults are; by default the environment's.

    Raises:
        SystemExit: the environment has a wrong setting; the text names it. Under the ``arq`` command
            this is the one line that is shown.
        ConfigurationError: a function's signature cannot be read from JSON.
    """

    def decorate(settings_class: SettingsClass) -> SettingsClass:
        return adopt(settings_class, queue_key=keys.queue(name), settings=settings)

    return decorate


def adopt(settings_class: SettingsClass, *, queue_key: str, settings: Settings | None = None) -> SettingsClass:
    """Does what `queue` says to a class, unless it has been done: for plain arq classes of existing applications.

    Args:
        settings_class: the class; it is changed, and returned.
        queue_key: its queue's zset, where it names none itself.
        settings: as for `queue`.

    Raises:
        SystemExit, ConfigurationError: as `queue`.
    """
    own = vars(settings_class)
    if "declared_functions" in own:
        return settings_class
    chosen = settings or settings_or_exit()
    declared = [converting(func(function)) for function in own.get("functions", ())]
    declared_cron_jobs = [convert_cron(job) for job in own.get("cron_jobs") or ()]
    timeout_s = to_seconds(own.get("job_timeout", ARQ_JOB_TIMEOUT_S))
    deserializer = own.get("job_deserializer") or default_deserializer(chosen)
    missing = {name: value for name, value in defaults(queue_key, chosen).items() if name not in own}
    observed = {
        "declared_functions": declared,
        "declared_options": {
            "cron_jobs": declared_cron_jobs,
            "job_deserializer": deserializer,
            **{name: own.get(name) for name in OBSERVED_HOOKS},
        },
        "job_deserializer": noting_what_is_asked(deserializer),
        "functions": [observe(function, default_timeout_s=timeout_s) for function in declared],
        "cron_jobs": [observe_cron(job, timeout_s) for job in declared_cron_jobs],
        "on_startup": startup(own.get("on_startup"), settings_class, chosen),
        "on_shutdown": shutdown(own.get("on_shutdown")),
        "after_job_end": job_end(own.get("after_job_end")),
    }
    # arq reads the class's own attributes only, so they are set here rather than inherited.
    for name, value in {**missing, **observed}.items():
        setattr(settings_class, name, value)
    return settings_class


def settings_or_exit() -> Settings:
    try:
        return read_settings()
    except ConfigurationError as error:
        raise SystemExit(f"aegis-tasks: {error}") from None


def defaults(queue_key: str, settings: Settings) -> dict[str, Any]:
    return {
        "queue_name": queue_key,
        "redis_settings": arq_redis_settings(settings),
        "job_serializer": job_serializer,
        "keep_result": settings.keep_result_s,
        "max_tries": settings.max_tries,
        "health_check_interval": HEALTH_CHECK_INTERVAL_S,
        "allow_abort_jobs": True,
        "log_results": False,  # a result is the user's data, and logs are read by others
    }


def default_deserializer(settings: Settings) -> Callable[[bytes], dict[str, Any]]:
    return job_deserializer_accepting_pickle if settings.accept_pickle else job_deserializer


def as_function(job: CronJob) -> Function:
    return Function(job.name, job.coroutine, job.timeout_s, job.keep_result_s, job.keep_result_forever, job.max_tries)


def convert_cron(job: CronJob) -> CronJob:
    return dataclasses.replace(job, coroutine=converting(as_function(job)).coroutine)


def observe_cron(job: CronJob, default_timeout_s: float | None) -> CronJob:
    observed = observe(as_function(job), default_timeout_s=default_timeout_s)
    return dataclasses.replace(job, coroutine=observed.coroutine, timeout_s=observed.timeout_s)


def startup(users: StartupShutdown | None, settings_class: type, settings: Settings) -> StartupShutdown:
    async def on_startup(ctx: Context) -> None:
        hide_arguments()
        ctx["redis"] = redis = with_events(ctx["redis"], settings)
        if users:
            await users(ctx)
        own = vars(settings_class)
        ctx[REPORTER] = Reporter(
            Scripts(redis, events_max_len=settings.events_max_len),
            queue_key=own["queue_name"],
            max_jobs=own.get("max_jobs", 10),
        )
        ctx[PROGRESS] = ctx[REPORTER].progress
        await quietly(ctx[REPORTER].worker_started)()

    return on_startup


def with_events(pool: ArqRedis, settings: Settings) -> AegisRedis:
    """The worker's pool as one whose ``enqueue_job`` writes events too; they share their connections."""
    if isinstance(pool, AegisRedis):
        return pool
    redis = AegisRedis(
        pool_or_conn=pool.connection_pool,
        job_serializer=pool.job_serializer,
        job_deserializer=pool.job_deserializer,
        default_queue_name=pool.default_queue_name,
    )
    redis.events_max_len = settings.events_max_len
    return redis


def shutdown(users: StartupShutdown | None) -> StartupShutdown:
    async def on_shutdown(ctx: Context) -> None:
        if REPORTER in ctx:
            await quietly(ctx[REPORTER].worker_stopped)()
        if users:
            await users(ctx)

    return on_shutdown


def job_end(users: StartupShutdown | None) -> StartupShutdown:
    async def after_job_end(ctx: Context) -> None:
        if REPORTER in ctx and RUN in ctx:
            await quietly(ctx[REPORTER].job_ended)(ctx, ctx[RUN])
        if users:
            await users(ctx)

    return after_job_end
