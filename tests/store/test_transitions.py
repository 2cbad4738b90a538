"""Each transition does what it says once, and nothing when it comes late or from somebody who may not."""

import pytest
from redis.asyncio import Redis

from async_tracker.connections.calls import run_script
from async_tracker.errors import StorageError
from async_tracker.namespace import Namespace
from async_tracker.store import keys
from async_tracker.store.commands import Store
from async_tracker.store.counters import TotalsBatch
from async_tracker.store.observation import Connections
from async_tracker.store.run_record import RunRecord
from async_tracker.store.scripts import SCRIPTS
from async_tracker.store.writes import Beat, Ended, Judged, Settlement, Status
from tests.harness.leaving import deregister
from tests.harness.servers import assert_no_leaks

HERE = Connections(server="5f", ids={7: "async-tracker:ab"}).encode()
FIELDS: dict[str, str | bytes | int | float] = {"schema": 1, "library": "asyncio", "state": "alive"}


@pytest.fixture
def store(redis_client, namespace):
    return Store(Namespace(redis_client, namespace))


def record(job_id="42", token="r1", *, instance_id="w", started_at_ms=1_000):
    return RunRecord(job_id=job_id, instance_id=instance_id, token=token, started_at_ms=started_at_ms)


async def registered(store, instance_id="w"):
    await store.register(instance_id, 1, HERE, FIELDS)
    return instance_id


async def judged(store, instance_id="w", *, reason="it is gone"):
    seen = await store.observe("")
    return Judged(
        instance_id=instance_id,
        heartbeat=seen.instances[instance_id],
        connections=seen.connections[instance_id],
        watchdog=seen.watchdogs.get(instance_id, ""),
        reason=reason,
    )


async def beat(store, sequence, *, totals=None, connections=""):
    return await store.beat("w", Beat(sequence=sequence, connections=connections, fields={"busy": 0}, totals=totals))


def batch(number, *, after, **grown):
    return TotalsBatch(number=number, after=after, grown=grown)


async def test_a_write_of_nobody_changes_nothing(store, redis_client, namespace):
    assert (await store.write("w", 1, started=[record()], ended=[])).status is Status.UNKNOWN
    assert (await beat(store, 1)).status is Status.UNKNOWN
    assert await deregister(store, "w") == -1
    assert [key async for key in redis_client.scan_iter()] == []


async def test_a_write_that_comes_late_changes_nothing(store):
    """A batch that a proxy kept back: the run has long ended."""
    await registered(store)
    assert (await store.write("w", 5, started=[], ended=[])).status is Status.WRITTEN
    assert (await store.write("w", 4, started=[record()], ended=[])).status is Status.STALE
    assert (await store.write("w", 5, started=[record()], ended=[])).status is Status.STALE
    assert (await beat(store, 3)).status is Status.STALE
    assert await store.listed_jobs("w") == []


async def test_a_registration_a_beat_or_a_word_of_the_watchdog_that_comes_late_changes_nothing(store, redis_client, namespace):
    """A newer write was seen: none of them may bring back an old connection, nor say that the loop is blocked."""
    await registered(store)
    assert (await store.beat("w", Beat(sequence=5, connections=HERE, fields={"busy": 7}))).status is Status.WRITTEN
    earlier = Connections(server="5f", ids={3: "async-tracker:earlier"}).encode()
    assert (await store.register("w", 4, earlier, {**FIELDS, "busy": 0})).status is Status.STALE
    assert (await beat(store, 4, connections=earlier)).status is Status.STALE
    names = [keys.INSTANCES, keys.instance("w"), keys.CONNECTIONS, keys.GONE, keys.WATCHDOGS]
    assert (await run_script(store.redis, SCRIPTS["speak"], names, ("w", 4, earlier, "[]", 9)))[0] == Status.STALE
    seen = await store.observe("")
    assert (seen.connections, seen.watchdogs) == ({"w": HERE}, {})
    assert await redis_client.hget(f"{namespace}:instance:w", "busy") == b"7"


async def test_the_end_of_an_older_run_leaves_the_newer_in_place(store, redis_client, namespace):
    await registered(store)
    older, newer = record(token="r1", started_at_ms=1), record(token="r2", started_at_ms=2)
    await store.write("w", 2, started=[older, newer], ended=[])
    await store.write("w", 3, started=[], ended=[Ended(job_id="42", token="r1", last_here=False)])
    assert b'"run":"r2"' in await redis_client.get(f"{namespace}:job:42")
    assert await store.listed_jobs("w") == ["42"]
    await store.write("w", 4, started=[], ended=[Ended(job_id="42", token="r2")])
    assert await redis_client.exists(f"{namespace}:job:42") == 0
    assert await store.listed_jobs("w") == []


async def test_an_older_run_does_not_replace_the_record_of_a_newer(store, redis_client, namespace):
    await registered(store)
    await store.write("w", 2, started=[record(token="new", started_at_ms=9)], ended=[])
    await store.write("w", 3, started=[record(token="old", started_at_ms=5)], ended=[])
    assert b'"run":"new"' in await redis_client.get(f"{namespace}:job:42")


async def test_a_batch_of_totals_counts_once_however_often_it_comes(store, redis_client, namespace):
    await registered(store)
    for sequence in (2, 3, 4):
        assert (await beat(store, sequence, totals=batch(1, after=0, a=5))).newest_totals == 1
    assert (await beat(store, 5, totals=batch(2, after=1, a=2, b=1))).newest_totals == 2
    assert (await beat(store, 6)).newest_totals == 2
    assert await redis_client.hgetall(f"{namespace}:stats") == {b"a": b"7", b"b": b"1"}


async def test_a_batch_of_totals_is_not_added_before_the_one_that_it_follows(store, redis_client, namespace):
    await registered(store)
    assert (await beat(store, 2, totals=batch(3, after=2, a=5))).newest_totals == 0
    assert not await redis_client.exists(f"{namespace}:stats")


async def test_an_orderly_end_leaves_nothing_but_what_has_a_lifetime(store, redis_client, namespace):
    await registered(store)
    await beat(store, 2, totals=batch(1, after=0, a=1))
    await store.write("w", 3, started=[record()], ended=[])
    await store.write("w", 4, started=[], ended=[Ended(job_id="42", token="r1")])
    assert await deregister(store, "w") == 0
    await assert_no_leaks(redis_client, namespace)


async def test_runs_that_are_left_at_an_orderly_end_are_orphans_at_once(store):
    await registered(store)
    await store.write("w", 2, started=[record()], ended=[])
    assert await deregister(store, "w") == 1
    assert list((await store.observe("")).dead) == ["w"]
    assert await store.listed_jobs("w") == ["42"]


async def test_an_instance_is_declared_dead_on_the_evidence_that_was_judged(store):
    await registered(store)
    evidence = await judged(store)
    assert await store.declare_dead(evidence, "{}")
    assert not await store.declare_dead(evidence, "{}")
    seen = await store.observe("")
    assert (list(seen.instances), list(seen.dead), dict(seen.connections)) == ([], ["w"], {})


async def test_a_beat_a_connection_or_a_word_of_the_watchdog_in_between_saves_an_instance(store, redis_client, namespace):
    await registered(store)
    evidence = await judged(store)
    await redis_client.zincrby(f"{namespace}:instances", 1, "w")
    assert not await store.declare_dead(evidence, "{}")
    evidence = await judged(store)
    await beat(store, 2, connections=Connections(server="5f", ids={8: "n"}).encode())
    await redis_client.zadd(f"{namespace}:instances", {"w": evidence.heartbeat})
    assert not await store.declare_dead(evidence, "{}")
    evidence = await judged(store)
    await redis_client.zadd(f"{namespace}:watchdogs", {"w": 1})
    assert not await store.declare_dead(evidence, "{}")
    assert await store.is_registered("w")


async def test_the_dead_do_not_return_under_their_old_name(store):
    await registered(store)
    await store.declare_dead(await judged(store), "{}")
    assert (await store.register("w", 9, HERE, FIELDS)).status is Status.UNKNOWN
    assert (await beat(store, 9)).status is Status.UNKNOWN
    assert (await store.write("w", 9, started=[record()], ended=[])).status is Status.UNKNOWN
    assert not await store.is_registered("w")


async def test_connections_that_are_looked_for_are_marked_gone_only_while_they_are_the_registered_ones(store):
    await registered(store)
    since = await store.mark_gone("w", HERE, gone=True)
    assert since > 0
    assert await store.mark_gone("w", HERE, gone=True) == since
    assert await store.mark_gone("w", HERE, gone=False) == 0
    assert await store.mark_gone("w", "others", gone=True) == 0
    assert dict((await store.observe("")).gone) == {}


async def test_one_sweeper_holds_the_lease_until_it_gives_it_back_or_is_replaced(store, redis_client, namespace):
    assert (await store.lease("arq", "a", ttl_ms=60_000))[0]
    assert (await store.lease("arq", "a", ttl_ms=60_000))[0]
    assert (await store.lease("arq", "b", ttl_ms=60_000))[:2] == (False, "a")
    assert (await store.lease("arq", "b", ttl_ms=60_000, replacing="c"))[:2] == (False, "a")
    assert (await store.lease("dramatiq", "b", ttl_ms=60_000))[0]
    assert not await store.release_lease("arq", "b")
    assert (await store.lease("arq", "b", ttl_ms=60_000, replacing="a"))[:2] == (True, "b")
    assert await store.release_lease("arq", "b")
    await assert_no_leaks(redis_client, namespace)


async def test_an_orphan_is_settled_once_and_its_instance_buried_after_its_last(store, redis_client, namespace):
    await registered(store)
    await store.write("w", 2, started=[record()], ended=[])
    await store.declare_dead(await judged(store), "{}")
    assert not await store.bury("w")
    settlement = Settlement(record=record(), counts=True, events=("{}",), counters=("c",))
    assert await store.settle(settlement, window_ms=60_000)
    assert not await store.settle(settlement, window_ms=60_000)
    assert await redis_client.hget(f"{namespace}:stats", "c") == b"1"
    assert await store.bury("w")
    await assert_no_leaks(redis_client, namespace)


async def dead_with_orphan(store):
    """The instance "w" is dead and has left a run of job 42, and another so that it is not buried."""
    await registered(store)
    await store.write("w", 2, started=[record(), record("43", "r9")], ended=[])
    await store.declare_dead(await judged(store), "{}")


async def test_a_sweeper_that_comes_late_does_not_replace_the_record_of_the_run_that_has_the_job_now(store, redis_client, namespace):
    """It read what the dead had left, and stood still until its claim had run out and another worker had taken the job."""
    await dead_with_orphan(store)
    await store.register("other", 1, HERE, FIELDS)
    await store.write("other", 2, started=[record(token="r2", instance_id="other", started_at_ms=2_000)], ended=[])
    assert await store.adopt("w", [record()])
    assert b'"run":"r2"' in await redis_client.get(f"{namespace}:job:42")
    assert sorted(await store.listed_jobs("w")) == ["42", "43"]


async def test_what_is_settled_stays_settled_for_a_sweeper_that_comes_late(store, redis_client, namespace):
    await dead_with_orphan(store)
    settlement = Settlement(record=record(), counts=True, events=("{}",), counters=("c",))
    assert await store.adopt("w", [record(), record("43", "r9")])
    assert await store.settle(settlement, window_ms=60_000)
    assert await store.adopt("w", [record(), record("43", "r9")])
    assert not await store.settle(settlement, window_ms=60_000)
    assert await redis_client.hget(f"{namespace}:stats", "c") == b"1"
    assert await redis_client.exists(f"{namespace}:job:42") == 0
    assert await store.settle(Settlement(record=record("43", "r9")), window_ms=60_000)
    assert await store.bury("w")
    await assert_no_leaks(redis_client, namespace)


async def test_an_orphan_that_its_instance_did_not_live_to_record_is_seen_and_settled(store, redis_client, namespace):
    await registered(store)
    await store.declare_dead(await judged(store), "{}")
    await redis_client.set(f"{namespace}:job:42", "{}")  # what names nobody is in nobody's way
    assert await store.adopt("w", [record()])
    assert b'"run":"r1"' in await redis_client.get(f"{namespace}:job:42")
    assert await store.settle(Settlement(record=record()), window_ms=60_000)
    assert await store.bury("w")
    await assert_no_leaks(redis_client, namespace)


async def test_the_server_of_a_namespace_is_noted_and_another_one_noticed(store):
    assert (await store.observe("first")).server_since_ms is None
    assert (await store.observe("first")).server_since_ms is None
    changed = await store.observe("second")
    assert changed.server_since_ms is not None
    assert (await store.observe("second")).server_since_ms == changed.server_since_ms


async def test_the_server_of_a_namespace_is_not_forgotten_while_anybody_sweeps(store, redis_client, namespace):
    """Else a restart in that moment would pass for the first look of all, and nobody would be given the time to return."""
    await store.observe("first")
    server = f"{namespace}:server"
    await redis_client.expire(server, 60)
    await store.observe("first")
    assert await redis_client.ttl(server) <= 60, "a look costs no write"
    await redis_client.hincrby(server, "renewed_ms", -86_400_001)
    await store.observe("")
    assert await redis_client.ttl(server) <= 60, "a query changes nothing"
    await store.observe("first")
    assert await redis_client.ttl(server) > 29 * 86_400


async def test_stamps_of_the_future_are_put_back_to_now_when_the_clock_of_the_server_was(store, redis_client, namespace):
    """Else a worker that died in the hour before would not be missed for an hour."""
    await registered(store)
    await store.mark_gone("w", HERE, gone=True)
    await store.observe("first")
    later = (await store.observe("second")).now_ms + 3_600_000
    await redis_client.zadd(f"{namespace}:instances", {"w": later})
    await redis_client.zadd(f"{namespace}:watchdogs", {"w": later})
    await redis_client.hset(f"{namespace}:gone", "w", later)
    await redis_client.hset(f"{namespace}:server", "since_ms", later)
    await store.observe("")  # a query changes nothing
    assert await redis_client.zscore(f"{namespace}:instances", "w") == later
    seen = await store.observe("second")
    stamps = [float(seen.instances["w"]), float(seen.watchdogs["w"]), seen.gone["w"], seen.server_since_ms]
    assert stamps == [seen.now_ms] * 4


async def test_what_no_script_returns_is_an_error_of_redis(wire, namespace):
    async with Redis.from_url(wire.url) as client:
        store = Store(Namespace(client, namespace))
        for nonsense in (b"+what\r\n", b":7\r\n", b"*1\r\n:1\r\n", b"$-1\r\n"):
            rule = wire.reply_with_error("", to={"EVALSHA"})
            rule.reply = nonsense
            with pytest.raises(StorageError, match="what it never returns"):
                await store.register("w", 1, HERE, FIELDS)
            rule.remove()
