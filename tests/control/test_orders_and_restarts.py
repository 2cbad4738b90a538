"""Orders that meet the end of their instance between being given and being carried out, and what the next one makes of them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from async_tracker import InstanceState, OrderOutcome, Tracker
from tests.harness.inside import runtime_of
from tests.harness.settings import KNOWN, QUIET
from tests.harness.wait import wait_until
from tests.harness.workers import Workers

LONG = 60.0
"""Seconds that an answer may take on a busy machine."""

QUICK: dict[str, Any] = {**KNOWN, "instance_id": "mail-1", "heartbeat_interval": 0.5, "heartbeat_ttl": 15.0}

APP = "tests.integrations.conformance.arq_app.WorkerSettings"


def placed(observer: Tracker, instance_id: str) -> Callable[[], Awaitable[bool]]:
    async def is_placed() -> bool:
        async with observer.redis() as redis:
            return bool(await redis.hexists(f"instance:{instance_id}", "orders"))

    return is_placed


@pytest.mark.parametrize("order", ["quiet", "resume", "stop", "stacks"])
async def test_an_order_that_meets_an_orderly_restart_is_gone_and_the_next_instance_is_not_asked(
    make_tracker: Callable[..., Tracker], observer: Tracker, order: str
):
    """The first instance has not heard it when it leaves; the next one has the same label, and knows nothing of it."""
    first = make_tracker(**{**QUIET, "instance_id": "mail-1"})
    async with first.register() as instance_id:
        asked = asyncio.create_task(observer._control("ann").ask([instance_id], order, beyond=LONG))
        await wait_until(placed(observer, instance_id), description="the order stands in its hash")
    (answer,) = await asked
    assert (answer.outcome, answer.says) == (OrderOutcome.GONE, "it has ended, or was declared dead, before it answered")
    following = make_tracker(**QUICK)
    async with following.register() as next_id:
        assert next_id != instance_id
        await runtime_of(following).registration.beat()
        assert (following.is_quiet, following.is_stopping) == (False, False)
        (again,) = await observer._control("ann").ask([instance_id], order)
        assert again.outcome is OrderOutcome.NOT_FOUND
    told = [event.details["outcome"] for event in await observer.recent_events() if event.type == "control"]
    assert told == ["gone", "not_found"]


async def test_a_restart_ends_what_was_ordered_of_one_instance_and_not_what_stands(make_tracker: Callable[..., Tracker], observer: Tracker):
    async with make_tracker(**QUICK).register(queue="mail") as instance_id:
        assert (await observer.quiet(instance_id, wait=LONG)).outcome is OrderOutcome.DONE
    following = make_tracker(**QUICK)
    async with following.register(queue="mail"):
        await runtime_of(following).registration.beat()
        assert not following.is_quiet
        assert [answer.outcome for answer in await observer.quiet(queue="mail", wait=LONG)] == [OrderOutcome.DONE]
    elsewhere, last = make_tracker(**QUICK), make_tracker(**QUICK)
    async with elsewhere.register(queue="parcels"), last.register(queue="mail"):
        await wait_until(lambda: last.is_quiet, description="it begins quiet")
        await runtime_of(elsewhere).registration.beat()
        assert not elsewhere.is_quiet


async def test_an_order_that_meets_a_kill_is_gone_and_the_worker_that_comes_back_takes_jobs(
    observer: Tracker, namespace: str, redis_url: str, workers: Workers, ledger: Any
):
    env = {"TEST_REDIS_URL": redis_url, "TEST_LEDGER": str(ledger.path), "TEST_NAMESPACE": namespace}
    env["TEST_SETTINGS"] = '{"heartbeat_interval": 0.5, "heartbeat_ttl": 120.0, "silence_limit": 120.0, "instance_id": "mail-1"}'

    async def alive(without: str = "") -> str | None:
        found = [item for item in await observer.instances() if item.state is InstanceState.ALIVE]
        return next((item.instance_id for item in found if item.instance_id != without), None)

    process = workers.start(APP, env=env)
    instance_id = str(await wait_until(alive, timeout=LONG, description="it is there"))
    process.suspend()  # so that it has not heard the orders when it is killed
    asked = [asyncio.create_task(observer._control("ann").ask([instance_id], order, beyond=300.0)) for order in ("quiet", "stop")]
    await wait_until(placed(observer, instance_id), description="an order stands in its hash")
    process.kill()
    workers.start(APP, env=env)
    following = str(await wait_until(lambda: alive(instance_id), timeout=LONG, description="it is back, and takes jobs"))
    answers = [answer for answers in await asyncio.gather(*asked) for answer in answers]
    assert {answer.outcome for answer in answers} <= {OrderOutcome.GONE, OrderOutcome.NOT_FOUND}
    assert OrderOutcome.GONE in {answer.outcome for answer in answers}
    assert await alive(instance_id) == following

    async def is_buried() -> bool:
        async with observer.redis() as redis:
            return not await redis.exists(f"instance:{instance_id}")

    await wait_until(is_buried, timeout=LONG, description="nothing is left of the one that was killed, nor of its orders")
