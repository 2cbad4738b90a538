"""What was begun by somebody who did not live to end it: whoever carries on finds what was done, and does not do it twice."""

import contextlib
import json
import pickle
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from arq.connections import ArqRedis
from arq.jobs import Job, SerializationError
from redis.asyncio import Redis

from async_tracker import StorageError, StorageUnavailable, Tracker
from async_tracker.config import Settings
from async_tracker.instance.alarms import Alarms
from async_tracker.instance.sweep_loop import SweepLoop, Turn
from async_tracker.integrations.arq.adapter import ArqAdapter
from async_tracker.integrations.arq.names import IN_PROGRESS
from async_tracker.namespace import Namespace
from async_tracker.records import RecoveryAction
from async_tracker.recovery.adapter import Released
from async_tracker.recovery.lease import LeaseHolder, make_lease
from async_tracker.recovery.leftovers import Leftovers
from async_tracker.recovery.quarantine import kept_payload
from async_tracker.recovery.recoverer import Recoverer, RecoveryLimits
from async_tracker.recovery.sweeper import Swept, make_sweeper
from async_tracker.store.commands import Store
from async_tracker.store.instance_record import Description, encode_description
from async_tracker.store.observation import Connections
from async_tracker.store.reading import Reading
from async_tracker.store.run_record import RunRecord
from async_tracker.store.writes import Judged

pytestmark = pytest.mark.usefixtures("no_leaks")

MakeRecoverer = Callable[..., Recoverer]
DIES = "host:1:ab"


@pytest.fixture
def store(pool: ArqRedis, namespace: str) -> Store:
    return Store(Namespace(pool, namespace))


@pytest.fixture
def adapter(pool: ArqRedis, store: Store) -> ArqAdapter:
    return ArqAdapter(pool, receipt_key=store.redis.full_key)


@pytest.fixture
def make_recoverer(store: Store, adapter: ArqAdapter) -> MakeRecoverer:
    """``make_recoverer(max_recoveries, adapter)``: the recovering part of a sweeper."""

    def make(max_recoveries: int, adapter: ArqAdapter = adapter) -> Recoverer:
        reading = Reading(store.redis)
        leftovers = Leftovers(
            store=store, reading=reading, library="arq", adapter=adapter, recovery_window=3600.0, on_event=lambda event: None
        )
        limits = RecoveryLimits(max_recoveries=max_recoveries, recovery_window=3600.0)
        return Recoverer(store=store, reading=reading, adapter=adapter, leftovers=leftovers, limits=limits, on_event=lambda event: None)

    return make


@pytest.fixture
def die(pool: ArqRedis, store: Store, queue: str, tracker: Tracker) -> Callable[..., Awaitable[RunRecord]]:
    """``await die(*job_ids)``: enqueue jobs, claim and start them, and be declared dead; gives the run of the first."""

    async def die(*job_ids: str) -> RunRecord:
        records = []
        for number, job_id in enumerate(job_ids):
            assert await pool.enqueue_job("job", _job_id=job_id) is not None
            records.append(
                RunRecord(job_id=job_id, instance_id=DIES, token=f"f00d{number}", queue=queue, library="arq", started_at_ms=number + 1)
            )
            await pool.set(IN_PROGRESS + job_id, records[-1].claim)
        description = Description(library="arq", host="h", host_id="h", pid=1, queue=queue)
        connections = Connections(server="5f", ids={7: "n"}).encode()
        await store.register(DIES, 1, connections, encode_description(description, tracker.settings.limits()))
        await store.write(DIES, 2, started=records, ended=[])
        seen = await store.observe("")
        judged = Judged(instance_id=DIES, heartbeat=seen.instances[DIES], connections=connections, watchdog="", reason="killed")
        assert await store.declare_dead(judged, "{}")
        return records[0]

    return die


def loop_of(store: Store, adapter: ArqAdapter) -> SweepLoop:
    sweeper = make_sweeper(Settings(namespace="any"), store, adapter, library="arq", on_event=lambda event: None)
    lease = make_lease(store, library="arq", recovers=sweeper.recovers, sweep_interval=0.5)
    return SweepLoop(sweeper=sweeper, lease=lease, holder=lambda: None, alarms=Alarms(), sweep_interval=0.5)


@pytest.mark.parametrize("is_away", [False, True])
async def test_a_sweeper_that_cannot_recover_leaves_it_to_one_that_can(store, adapter, die, make_server, is_away):
    """Arq's Redis is another one and lets nothing through from there, or the user of that worker may not do it."""
    await die("42")
    other = make_server(extra_args=("--user", *"worker on nopass ~* &* +@all -evalsha -eval".split()))
    async with Redis(unix_socket_path=other.unix_socket_path, username="worker", password="any") as elsewhere:
        if is_away:
            other.stop()
        hindered, able = loop_of(store, ArqAdapter(elsewhere, receipt_key=store.redis.full_key)), loop_of(store, adapter)
        with pytest.raises(StorageUnavailable) if is_away else contextlib.nullcontext():
            turn = await hindered.step(LeaseHolder(text="hindered {}", run_id=""), before=Turn())
            assert (turn.is_sweeper, turn.swept) == (False, Swept(hindered=True))
        turn = await able.step(LeaseHolder(text="able {}", run_id=""), before=Turn())
        assert turn.swept is not None
        [done] = turn.swept.done
        assert done.action is RecoveryAction.RECOVERED


class FailsAt42(ArqAdapter):
    """An adapter with a defect."""

    async def release(self, orphan: RunRecord, *, delay: float) -> Released:
        if orphan.job_id == "42":
            raise KeyError("what was not thought of")
        return await super().release(orphan, delay=delay)

    async def release_many(self, orphans: Sequence[tuple[RunRecord, float]]) -> list[Released | StorageError]:
        if any(orphan.job_id == "42" for orphan, _ in orphans):
            raise KeyError("what was not thought of")
        return await super().release_many(orphans)


async def test_an_orphan_at_which_an_adapter_fails_keeps_no_other_from_being_recovered(pool, store, adapter, make_recoverer, die, caplog):
    await die("42", "43")
    recoverer = make_recoverer(9, FailsAt42(pool, receipt_key=store.redis.full_key))
    for jobs in (["43"], []):
        recovered = await recoverer.recover([DIES], now_ms=await now_ms(store))
        assert ([one.job_id for one in recovered.done], recovered.hindered) == (jobs, True)
    assert caplog.text.count("cannot be recovered") == 1
    [done] = (await make_recoverer(9).recover([DIES], now_ms=await now_ms(store))).done
    assert done.job_id == "42"


def refuses(data: dict[str, Any]) -> bytes:
    raise TypeError("not with me")


@pytest.mark.parametrize(
    ("serializer", "deserializer", "error"),
    [
        pytest.param(lambda data: json.dumps(data).encode(), json.loads, SerializationError, id="no exceptions"),
        pytest.param(refuses, pickle.loads, SerializationError, id="nothing"),
    ],
)
async def test_a_serializer_that_takes_no_exception_does_not_stop_recovery(
    pool, store, make_recoverer, die, observer, queue, serializer, deserializer, error
):
    """JSON and msgpack cannot write what arq raises: whoever awaits the pill is told in words, and the orphans beside it are recovered."""
    await die("42")
    recoverer = make_recoverer(0, ArqAdapter(pool, receipt_key=store.redis.full_key, serializer=serializer))
    [done] = (await recoverer.recover([DIES], now_ms=await now_ms(store))).done
    assert done.action is RecoveryAction.QUARANTINED
    with pytest.raises(error, match="1 workers died running it"):
        await Job("42", pool, queue, _deserializer=deserializer).result(timeout=5, poll_delay=0.01)
    assert await observer.drop_quarantined("42")


async def now_ms(store: Store) -> int:
    return (await store.observe("")).now_ms


async def test_a_death_counts_also_where_the_sweep_that_carries_on_would_have_quarantined(pool, store, adapter, make_recoverer, die):
    """The first sweep released the job and died; the second is made by a worker that allows no recovery at all."""
    record = await die("42")
    await adapter.release(record, delay=0.0)
    [done] = (await make_recoverer(0).recover([DIES], now_ms=await now_ms(store))).done
    assert done.action is RecoveryAction.RECOVERED
    assert await Reading(store.redis).deaths(["42"], since_ms=0) == {"42": ["f00d0"]}
    assert await pool.exists("arq:job:42") == 1


async def test_a_job_is_quarantined_also_where_the_sweep_that_carries_on_would_have_released_it(
    pool, store, adapter, make_recoverer, die, observer
):
    record = await die("42")
    await adapter.quarantine(record, error="it kills")
    [done] = (await make_recoverer(9).recover([DIES], now_ms=await now_ms(store))).done
    assert done.action is RecoveryAction.QUARANTINED
    assert kept_payload((await Reading(store.redis).quarantined())["42"]).payload
    assert await pool.zcard(pool.default_queue_name) == 0
    assert await observer.drop_quarantined("42")


async def test_the_only_copy_of_a_job_outlives_a_weekend_without_a_sweep(pool, store, adapter, make_recoverer, die, observer):
    """Quarantined, and the sweeper died before it was written down, the last of its fleet."""
    record = await die("42")
    await adapter.quarantine(record, error="it kills")
    assert await pool.ttl(store.redis.full_key(f"receipt:{record.claim}")) > 4 * 86_400
    await make_recoverer(0).recover([DIES], now_ms=await now_ms(store))
    assert await observer.drop_quarantined("42")


@pytest.mark.parametrize("has_run_since", [False, True])
async def test_a_retry_that_died_half_way_is_carried_on_by_the_next(
    pool, store, adapter, make_recoverer, die, observer, has_run_since, queue
):
    await die("42")
    await make_recoverer(0).recover([DIES], now_ms=await now_ms(store))
    kept = kept_payload((await Reading(store.redis).quarantined())["42"])
    assert await adapter.retry("42", queue, kept)  # and here its process ends
    assert len(await observer.quarantined()) == 1
    if has_run_since:
        await pool.delete("arq:job:42")
        await pool.zrem(queue, "42")
    assert await observer.retry_quarantined("42")
    assert await observer.quarantined() == []
    assert await pool.zcard(queue) == (0 if has_run_since else 1)


async def test_an_id_that_was_enqueued_anew_is_still_refused(pool, store, make_recoverer, die, observer):
    await die("42")
    await make_recoverer(0).recover([DIES], now_ms=await now_ms(store))
    await pool.delete("arq:result:42")
    assert await pool.enqueue_job("job", _job_id="42") is not None
    assert not await observer.retry_quarantined("42")
    assert len(await observer.quarantined()) == 1
    assert await observer.drop_quarantined("42")
