"""Traces by OpenTelemetry, where it is installed and its environment variables ask for it.

Otherwise nothing of it is imported, `spans` is ``None``, and what calls this does nothing more. One trace leads from
the HTTP request over the enqueue to the run: the job's body carries the traceparent (W3C Trace Context) of the enqueue,
and so do its events. Without spans they carry that of the caller.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Final

from bridge.errors import ConfigurationError

__all__ = ["Spans", "spans", "start_tracing", "trace_of_enqueue", "use_provider"]

SYSTEM: Final = "aegis-tasks"
ASKS_FOR_TRACES: Final = (
    "OTEL_TRACES_EXPORTER",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
)
PROPAGATED: Final = (b"traceparent", b"tracestate")

spans: "Spans | None" = None
"""What makes spans in this process; ``None`` while there are to be none."""


def start_tracing(service: str) -> None:
    """From now on this process makes spans, if its environment asks for them; called by entry points.

    Args:
        service: its name where ``OTEL_SERVICE_NAME`` gives none.

    Raises:
        ConfigurationError: the environment asks for them, and OpenTelemetry is not installed or has no such exporter.
    """
    if not any(os.environ.get(name) for name in ASKS_FOR_TRACES) or is_on("OTEL_SDK_DISABLED"):
        return
    wanted = os.environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    if wanted == "none":
        return
    if not is_installed("opentelemetry.sdk.trace"):
        raise ConfigurationError(
            "the environment asks for traces (OTEL_…), and OpenTelemetry is not installed: "
            "pip install 'aegis-tasks[otel]', or set OTEL_SDK_DISABLED=true"
        )
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME") or service})
    provider = TracerProvider(resource=resource)  # which flushes at the end of the process
    provider.add_span_processor(BatchSpanProcessor(make_exporter(wanted)))
    use_provider(provider)


def use_provider(provider: Any) -> None:
    """From now on this process makes spans with this ``TracerProvider``; with ``None`` it makes none."""
    global spans
    spans = None if provider is None else Spans(provider)


def is_on(name: str) -> bool:
    return os.environ.get(name, "").strip().lower() == "true"


def is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def make_exporter(wanted: str) -> Any:
    if wanted == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    if wanted == "otlp" and is_installed("opentelemetry.exporter.otlp.proto.http.trace_exporter"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter()
    raise ConfigurationError(f"OTEL_TRACES_EXPORTER: there is no {wanted!r} here; otlp, console or none")


def trace_of_enqueue(task: str, queue: str, job_id: str, trace: str) -> str:
    """The traceparent that a new job carries: of a span for its enqueue if spans are made, else ``trace`` itself."""
    return trace if spans is None else spans.enqueue(task, queue, job_id, trace)


class Spans:
    """Makes the spans of a job's way, named and described after OpenTelemetry's conventions for HTTP and messaging.

    Nothing of a job's arguments, its result or an error's message is in them.

    Args:
        provider: a ``TracerProvider``.
    """

    def __init__(self, provider: Any) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._api = trace
        self._tracer = provider.get_tracer(SYSTEM)
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def request(self, method: str, path: str, headers: Iterable[tuple[bytes, bytes]]) -> Iterator[Any]:
        """Around the answer to an HTTP request; the span is the caller's child. See `end_request`."""
        carrier = {name.decode(): value.decode("latin-1") for name, value in headers if name in PROPAGATED}
        attributes = {"http.request.method": method, "url.path": path, "url.scheme": "http"}
        with self._tracer.start_as_current_span(
            method,
            context=self._propagator.extract(carrier),
            kind=self._api.SpanKind.SERVER,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,  # with its message, which may hold anything
        ) as span:
            yield span

    def end_request(self, span: Any, method: str, route: str, status: int, request_id: str) -> None:
        """Describes how the request was answered."""
        span.update_name(f"{method} {route}")
        answered = {"http.route": route, "http.response.status_code": status, "aegis.request_id": request_id}
        span.set_attributes(answered)
        if status >= 500:
            span.set_status(self._api.StatusCode.ERROR)

    def enqueue(self, task: str, queue: str, job_id: str, trace: str) -> str:
        """A span for the making of a job, child of the current span or else of ``trace``; returns its traceparent."""
        has_parent = self._api.get_current_span().get_span_context().is_valid
        span = self._tracer.start_span(
            f"enqueue {task}",
            context=None if has_parent else self._propagator.extract({"traceparent": trace}),
            kind=self._api.SpanKind.PRODUCER,
            attributes={**of_message(queue, job_id, task), **operation("enqueue", "create")},
        )
        span.end()
        made = span.get_span_context()
        return f"00-{made.trace_id:032x}-{made.span_id:016x}-{int(made.trace_flags):02x}"

    @contextmanager
    def run(self, task: str, queue: str, job_id: str, attempt: int, trace: str) -> Iterator[None]:
        """Around an attempt, child of the job's ``trace``; of an exception that leaves it, the type is kept."""
        from arq.worker import Retry, RetryJob

        attributes = {**of_message(queue, job_id, task), **operation("run", "process"), "aegis.attempt": attempt}
        with self._tracer.start_as_current_span(
            f"run {task}",
            context=self._propagator.extract({"traceparent": trace}),
            kind=self._api.SpanKind.CONSUMER,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except BaseException as error:
                span.set_attribute("error.type", type(error).__qualname__)
                if not isinstance(error, Retry | RetryJob):
                    span.set_status(self._api.StatusCode.ERROR, type(error).__qualname__)
                raise


def of_message(queue: str, job_id: str, task: str) -> dict[str, str]:
    return {
        "messaging.system": SYSTEM,
        "messaging.destination.name": queue,
        "messaging.message.id": job_id,
        "aegis.task": task,
    }


def operation(name: str, kind: str) -> dict[str, str]:
    return {"messaging.operation.name": name, "messaging.operation.type": kind}
