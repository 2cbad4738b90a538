"""What an instance has counted comes into the history once, whatever is lost on the way."""

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
import redis.asyncio

from async_tracker.clock import ServerClock
from async_tracker.errors import StorageUnavailable
from async_tracker.history.histogram import bucket_of
from async_tracker.instance.batches import Batches
from async_tracker.instance.journal import Journal
from async_tracker.namespace import Namespace
from async_tracker.store import keys
from async_tracker.store.commands import Store
from async_tracker.store.counters import COUNTERS_IN_A_BATCH, Counted, CountedBatch
from async_tracker.store.writes import Status

ID = "web:1:ab"


class LossyStore(Store):
    """Loses a part of the requests before they reach the real server, and of the replies after it has done what was asked."""

    def __init__(self, redis: Any, *, losses: random.Random) -> None:
        super().__init__(redis)
        self._losses = losses
        self.lost = Counter[str]()

    async def count(self, instance_id: str, batch: CountedBatch, *, clock: ServerClock):
        if self._losses.random() < 0.2:
            self.lost["requests"] += 1
            raise StorageUnavailable("the request was lost")
        reply = await super().count(instance_id, batch, clock=clock)
        if self._losses.random() < 0.2:
            self.lost["replies"] += 1
            raise StorageUnavailable("the reply was lost")
        return reply


@pytest.fixture
async def store(redis_client: redis.asyncio.Redis, namespace: str):
    losses = random.Random(7)
    lossy = LossyStore(Namespace(redis_client, namespace), losses=losses)
    await lossy.register(ID, 1, "{}", {"state": "alive"})
    return lossy


async def counted(store: Store) -> Counter[str]:
    """Add up what all minutes hold, by field."""
    found = Counter[str]()
    for minute in await store.redis.zrange(keys.MINUTES, 0, -1):
        for field, value in (await store.redis.hgetall(keys.minute(int(minute)))).items():
            found[field.decode()] += int(value)
    return found


async def test_with_a_fifth_of_the_requests_and_of_the_replies_lost_everything_counts_once(store: LossyStore):
    journal, rng = Journal(wake=lambda: None), random.Random(3)
    batches = Batches(journal=journal, clock=ServerClock())
    expected = Counter[str]()
    for beat in range(2_000):
        function = f"function {rng.randrange(12)}"
        run_ms, waited_ms = rng.lognormvariate(5, 2), rng.lognormvariate(3, 2)
        journal.counts.tally(function, "mail").extend((run_ms, waited_ms))
        name = f'["{function}","mail"]'
        expected.update({f"started{name}": 1, f"succeeded{name}": 1})
        expected.update({f"r{bucket_of(run_ms)}{name}": 1, f"w{bucket_of(waited_ms)}{name}": 1})
        if beat % 3 == 0:
            journal.counts.of(function, "mail")["failed"] += 1
            expected[f"failed{name}"] += 1
        try:
            await batches.send(store, ID)
        except StorageUnavailable:
            continue
    while batches.take():
        try:
            await batches.send(store, ID)
        except StorageUnavailable:
            continue
    found = await counted(store)
    assert {field: n for field, n in found.items() if "max" not in field and "_ms" not in field} == dict(expected)
    assert store.lost["requests"] > 300
    assert store.lost["replies"] > 300


async def test_an_outage_costs_memory_by_functions_and_not_by_its_length(store: LossyStore):
    journal = Journal(wake=lambda: None)
    batches = Batches(journal=journal, clock=ServerClock())
    journal.counts.tally("send", "mail").extend((5.0, 1.0))
    before = batches.take()
    for _ in range(10_000):
        journal.counts.tally("send", "mail").extend((5.0, 1.0))
        journal.sort_counts(within=1.0)
    assert batches.take() is before
    assert not journal.counts.tally("send", "mail")
    while batches.take():
        try:
            await batches.send(store, ID)
        except StorageUnavailable:
            continue
    found = await counted(store)
    assert found['r9["send","mail"]'] == found['started["send","mail"]'] == 10_001


async def test_what_was_sent_and_not_answered_is_not_counted_under_another_id(store: LossyStore):
    journal = Journal(wake=lambda: None)
    batches = Batches(journal=journal, clock=ServerClock())
    journal.counts.tally("send", "mail").extend((5.0, 1.0))
    store.lost.clear()
    while not store.lost["replies"]:
        journal.counts.tally("send", "mail").extend((5.0, 1.0))
        try:
            await batches.send(store, ID)
        except StorageUnavailable:
            continue
    before = await counted(store)
    batches.leave_behind()
    assert not batches.take()
    await store.register("web:1:cd", 1, "{}", {"state": "alive"})
    await batches.send(store, "web:1:cd")
    assert await counted(store) == before


async def test_a_part_has_a_bounded_number_of_counters_and_has_the_server_do_little_more_than_count_them(store: LossyStore):
    journal, rng = Journal(wake=lambda: None), random.Random(5)
    batches = Batches(journal=journal, clock=ServerClock())
    for number in range(300):
        for _ in range(20):
            journal.counts.tally(f"function {number}", "mail").extend((rng.lognormvariate(5, 2), rng.lognormvariate(3, 2)))
    parts = batches.take()
    assert all(sum(len(item.counters) for item in part.counted) <= COUNTERS_IN_A_BATCH for part in parts)
    assert len(parts) > 50
    client = store.redis.redis
    await client.config_resetstat()
    while batches.take():
        try:
            await batches.send(store, ID)
        except StorageUnavailable:
            continue
    calls = {name: stats["calls"] for name, stats in (await client.info("commandstats")).items()}
    parts_sent = calls.pop("cmdstat_evalsha")
    assert sum(calls.values()) / parts_sent < 2 * COUNTERS_IN_A_BATCH


async def test_an_unknown_instance_and_a_wrong_minute_change_nothing(store: LossyStore):
    batch = CountedBatch(number=1, since_ms=0.0, counted=(Counted('["send",null]', {"started": 1}),))
    plain = Store(store.redis)
    assert (await plain.count("nobody:1:x", batch, clock=ServerClock())).status is Status.UNKNOWN
    assert (await plain.count(ID, batch, clock=ServerClock(offset_ms=0.0))).status is Status.ELSEWHEN
    assert await counted(store) == {}
    assert (await plain.count(ID, batch, clock=ServerClock())).status is Status.WRITTEN
    assert (await plain.count(ID, batch, clock=ServerClock())).status is Status.STALE
    assert (await counted(store))['started["send",null]'] == 1


async def test_what_arrives_more_than_a_minute_after_it_was_counted_is_marked_as_late(store: LossyStore):
    clock = ServerClock()
    fresh = CountedBatch(number=1, since_ms=asyncio.get_running_loop().time() * 1000, counted=(Counted('["send",null]', {"started": 1}),))
    stale = CountedBatch(number=2, since_ms=fresh.since_ms - 61_000, counted=fresh.counted)
    plain = Store(store.redis)
    await plain.count(ID, fresh, clock=clock)
    assert 'late["send",null]' not in await counted(store)
    await plain.count(ID, stale, clock=clock)
    assert (await counted(store))['late["send",null]'] == 1


async def test_beyond_the_names_that_are_kept_all_count_as_other(store: LossyStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("async_tracker.store.scripts.SERIES_KEPT", 3)
    plain = Store(store.redis)
    for number in range(1, 11):
        batch = CountedBatch(number=number, since_ms=0.0, counted=(Counted(f'["hostile {number}",null]', {"started": 1}),))
        await plain.count(ID, batch, clock=ServerClock())
    found = await counted(store)
    assert found['started["(other)",null]'] == 7
    assert await store.redis.zcard(keys.SERIES) == 4


async def test_a_key_of_another_program_costs_the_history_and_no_heartbeat(store: LossyStore):
    await store.redis.set(keys.SERIES, "x")
    batch = CountedBatch(number=1, since_ms=0.0, counted=(Counted('["send",null]', {"started": 1}),))
    assert (await Store(store.redis).count(ID, batch, clock=ServerClock())).status is Status.WRITTEN
