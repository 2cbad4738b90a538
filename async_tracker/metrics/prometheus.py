"""Metrics for Prometheus: a collector over a tracker, to be registered in any registry of ``prometheus_client``.

from prometheus_client import REGISTRY
from async_tracker.metrics.prometheus import Collector

REGISTRY.register(Collector(tracker))
"""

import asyncio
import logging
import platform
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import anyio.to_thread
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector as Registered

from async_tracker import __version__
from async_tracker.connections.calls import bounded
from async_tracker.errors import ConfigError, StorageError, StorageUnavailable
from async_tracker.metrics.background import Background
from async_tracker.metrics.exposition import CONTENT_TYPE, Told, limits_of, written
from async_tracker.metrics.families import FAMILIES, NAMES_MOST, PREFIX, Distribution, Family, Shown, Values
from async_tracker.records import Measures
from async_tracker.tracker import Tracker

__all__ = ["CONTENT_TYPE", "Collector", "serving"]

logger = logging.getLogger("async_tracker")

_KINDS: dict[str, Callable[..., Any]] = {
    "gauge": GaugeMetricFamily,
    "counter": CounterMetricFamily,
    "histogram": HistogramMetricFamily,
}


class Collector(Registered):
    """The metrics of a tracker's namespace. Nothing is read before it is first asked, and nothing is written.

    ``timeout``: how many seconds a scrape may wait for Redis; then ``async_tracker_redis_up`` is 0, and the rest is left out.
    ``fresh_for``: for how many seconds what was read is given to all who ask. ``names_most``: how many functions, and how many queues,
    have a label of their own; all others share ``other``.

    `collect` may be called from any thread: it reads in an event loop of its own. In an asyncio app `exposition` answers a scrape
    without holding up the loop. Raises ConfigError for numbers that cannot work.
    """

    def __init__(self, tracker: Tracker, *, timeout: float = 3.0, fresh_for: float = 1.0, names_most: int = NAMES_MOST) -> None:
        for name, value, least in (("timeout", timeout, 0.01), ("fresh_for", fresh_for, 0.0), ("names_most", names_most, 1)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= 1_000_000:
                raise ConfigError(f"Collector({name}={value!r:.40}): write a number of {least:g} or more")
        self._tracker = tracker
        self._timeout = float(timeout)
        self._fresh_for = float(fresh_for)
        self._shown = Shown(names_most=int(names_most))
        self._background = Background(tracker.elsewhere)
        self._reading = threading.Lock()
        self._showing = threading.Lock()
        self._asking: asyncio.Task[Told] | None = None
        self._told = Told({})
        self._fresh_until = 0.0
        self._is_away = False

    def describe(self) -> Iterable[Metric]:
        """Name the metrics, without asking Redis: so that registering reads nothing."""
        counted = {family.name.removesuffix("_total") for family in FAMILIES if family.kind == "counter"}
        return [_made(family) for family in FAMILIES if family.name not in counted]  # a registry has each name once

    def collect(self) -> Iterable[Metric]:
        """Read everything, or give what was read just before. Never raises for what Redis does, and never takes long."""
        told = self.ask()
        limits = limits_of(told.bounds)
        return [_made(family, told.values[family.name], limits=limits) for family in FAMILIES if family.name in told.values]

    def ask(self) -> Told:
        """Do what `collect` does, and give the mere values."""
        with self._reading:
            if time.monotonic() >= self._fresh_until:
                began = time.monotonic()
                try:
                    told = self._known(self._background.run(self._measures, within=self._timeout), began=began)
                except (StorageError, TimeoutError) as exc:
                    told = self._away(exc, began=began)
                self._keep(told)
            return self._told

    async def read(self) -> Told:
        """Do what `ask` does, in the running event loop with the tracker's own client: for an asyncio app."""
        if time.monotonic() < self._fresh_until:
            return self._told
        if self._asking is None or self._asking.done() or self._asking.get_loop() is not asyncio.get_running_loop():
            self._asking = asyncio.create_task(self._read())
        return await asyncio.shield(self._asking)  # one that gives up waiting must not take it from the others

    async def _read(self) -> Told:
        began = time.monotonic()
        try:
            told = self._known(await bounded(self._measures(), self._timeout), began=began)
        except (StorageError, TimeoutError) as exc:
            told = self._away(exc, began=began)
        self._keep(told)
        return told

    async def exposition(self) -> bytes:
        """Answer a scrape with the body, whose content type is `CONTENT_TYPE`."""
        return await anyio.to_thread.run_sync(written, await self.read())

    def close(self) -> None:
        """End the thread in which `collect` reads, if there is one."""
        self._background.close()

    async def _measures(self) -> Measures:
        return await self._tracker.measures(queues_within=self._timeout / 3)

    def _keep(self, told: Told) -> None:
        self._told, self._fresh_until = told, time.monotonic() + self._fresh_for

    def _known(self, measures: Measures, *, began: float) -> Told:
        if self._is_away:
            self._is_away = False
            logger.info("Redis answers scrapes again")
        with self._showing:  # a thread and a loop may both be asked
            values = self._shown.values(measures)
        return Told(values | self._of_itself(is_up=True, began=began), measures.bounds)

    def _away(self, exc: Exception, *, began: float) -> Told:
        why = exc if isinstance(exc, StorageError) else StorageUnavailable(f"Redis did not answer within {self._timeout:g} s")
        if not self._is_away:
            self._is_away = True
            logger.warning("scrapes are answered without metrics: %s", why)
        return Told(self._of_itself(is_up=False, began=began))

    def _of_itself(self, *, is_up: bool, began: float) -> dict[str, Values]:
        build = (__version__, platform.python_version(), self._tracker.namespace)
        return {
            f"{PREFIX}redis_up": {(): int(is_up)},
            f"{PREFIX}scrape_duration_seconds": {(): time.monotonic() - began},
            f"{PREFIX}build_info": {build: 1},
        }


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
