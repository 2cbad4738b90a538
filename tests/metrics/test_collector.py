"""The collector over a real Redis: what a scrape tells, what it costs, and that it ends whatever Redis does."""

import asyncio
import json
import logging
import os
import sys
import urllib.request
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis.asyncio
from prometheus_client import CollectorRegistry, generate_latest

from async_tracker import ConfigError, Tracker
from async_tracker.embedded import EmbeddedServer
from async_tracker.history.histogram import upper_bound_ms
from async_tracker.metrics.families import FAMILIES
from async_tracker.metrics.prometheus import Collector
from async_tracker.namespace import Namespace
from async_tracker.store.commands import Store
from async_tracker.store.counters import BOUNDS
from async_tracker.store.instance_record import Description, encode_description
from benchmarks.queries import count_round_trips, named_connections, write_namespace
from tests.crash.fleet import QUICK
from tests.harness.judgement import declare_dead
from tests.harness.wait import wait_until
from tests.metrics.scrapes import Scrape
from tests.web.conftest import lets_read, mount, serve

__all__ = ["mount", "serve"]

HOSTILE = ['send "mail"\n', "back\\slash", "ünï\u2028", "x" * 10_000, "<b>", "\x00\x1b[2J", 'a"} 1\nasync_tracker_redis_up 7']
BY_ITSELF = {f"async_tracker_{name}" for name in ("redis_up", "scrape_duration_seconds", "build_info")}


async def scraped(collector: Collector) -> Scrape:
    return Scrape(await collector.exposition())


async def run(tracker: Tracker, *functions: str, queue: str = "mail") -> None:
    for number, function in enumerate(functions):
        async with tracker.track(f"{function[:20]}-{number}", function=function, queue=queue):
            pass


async def test_what_ran_is_told_by_function_and_stays_told_when_the_worker_has_left(make_tracker: Callable[..., Tracker]):
    worker, asking = make_tracker(**QUICK), make_tracker()
    async with worker.register(queue="mail", concurrency=10):
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(worker.track("long", function="send", queue="mail"))
            await run(worker, "send", "send", "pay")
            collector = Collector(asking, fresh_for=0.0)

            async def told() -> Scrape | None:
                scrape = await scraped(collector)
                return (
                    scrape
                    if scrape.all("job_duration_seconds_count", function="pay") and scrape("busy") and scrape.all("jobs_in_flight")
                    else None
                )

            scrape = await wait_until(told, description="a beat has brought the counters")
            assert scrape is not None
            assert scrape("instances", state="alive", queue="mail", library="asyncio") == 1
            assert (scrape("slots"), scrape("busy"), scrape("jobs_in_flight", function="send", queue="mail")) == (10, 1, 1)
        with pytest.raises(RuntimeError, match="no mail"):
            async with worker.track("fails", function="send", queue="mail"):
                raise RuntimeError("no mail")
    after = await scraped(collector)
    assert after("jobs_started_total", function="send", queue="mail") == 4
    assert after("jobs_finished_total", function="send", queue="mail", outcome="succeeded") == 3
    assert after("jobs_finished_total", function="send", queue="mail", outcome="failed") == 1
    assert after("job_duration_seconds_count", function="send", queue="mail") == 4
    assert after.counters().keys() >= scrape.counters().keys()
    assert {key: (before, after.samples[key]) for key, before in scrape.counters().items() if after.samples[key] < before} == {}


async def test_the_names_types_labels_and_bounds_are_those_that_are_promised(
    make_tracker: Callable[..., Tracker], redis_client, namespace: str
):
    worker = make_tracker(**QUICK)
    async with worker.register(queue="mail", concurrency=10):
        await run(worker, "send")
    await redis_client.hset(
        f"{namespace}:total:" + json.dumps(["send", "mail"], separators=(",", ":")),
        mapping={"w8": 3, "w23": 1, "winf": 1, "wait_ms": 9_000_000},
    )
    scrape = await scraped(Collector(worker))
    told = {family.name: family for family in FAMILIES}
    assert {name: family.type for name, family in scrape.families} == {name: family.kind for name, family in told.items()}
    for name, family in scrape.families:
        for sample in family.samples:
            beside = {"le"} if sample.name.endswith("_bucket") else set()
            assert sample.labels.keys() - beside == set(told[name].labels), sample
    waits = {dict(labels)["le"]: value for labels, value in scrape.all("job_wait_seconds_bucket").items()}
    limits = [float(limit) for limit in waits]
    assert limits[:-1] == [pytest.approx(upper_bound_ms(bound) / 1000, rel=1e-3) for bound in BOUNDS]
    assert list(waits.values()) == [3, 3, 3, 3, *[4] * 10, 5]
    assert (scrape("job_wait_seconds_sum"), scrape("job_wait_seconds_count"), scrape("redis_up")) == (9_000, 5, 1)


async def test_what_is_served_is_what_a_registry_of_ones_own_would_serve(make_tracker: Callable[..., Tracker]):
    worker = make_tracker(**QUICK)
    async with worker.register(queue="mail", concurrency=10):
        await run(worker, "send", *HOSTILE)
    collector, registry = Collector(worker, fresh_for=3_600.0), CollectorRegistry()
    registry.register(collector)
    served, generated = await scraped(collector), Scrape(generate_latest(registry))
    assert served.samples == generated.samples
    assert [(name, family.type, family.documentation) for name, family in served.families] == [
        (name, family.type, family.documentation) for name, family in generated.families
    ]


async def test_hostile_names_are_labels_like_any_other_and_a_very_long_one_is_cut(make_tracker: Callable[..., Tracker]):
    worker = make_tracker(**QUICK)
    async with worker.register(queue="mail", concurrency=10):
        await run(worker, *HOSTILE)
    scrape = await scraped(Collector(worker))
    found = scrape.labels("jobs_started_total", "function")
    assert found >= {name for name in HOSTILE if len(name) < 100}
    assert max(map(len, found)) == 120
    assert scrape.labels("job_duration_seconds_count", "function") == found
    assert scrape("redis_up") == 1


async def test_deaths_stalls_and_quarantines_are_counted_in_redis_so_that_every_program_tells_the_same(
    make_tracker: Callable[..., Tracker], redis_client: redis.asyncio.Redis, namespace: str
):
    collectors = [Collector(make_tracker(), fresh_for=0.0) for _ in range(2)]
    store = Store(Namespace(redis_client, namespace))
    fields = encode_description(Description(library="arq", host="h", host_id="h", pid=1, queue="mail"), make_tracker().settings.limits())
    await store.register("h:1:aa", 1, '{"server":"","ids":{}}', fields)
    assert await declare_dead(redis_client, namespace, "h:1:aa")
    await store.register("h:2:bb", 1, '{"server":"","ids":{}}', fields)
    assert await store.note_stall("h:2:bb", (await store.observe("")).instances["h:2:bb"], '{"schema":1,"type":"stalled"}')
    await redis_client.zadd(f"{namespace}:quarantine", {"pill": 1})
    for collector in collectors:
        scrape = await scraped(collector)
        assert [scrape(name) for name in ("instances_dead_total", "stalls_total", "quarantined", "quarantined_total")] == [1, 1, 1, 0]


async def test_a_scrape_costs_three_round_trips_and_two_for_the_queues_of_a_library(
    make_server: Callable[..., EmbeddedServer], namespace: str
):
    url = make_server().url
    with named_connections(url, 120) as connections:
        client = redis.asyncio.Redis.from_url(url)
        await write_namespace(client, namespace, connections=connections, jobs_each=5)
        async with client.pipeline(transaction=False) as pipe:
            for number in range(100):
                pair = json.dumps([f"f{number}", "mail"], separators=(",", ":"))
                pipe.zadd(f"{namespace}:series", {pair: 1})
                pipe.hset(f"{namespace}:total:{pair}", mapping={"since_ms": number, **{f"r{bound}": 7 for bound in BOUNDS}, "run_ms": 5})
            await pipe.execute()
        collector = Collector(Tracker(namespace=namespace, redis=client), fresh_for=0.0)
        scrape = await scraped(collector)
        assert sum(scrape.all("instances", state="alive").values()) == 120
        assert sum(scrape.all("jobs_in_flight").values()) == 600
        assert len(scrape.all("job_duration_seconds_count")) == 101, "and what the writer of the namespace ran"
        assert await count_round_trips(client, collector.read) == 3
        worker = (await client.zrange(f"{namespace}:instances", 0, 0))[0].decode()
        await client.hset(f"{namespace}:instance:{worker}", "library", "arq")
        await client.zadd("mail", {"waiting": 1})
        assert await count_round_trips(client, collector.read) == 5
        scrape = await scraped(collector)
        assert scrape("queue_depth", queue="mail", library="arq") == 1
        assert scrape("queue_oldest_wait_seconds", queue="mail", library="arq") > 0
        await client.aclose()


async def test_who_asks_at_the_same_time_or_just_after_is_given_the_same(make_server: Callable[..., EmbeddedServer], namespace: str):
    client = redis.asyncio.Redis.from_url(make_server().url)
    collector = Collector(Tracker(namespace=namespace, redis=client), fresh_for=3_600.0)
    first, second = await asyncio.gather(collector.read(), collector.read())
    assert first is second
    assert await count_round_trips(client, collector.read) == 0
    await client.aclose()


@pytest.mark.parametrize("way", ["in the loop", "in a thread"])
async def test_while_redis_is_slow_or_away_a_scrape_ends_and_says_so_and_nothing_else(way: str, wire, make_tracker, caplog):
    collector = Collector(make_tracker(redis_options={"url": wire.url}), timeout=0.5, fresh_for=0.0)
    registry = CollectorRegistry()
    registry.register(collector)

    async def scrape() -> Scrape:
        return await scraped(collector) if way == "in the loop" else Scrape(await asyncio.to_thread(generate_latest, registry))

    await wait_until(lambda: is_up(scrape), description="a scrape ends within half a second")
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="async_tracker"):
        wire.stall()
        for _ in range(2):  # it is still stalled when each of them is answered
            found = await scrape()
            assert (found("redis_up"), found.names) == (0, BY_ITSELF)
        wire.flow()
        wire.refuse()
        assert (await scrape())("redis_up") == 0
    assert [record.message for record in caplog.records] == ["scrapes are answered without metrics: Redis did not answer within 0.5 s"]
    wire.accept()
    await wait_until(lambda: is_up(scrape), description="Redis is back")
    collector.close()


async def is_up(scrape: Callable[[], Any]) -> bool:
    return bool((await scrape())("redis_up") == 1)


async def test_the_queues_of_a_library_whose_redis_is_away_are_left_out_and_all_else_is_told(
    wire, make_tracker, redis_client, namespace: str
):
    tracker = make_tracker(arq_redis=wire.url)
    store = Store(Namespace(redis_client, namespace))
    await store.register(
        "h:1:aa",
        1,
        '{"server":"","ids":{}}',
        encode_description(Description(library="arq", host="h", host_id="h", pid=1, queue="mail"), tracker.settings.limits()),
    )
    collector = Collector(tracker, timeout=3.0, fresh_for=0.0)
    assert (await scraped(collector))("queue_depth", queue="mail", library="arq") == 0
    wire.stall()
    scrape = await scraped(collector)
    assert (scrape("redis_up"), scrape.all("queue_depth"), scrape("instances", state="alive")) == (1, {}, 1)


async def test_it_is_registered_from_sync_or_async_code_reads_nothing_until_it_is_asked_and_never_uses_the_loops_own_client(
    redis_url: str, namespace: str
):
    client = redis.asyncio.Redis.from_url(redis_url)
    tracker = Tracker(namespace=namespace, redis=client)
    collector, registry = Collector(tracker, fresh_for=0.0), CollectorRegistry(auto_describe=True)
    registry.register(collector)
    assert client.connection_pool._available_connections == []
    assert (await scraped(collector))("redis_up") == 1  # with the loop's client
    used = client.connection_pool._available_connections.copy()
    for _ in range(2):
        assert Scrape(generate_latest(registry))("redis_up") == 1  # within the loop, which waits
        assert Scrape(await asyncio.to_thread(generate_latest, registry))("redis_up") == 1
    assert client.connection_pool._available_connections == used
    assert await client.ping()
    collector.close()
    assert Scrape(await asyncio.to_thread(generate_latest, registry))("redis_up") == 1  # it starts again
    collector.close()
    await client.aclose()


def test_a_forked_child_reads_in_a_thread_of_its_own(redis_url: str, namespace: str):
    """As under gunicorn with preload, where what was registered before the fork is asked after it."""
    registry, collector = CollectorRegistry(), Collector(Tracker(namespace=namespace, redis_options={"url": redis_url}), fresh_for=0.0)
    registry.register(collector)
    assert Scrape(generate_latest(registry))("redis_up") == 1
    pid = os.fork()
    if not pid:
        code = 1
        try:
            code = 0 if Scrape(generate_latest(registry))("redis_up") == 1 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    collector.close()


@pytest.mark.parametrize("wrong", [{"timeout": 0}, {"timeout": "soon"}, {"fresh_for": -1}, {"names_most": 0}, {"names_most": True}])
def test_what_cannot_work_is_an_error_that_says_what_to_write(wrong: dict[str, Any]):
    with pytest.raises(ConfigError, match="write a number of"):
        Collector(Tracker(), **wrong)


async def test_the_page_serves_them_to_those_who_may_look(mount: Callable[..., Any], make_tracker: Callable[..., Tracker]):
    worker = make_tracker(**QUICK)
    async with worker.register(queue="mail", concurrency=7):
        answer = await mount(authorize=lets_read).get("/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0"})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert answer.headers["cache-control"] == "no-store"
    assert "async_tracker_slots 7\n" in answer.text


async def test_a_page_without_the_extra_says_how_to_get_it(mount: Callable[..., Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "async_tracker.metrics.prometheus")
    for name in [name for name in sys.modules if name.startswith("prometheus_client")]:
        monkeypatch.setitem(sys.modules, name, None)
    answer = await mount(authorize=lets_read).get("/metrics")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (501, "not_installed")
    assert 'pip install "async-tracker[prometheus]"' in error["message"]


async def test_the_command_serves_them_until_it_is_told_to_end(workers, redis_url: str, namespace: str):
    command = ["-m", "async_tracker.cli", "metrics", "--redis-url", redis_url, "--namespace", namespace, "--port"]
    process = workers.start_program([sys.executable, *command, "0", "--json"])
    process.wait_for_output('"url"')
    url = json.loads(next(line for line in process.output().splitlines() if line.startswith("{")))["url"]
    body = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=20).read())
    assert Scrape(body)("redis_up") == 1
    taken = workers.start_program([sys.executable, *command, url.rsplit(":", 1)[1].partition("/")[0]])
    assert taken.wait() == 2
    assert "write another --port" in taken.output()
    process.ask_to_leave()
    assert process.wait() == 0
