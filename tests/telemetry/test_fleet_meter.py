"""The metrics of the whole fleet through the Meter API, with the SDK's reader in memory over a real Redis."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from async_tracker import ConfigError, Tracker
from async_tracker.metrics.families import FAMILIES
from async_tracker.metrics.opentelemetry import FleetMeter
from tests.crash.fleet import QUICK
from tests.harness.wait import wait_until
from tests.harness.wire import WireProxy

Point = tuple[dict[str, Any], float]


class Reader:
    """What a provider of its own collects: name -> its points, each with its attributes and value."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader])

    def metrics(self) -> list[Any]:
        data = self._reader.get_metrics_data()
        return list(data.resource_metrics[0].scope_metrics[0].metrics) if data is not None and data.resource_metrics else []

    def read(self) -> dict[str, list[Point]]:
        return {found.name: [(dict(point.attributes or {}), point.value) for point in found.data.data_points] for found in self.metrics()}


@pytest.fixture
def reader() -> Iterator[Reader]:
    made = Reader()
    yield made
    made.provider.shutdown()


async def test_what_prometheus_is_told_of_the_fleet_is_observed_by_the_same_names(make_tracker: Callable[..., Tracker], reader: Reader):
    worker = make_tracker(**QUICK)
    meter = FleetMeter(make_tracker(), provider=reader.provider, fresh_for=0.0)
    async with worker.register(queue="mail", concurrency=10), worker.track("long", function="send", queue="mail"):
        async with worker.track("short", function="pay", queue="mail"):
            pass

        async def told() -> dict[str, list[Point]] | None:
            found = reader.read()
            known = [attributes for attributes, _ in found.get("async_tracker.jobs_started_total", []) if attributes["function"] == "pay"]
            return found if known and found.get("async_tracker.jobs_in_flight") else None

        found = await wait_until(told, description="a beat has brought the counters")
        assert found is not None
        expected = {family.name.replace("async_tracker_", "async_tracker.") for family in FAMILIES if family.kind != "histogram"}
        # of a namespace without a library's queues nothing is known of their depth
        assert expected - found.keys() <= {"async_tracker.queue_depth", "async_tracker.queue_oldest_wait_seconds"}
        assert found.keys() <= expected
        assert found["async_tracker.slots"] == [({}, 10)]
        assert found["async_tracker.redis_up"] == [({}, 1)]
        alive = {"state": "alive", "queue": "mail", "library": "asyncio"}
        assert [value for attributes, value in found["async_tracker.instances"] if attributes == alive] == [1]
        succeeded = {"queue": "mail", "function": "pay", "outcome": "succeeded"}
        assert (succeeded, 1) in found["async_tracker.jobs_finished_total"]
        kinds = {item.name: (type(item.data).__name__, item.unit, getattr(item.data, "is_monotonic", None)) for item in reader.metrics()}
        assert kinds["async_tracker.jobs_started_total"] == ("Sum", "{run}", True)
        assert kinds["async_tracker.event_loop_lag_seconds"] == ("Gauge", "s", None)
    meter.close()
    assert reader.read() == {}, "what is closed tells nothing more"


async def test_nothing_is_read_before_a_collection_which_ends_though_redis_does_not_answer(wire: WireProxy, namespace: str, reader: Reader):
    meter = FleetMeter(Tracker(namespace=namespace, redis_options={"url": wire.url}), provider=reader.provider, timeout=0.3, fresh_for=60.0)
    assert wire.commands == []
    wire.stall()
    began = time.monotonic()
    found = reader.read()
    assert found["async_tracker.redis_up"] == [({}, 0)]
    assert found.keys() == {f"async_tracker.{name}" for name in ("redis_up", "scrape_duration_seconds", "build_info")}
    assert time.monotonic() - began >= 0.3, "it has asked"
    wire.flow()
    meter.close()


def test_numbers_that_cannot_work_are_refused_with_what_to_write():
    with pytest.raises(ConfigError, match=r"FleetMeter\(timeout=0\): write a number of 0.01 or more"):
        FleetMeter(Tracker(namespace="my_app"), timeout=0)
