"""Real dramatiq workers that are told to be quiet, to resume and to stop."""

import asyncio
import threading
import time

import anyio.to_thread
import dramatiq
import pytest
import redis.asyncio
from dramatiq.brokers.redis import RedisBroker
from dramatiq.worker import Worker

from async_tracker import InstanceState, OrderOutcome, Tracker, UnsupportedControl
from async_tracker.integrations.dramatiq import TrackerMiddleware
from async_tracker.integrations.dramatiq.holds import Broker
from async_tracker.integrations.dramatiq.presence import BrokerPresence
from tests.control.dramatiq_here import HEARTBEAT_TIMEOUT, MakeBroker, start, the_instance
from tests.harness.settings import KNOWN
from tests.harness.wait import wait_until
from tests.integrations.dramatiq.masters import Masters

LONG = 30.0
"""Seconds that an answer may take on a busy machine."""


class Held:
    """An actor on one broker that waits until it may end, and notes its runs in a list that several share."""

    def __init__(self, broker: RedisBroker, runs: list[str]) -> None:
        self.may_end = threading.Event()
        self.runs = runs
        self.actor = dramatiq.actor(broker=broker, actor_name="hold", max_retries=0)(self._hold)

    def _hold(self, name: str) -> None:
        self.runs.append(name)
        if name.startswith("held"):
            self.may_end.wait(60)


async def test_a_quiet_worker_keeps_its_messages_beside_an_eager_one_for_three_heartbeat_timeouts(
    make_broker: MakeBroker, namespace: str, observer: Tracker
):
    """Each message runs once. The other worker has a maintenance chance of one, and looks for dead brokers with each command."""
    runs: list[str] = []
    quiet_broker, eager_broker = make_broker(), make_broker()
    quiet_broker.add_middleware(TrackerMiddleware(Tracker(namespace=namespace, heartbeat_interval=0.5, **KNOWN)))
    held, eager = Held(quiet_broker, runs), Held(eager_broker, runs)
    worker = await start(quiet_broker)
    other: Worker | None = None
    try:
        names = ["held-1", "held-2", *(f"prefetched-{number}" for number in range(2)), *(f"queued-{number}" for number in range(4))]
        for name in names:
            held.actor.send(name)
        await wait_until(lambda: (len(runs), worker.work_queue.qsize()) == (2, 2), description="it holds two, and has fetched two more")
        instance_id = await the_instance(observer)
        answer = await observer.quiet(instance_id, wait=LONG)
        assert (answer.outcome, answer.says) == (OrderOutcome.DONE, "it fetches no more messages, and runs those that it has")
        assert (await observer.instances())[0].state is InstanceState.QUIET
        answer = await observer.quiet(instance_id, wait=LONG)
        assert answer.says == "it was quiet before; it fetches no more messages, and runs those that it has"
        other = await start(eager_broker)
        began = time.monotonic()
        await wait_until(lambda: len(runs) >= 6, timeout=30.0, description="the other one has run what was queued")
        await wait_until(lambda: time.monotonic() - began > 3 * HEARTBEAT_TIMEOUT, description="three timeouts are over")
        assert sorted(runs) == sorted(["held-1", "held-2", *(f"queued-{number}" for number in range(4))])
        held.may_end.set()
        eager.may_end.set()
        await wait_until(lambda: len(runs) == len(names), description="what it had prefetched has run")
        assert sorted(runs) == sorted(names)
        await anyio.to_thread.run_sync(other.stop)
        other = None
        held.actor.send("later")
        await observer.resume(instance_id, wait=LONG)
        await wait_until(lambda: "later" in runs, description="it fetches again")
        assert sorted(runs) == sorted([*names, "later"])
    finally:
        held.may_end.set()
        eager.may_end.set()
        for one in (worker, other):
            if one is not None:
                await anyio.to_thread.run_sync(one.stop)


async def test_a_worker_begins_quiet_under_a_standing_order_and_so_do_its_new_queues(
    make_broker: MakeBroker, namespace: str, observer: Tracker
):
    runs: list[str] = []
    broker = make_broker()
    broker.add_middleware(TrackerMiddleware(Tracker(namespace=namespace, heartbeat_interval=0.5, **KNOWN)))
    held = Held(broker, runs)
    await observer.quiet(everywhere=True)
    held.actor.send("first")
    worker = await start(broker)
    try:
        await the_instance(observer, "quiet")
        broker.declare_queue("another")
        await wait_until(lambda: len(worker.consumers) == 4, description="each queue has its consumers")
        await wait_until(lambda: all(thread.paused for thread in worker.consumers.values()), description="none of them fetches")
        worker.consumers["another"].resume()  # as one does that was in the middle of starting anew
        await wait_until(lambda: all(thread.paused for thread in worker.consumers.values()), description="they are paused again")
        assert runs == []
        assert broker.client.llen(f"{namespace}:default") == 1
        (answer,) = await observer.resume(everywhere=True, wait=LONG)
        assert answer.outcome is OrderOutcome.DONE
        assert await observer.standing_orders() == []
        await wait_until(lambda: runs == ["first"], description="it works")
    finally:
        await anyio.to_thread.run_sync(worker.stop)


async def test_a_worker_of_a_program_of_its_own_ends_and_the_program_goes_on(make_broker: MakeBroker, namespace: str, observer: Tracker):
    runs: list[str] = []
    broker = make_broker()
    broker.add_middleware(TrackerMiddleware(Tracker(namespace=namespace, heartbeat_interval=0.5, **KNOWN)))
    held = Held(broker, runs)
    worker = await start(broker)
    held.actor.send("held")
    await wait_until(lambda: runs == ["held"], description="it runs")
    answer = await observer.stop(await the_instance(observer), wait=LONG)
    assert answer.says == "this worker ends when its messages are done; the process that runs it goes on"
    draining = await the_instance(observer, "draining")
    assert (await observer.stop(draining, wait=LONG)).says == "it was told to stop before"
    assert (await observer.resume(draining, wait=LONG)).outcome is OrderOutcome.REFUSED
    assert (await observer.quiet(draining, wait=LONG)).says == "it is shutting down, and takes no more jobs anyway"
    held.may_end.set()

    async def has_left() -> bool:
        return await observer.instances() == []

    await wait_until(has_left, timeout=30.0, description="its instance has left")
    await wait_until(lambda: not any(thread.is_alive() for thread in worker.workers), timeout=30.0, description="its threads have ended")


async def test_one_of_several_processes_cannot_stop_alone_and_with_the_group_its_master_ends(masters: Masters):
    master = masters.start(processes=2, threads=1)
    first, _ = await masters.registered(2)
    with pytest.raises(UnsupportedControl, match="one of 2 processes of a dramatiq master"):
        await masters.tracker.stop(first.instance_id, wait=LONG)
    assert len(await masters.registered(2)) == 2
    answer = await masters.tracker.stop(first.instance_id, group=True, wait=LONG)
    assert answer.says == f"its dramatiq master (pid {master.pid}) ends, and all 2 processes when their messages are done"
    assert master.wait(60) == 0
    assert await masters.tracker.instances() == []


async def test_a_quiet_broker_is_renewed_and_one_that_was_taken_for_dead_does_not_come_back(redis_client: redis.asyncio.Redis):
    """What a broker that is gone had in hand is queued again, so it must not look alive and hold nothing."""

    async def renewed() -> float | None:
        before = asyncio.all_tasks()
        BrokerPresence(redis_client, Broker(broker_id="5f", namespace="d"), timeout=60.0).keep()
        await asyncio.wait(asyncio.all_tasks() - before)
        return await redis_client.zscore("d:__heartbeats__", "5f")  # type: ignore[no-any-return]

    assert await renewed() is None
    await redis_client.zadd("d:__heartbeats__", {"5f": 1})
    assert (await renewed() or 0) > 1
    await redis_client.delete("d:__heartbeats__")


def test_the_name_of_the_brokers_heartbeats_is_dramatiqs_own(make_broker: MakeBroker, namespace: str, redis_url: str):
    broker = make_broker()
    broker.declare_queue("default")
    broker.do_qsize("default")
    with redis.Redis.from_url(redis_url) as client:
        assert client.zscore(f"{namespace}:__heartbeats__", broker.broker_id) is not None
