"""Metrics for Prometheus: a collector over a tracker, to be registered in any registry of ``prometheus_client``.

from prometheus_client import REGISTRY
from async_tracker.metrics.prometheus import Collector

REGISTRY.register(Collector(tracker))
"""

import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import anyio.to_thread
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector as Registered

from async_tracker.errors import ConfigError
from async_tracker.metrics.exposition import CONTENT_TYPE, limits_of, written
from async_tracker.metrics.families import FAMILIES, Distribution, Family, Values
from async_tracker.metrics.source import Source

__all__ = ["CONTENT_TYPE", "Collector", "serving"]

_KINDS: dict[str, Callable[..., Any]] = {
    "gauge": GaugeMetricFamily,
    "counter": CounterMetricFamily,
    "histogram": HistogramMetricFamily,
}


class Collector(Source, Registered):
    """The metrics of a tracker's namespace. Nothing is read before it is first asked, and nothing is written.

    ``timeout``: how many seconds a scrape may wait for Redis; then ``async_tracker_redis_up`` is 0, and the rest is left out.
    ``fresh_for``: for how many seconds what was read is given to all who ask. ``names_most``: how many functions, and how many queues,
    have a label of their own; all others share ``other``.

    `collect` may be called from any thread: it reads in an event loop of its own. In an asyncio app `exposition` answers a scrape
    without holding up the loop. Raises ConfigError for numbers that cannot work.
    """

    def describe(self) -> Iterable[Metric]:
        """Name the metrics, without asking Redis: so that registering reads nothing."""
        counted = {family.name.removesuffix("_total") for family in FAMILIES if family.kind == "counter"}
        return [_made(family) for family in FAMILIES if family.name not in counted]  # a registry has each name once

    def collect(self) -> Iterable[Metric]:
        """Read everything, or give what was read just before. Never raises for what Redis does, and never takes long."""
        told = self.ask()
        limits = limits_of(told.bounds)
        return [_made(family, told.values[family.name], limits=limits) for family in FAMILIES if family.name in told.values]

    async def exposition(self) -> bytes:
        """Answer a scrape with the body, whose content type is `CONTENT_TYPE`."""
        return await anyio.to_thread.run_sync(written, await self.read())


def _made(family: Family, values: Values | None = None, *, limits: Sequence[str] = ()) -> Metric:
    made = _KINDS[family.kind](family.name, family.says, labels=family.labels)
    for labels, value in (values or {}).items():
        if isinstance(value, Distribution):
            made.add_metric(labels, buckets=list(zip(limits, value.cumulated, strict=True)), sum_value=value.total)
        else:
            made.add_metric(labels, value)
    metric: Metric = made
    return metric


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Say nothing of a scrape that was answered."""


@contextmanager
def serving(collector: Collector, *, host: str, port: int) -> Iterator[str]:
    """Serve a collector while the block runs; gives the address. ``port`` 0 takes a free one. Raises ConfigError where it cannot listen."""

    def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            start_response("405 Method Not Allowed", [("Allow", "GET, HEAD")])
            return [b""]
        if environ["PATH_INFO"] not in ("/", "/metrics"):
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"the metrics are at /metrics\n"]
        start_response("200 OK", [("Content-Type", CONTENT_TYPE), ("Cache-Control", "no-store")])
        return [written(collector.ask())]

    try:
        server = make_server(host, port, answer, _Server6 if ":" in host else _Server, _Quiet)
    except OSError as exc:
        raise ConfigError(f"cannot listen at {host} port {port}: {exc.strerror}; write another --port, or --port 0 for a free one") from exc
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="async-tracker scrapes", daemon=True)
    thread.start()
    try:
        yield f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        collector.close()
