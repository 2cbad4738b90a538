"""A real Prometheus scrapes a real fleet in which what can go wrong goes wrong: each alert fires, and ends."""

import asyncio
import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from arq.constants import default_queue_name
from prometheus_client import CollectorRegistry, make_wsgi_app

from async_tracker import Tracker
from async_tracker.metrics.prometheus import Collector
from tests.crash.fleet import SWIFT, open_fleet
from tests.harness.ledger import Ledger
from tests.harness.ports import TakePort
from tests.harness.wait import wait_until
from tests.harness.wire import WireProxy
from tests.harness.workers import Workers
from tests.metrics.prometheus import Prometheus, needed, panels
from tests.metrics.scrapes import Scrape

PATIENCE = 60.0


@pytest.mark.lasts
async def test_each_alert_fires_and_ends_and_no_counter_goes_back_when_a_worker_is_killed(
    workers: Workers, ledger: Ledger, wire: WireProxy, redis_url: str, namespace: str, tmp_path: Path, take_port: TakePort
):
    promtool = needed("promtool")
    fleet = await open_fleet(workers, ledger, redis_url, namespace)
    command = ["-m", "async_tracker.cli", "metrics", "--redis-url", wire.url, "--namespace", namespace, "--port", "0", "--json"]
    serving = workers.start_program([sys.executable, *command, "--timeout", "0.2"])
    (first,) = await fleet.start_ready(tracker={**SWIFT, "max_recoveries": 0})
    serving.wait_for_output('"url"')
    url = json.loads(next(line for line in serving.output().splitlines() if line.startswith("{")))["url"]
    prometheus = Prometheus(workers, tmp_path / "prometheus", [url], port=take_port())

    async def alerts(what: str, is_so: Callable[[set[str]], bool]) -> None:
        await wait_until(
            lambda: asyncio.to_thread(lambda: is_so(prometheus.firing())), timeout=PATIENCE, description=what, poll_interval=0.1
        )

    async def value(expression: str, wanted: float) -> None:
        async def found() -> bool:
            return await asyncio.to_thread(prometheus.value, expression) == wanted

        await wait_until(found, timeout=PATIENCE, description=f"{expression} is {wanted}", poll_interval=0.1)

    await value('sum(async_tracker_instances{state="alive"})', 1)
    await alerts("all is well", lambda firing: not firing)

    blocking: list[str] = []

    async def blocked() -> bool:
        if not await fleet.pool.zcard(default_queue_name):  # it was over before a scrape of this machine has seen it
            blocking.append(await fleet.enqueue("block", 3.0))
        return "InstanceStalled" in await asyncio.to_thread(prometheus.firing)

    await wait_until(blocked, timeout=PATIENCE, description="a loop is blocked", poll_interval=0.1)
    await fleet.succeeded(*blocking)
    await fleet.succeeded(await fleet.enqueue("until_told", str(tmp_path)))

    async def fails() -> bool:
        for _ in range(5):
            await fleet.pool.enqueue_job("until_told", "one argument", "too many")
        return "FailuresRising" in await asyncio.to_thread(prometheus.firing)

    await wait_until(fails, timeout=PATIENCE, description="runs fail", poll_interval=0.2)
    await alerts("the loop runs again, and runs fail no more", lambda firing: not firing)

    held = await fleet.enqueue("until_told", str(tmp_path / "told"))
    await fleet.in_flight(held)
    first.kill()
    for _ in range(3):
        await fleet.pool.enqueue_job("noop")
    gone = {"NoInstanceAlive", "QueueWithoutWorkers", "OldestWaitTooLong", "OrphansNotRecovered"}
    await alerts("the only worker is killed, and its queue grows", lambda firing: gone <= firing)

    (second,) = await fleet.start_ready(tracker={**SWIFT, "max_recoveries": 0})
    await alerts("its job is in quarantine, and a worker is there", lambda firing: firing == {"JobQuarantined"})
    assert await fleet.tracker.drop_quarantined(held)
    await alerts("the job is dropped", lambda firing: not firing)
    await value("async_tracker_instances_dead_total", 1)
    await value("async_tracker_quarantined_total", 1)

    wire.stall()
    await alerts("Redis is away, and nothing else is said", lambda firing: firing == {"TrackerRedisDown"})
    wire.flow()
    await alerts("Redis is back", lambda firing: not firing)

    assert second.exit_code is None
    counters: list[str] = []

    def are_known() -> bool:
        named = prometheus.query('group by (__name__) ({__name__=~"async_tracker_.+(_total|_count|_sum|_bucket)"})')
        counters[:] = [found["metric"]["__name__"] for found in named]
        return len(counters) > 10

    await wait_until(
        lambda: asyncio.to_thread(are_known), timeout=PATIENCE, description="a scrape has read the counters", poll_interval=0.1
    )
    assert [name for name in counters if prometheus.query(f"resets({name}[10m]) > 0")] == [], "a counter went back"
    held = await fleet.enqueue("until_told", str(tmp_path / "told"))
    await fleet.in_flight(held)

    async def shows_something() -> bool:
        return all(await asyncio.gather(*(asyncio.to_thread(prometheus.query, expression) for _, expression in panels())))

    await wait_until(shows_something, timeout=PATIENCE, description="each panel of the dashboard has data", poll_interval=0.5)
    (tmp_path / "told").touch()
    await fleet.succeeded(held)
    await value('sum(async_tracker_instances{state="alive"})', 1)
    assert len(prometheus.targets()) == 1
    body = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=20).read())
    checked = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, b""), checked
    await fleet.aclose()


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


async def test_a_registry_of_ones_own_that_answers_in_openmetrics_is_read_by_prometheus_too(
    workers: Workers, redis_url: str, namespace: str, tmp_path: Path, take_port: TakePort
):
    needed("prometheus")
    registry, collector = CollectorRegistry(), Collector(Tracker(namespace=namespace, redis_options={"url": redis_url}))
    registry.register(collector)
    with make_server("127.0.0.1", 0, make_wsgi_app(registry), handler_class=Quiet) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        prometheus = Prometheus(workers, tmp_path / "prometheus", [f"http://127.0.0.1:{server.server_port}"], port=take_port())

        wanted = {"redis_up": 1, "orphans": 0, "orphans_total": 0, "quarantined": 0, "quarantined_total": 0}

        def read() -> bool:
            return {name: prometheus.value(f"async_tracker_{name}") for name in wanted} == wanted

        await wait_until(lambda: asyncio.to_thread(read), timeout=PATIENCE, description="it is read", poll_interval=0.1)
        prometheus.process.ask_to_leave()
        prometheus.process.wait()
        server.shutdown()
    with closing(collector):
        assert Scrape(b"").samples == {}
