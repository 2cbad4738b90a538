"""``spans``: what the SDK's exporter in memory was given, by a real worker in this process; ``numbers``: the same of its meters."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

_exporter = InMemorySpanExporter()
_readers: list[InMemoryMetricReader] = []


@pytest.fixture(scope="session", autouse=True)
def _providers() -> None:
    """A process has one provider of each kind, for good."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(_exporter))
    trace.set_tracer_provider(provider)
    _readers.append(InMemoryMetricReader())
    metrics.set_meter_provider(MeterProvider([_readers[0]]))


@pytest.fixture
def spans(_providers: None) -> Iterator[Callable[[], list[ReadableSpan]]]:
    _exporter.clear()
    yield lambda: list(_exporter.get_finished_spans())
    _exporter.clear()


@pytest.fixture
def numbers(_providers: None) -> Callable[..., dict[tuple[str, str], Any]]:
    """``numbers(queue)``: name and outcome -> the point of that queue, of all time."""

    def read(queue: str) -> dict[tuple[str, str], Any]:
        found: dict[tuple[str, str], Any] = {}
        data = _readers[0].get_metrics_data()
        for metric in data.resource_metrics[0].scope_metrics[0].metrics if data is not None else ():
            for point in metric.data.data_points:
                attributes = dict(point.attributes or {})
                if attributes.get("messaging.destination.name") == queue:
                    found[metric.name, str(attributes.get("async_tracker.outcome", ""))] = point
        return found

    return read
