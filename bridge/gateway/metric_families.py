"""Measurements and counts as Prometheus metrics; ``docs/guides/operations.md`` is the table for people."""

import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import accumulate
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily

from bridge.gateway.http_counts import BOUNDS_S, ProcessFacts, RequestCount, merge
from bridge.measurements import EventStreamSize, Measurements, QueueSize
from bridge.time_buckets import first_ms
from bridge.worker_registry import WorkerStatus

__all__ = ["families"]

BOUNDS_MS: Final = tuple(2**exponent for exponent in range(21))
"""Upper ends of the buckets of waiting and running times: 1 ms to 17 minutes; stored buckets end there too."""


def families(found: Measurements | None, processes: Sequence[ProcessFacts]) -> Iterator[Metric]:
    """Every metric; of Redis only that it is away when nothing was ``found``."""
    yield InfoMetricFamily(
        "aegis_build",
        "Version of aegis-tasks",
        {"version": version("aegis-tasks"), "python": platform.python_version()},
    )
    yield GaugeMetricFamily("aegis_redis_up", "Whether Redis answers", float(found is not None))
    if found is not None:
        yield GaugeMetricFamily("aegis_redis_ping_seconds", "How long Redis took to answer", found.ping_s)
        yield from of_queues(found.queues)
        yield from of_workers(found.workers, [queue.name for queue in found.queues])
        yield from of_events(found.events)
    yield from of_requests(merge(processes))
    yield from of_processes(processes)


def of_queues(queues: Sequence[QueueSize]) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("aegis_queue_jobs", "Jobs by state", labels=["queue", "state"])
    oldest = GaugeMetricFamily(
        "aegis_queue_oldest_age_seconds", "How long the oldest waiting job has been due", labels=["queue"]
    )
    paused = GaugeMetricFamily("aegis_queue_paused", "Whether the queue is paused", labels=["queue"])
    enqueued = CounterMetricFamily(
        "aegis_jobs_enqueued", "Jobs that were stored, by when they are to run", labels=["queue", "kind"]
    )
    finished = CounterMetricFamily("aegis_jobs_finished", "Jobs that ended", labels=["queue", "outcome"])
    retried = CounterMetricFamily("aegis_job_retries", "Attempts that another one follows", labels=["queue"])
    wait = HistogramMetricFamily(
        "aegis_job_wait_seconds", "How long after it was due an attempt was claimed", labels=["queue"]
    )
    run = HistogramMetricFamily("aegis_job_run_seconds", "How long an attempt ran", labels=["queue"])
    for queue in queues:
        depth, totals = queue.depth, queue.totals
        states = {"queued": depth.queued, "in_progress": depth.in_progress, "deferred": depth.deferred}
        for state, number in {**states, "dead": depth.dead}.items():
            jobs.add_metric([queue.name, state], number)
        oldest.add_metric([queue.name], depth.oldest_age_ms / 1000)
        paused.add_metric([queue.name], depth.is_paused)
        for kind in ("enqueued", "deferred", "requeued"):
            enqueued.add_metric([queue.name, kind], getattr(totals, kind))
        for outcome in ("succeeded", "failed", "aborted"):
            finished.add_metric([queue.name, outcome], getattr(totals, outcome))
        retried.add_metric([queue.name], totals.retried)
        wait.add_metric([queue.name], cumulative(totals.waits), sum_s(totals.waits))
        run.add_metric([queue.name], cumulative(totals.runs), sum_s(totals.runs))
    yield from (jobs, oldest, paused, enqueued, finished, retried, wait, run)


def cumulative(counts: Mapping[int, int]) -> list[tuple[str, float]]:
    """Upper end -> how many were at most so long, with the stored buckets, which are finer, put together."""
    below = [(bound, sum(n for bucket, n in counts.items() if first_ms(bucket) < bound)) for bound in BOUNDS_MS]
    return [*((str(bound / 1000), number) for bound, number in below), ("+Inf", sum(counts.values()))]


def sum_s(counts: Mapping[int, int]) -> float:
    """All times together, each taken as the middle of its bucket: exact below 8 ms, else at most an eighth off."""
    return sum(number * (first_ms(bucket) + first_ms(bucket + 1) - 1) for bucket, number in counts.items()) / 2000


def of_workers(workers: Sequence[WorkerStatus], queues: Sequence[str]) -> Iterator[Metric]:
    number = GaugeMetricFamily("aegis_workers", "Registered workers", labels=["queue", "state"])
    used = GaugeMetricFamily("aegis_worker_jobs_running", "Jobs that living workers run now", labels=["queue"])
    slots = GaugeMetricFamily("aegis_worker_jobs_max", "Jobs that living workers can run at a time", labels=["queue"])
    for queue in queues:
        of_queue = [worker for worker in workers if worker.queue == queue]
        living = [worker for worker in of_queue if worker.state == "running"]
        number.add_metric([queue, "running"], len(living))
        number.add_metric([queue, "missing"], len(of_queue) - len(living))
        used.add_metric([queue], sum(worker.running for worker in living))
        slots.add_metric([queue], sum(worker.max_jobs for worker in living))
    yield from (number, used, slots)


def of_events(events: EventStreamSize) -> Iterator[Metric]:
    yield GaugeMetricFamily("aegis_events_entries", "Entries of the event stream", events.length)
    yield GaugeMetricFamily(
        "aegis_events_newest_timestamp_seconds", "When the newest event was written", events.newest_at_ms / 1000
    )
    age_ms = max(events.now_ms - events.newest_at_ms, 0) if events.newest_at_ms else 0
    yield GaugeMetricFamily("aegis_events_newest_age_seconds", "Time since the newest event", age_ms / 1000)
    pending = GaugeMetricFamily(
        "aegis_events_group_pending", "Events given to a consumer group and not confirmed", labels=["group"]
    )
    lag = GaugeMetricFamily("aegis_events_group_lag", "Events not yet given to a consumer group", labels=["group"])
    for group in events.groups:
        pending.add_metric([group.name], group.pending)
        if group.lag is not None:
            lag.add_metric([group.name], group.lag)
    yield from (pending, lag)


def of_requests(counts: Sequence[RequestCount]) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "aegis_http_requests", "Requests that were answered", labels=["method", "route", "status"]
    )
    durations = HistogramMetricFamily(
        "aegis_http_request_duration_seconds", "How long requests took to answer", labels=["method", "route"]
    )
    buckets: dict[tuple[str, str], list[int]] = {}
    times_s: Counter[tuple[str, str]] = Counter()
    for one in counts:
        requests.add_metric([one.method, one.route, str(one.status)], sum(one.buckets))
        of_route = (one.method, one.route)
        before = buckets.get(of_route, [0] * len(one.buckets))
        buckets[of_route] = [earlier + number for earlier, number in zip(before, one.buckets, strict=True)]
        times_s[of_route] += one.total_s  # type: ignore[assignment]  # typeshed: a Counter holds whole numbers
    ends = [*map(str, BOUNDS_S), "+Inf"]
    for of_route, numbers in buckets.items():
        durations.add_metric(of_route, list(zip(ends, accumulate(numbers), strict=True)), times_s[of_route])
    yield from (requests, durations)


def of_processes(processes: Sequence[ProcessFacts]) -> Iterator[Metric]:
    """The usual names, with the number of the process, since one of several answers for all."""
    in_flight = GaugeMetricFamily("aegis_http_requests_in_flight", "Requests being answered", labels=["process"])
    lag = GaugeMetricFamily(
        "aegis_events_reader_lag_seconds", "How far the reader of the event stream is behind", labels=["process"]
    )
    cpu = CounterMetricFamily("process_cpu_seconds", "Processor time of a gateway process", labels=["process"])
    memory = GaugeMetricFamily("process_resident_memory_bytes", "Memory of a gateway process", labels=["process"])
    start = GaugeMetricFamily("process_start_time_seconds", "When a gateway process started", labels=["process"])
    threads = GaugeMetricFamily("process_threads", "Threads of a gateway process", labels=["process"])
    files = GaugeMetricFamily("process_open_fds", "Open files and sockets of a gateway process", labels=["process"])
    for one in processes:
        labels = [str(one.number)]
        in_flight.add_metric(labels, one.in_flight)
        if one.reader_lag_s is not None:
            lag.add_metric(labels, one.reader_lag_s)
        cpu.add_metric(labels, one.cpu_s)
        memory.add_metric(labels, one.resident_bytes)
        start.add_metric(labels, one.started_at_s)
        threads.add_metric(labels, one.threads)
        files.add_metric(labels, one.open_files)
    yield from (in_flight, lag, cpu, memory, start, threads, files)
