"""A span for each run, by the messaging conventions of OpenTelemetry, and counters and histograms beside it."""

import logging
from collections.abc import Mapping
from time import monotonic
from typing import Any

from opentelemetry import context, metrics, propagate, trace
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from async_tracker import __version__
from async_tracker.telemetry.tracing import Traceable

logger = logging.getLogger("async_tracker")

_NESTED_CARRIERS = ("trace_ctx", "_carrier")
_W3C = TraceContextTextMapPropagator()


class Spans:
    """Traces the runs of a process, with whatever tracer and meter provider the process has."""

    def __init__(self) -> None:
        self._tracer = trace.get_tracer("async_tracker", __version__)
        meter = metrics.get_meter("async_tracker", __version__)
        self._started = meter.create_counter("async_tracker.jobs.started", "{run}", "Runs that have started in this process.")
        self._finished = meter.create_counter("async_tracker.jobs.finished", "{run}", "Runs that have ended in this process.")
        self._duration = meter.create_histogram("async_tracker.job.duration", "s", "How long runs took.")
        self._wait = meter.create_histogram("async_tracker.job.wait", "s", "How long jobs waited, from when they were due.")
        self._has_failed = False

    def begin(self, run: Traceable, carrier: Mapping[str, Any] | None = None) -> "TracedRun":
        """Begin the span of a run, unless another instrumentation has; then what we know is added to that one."""
        traced = TracedRun(self, run)
        try:
            traced.begin(self._tracer, carrier)
            self._started.add(1, traced.labels)
            if run.due_at_ms is not None:
                self._wait.record(max(run.started_at_ms - run.due_at_ms, 0) / 1000.0, traced.labels)
        except Exception as exc:  # the edge: providers and exporters are the user's, and the job must not notice
            self.failed(exc)
        return traced

    def finished(self, labels: Mapping[str, str], outcome: str, seconds: float) -> None:
        """Count a run that has ended."""
        self._finished.add(1, {**labels, "async_tracker.outcome": outcome})
        self._duration.record(seconds, labels)

    def failed(self, exc: Exception) -> None:
        """Log, once, that runs cannot be traced."""
        if not self._has_failed:
            self._has_failed = True
            logger.warning("runs cannot be traced: %s: %s", type(exc).__name__, exc)


class TracedRun:
    """One run and its span; see `Traced`."""

    def __init__(self, spans: Spans, run: Traceable) -> None:
        self.traceparent: str | None = None
        named = {"messaging.destination.name": run.queue, "async_tracker.function": run.function}
        self.labels: dict[str, str] = {"messaging.system": run.library, **{name: value for name, value in named.items() if value}}
        self._spans = spans
        self._run = run
        self._span: Span | None = None
        self._is_ours = False
        self._token: Any = None
        self._began = monotonic()

    def begin(self, tracer: trace.Tracer, carrier: Mapping[str, Any] | None) -> None:
        """Begin the span."""
        run = self._run
        own: dict[str, str | int] = {
            **self.labels,
            "async_tracker.run": run.token,
            "async_tracker.try": run.job_try,
            "async_tracker.instance": run.instance_id,
        }
        around = trace.get_current_span()
        if around.is_recording() and getattr(around, "kind", None) is SpanKind.CONSUMER:
            self._span = around
            around.set_attributes({name: value for name, value in own.items() if name.startswith("async_tracker.")})
        else:
            parent = _parent(carrier)
            of_message = {
                "messaging.operation.type": "process",
                "messaging.operation.name": "process",
                "messaging.message.id": run.job_id,
            }
            name = f"process {run.queue}" if run.queue else "process"
            self._span = tracer.start_span(name, context=parent, kind=SpanKind.CONSUMER, attributes={**own, **of_message})
            self._is_ours = True
            self._token = context.attach(trace.set_span_in_context(self._span, parent))
        self.traceparent = _written(self._span.get_span_context())

    def link(self, traceparent: str | None) -> None:
        """Link the span to that of a run that was lost."""
        try:
            lost = _read(traceparent) if traceparent is not None else None
            if self._span is not None and lost is not None:
                self._span.add_link(lost, {"async_tracker.link": "lost_run"})
        except Exception as exc:  # the edge, as above
            self._spans.failed(exc)

    def end(self, outcome: str, error: BaseException | None = None) -> None:
        """End the span, if it is ours, with what came of the run."""
        try:
            if self._token is not None:
                context.detach(self._token)
            if self._span is not None:
                self._span.set_attribute("async_tracker.outcome", outcome)
                if self._is_ours and error is not None and outcome == "failed":
                    self._span.set_attribute("error.type", f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins."))
                    self._span.record_exception(error)
                    self._span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
                if self._is_ours:
                    self._span.end()
            self._spans.finished(self.labels, outcome, monotonic() - self._began)
        except Exception as exc:  # the edge, as above
            self._spans.failed(exc)


def _parent(carrier: Mapping[str, Any] | None) -> context.Context | None:
    """Find the context in which the job was enqueued: in the carrier itself, or under a name that other instrumentations use."""
    for found in (carrier, *((carrier or {}).get(name) for name in _NESTED_CARRIERS)):
        if isinstance(found, Mapping):
            texts = {name: value for name, value in found.items() if isinstance(name, str) and isinstance(value, str)}
            parent = propagate.extract(texts, context.Context())
            if trace.get_current_span(parent).get_span_context().is_valid:
                return parent
    return None


def _written(span: SpanContext) -> str | None:
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{int(span.trace_flags):02x}" if span.is_valid else None


def _read(traceparent: str) -> SpanContext | None:
    found = trace.get_current_span(_W3C.extract({"traceparent": traceparent}, context.Context())).get_span_context()
    return found if found.is_valid else None
