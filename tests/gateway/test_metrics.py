"""``/metrics``: its form, and that it tells what is so."""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from redis.exceptions import ConnectionError as RedisConnectionError

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.gateway.http_counts import HttpCounts, ProcessSlot, merge
from bridge.gateway.metric_families import BOUNDS_MS
from bridge.time_buckets import bucket, first_ms
from tests.gateway.problem import ENQUEUE

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


async def scrape(gateway: httpx.AsyncClient) -> Mapping[str, float]:
    """Each sample with its labels, as Prometheus would write them."""
    answer = await gateway.get("/metrics")
    assert answer.status_code == 200
    return {f"{name}{labels_in(labels)}": value for name, labels, value in samples(answer.text)}


def samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    for family in read_text(text):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value


def labels_in(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in sorted(labels.items())) + "}" if labels else ""


async def test_text_is_what_prometheus_reads(gateway: httpx.AsyncClient) -> None:
    answer = await gateway.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert answer.headers["content-type"].count("charset") == 1
    families = list(read_text(answer.text))
    assert all(family.documentation for family in families)
    assert len({family.name for family in families}) == len(families)


async def test_openmetrics_is_for_who_accepts_it(gateway: httpx.AsyncClient) -> None:
    answer = await gateway.get("/metrics", headers=OPENMETRICS)
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")
    families = read_openmetrics(answer.text)  # type: ignore[no-untyped-call]
    assert {family.name for family in families} >= {"aegis_jobs_finished", "aegis_http_requests"}


async def test_queues_are_counted_by_state(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    for request in ({"task_id": "a"}, {"task_id": "b"}, {"task_id": "c", "delay_seconds": 60}):
        await gateway.post(ENQUEUE, json={"task_name": "io_simulation_task", **request})
    await redis.set(keys.in_progress("a"), b"1", px=60_000)
    await redis.zadd(keys.dead("load_test"), {"d": 1})
    await redis.set(keys.paused("load_test"), "1")

    found = await scrape(gateway)

    states = {state: found[f'aegis_queue_jobs{{queue="load_test",state="{state}"}}'] for state in
              ("queued", "in_progress", "deferred", "dead")}  # fmt: skip
    assert states == {"queued": 1, "in_progress": 1, "deferred": 1, "dead": 1}
    assert found['aegis_queue_paused{queue="load_test"}'] == 1
    assert found['aegis_queue_paused{queue="system"}'] == 0
    assert found['aegis_queue_oldest_age_seconds{queue="load_test"}'] >= 0
    assert found['aegis_jobs_enqueued_total{kind="enqueued",queue="load_test"}'] == 2
    assert found['aegis_jobs_enqueued_total{kind="deferred",queue="load_test"}'] == 1
    assert found["aegis_events_entries"] == 3
    assert found["aegis_events_newest_age_seconds"] < 60


async def test_totals_of_a_queue_become_counters_and_histograms(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    totals: dict[str, Any] = {"job.succeeded": 5, "job.failed": 2, "job.aborted": 1, "job.retrying": 3, "requeued": 4}
    totals |= {"wait:0": 6, f"wait:{bucket(3)}": 1, f"run:{bucket(1000)}": 3, f"run:{bucket(2_000_000)}": 1, "new:x": 9}
    writing: Any = redis.hset(keys.totals("system"), mapping=totals)
    await writing

    found = await scrape(gateway)

    ends = {outcome: found[f'aegis_jobs_finished_total{{outcome="{outcome}",queue="system"}}'] for outcome in
            ("succeeded", "failed", "aborted")}  # fmt: skip
    assert ends == {"succeeded": 5, "failed": 2, "aborted": 1}
    assert found['aegis_job_retries_total{queue="system"}'] == 3
    assert found['aegis_jobs_enqueued_total{kind="requeued",queue="system"}'] == 4
    waits = {le: found[f'aegis_job_wait_seconds_bucket{{le="{le}",queue="system"}}'] for le in
             ("0.001", "0.002", "0.004", "+Inf")}  # fmt: skip
    assert waits == {"0.001": 6, "0.002": 6, "0.004": 7, "+Inf": 7}
    assert found['aegis_job_wait_seconds_sum{queue="system"}'] == 0.003
    assert found['aegis_job_run_seconds_bucket{le="1.024",queue="system"}'] == 3
    assert found['aegis_job_run_seconds_bucket{le="1048.576",queue="system"}'] == 3
    assert found['aegis_job_run_seconds_count{queue="system"}'] == 4
    assert found['aegis_job_run_seconds_sum{queue="system"}'] == pytest.approx(2003, rel=1 / 8)


def test_every_bound_is_where_a_stored_bucket_begins() -> None:
    assert [first_ms(bucket(bound)) for bound in BOUNDS_MS] == list(BOUNDS_MS)


async def test_workers_are_counted_and_a_queue_without_one_shows_0(
    gateway: httpx.AsyncClient, redis: AegisRedis
) -> None:
    seconds, _ = await redis.time()
    facts = {"host": "h", "pid": 1, "max_jobs": 10, "runner": "BatchWorker", "done": 0, "failed": 0, "retried": 0}
    for worker_id, queue, at_s in (
        ("a", "system", seconds),
        ("b", "system", seconds - 60),
        ("c", "elsewhere", seconds),
    ):
        await redis.zadd(keys.WORKERS, {worker_id: at_s * 1000})
        told: Any = {**facts, "queue": queue, "running": 4, "started_at_ms": 1}
        writing: Any = redis.hset(keys.worker(worker_id), mapping=told)
        await writing
        await redis.expire(keys.worker(worker_id), 60)

    found = await scrape(gateway)

    assert found['aegis_workers{queue="system",state="running"}'] == 1
    assert found['aegis_workers{queue="system",state="missing"}'] == 1
    assert found['aegis_worker_jobs_running{queue="system"}'] == 4
    assert found['aegis_worker_jobs_max{queue="system"}'] == 10
    assert found['aegis_workers{queue="load_test",state="running"}'] == 0
    assert not [name for name in found if "elsewhere" in name]


async def test_consumer_groups_of_the_stream_are_listed(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    await gateway.post(ENQUEUE, json={"task_name": "io_simulation_task"})
    await redis.xgroup_create(keys.EVENTS, "readers", id="0")
    await redis.xreadgroup("readers", "one", {keys.EVENTS: ">"}, count=1)
    assert (await scrape(gateway))['aegis_events_group_pending{group="readers"}'] == 1


async def test_requests_are_counted_by_the_template_of_their_path(gateway: httpx.AsyncClient) -> None:
    for path in ("/api/v1/tasks/status/a", "/api/v1/tasks/status/b", "/nothing", "/nothing/else?token=x"):
        assert (await gateway.get(path)).status_code == 404
    await gateway.request("BREW", "/api/v1/tasks/")

    found = await scrape(gateway)

    status = 'method="GET",route="/api/v1/tasks/status/{task_id}"'
    assert found[f'aegis_http_requests_total{{{status},status="404"}}'] == 2
    assert found[f"aegis_http_request_duration_seconds_count{{{status}}}"] == 2
    assert found[f'aegis_http_request_duration_seconds_bucket{{le="+Inf",{status}}}'] == 2
    assert found['aegis_http_requests_total{method="GET",route="unmatched",status="404"}'] == 2
    assert [name for name in found if "aegis_http_requests_total" in name and 'method="other"' in name]
    assert not [name for name in found if "BREW" in name or "nothing" in name]
    assert found['aegis_http_requests_in_flight{process="0"}'] == 1
    assert found['process_resident_memory_bytes{process="0"}'] > 1_000_000


async def test_metrics_of_the_gateway_itself_are_there_while_redis_is_away(
    gateway: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise RedisConnectionError("Connection refused")

    monkeypatch.setattr(AegisRedis, "execute_command", refuse)
    found = await scrape(gateway)
    assert found["aegis_redis_up"] == 0
    assert not [name for name in found if name.startswith(("aegis_queue", "aegis_job", "aegis_worker"))]
    assert [name for name in found if name.startswith("process_cpu_seconds_total")]


async def test_silent_redis_does_not_hold_a_scrape(gateway: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def say_nothing(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(AegisRedis, "execute_command", say_nothing)
    monkeypatch.setattr("bridge.gateway.metrics_routes.ANSWER_LIMIT_S", 0.01)
    assert (await scrape(gateway))["aegis_redis_up"] == 0


def test_counts_of_several_processes_are_the_same_whichever_is_asked_and_only_grow(tmp_path: Path) -> None:
    first, second = HttpCounts(ProcessSlot(tmp_path, 1)), HttpCounts(ProcessSlot(tmp_path, 2))
    first.count("GET", "/a", 200, 0.002)
    second.count("GET", "/a", 200, 7.0)
    second.publish()
    told = []
    for asked in (first, second, first, second):
        (of_route,) = merge(asked.facts())
        told.append(sum(of_route.buckets))
        first.count("GET", "/a", 200, 0.1)
        second.count("GET", "/a", 200, 0.1)
    assert told == sorted(told)
    assert told[:2] == [2, 3], "the second one tells what the first had told, and what it has counted since"
    assert {facts.number for facts in first.facts()} == {1, 2}


def test_process_that_is_started_anew_goes_on_from_its_counts(tmp_path: Path) -> None:
    before = HttpCounts(ProcessSlot(tmp_path, 1))
    before.count("GET", "/a", 200, 0.002)
    before.in_flight = 3
    before.publish()
    again = HttpCounts(ProcessSlot(tmp_path, 1))
    again.count("GET", "/a", 200, 0.002)
    (facts,) = again.facts()
    assert (sum(facts.requests[0].buckets), facts.in_flight) == (2, 0)


def test_file_that_cannot_be_read_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "1.counts").write_bytes(b"\xff")
    assert HttpCounts(ProcessSlot(tmp_path, 1)).facts()[0].requests == []
