"""How holds of dramatiq's Redis broker are found and given back: on what dramatiq itself has written."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis.asyncio
from dramatiq import Message
from dramatiq.brokers.redis import RedisBroker

from async_tracker import Namespace, Tracker
from async_tracker.connections.counterparts import lone_connection
from async_tracker.integrations.dramatiq.adapter import DramatiqAdapter
from async_tracker.integrations.dramatiq.holds import Broker, Hold, other_broker
from async_tracker.integrations.dramatiq.marks import Marks
from async_tracker.policy import Limits
from async_tracker.recovery.adapter import Claim, Released
from async_tracker.recovery.sweeper import make_sweeper
from async_tracker.store import keys
from async_tracker.store.commands import Store
from async_tracker.store.instance_record import Description, encode_description
from async_tracker.store.observation import Connections
from async_tracker.store.run_record import RunRecord
from tests.harness.leaving import deregister
from tests.harness.wait import wait_until_sync


@pytest.fixture(params=["dramatiq", "of:its:own"])
def dead(request: pytest.FixtureRequest, redis_url: str) -> Iterator[RedisBroker]:
    """The broker of a process that is no more."""
    broker = RedisBroker(url=redis_url, namespace=request.param, maintenance_chance=0)
    yield broker
    broker.client.connection_pool.disconnect()


@pytest.fixture
def adapter(redis_client: redis.asyncio.Redis, namespace: str) -> DramatiqAdapter:
    return DramatiqAdapter(redis_client, full_key=Namespace(redis_client, namespace).full_key)


def described(broker: RedisBroker) -> Description:
    text = Broker(broker_id=broker.broker_id, namespace=broker.namespace).encode()
    return Description(library="dramatiq", host="h", host_id="h", pid=1, queue="q", queues=("q",), broker=text)


def fetch(broker: RedisBroker, count: int, **options: Any) -> list[Message[Any]]:
    """Enqueue messages and fetch them, as a process that dies then."""
    for number in range(count):
        broker.enqueue(Message(queue_name="q", actor_name="a", args=(number,), kwargs={}, options=options))
    return [Message.decode(data) for data in broker.do_fetch("q", count)]


def orphan(broker: RedisBroker, message: Message[Any], *, token: str = "r1") -> RunRecord:
    hold = Hold(acks=f"{broker.namespace}:__acks__.{broker.broker_id}.q", redis_message_id=message.options["redis_message_id"])
    return RunRecord(
        job_id=message.message_id,
        instance_id="dead",
        token=token,
        queue="q",
        library="dramatiq",
        started_at_ms=1,
        scope="dramatiq",
        hold=hold.encode(),
    )


def waiting(broker: RedisBroker) -> int:
    length: Any = broker.client.llen(f"{broker.namespace}:q")
    return int(length)


async def claims(adapter: DramatiqAdapter, broker: RedisBroker) -> list[Claim]:
    return [claim async for claim in adapter.claims_of({"dead": described(broker), "unreadable": None})]


async def test_everything_that_was_fetched_is_a_claim_whose_start_is_not_known_without_marks(adapter: DramatiqAdapter, dead: RedisBroker):
    messages = fetch(dead, 3)
    found = await claims(adapter, dead)
    assert {claim.job_id for claim in found} == {message.message_id for message in messages}
    assert {(claim.instance_id, claim.started, claim.ref == f"dramatiq:{claim.job_id}") for claim in found} == {("dead", None, True)}


async def test_a_message_is_found_in_a_long_queue_whatever_the_encoding(
    adapter: DramatiqAdapter, dead: RedisBroker, redis_client: redis.asyncio.Redis
):
    """It is looked for in parts. A message in an encoding of its own is found by its id standing in it."""
    messages = {f"r{number}": b'{"message_id":"m%d","options":{}}' % number for number in range(3_000)}
    await redis_client.hset(f"{dead.namespace}:q.msgs", mapping={**messages, "foreign": b"pickled, with the id m-foreign in it"})
    for job_id in ("m0", "m1234", "m2999", "m-foreign"):
        located = await adapter.locate(job_id, {"w:1:ab": described(dead)})
        assert located is not None
        assert located.says.startswith("it does not run: it waits in 'q'")
    assert await adapter.locate("m3000", {"w:1:ab": described(dead)}) is None
    await redis_client.delete(f"{dead.namespace}:q.msgs")


async def test_marks_tell_what_had_begun(adapter: DramatiqAdapter, dead: RedisBroker, redis_client: redis.asyncio.Redis, namespace: str):
    first, second, third = fetch(dead, 3)
    marks = make_marks(dead, redis_client, namespace)
    for thread, message in ((0, first), (1, third), (0, second)):  # thread 0 is done with the first when it begins the second
        marks.begin(thread, message.options["redis_message_id"])
    wait_until_sync(lambda: dead.client.hlen(f"{namespace}:marks:dead") == 3, description="the marks have arrived")
    started = {claim.job_id: claim.started for claim in await claims(adapter, dead)}
    assert started == {first.message_id: False, second.message_id: True, third.message_id: True}
    assert {claim.function for claim in await claims(adapter, dead)} == {"a"}
    assert await redis_client.ttl(f"{namespace}:marks:dead") > 0
    marks.close()
    assert not await redis_client.exists(f"{namespace}:marks:dead")


def make_marks(dead: RedisBroker, redis_client: redis.asyncio.Redis, namespace: str) -> Marks:
    full_key = Namespace(redis_client, namespace).full_key
    marks = Marks(lambda: lone_connection(dead.client, timeout=5.0), full_key=full_key, instance_id="dead")
    marks.open()
    return marks


HARM = {
    "of another type": lambda dead, key: dead.client.set(key, "of another type"),
    "lost": lambda dead, key: dead.client.delete(key),
    "cut off": lambda dead, key: dead.client.client_kill_filter(_type="normal", skipme=True),
}


@pytest.mark.parametrize("harm", HARM)
async def test_after_a_refusal_the_marks_are_made_whole_again_of_what_is_in_hand(
    adapter: DramatiqAdapter, dead: RedisBroker, redis_client: redis.asyncio.Redis, namespace: str, harm: str
):
    first, second, third = (message.options["redis_message_id"] for message in fetch(dead, 3))
    marks = make_marks(dead, redis_client, namespace)
    for thread, message in enumerate((first, second)):
        marks.begin(thread, message)
    key = f"{namespace}:marks:dead"
    wait_until_sync(lambda: dead.client.hlen(key) == 3, description="the marks have arrived")
    marks.look()
    HARM[harm](dead, key)
    marks.begin(1, third)

    def whole() -> bool:
        marks.look()
        return dead.client.type(key) == b"hash" and dead.client.hgetall(key) == {b"*": b"*", b"0": first.encode(), b"1": third.encode()}

    wait_until_sync(whole, timeout=30, description="the marks are whole again")
    marks.close()


async def test_an_instance_that_takes_another_id_marks_what_is_in_hand_for_that_one(
    dead: RedisBroker, redis_client: redis.asyncio.Redis, namespace: str
):
    [message] = fetch(dead, 1)
    marks = make_marks(dead, redis_client, namespace)
    marks.begin(0, message.options["redis_message_id"])
    marks.rename("reborn")
    wait_until_sync(lambda: dead.client.hlen(f"{namespace}:marks:reborn") == 2, timeout=30, description="the mark stands under the new id")
    marks.close()
    assert not await redis_client.exists(f"{namespace}:marks:reborn")


async def test_a_release_pushes_once_whoever_asks_and_how_often(adapter: DramatiqAdapter, dead: RedisBroker):
    [message] = fetch(dead, 1)
    assert [await adapter.release(orphan(dead, message), delay=0.0) for _ in range(3)] == [Released.RELEASED] * 3
    assert waiting(dead) == 1
    assert await claims(adapter, dead) == []


async def test_what_was_acknowledged_is_not_pushed(adapter: DramatiqAdapter, dead: RedisBroker):
    acked, kept = fetch(dead, 2)
    found = await claims(adapter, dead)
    dead.do_ack("q", acked.options["redis_message_id"])
    assert await adapter.release(orphan(dead, acked), delay=0.0) is Released.TAKEN
    await adapter.give_back(found)
    assert waiting(dead) == 1
    assert [Message.decode(data).message_id for data in dead.do_fetch("q", 9)] == [kept.message_id]


async def test_a_message_that_dramatiqs_own_maintenance_gave_back_is_not_given_back_again(
    adapter: DramatiqAdapter, dead: RedisBroker, redis_url: str
):
    [message] = fetch(dead, 1)
    found = await claims(adapter, dead)
    dead.client.zadd(f"{dead.namespace}:__heartbeats__", {dead.broker_id: 1})
    other = RedisBroker(url=redis_url, namespace=dead.namespace, maintenance_chance=1_000_000)
    other.do_qsize("q")
    assert waiting(dead) == 1
    assert await adapter.release(orphan(dead, message), delay=0.0) is Released.TAKEN
    await adapter.give_back(found)
    assert waiting(dead) == 1
    other.client.connection_pool.disconnect()


async def test_dramatiqs_own_maintenance_finds_nothing_after_a_release_and_still_knows_the_broker(
    adapter: DramatiqAdapter, dead: RedisBroker, redis_url: str
):
    first, second = fetch(dead, 2)
    await adapter.release(orphan(dead, first), delay=0.0)
    await adapter.give_back(await claims(adapter, dead))
    assert dead.client.zscore(f"{dead.namespace}:__heartbeats__", dead.broker_id) is not None
    dead.client.zadd(f"{dead.namespace}:__heartbeats__", {dead.broker_id: 1})
    other = RedisBroker(url=redis_url, namespace=dead.namespace, maintenance_chance=1_000_000)
    other.do_qsize("q")
    assert waiting(dead) == 2
    assert dead.client.zscore(f"{dead.namespace}:__heartbeats__", dead.broker_id) is None
    assert {first.message_id, second.message_id} == {Message.decode(data).message_id for data in other.do_fetch("q", 9)}
    other.client.connection_pool.disconnect()


async def test_a_delayed_release_goes_by_way_of_dramatiqs_delay_queue(adapter: DramatiqAdapter, dead: RedisBroker):
    [message] = fetch(dead, 1)
    now_ms = time.time() * 1000
    assert await adapter.release(orphan(dead, message), delay=60.0) is Released.RELEASED
    assert waiting(dead) == 0
    [delayed] = [Message.decode(data) for data in dead.do_fetch("q.DQ", 9)]
    assert (delayed.message_id, delayed.args, delayed.queue_name) == (message.message_id, message.args, "q.DQ")
    assert now_ms + 50_000 < delayed.options["eta"] < now_ms + 90_000
    assert dead.client.hlen(f"{dead.namespace}:q.msgs") == 0
    assert await adapter.release(orphan(dead, message), delay=60.0) is Released.RELEASED


async def test_a_message_in_a_foreign_encoding_is_released_at_once_and_never_decoded(adapter: DramatiqAdapter, dead: RedisBroker):
    pickled = b"\x80\x04cos\nsystem\n"
    dead.do_enqueue("q", "an-id", pickled)
    assert dead.do_fetch("q", 1) == [pickled]
    [claim] = await claims(adapter, dead)
    assert claim.job_id == "an-id"
    record = RunRecord(job_id="m", instance_id="dead", token="r", queue="q", started_at_ms=1, hold=claim.hold)
    assert await adapter.release(record, delay=60.0) is Released.RELEASED
    assert dead.do_fetch("q", 1) == [pickled]


async def test_a_quarantined_message_is_kept_whole_and_runs_again_with_all_its_tries(adapter: DramatiqAdapter, dead: RedisBroker):
    [message] = fetch(dead, 1, retries=7)
    kept = await adapter.quarantine(orphan(dead, message), error="it kills")
    assert kept is not None
    assert await adapter.quarantine(orphan(dead, message), error="it kills") == kept
    assert dead.client.hlen(f"{dead.namespace}:q.msgs") == 0
    assert await claims(adapter, dead) == []
    assert [await adapter.retry(message.message_id, "q", kept) for _ in range(3)] == [True] * 3
    [again] = [Message.decode(data) for data in dead.do_fetch("q", 9)]
    assert (again.message_id, again.args) == (message.message_id, message.args)
    assert "retries" not in again.options


async def test_a_retry_is_done_once_also_when_the_message_has_run_since(adapter: DramatiqAdapter, dead: RedisBroker):
    """Whoever retried it did not live to take it off the list, and somebody asks again."""
    [message] = fetch(dead, 1)
    kept = await adapter.quarantine(orphan(dead, message), error="it kills")
    assert kept is not None
    assert await adapter.retry(message.message_id, "q", kept)
    assert len(dead.do_fetch("q", 9)) == 1
    dead.do_ack("q", message.options["redis_message_id"])
    assert await adapter.retry(message.message_id, "q", kept)
    assert waiting(dead) == 0


async def test_a_sweep_that_plans_otherwise_than_the_one_that_died_half_way_finds_what_that_one_did(
    adapter: DramatiqAdapter, dead: RedisBroker
):
    """One worker may quarantine earlier than the other, and a message is a suspect less when those that died with it are settled."""
    pill, other = fetch(dead, 2)
    kept = await adapter.quarantine(orphan(dead, pill, token="r1"), error="it kills")
    assert await adapter.release(orphan(dead, pill, token="r1"), delay=0.0) is Released.QUARANTINED
    assert await adapter.quarantine(orphan(dead, pill, token="r1"), error="it kills") == kept
    assert await adapter.release(orphan(dead, other, token="r2"), delay=0.0) is Released.RELEASED
    assert await adapter.quarantine(orphan(dead, other, token="r2"), error="it kills") is None
    assert waiting(dead) == 1


async def test_an_orphan_that_was_being_aborted_is_a_dead_letter_and_never_queued_again(adapter: DramatiqAdapter, dead: RedisBroker):
    """Whatever the sweep would have done with it: given back at once, later, or put into quarantine."""
    messages = fetch(dead, 3)
    for message, delay in zip(messages, (0.0, 60.0, None), strict=True):
        run = orphan(dead, message, token=message.message_id)
        await adapter.note_abort(run.claim)
        if delay is None:
            assert await adapter.quarantine(run, error="died too often") is None
        for _ in range(2):
            assert await adapter.release(run, delay=delay or 0.0) is Released.ABORTED
        assert await adapter.quarantine(run, error="died too often") is None
    assert waiting(dead) == 0
    assert await claims(adapter, dead) == []
    client, name = dead.client, f"{dead.namespace}:q"
    assert client.exists(f"{name}.msgs", f"{name}.DQ.msgs", f"{name}.DQ") == 0
    kept: Any = client.hgetall(f"{name}.XQ.msgs")
    assert {Message.decode(raw).message_id for raw in kept.values()} == {message.message_id for message in messages}
    scores: Any = client.zrange(f"{name}.XQ", 0, -1, withscores=True)
    assert {member for member, _ in scores} == set(kept)
    assert all(abs(score / 1000.0 - time.time()) < 3600 for _, score in scores)


async def test_a_run_is_held_until_its_message_is_acknowledged(adapter: DramatiqAdapter, dead: RedisBroker):
    [message] = fetch(dead, 1)
    assert await adapter.holds(orphan(dead, message))
    dead.do_ack("q", message.options["redis_message_id"])
    assert not await adapter.holds(orphan(dead, message))


async def test_claims_are_shared_by_instances_with_one_broker_id_only(adapter: DramatiqAdapter, dead: RedisBroker, redis_url: str):
    other = RedisBroker(url=redis_url, namespace=dead.namespace)
    assert adapter.shares_claims(described(dead), described(dead))
    assert not adapter.shares_claims(described(dead), described(other))
    other.client.connection_pool.disconnect()


async def test_who_shares_its_claims_with_one_that_lives_is_not_buried_before_that_one_is_dead(
    adapter: DramatiqAdapter, dead: RedisBroker, redis_client: redis.asyncio.Redis, namespace: str
):
    """It died in the first statement of a message, so that only the broker's set knows of it, and that is the survivor's set too."""
    proxy = Namespace(redis_client, namespace)
    store = Store(proxy)
    [message] = fetch(dead, 1)
    run_id = (await redis_client.info("server"))["run_id"]
    fields = {**encode_description(described(dead), Limits()), "state": "alive"}
    for name, number in (("dead", 10**9), ("survivor", await redis_client.client_id())):
        await store.register(name, 1, Connections(server=run_id, ids={number: ""}).encode(), fields)
    await proxy.hset(keys.GONE, "dead", 1)
    sweeper = make_sweeper(Tracker(namespace="any").settings, store, adapter, library="dramatiq", on_event=lambda event: None)
    for _ in range(2):
        assert (await sweeper.sweep(run_id)).done == ()
    assert list((await store.observe("")).dead) == ["dead"]
    await deregister(store, "survivor")
    [done] = (await sweeper.sweep(run_id)).done
    assert (done.job_id, done.deaths) == (message.message_id, 1)


async def test_another_broker_than_redis_has_nothing_to_find_and_nothing_to_release(adapter: DramatiqAdapter):
    rabbit = Description(library="dramatiq", host="h", host_id="h", pid=1, queues=("q",), broker=other_broker("RabbitmqBroker"))
    assert [claim async for claim in adapter.claims_of({"dead": rabbit})] == []
    record = RunRecord(job_id="m", instance_id="dead", token="r", queue="q", started_at_ms=1)
    assert await adapter.release(record, delay=0.0) is Released.NOTHING
    assert not adapter.shares_claims(rabbit, rabbit)
    assert await adapter.queues([rabbit]) == []
