import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from arq import Retry, func
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from bridge import keys, tracing
from bridge.aegis_redis import AegisRedis
from bridge.catalog import Catalog
from bridge.errors import ConfigurationError
from bridge.event_stream import EventStream
from bridge.settings import Settings
from tests.docs.pages import ROOT
from tests.docs.running import gateway_client, running_worker
from tests.gateway.problem import ENQUEUE
from workers.batch_worker import BatchWorker

CALLERS = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
QUEUE = keys.queue("load_test")


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    """Has every span of this process that has ended."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use_provider(provider)
    yield exporter
    tracing.use_provider(None)


def by_kind(exporter: InMemorySpanExporter) -> dict[SpanKind, ReadableSpan]:
    return {span.kind: span for span in exporter.get_finished_spans()}


def facts(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def parent_of(span: ReadableSpan) -> str:
    return f"{span.parent.span_id:016x}" if span.parent else ""


def id_of(span: ReadableSpan) -> str:
    assert span.context
    return f"{span.context.span_id:016x}"


def trace_id_of(span: ReadableSpan) -> str:
    assert span.context
    return f"{span.context.trace_id:032x}"


async def test_one_trace_leads_from_the_request_over_the_queue_to_the_run_and_the_events(
    exporter: InMemorySpanExporter, redis: AegisRedis, settings: Settings, catalog: Catalog
) -> None:
    request = {"task_name": "io_simulation_task", "kwargs": {"delay_ms": 0}, "task_id": "traced"}
    headers = {"traceparent": CALLERS, "tracestate": "vendor=1", "X-Request-ID": "mine"}
    async with gateway_client(settings, catalog) as gateway, running_worker(catalog.queue("load_test"), settings):
        assert (await gateway.post(f"{ENQUEUE}?secret=1", json=request, headers=headers)).status_code == 202
        async for event in EventStream(redis).follow("0"):
            if event.kind == "job.succeeded":
                break
    events = [event for event in await EventStream(redis).history() if event.job_id == "traced"]
    spans = by_kind(exporter)
    server, producer, consumer = spans[SpanKind.SERVER], spans[SpanKind.PRODUCER], spans[SpanKind.CONSUMER]

    assert {trace_id_of(span) for span in (server, producer, consumer)} == {CALLERS.split("-")[1]}
    assert [parent_of(server), parent_of(producer), parent_of(consumer)] == [
        CALLERS.split("-")[2], id_of(server), id_of(producer)
    ]  # fmt: skip
    assert [event.kind for event in events] == ["job.enqueued", "job.started", "job.succeeded"]
    assert {event.trace for event in events} == {f"00-{trace_id_of(producer)}-{id_of(producer)}-01"}

    assert (server.name, producer.name) == (f"POST {ENQUEUE}", "enqueue io_simulation_task")
    assert facts(server) == {
        "http.request.method": "POST", "url.path": ENQUEUE, "url.scheme": "http", "http.route": ENQUEUE,
        "http.response.status_code": 202, "aegis.request_id": "mine",
    }  # fmt: skip
    assert server.context
    assert server.context.trace_state.get("vendor") == "1"
    message = {
        "messaging.system": "aegis-tasks", "messaging.destination.name": "load_test", "messaging.message.id": "traced",
        "aegis.task": "io_simulation_task",
    }  # fmt: skip
    assert facts(producer) == {
        **message, "messaging.operation.name": "enqueue", "messaging.operation.type": "create"
    }  # fmt: skip
    assert consumer.name == "run io_simulation_task"
    assert facts(consumer) == {
        **message, "messaging.operation.name": "run", "messaging.operation.type": "process", "aegis.attempt": 1
    }  # fmt: skip


async def test_failed_run_keeps_the_type_of_its_error_and_a_retry_is_none(
    exporter: InMemorySpanExporter, redis: AegisRedis
) -> None:
    async def work(ctx: dict[str, Any]) -> None:
        if ctx["job_try"] == 1:
            raise Retry
        raise ValueError("a secret")

    await redis.enqueue_job("work", _job_id="a", _queue_name=QUEUE)
    options: dict[str, Any] = {"redis_pool": redis, "burst": True, "handle_signals": False}
    await BatchWorker([func(work, name="work")], queue_name=QUEUE, **options).async_run()

    enqueued, first, second = exporter.get_finished_spans()
    assert [facts(span)["error.type"] for span in (first, second)] == ["Retry", "ValueError"]
    assert [span.status.status_code for span in (first, second)] == [StatusCode.UNSET, StatusCode.ERROR]
    assert [facts(span)["aegis.attempt"] for span in (first, second)] == [1, 2]
    assert {trace_id_of(span) for span in (enqueued, first, second)} == {trace_id_of(enqueued)}
    assert "secret" not in "".join(span.to_json() for span in (first, second))
    assert not [*first.events, *second.events]


async def test_job_that_a_task_enqueues_belongs_to_its_trace(exporter: InMemorySpanExporter, redis: AegisRedis) -> None:
    async def outer(ctx: dict[str, Any]) -> None:
        await ctx["redis"].enqueue_job("inner", _queue_name=QUEUE)

    async def inner(ctx: dict[str, Any]) -> None:
        with trace.get_tracer("own").start_as_current_span("ignored: there is no global provider"):
            await asyncio.sleep(0)

    await redis.enqueue_job("outer", _queue_name=QUEUE)
    options: dict[str, Any] = {"redis_pool": redis, "burst": True, "handle_signals": False}
    functions = [func(outer, name="outer"), func(inner, name="inner")]
    await BatchWorker(functions, queue_name=QUEUE, **options).async_run()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert set(spans) == {"enqueue outer", "run outer", "enqueue inner", "run inner"}
    assert len({trace_id_of(span) for span in spans.values()}) == 1
    assert parent_of(spans["enqueue inner"]) == id_of(spans["run outer"])


async def test_what_machines_ask_all_the_time_has_no_span(
    exporter: InMemorySpanExporter, settings: Settings, catalog: Catalog, redis: AegisRedis
) -> None:
    async with gateway_client(settings, catalog) as gateway:
        for path in ("/health", "/health/ready", "/metrics", "/api/v1/health/"):
            assert (await gateway.get(path)).status_code == 200
        assert exporter.get_finished_spans() == ()
        await gateway.get("/nothing")
        (span,) = exporter.get_finished_spans()
    assert (span.name, parent_of(span), span.status.status_code) == ("GET unmatched", "", StatusCode.UNSET)


async def test_without_spans_the_callers_trace_reaches_the_events(
    settings: Settings, catalog: Catalog, redis: AegisRedis
) -> None:
    async with gateway_client(settings, catalog) as gateway:
        await gateway.post(ENQUEUE, json={"task_name": "io_simulation_task"}, headers={"traceparent": CALLERS})
    (event,) = await EventStream(redis).history()
    assert event.trace == CALLERS


PROGRAM = """
import sys
import cli.gateway, cli.serve, cli.worker
from bridge import tracing
tracing.start_tracing("x")
print(tracing.spans is not None, sorted(name for name in sys.modules if name.partition(".")[0] == "opentelemetry")[:1])
"""


def started(**environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "AEGIS_"))}
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(command, cwd=ROOT, env={**clean, **environ}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
    ],
)
def test_nothing_of_opentelemetry_is_imported_unless_it_is_asked_for(environ: dict[str, str]) -> None:
    assert started(**environ).stdout == "False []\n"


def test_environment_asks_for_spans() -> None:
    assert started(OTEL_TRACES_EXPORTER="console").stdout.startswith("True ['opentelemetry']\n")


def test_exporter_that_is_unknown_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "carrier-pigeon")
    with pytest.raises(ConfigurationError, match=r"OTEL_TRACES_EXPORTER.*'carrier-pigeon'"):
        tracing.start_tracing("x")
    assert tracing.spans is None


def test_library_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr("bridge.tracing.is_installed", lambda _: False)
    with pytest.raises(ConfigurationError, match=r"aegis-tasks\[otel\]"):
        tracing.start_tracing("x")
