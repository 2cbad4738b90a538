"""Orders that stand for a time: when that is over, those that they have made quiet take jobs again, and no others do."""

import asyncio
from typing import Any

import pytest
from arq import func
from arq.connections import ArqRedis

from async_tracker import InstanceState, OrderOutcome, Tracker
from tests.control.dramatiq_here import the_instance
from tests.harness.settings import KNOWN
from tests.harness.wait import wait_until

LONG = 30.0
"""Seconds that an answer may take on a busy machine."""
SOON = 0.3
"""Seconds for which an order stands whose end is waited for; an answer may come after it."""


@pytest.fixture
def made(namespace: str, redis_url: str) -> Any:
    def make() -> Tracker:
        return Tracker(namespace=namespace, redis_options={"url": redis_url}, heartbeat_interval=0.5, **KNOWN)

    return make


async def takes_jobs(tracker: Tracker, observer: Tracker) -> None:
    """Wait until an instance takes jobs again, and all others can see it."""
    await tracker.wait_resumed()

    async def is_alive() -> bool:
        item = await observer.instance(str(tracker.instance_id))
        return item is not None and item.state is InstanceState.ALIVE

    await wait_until(is_alive, description="it is alive again")


async def test_when_the_order_is_over_those_that_it_has_made_quiet_take_jobs_again(made: Any, observer: Tracker):
    """Two of them; one was made quiet by its id as well, and stays quiet until it is resumed."""
    one, other = made(), made()
    async with one, one.register(queue="mail"), other, other.register(queue="mail"):
        assert (await observer.quiet(str(other.instance_id), wait=LONG)).outcome is OrderOutcome.DONE
        answers = await observer.quiet(queue="mail", stands_for=SOON, wait=LONG)
        assert [answer.outcome for answer in answers] == [OrderOutcome.DONE] * 2
        await takes_jobs(one, observer)
        assert await observer.standing_orders() == []
        assert other.is_quiet
        assert (await observer.quiet(str(one.instance_id), wait=LONG)).says.startswith("tracker.is_quiet is True")
        for answer in await observer.resume([str(one.instance_id), str(other.instance_id)], wait=LONG):
            assert answer.outcome is OrderOutcome.DONE
        await takes_jobs(other, observer)


async def test_an_order_by_id_after_the_one_that_stands_keeps_it_quiet_and_so_does_a_longer_one(made: Any, observer: Tracker):
    one = made()
    async with one, one.register(queue="mail"):
        await observer.quiet(everywhere=True, stands_for=3600.0, wait=LONG)
        await observer.quiet(queue="mail", stands_for=SOON, wait=LONG)
        probe = made()
        async with probe, probe.register(queue="mail"):
            await observer.quiet(queue="mail", stands_for=SOON, wait=LONG)
            assert {order.queue for order in await observer.standing_orders()} <= {None, "mail"}
            assert one.is_quiet
            assert probe.is_quiet  # by the order for all, whatever has become of the other
        [answer] = await observer.quiet(everywhere=True, stands_for=SOON, wait=LONG)  # given again, for a shorter time
        assert answer.says.startswith("it was quiet before")
        await takes_jobs(one, observer)


async def test_a_worker_that_began_quiet_under_it_takes_what_waits_when_it_is_over(
    own_tracker: Tracker, observer: Tracker, pool: ArqRedis, run_worker: Any, queue: str
):
    ran = asyncio.Event()

    async def work(ctx: dict[str, Any]) -> None:
        ran.set()

    await observer.quiet(queue=queue, stands_for=3600.0)
    await pool.enqueue_job("work")
    running = await run_worker(own_tracker.install({"functions": [func(work, name="work")]}))
    instance_id = await the_instance(observer, "quiet")
    assert not ran.is_set()
    [answer] = await observer.quiet(queue=queue, stands_for=SOON, wait=LONG)
    assert (answer.instance_id, answer.outcome) == (instance_id, OrderOutcome.DONE)
    await ran.wait()
    assert running.worker.max_jobs > 0
    await takes_jobs(own_tracker, observer)
    await running.idle()


async def test_one_that_was_told_to_stop_meanwhile_does_not_begin_again(made: Any, observer: Tracker):
    one, other = made(), made()
    async with one, one.register(queue="mail"), other, other.register(queue="mail"):
        await observer.quiet(queue="mail", stands_for=SOON, wait=LONG)
        assert (await observer.stop(str(one.instance_id), wait=LONG)).outcome is OrderOutcome.DONE
        await takes_jobs(other, observer)
        assert one.is_quiet
        assert one.is_stopping
