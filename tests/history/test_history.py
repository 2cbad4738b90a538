"""What was: kept by the minute, packed once, and told in windows and steps."""

import asyncio
import itertools
import json
import math
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import redis.asyncio
from arq import func
from arq.connections import ArqRedis
from arq.worker import Worker

from async_tracker import ConfigError, Tracker
from async_tracker.embedded import EmbeddedServer
from async_tracker.history.keeper import HistoryKeeper
from async_tracker.history.packing import entry, pack
from async_tracker.namespace import Namespace
from async_tracker.policy import Limits
from async_tracker.records import QueueDepth
from async_tracker.store import keys
from async_tracker.store.commands import Store
from async_tracker.store.counters import counted_name
from async_tracker.store.instance_record import Description, encode_description
from async_tracker.store.reading import Reading
from benchmarks.queries import count_round_trips
from tests.harness.settings import KNOWN, QUIET
from tests.harness.wait import wait_until
from tests.history.filling import BusyFunction, bytes_of_all_keys, count_in, keep

MINUTE_MS = 60_000


@pytest.fixture
def proxy(redis_client: redis.asyncio.Redis, namespace: str) -> Namespace:
    return Namespace(redis_client, namespace)


@pytest.fixture
def store(proxy: Namespace) -> Store:
    return Store(proxy)


def keeper_of(store: Store, depths: Any = None) -> HistoryKeeper:
    return HistoryKeeper(store=store, reading=Reading(store.redis), library="arq", depths=depths)


async def minute_now(client: redis.asyncio.Redis) -> int:
    seconds, _ = await client.time()
    return int(seconds) // 60


async def test_a_minute_that_is_over_is_packed_and_tells_the_same_as_before(
    store: Store, redis_client: redis.asyncio.Redis, namespace: str
):
    now = await minute_now(redis_client)
    fields = {'started["send","mail"]': 4, 'succeeded["send","mail"]': 4, 'r9["send","mail"]': 4, 'rmax["send","mail"]': 6}
    await count_in(store, now - 5, fields)
    await count_in(store, now - 4, {'started["pay",null]': 2, 'failed["pay",null]': 2, 'late["pay",null]': 1})
    async with Tracker(namespace=namespace, redis=redis_client) as tracker:
        before = await tracker.history(since=600.0)
        await keep(keeper_of(store), (now + 0) * MINUTE_MS)
        assert await store.redis.exists(keys.minute(now - 5), keys.minute(now - 4)) == 0
        after = await tracker.history(since=600.0)
        told = [
            {
                int(point.at.timestamp()) // 60: (point.started, point.failed, point.is_late, point.run_time_p50, point.run_time_max)
                for point in history.points
            }
            for history in (before, after)
        ]
        both = told[0].keys() & told[1].keys()  # the minute may have changed between the two
        assert len(both) >= 8
        assert {minute: told[0][minute] for minute in both} == {minute: told[1][minute] for minute in both}
        assert told[1][now - 5] == (4, 0, False, 0.00548, 0.006)
        assert told[1][now - 4] == (2, 2, True, None, None)
        (row,) = (await tracker.stats(function="send", window=600)).functions
    assert (row.started, row.queue, row.run_time_p99, row.run_time_max) == (4, "mail", 0.00548, 0.006)
    assert row.per_minute == pytest.approx(4 / 9.5, rel=0.06)


async def test_a_roll_up_that_dies_half_way_is_done_again_and_counts_once(
    store: Store, redis_client: redis.asyncio.Redis, namespace: str, monkeypatch: pytest.MonkeyPatch
):
    now = await minute_now(redis_client)
    await count_in(store, now - 3, {f'started["f{number}",null]': 1 for number in range(250)})

    class Dies(Store):
        async def close_minute(self, minute: int) -> bool:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await keeper_of(Dies(store.redis)).keep(now * MINUTE_MS)
    await asyncio.gather(*(keep(keeper_of(store), now * MINUTE_MS) for _ in range(3)))
    async with Tracker(namespace=namespace, redis=redis_client) as tracker:
        assert (await tracker.stats(window=600)).started == 250
        assert sum(point.started for point in (await tracker.history(since=600)).points) == 250
    assert await store.redis.zcard(keys.MINUTES) == 0


async def test_a_minute_with_a_sample_is_known_and_one_without_is_a_gap(store: Store, redis_client: redis.asyncio.Redis, namespace: str):
    async def depths(described: Any) -> list[QueueDepth]:
        return [QueueDepth(queue="mail", library="arq", depth=7, due=3, oldest_wait=12.5)]

    now = await minute_now(redis_client)
    for minute in (now - 3, now - 1):
        await keeper_of(store, depths).keep(minute * MINUTE_MS)
    async with Tracker(namespace=namespace, redis=redis_client) as tracker:
        points = (await tracker.history(since=360)).points
    by_minute = {int(point.at.timestamp()) // 60: point for point in points}
    assert [by_minute[minute].is_gap for minute in (now - 3, now - 2, now - 1)] == [False, True, False]
    known = by_minute[now - 1]
    assert (known.started, known.busy, known.slots) == (0, 0, 0)
    assert [(item.queue, item.depth, item.oldest_wait) for item in known.queues] == [("mail", 7, 12.5)]
    assert by_minute[now - 2].busy is None


async def test_a_sample_tells_how_many_instances_there_are_and_how_many_jobs_the_dead_have_left(
    store: Store, redis_client: redis.asyncio.Redis, namespace: str
):
    for name, library in (("w1", "arq"), ("w2", "arq"), ("w3", "dramatiq"), ("gone", "arq")):
        described = Description(library=library, host="web", host_id="ab", pid=1, concurrency=5)
        await store.register(name, 1, "{}", {**encode_description(described, Limits()), "state": "alive", "busy": 1})
    await store.redis.zrem(keys.INSTANCES, "gone")
    await store.redis.zadd(keys.DEAD, {"gone": 1})
    await store.redis.sadd(keys.jobs("gone"), "a", "b")
    now = await minute_now(redis_client)
    older = (now - 2) // 60, f"{(now - 2) % 60}:arq", "[1,2,10,{}]"  # as a version wrote it that did not tell this
    await store.redis.hset(keys.samples(str(older[0])), older[1], older[2])
    for library in ("arq", "dramatiq"):
        await HistoryKeeper(store=store, reading=Reading(store.redis), library=library, depths=None).keep(now * MINUTE_MS)
    async with Tracker(namespace=namespace, redis=redis_client) as tracker:
        points = {int(point.at.timestamp()) // 60: point for point in (await tracker.history(since=600)).points}
        (several,) = (await tracker.history(since=600, step=600)).points
    assert (points[now].instances, points[now].orphans, points[now].busy) == (3, 2, 3)
    assert (points[now - 2].instances, points[now - 2].orphans, points[now - 2].busy) == (None, None, 2)
    assert (several.instances, several.orphans) == (3, 2)


async def test_one_minute_is_sampled_once_whoever_sweeps(store: Store, redis_client: redis.asyncio.Redis):
    now = await minute_now(redis_client)
    await asyncio.gather(*(keeper_of(store).keep(now * MINUTE_MS) for _ in range(4)))
    samples = await store.redis.hgetall(keys.samples(str(now // 60)))
    assert len(samples) == 1
    assert all(len(raw) <= 100 for raw in samples.values())


async def test_an_idle_fleet_writes_its_one_sample_a_minute_and_nothing_else(make_server: Callable[..., EmbeddedServer]):
    """An hour and a half of three instances that run nothing, seen by the one that sweeps."""
    client = redis.asyncio.Redis.from_url(make_server().url)
    store = Store(Namespace(client, "my_app"))
    for number in range(3):
        described = Description(library="asyncio", host="web", host_id="ab", pid=number, queue="mail", concurrency=5, version="1.0")
        await store.register(f"web:{number}:ab", 1, "{}", {**encode_description(described, Limits()), "state": "alive"})
    keeper = HistoryKeeper(store=store, reading=Reading(store.redis), library="asyncio", depths=None)
    first = await minute_now(client) // 60 * 60
    await client.config_resetstat()
    for minute in range(first, first + 90):
        for _ in range(3):  # the sweeps of one minute
            await keep(keeper, minute * MINUTE_MS)
    calls = {name.removeprefix("cmdstat_"): stats["calls"] for name, stats in (await client.info("commandstats")).items()}
    writes = {name: calls[name] for name in calls if name in ("hset", "hsetnx", "hincrby", "set", "zadd", "zrem", "unlink", "del", "xadd")}
    # For each minute its sample, its hour in the list of hours, and when the version was last seen; for the hour that is over its sample.
    assert writes == {"hsetnx": 90 + 1, "zadd": 2 * 90, "zrem": 1}
    samples = await client.hgetall(f"my_app:samples:{first // 60}")
    assert len(samples) == 60
    assert max(map(len, samples.values())) <= 100
    await client.aclose()
    await client.connection_pool.disconnect()


async def test_a_library_that_cannot_tell_its_queues_costs_them_and_not_the_sample(store: Store, redis_client: redis.asyncio.Redis):
    async def depths(described: Any) -> list[QueueDepth]:
        raise RuntimeError("its Redis is away")

    now = await minute_now(redis_client)
    await keeper_of(store, depths).keep(now * MINUTE_MS)
    (raw,) = (await store.redis.hgetall(keys.samples(str(now // 60)))).values()
    assert json.loads(raw) == [1, 0, 0, {}, 1, 0, 0]


async def test_what_another_version_wrote_is_skipped_and_said(store: Store, redis_client: redis.asyncio.Redis, namespace: str):
    now = await minute_now(redis_client)
    await count_in(store, now - 5, {'started["send",null]': 4})
    await keep(keeper_of(store), now * MINUTE_MS)
    of_hour = keys.packed(f"{(now - 5) // 60}:" + '["send",null]')
    await store.redis.append(of_hour, entry((now - 5) % 60, b"\x09another"))  # as one of a newer version that packs the minute again
    await store.redis.hset(keys.samples(str(now // 60)), "77", "[9]")
    async with Tracker(namespace=namespace, redis=redis_client) as tracker:
        found = await tracker.history(since=600)
    assert sum(point.started for point in found.points) == 4
    assert found.skipped == 2


@pytest.mark.parametrize("window", [0, -1, math.nan, math.inf, 2_592_001, "1h", True])
async def test_a_window_of_which_nothing_is_kept_is_refused_with_what_is(redis_client: redis.asyncio.Redis, namespace: str, window: Any):
    async with Tracker(namespace=namespace, redis=redis_client) as tracker:
        with pytest.raises(ConfigError, match=r"window \(.*\) must be .* kept for 24 hours, hours for 30 days"):
            await tracker.stats(window=window)
        with pytest.raises(ConfigError, match=r"since \(.*\) must be .* kept for 24 hours"):
            await tracker.history(since=window)


@pytest.mark.parametrize(("since", "step"), [(3600, 90), (3600, 0), (60, 120), (3600, math.nan)])
async def test_a_step_that_cannot_be_is_refused(redis_client: redis.asyncio.Redis, namespace: str, since: float, step: float):
    async with Tracker(namespace=namespace, redis=redis_client) as tracker:
        with pytest.raises(ConfigError, match="step"):
            await tracker.history(since=since, step=step)


async def test_names_of_any_kind_have_a_history(redis_url: str, redis_client: redis.asyncio.Redis, namespace: str):
    names = ['"quoted"', "line\nbreak", "ключ", "a[b]:{c}", "x" * 10_000, "*"]
    async with Tracker(namespace=namespace, redis_options={"url": redis_url}, **QUIET) as tracker:
        async with tracker.register(queue="mail"):
            for name in names:
                async with tracker.track("1", function=name):
                    pass
        found = {row.function: row.started for row in (await tracker.stats(window=600)).functions}
    short = {json.loads(counted_name(name, None))[0] for name in names}
    assert found == dict.fromkeys(short, 1)
    assert max(map(len, short)) <= 120


async def test_an_arq_worker_leaves_a_history_of_run_times_and_waits(redis_url: str, namespace: str):
    async def send(ctx: dict[str, Any]) -> None:
        await asyncio.sleep(0.05)

    async def break_down(ctx: dict[str, Any]) -> None:
        raise ValueError

    pool = ArqRedis.from_url(redis_url)
    for _ in range(20):
        await pool.enqueue_job("send")
    await pool.enqueue_job("break_down")
    await asyncio.sleep(0.3)
    tracker = Tracker(namespace=namespace, **QUIET)
    arguments = {"functions": [func(send, name="send"), func(break_down, name="break_down")], "redis_pool": pool, "burst": True}
    worker = Worker(**tracker.install(arguments), handle_signals=False)
    began = time.monotonic()
    await worker.async_run()
    took = time.monotonic() - began
    await worker.on_shutdown(worker.ctx)
    async with Tracker(namespace=namespace, redis=pool) as asking:
        rows = {row.function: row for row in (await asking.stats(window=120)).functions}
        by_queue = await asking.stats(window=120, queue="arq:queue")
    sent = rows["send"]
    assert (sent.started, sent.succeeded, rows["break_down"].failed, by_queue.started) == (20, 20, 1, 21)
    assert sent.run_time_p50 is not None
    assert 0.045 <= sent.run_time_p50 <= took + 0.05, "a bucket is wider than nothing"
    assert sent.queue_wait_p50 is not None
    assert sent.queue_wait_p50 >= 0.27
    assert sent.run_time_max is not None
    assert sent.run_time_max >= 0.05
    await pool.aclose()


async def test_an_instance_that_sweeps_samples_and_packs_by_itself(
    redis_url: str, redis_client: redis.asyncio.Redis, namespace: str, store: Store
):
    now = await minute_now(redis_client)
    await count_in(store, now - 3, {'started["send",null]': 4})
    async with (
        Tracker(namespace=namespace, redis_options={"url": redis_url}, sweep_interval=0.05, **KNOWN) as tracker,
        tracker.register(queue="mail", concurrency=8),
    ):
        await wait_until(lambda: _is_packed(store, now - 3), description="the minute was packed")
        point = next(point for point in reversed((await tracker.history(since=300)).points) if point.busy is not None)
        assert (point.busy, point.slots) == (0, 8)


async def _is_packed(store: Store, minute: int) -> bool:
    return not await store.redis.exists(keys.minute(minute))


async def test_a_day_of_a_hundred_functions_stays_within_14_mb_and_one_of_them_is_told_in_two_round_trips(
    make_server: Callable[..., EmbeddedServer],
):
    """200 runs a minute each, wide distributions. Three hours are written, and memory grows by as much with each."""
    client = redis.asyncio.Redis.from_url(make_server().url)
    store, busy = Store(Namespace(client, "my_app")), [BusyFunction(random.Random(seed)) for seed in range(20)]
    now = await minute_now(client)
    hour = now // 60
    records = [pack(function.span()) for function in busy for _ in range(10)]
    pairs = [counted_name(f"my_app.tasks.function_number_{number:03d}", "arq:queue") for number in range(100)]
    pick = itertools.cycle(records)
    for back in range(3):
        for place in range(60):
            minute = (hour - back) * 60 + place
            await store.pack_minute(minute, {pair: entry(place, next(pick)) for pair in pairs})
    await client.zadd("my_app:series", dict.fromkeys(pairs, now))
    assert await bytes_of_all_keys(client) * 25 / 3 <= 14_000_000
    async with Tracker(namespace="my_app", redis=client) as tracker:
        ask = partial(tracker.history, function="my_app.tasks.function_number_007", since=86_400, step=600)
        found = await ask()
        trips = await count_round_trips(client, ask)
    assert sum(point.started for point in found.points) > 0
    assert trips == 2
    await client.aclose()
    await client.connection_pool.disconnect()


async def test_a_user_who_may_not_keep_the_history_sweeps_and_says_it_once(
    store: Store, redis_client: redis.asyncio.Redis, caplog: pytest.LogCaptureFixture
):
    now = await minute_now(redis_client)
    await store.redis.set(keys.samples(str(now // 60)), "of another program", ex=60)
    await store.redis.set(keys.samples(str((now + 1) // 60)), "of another program", ex=60)
    keeper = keeper_of(store)
    await keeper.keep(now * MINUTE_MS)
    await keeper.keep((now + 1) * MINUTE_MS)
    assert len([line for line in caplog.messages if "refuses to keep the history" in line]) == 1


async def test_a_clock_that_is_set_back_into_a_minute_that_is_packed_counts_nothing_twice(
    store: Store, redis_client: redis.asyncio.Redis, namespace: str
):
    now = await minute_now(redis_client)
    await count_in(store, now - 5, {'started["send","mail"]': 4})
    await keep(keeper_of(store), now * MINUTE_MS)
    await count_in(store, now - 5, {'started["send","mail"]': 3})  # what arrives while the clock says that it is that minute again
    await keep(keeper_of(store), (now + 1) * MINUTE_MS)
    async with Tracker(namespace=namespace, redis=redis_client) as tracker:
        assert (await tracker.stats(window=1_200)).started == 4
    assert await store.redis.zcard(keys.MINUTES) == 0


async def test_a_server_that_loses_its_data_has_the_totals_again_and_of_the_history_what_came_afterwards(
    redis_url: str, redis_client: redis.asyncio.Redis, namespace: str
):
    settings = {**QUIET, "heartbeat_interval": 0.05}
    async with Tracker(namespace=namespace, redis_options={"url": redis_url}, **settings) as tracker, tracker.register(queue="mail"):
        await _run(tracker, 5)
        await wait_until(lambda: _windowed(tracker, 5), description="the history has them")
        await redis_client.unlink(*[key async for key in redis_client.scan_iter(f"{namespace}:*", count=1_000)])
        await _run(tracker, 3)
        await wait_until(lambda: _windowed(tracker, 3), description="the history has what came afterwards")
        await wait_until(lambda: _totals(tracker, 8), description="the totals are whole")


async def _run(tracker: Tracker, times: int) -> None:
    for number in range(times):
        async with tracker.track(str(number), function="send"):
            pass


async def _windowed(tracker: Tracker, started: int) -> bool:
    return (await tracker.stats(window=600)).started == started


async def _totals(tracker: Tracker, started: int) -> bool:
    return (await tracker.stats()).started == started
