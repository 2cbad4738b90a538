"""Hours of thirty days: rolled up of their minutes, once, and told as if they were still those."""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import pytest
import redis.asyncio

from async_tracker import ConfigError, Tracker
from async_tracker.embedded import EmbeddedServer
from async_tracker.history.keeper import HistoryKeeper
from async_tracker.history.packing import Span, entry, pack
from async_tracker.namespace import Namespace
from async_tracker.records import History, QueueDepth
from async_tracker.store import keys
from async_tracker.store.commands import Store
from async_tracker.store.counters import counted_name
from async_tracker.store.reading import Reading
from benchmarks.queries import count_round_trips
from tests.harness.settings import KNOWN
from tests.harness.wait import wait_until
from tests.history.filling import BusyFunction, bytes_of_all_keys, count_in, keep

MINUTE_MS = 60_000
DAY = 86_400.0
SEND = counted_name("send", "mail")
PAY = counted_name("pay", None)

T = TypeVar("T")


@pytest.fixture
def store(redis_client: redis.asyncio.Redis, namespace: str) -> Store:
    return Store(Namespace(redis_client, namespace))


def keeper_of(store: Store, depths: Any = None) -> HistoryKeeper:
    return HistoryKeeper(store=store, reading=Reading(store.redis), library="arq", depths=depths)


async def minute_now(client: redis.asyncio.Redis) -> int:
    seconds, _ = await client.time()
    return int(seconds) // 60


async def within_a_minute(client: redis.asyncio.Redis, question: Callable[[], Awaitable[T]]) -> tuple[int, T]:
    """Ask, again where the server's minute has changed meanwhile; gives the minute as well."""
    while True:
        before, answer = await minute_now(client), await question()
        if await minute_now(client) == before:
            return before, answer


def started_by_hour(history: History) -> dict[int, int]:
    return {int(point.at.timestamp()) // 3_600: point.started for point in history.points}


async def roll_up(store: Store, now: int) -> None:
    """Have a sweeper do all that is to be done by this minute."""
    await keep(keeper_of(store), now * MINUTE_MS)


async def pack_minutes(store: Store, hour: int, spans: Mapping[tuple[int, str], Span]) -> None:
    """Leave packed minutes of an hour that is to be rolled up; ``spans`` are by place and pair."""
    for (place, pair), span in spans.items():
        await store.pack_minute(hour * 60 + place, {pair: entry(place, pack(span))})
        await store.redis.zadd(keys.SERIES, {pair: hour * 60 + place})
    await store.redis.zadd(keys.HOURS, {str(hour): hour})


async def test_an_hour_tells_the_same_as_its_minutes_did_and_outlives_them(store: Store, redis_client: redis.asyncio.Redis, namespace: str):
    now = await minute_now(redis_client)
    hour = now // 60 - 3
    busy = BusyFunction(random.Random(3))
    await pack_minutes(store, hour, {(place, SEND): busy.span(runs=50) for place in (0, 30, 59)})
    async with Tracker(namespace=namespace, redis=redis_client) as tracker:
        before = [await tracker.stats(window=5 * 3_600), await tracker.stats(window=2 * DAY)]
        points = started_by_hour(await tracker.history(since=8 * 3_600, step=3_600))
        await roll_up(store, now)
        assert await store.redis.zcard(keys.HOURS) == 1  # the one that is running: it has a sample
        assert await store.redis.delete(keys.packed(f"{hour}:{SEND}")) == 1
        after = [await tracker.stats(window=5 * 3_600), await tracker.stats(window=2 * DAY)]
        told = started_by_hour(await tracker.history(since=8 * 3_600, step=3_600))
    assert [
        (row.started, row.failed, row.run_time, row.run_time_p95, row.queue_wait_max) for found in after for row in found.functions
    ] == [(row.started, row.failed, row.run_time, row.run_time_p95, row.queue_wait_max) for found in before for row in found.functions]
    assert told[hour] == points[hour] == 150
    assert [count for at, count in told.items() if at != hour and count] == []


@pytest.mark.parametrize("survives", range(5))
async def test_a_roll_up_that_dies_at_any_of_its_steps_is_done_again_and_counts_once(
    store: Store, redis_client: redis.asyncio.Redis, namespace: str, survives: int
):
    now = await minute_now(redis_client)
    hour = now // 60 - 2
    pairs = [counted_name(f"f{number}", None) for number in range(50)]
    await pack_minutes(store, hour, {(place, pair): Span({"started": 1}) for place in (4, 5) for pair in pairs})

    class Dies(Store):
        left = survives

        async def roll_up_hour(self, hour: int, records: Mapping[str, bytes], *, minutes_seconds: int) -> int:
            if not self.left:
                raise asyncio.CancelledError
            self.left -= 1
            return await super().roll_up_hour(hour, records, minutes_seconds=minutes_seconds)

        async def close_hour(self, hour: int, sample: str, *, minutes_seconds: int, series_from: int) -> bool:
            if not self.left:
                raise asyncio.CancelledError
            await super().close_hour(hour, sample, minutes_seconds=minutes_seconds, series_from=series_from)
            raise asyncio.CancelledError  # after the last step

    with pytest.raises(asyncio.CancelledError):
        await roll_up(Dies(store.redis), now)
    await asyncio.gather(*(roll_up(store, now) for _ in range(3)))
    await roll_up(store, now + 1)
    async with Tracker(namespace=namespace, redis=redis_client) as tracker:
        assert (await tracker.stats(window=2 * DAY)).started == 100
        assert sum(point.started for point in (await tracker.history(since=2 * DAY, step=3_600)).points) == 100
    assert await store.redis.zscore(keys.HOURS, str(hour)) is None


async def test_what_a_fleet_left_that_was_away_for_a_weekend_is_rolled_up_when_it_is_back(
    store: Store, redis_client: redis.asyncio.Redis, namespace: str
):
    now = await minute_now(redis_client)
    hour = now // 60 - 62
    await pack_minutes(store, hour, {(3, SEND): Span({"started": 7})})
    await count_in(store, hour * 60 + 5, {f"started{SEND}": 4})
    days_left = await store.redis.ttl(keys.packed(f"{hour}:{SEND}")) / DAY
    await roll_up(store, now)
    await roll_up(store, now + 1)
    assert days_left > 30
    assert await store.redis.ttl(keys.packed(f"{hour}:{SEND}")) <= 3_600  # no question is about its minutes any more
    async with Tracker(namespace=namespace, redis=redis_client) as tracker:
        points = started_by_hour(await tracker.history(since=3 * DAY, step=3_600))
    assert points[hour] == sum(points.values()) == 11


async def test_minutes_live_for_a_day_once_their_hour_is_rolled_up(store: Store, redis_client: redis.asyncio.Redis):
    now = await minute_now(redis_client)
    hour = now // 60 - 2
    await pack_minutes(store, hour, {(3, SEND): Span({"started": 7})})
    await roll_up(store, now)
    assert DAY - 3_600 < await store.redis.ttl(keys.packed(f"{hour}:{SEND}")) < DAY + 3_600
    assert await store.redis.ttl(keys.packed(f"d{hour // 24}:{SEND}")) > 30 * DAY


async def test_an_idle_hour_is_0_and_one_without_a_sample_is_a_gap(store: Store, redis_client: redis.asyncio.Redis, namespace: str):
    now = await minute_now(redis_client)
    busy = iter([2, 4, 9])

    async def depths(described: Any) -> list[QueueDepth]:
        return [QueueDepth(queue="mail", library="arq", depth=next(busy), due=1, oldest_wait=1.5)]

    for place in (10, 20, 30):
        await keeper_of(store, depths).keep(((now // 60 - 30) * 60 + place) * MINUTE_MS)
    await roll_up(store, now)
    await store.redis.delete(keys.samples(str(now // 60 - 30)))
    async with Tracker(namespace=namespace, redis=redis_client) as tracker:
        points = (await tracker.history(since=40 * 3_600, step=3_600)).points
    by_hour = {int(point.at.timestamp()) // 3_600: point for point in points}
    known, gap = by_hour[now // 60 - 30], by_hour[now // 60 - 29]
    assert (known.is_gap, known.started, known.busy, known.slots) == (False, 0, 0, 0)
    assert [(item.queue, item.depth, item.oldest_wait) for item in known.queues] == [("mail", 9, 1.5)]
    assert gap.is_gap
    assert gap.busy is None


async def test_a_window_is_the_same_however_much_of_it_is_rolled_up(store: Store, redis_client: redis.asyncio.Redis, namespace: str):
    """Minutes that are not packed, packed ones, and hours, over two days and a half, against a plain sum."""
    now, rng = await minute_now(redis_client), random.Random(11)
    counted: dict[int, int] = {}
    for minute in range(now - 60 * 60, now + 1, 13):
        counted[minute] = rng.randrange(1, 1_000)
        if rng.random() < 0.1:
            await count_in(store, minute, {f"started{SEND}": counted[minute]})
        else:
            await pack_minutes(store, minute // 60, {(minute % 60, SEND): Span({"started": counted[minute]})})
    async with Tracker(namespace=namespace, redis=redis_client) as tracker:
        for rolled_up_until in (now - 40 * 60, now - 7 * 60, now):
            await roll_up(store, rolled_up_until)
            for hours in (1, 5, 23, 24, 25, 40, 59):
                at, found = await within_a_minute(redis_client, partial(tracker.stats, "send", window=hours * 3_600))
                aligned = (at // 60 - hours + 1) * 60
                first = at - 60 * hours + 1 if hours <= 24 else aligned
                assert (hours, found.started) == (hours, sum(count for minute, count in counted.items() if minute >= first))
                at, steps = await within_a_minute(redis_client, partial(tracker.history, "send", since=hours * 3_600, step=3_600))
                aligned = (at // 60 - hours + 1) * 60
                assert sum(point.started for point in steps.points) == sum(n for minute, n in counted.items() if minute >= aligned)
                at, trends = await within_a_minute(redis_client, partial(tracker.trends, window=hours * 3_600, step=3_600))
                first = at - 60 * hours + 1 if hours <= 24 else (at // 60 - hours + 1) * 60
                assert trends.stats.started == sum(count for minute, count in counted.items() if minute >= first)
                whole = [sum(n for minute, n in counted.items() if minute // 60 == hour) for hour in range(math.ceil(first / 60), at // 60)]
                *rates, _ = trends.started["send", "mail"]  # the last one is not over
                assert [rate * 60 for rate in rates if rate is not None] == pytest.approx(whole)


async def test_a_step_of_minutes_beyond_a_day_is_refused_with_what_to_write(redis_client: redis.asyncio.Redis, namespace: str):
    async with Tracker(namespace=namespace, redis=redis_client) as tracker:
        with pytest.raises(ConfigError, match=r"step \(60\) must be whole hours .* write step=3600.0"):
            await tracker.history(since=7 * DAY)


async def test_a_series_goes_when_nothing_has_counted_in_it_for_a_month(store: Store, redis_client: redis.asyncio.Redis):
    now = await minute_now(redis_client)
    await pack_minutes(store, now // 60 - 2, {(3, SEND): Span({"started": 7})})
    await store.redis.zadd(keys.SERIES, {PAY: now - 32 * 24 * 60})
    await roll_up(store, now)
    assert await store.redis.zrange(keys.SERIES, 0, -1) == [SEND.encode()]


async def test_30_days_of_a_hundred_functions_stay_within_12_mb_and_one_of_them_is_told_in_two_round_trips(
    make_server: Callable[..., EmbeddedServer],
):
    """200 runs a minute each, their times widely spread."""
    client = redis.asyncio.Redis.from_url(make_server().url)
    store = Store(Namespace(client, "my_app"))
    hour = await minute_now(client) // 60
    records = [pack(BusyFunction(random.Random(seed)).span(runs=12_000)) for seed in range(8)]
    pairs = [counted_name(f"my_app.tasks.function_number_{number:03d}", "arq:queue") for number in range(25)]  # a quarter of them
    for back in range(1, 721):
        at = hour - back
        of_hour = {pair: entry(at % 24, records[number % 8]) for number, pair in enumerate(pairs)}
        await store.roll_up_hour(at, of_hour, minutes_seconds=3_600)
    await client.zadd("my_app:series", dict.fromkeys(pairs, hour * 60))
    assert await bytes_of_all_keys(client) * 100 / len(pairs) <= 12_000_000
    async with Tracker(namespace="my_app", redis=client) as tracker:
        ask_for_one = partial(tracker.history, "my_app.tasks.function_number_007", since=30 * DAY, step=3_600)
        one = started_by_hour(await ask_for_one())
        trips = await count_round_trips(client, ask_for_one)
        week = await tracker.stats(window=7 * DAY)
    assert {one[at] for at in range(hour - 715, hour)} == {12_000}
    assert week.started in ((7 * 24 - 1) * len(pairs) * 12_000, (7 * 24 - 2) * len(pairs) * 12_000)  # the hour may have changed meanwhile
    assert trips == 2
    await client.aclose()
    await client.connection_pool.disconnect()


async def test_a_key_of_another_program_is_in_the_way_of_its_own_part_of_the_history_alone(
    store: Store, redis_client: redis.asyncio.Redis, namespace: str, caplog: pytest.LogCaptureFixture
):
    now = await minute_now(redis_client)
    hour = now // 60 - 2
    for key in (keys.minute(now - 9), keys.samples(str(hour)), keys.samples(f"d{hour // 24}"), keys.packed(f"d{hour // 24}:{PAY}")):
        await store.redis.set(key, b"of another program", ex=600)
    await store.redis.zadd(keys.MINUTES, {str(now - 9): now - 9})
    await count_in(store, now - 5, {f"started{SEND}": 4})
    await pack_minutes(store, hour, {(3, SEND): Span({"started": 7}), (4, PAY): Span({"started": 1})})
    keeper = keeper_of(store)
    for minute in (now, now + 1):
        await keep(keeper, minute * MINUTE_MS)
    assert await store.redis.zscore(keys.HOURS, str(hour)) is None
    assert await store.redis.zrange(keys.MINUTES, 0, -1) == [str(now - 9).encode()]
    assert await store.redis.get(keys.minute(now - 9)) == b"of another program"
    async with Tracker(namespace=namespace, redis=redis_client) as tracker:
        assert (await tracker.stats("send", window=2 * DAY)).started == 11
    assert len([line for line in caplog.messages if "refuses to keep the history" in line]) == 1


async def test_an_instance_that_sweeps_rolls_hours_up_by_itself(
    redis_url: str, redis_client: redis.asyncio.Redis, namespace: str, store: Store
):
    hour = await minute_now(redis_client) // 60 - 2
    await pack_minutes(store, hour, {(3, SEND): Span({"started": 7})})
    tracker = Tracker(namespace=namespace, redis_options={"url": redis_url}, sweep_interval=0.05, **KNOWN)
    async with tracker, tracker.register(queue="mail"):

        async def is_rolled_up() -> bool:
            return await store.redis.zscore(keys.HOURS, str(hour)) is None

        await wait_until(is_rolled_up, timeout=30, description="the hour is rolled up")
        assert (await tracker.stats("send", window=2 * DAY)).started == 7
    assert await store.redis.exists(keys.packed(f"d{hour // 24}:{SEND}")) == 1
