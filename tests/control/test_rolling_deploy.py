"""A rolling deploy under load, by quiet, stop and start: no job lost, none cancelled or run twice, no try used up."""

import asyncio
import itertools
from typing import Any

from arq.connections import ArqRedis

from async_tracker import OrderOutcome, Tracker
from tests.harness.alive import parent
from tests.harness.ledger import Ledger
from tests.harness.wait import wait_until
from tests.harness.workers import Workers
from tests.integrations.dramatiq.masters import Masters

FLEET = 4
LONG = 60.0
"""Seconds that anything may take on a busy machine."""


async def test_a_rolling_deploy_loses_no_job_cancels_none_and_uses_up_no_try(
    workers: Workers, ledger: Ledger, redis_client: Any, redis_url: str, namespace: str, observer: Tracker
):
    env = {"TEST_REDIS_URL": redis_url, "TEST_LEDGER": str(ledger.path), "TEST_NAMESPACE": namespace}
    env["TEST_SETTINGS"] = '{"heartbeat_interval": 0.5, "heartbeat_ttl": 15.0}'
    pool = ArqRedis(connection_pool=redis_client.connection_pool)
    numbers = itertools.count()
    is_over = asyncio.Event()

    def start() -> Any:
        return workers.start("tests.integrations.conformance.arq_app.WorkerSettings", env=env)

    async def alive() -> set[int]:
        return {item.pid for item in await observer.instances() if item.state == "alive"}

    async def load() -> None:
        while not is_over.is_set():
            for seconds in (0.0, 0.2, 0.5):
                job_id = f"job-{next(numbers)}"
                ledger.enqueued(job_id)
                assert await pool.enqueue_job("hold", seconds, _job_id=job_id) is not None
            await asyncio.sleep(0.1)

    fleet = [start() for _ in range(FLEET)]

    async def all_alive() -> bool:
        return {worker.pid for worker in fleet} <= await alive()

    await wait_until(all_alive, timeout=LONG, description="the fleet is there")
    loading = asyncio.create_task(load())
    try:
        await wait_until(lambda: len(ledger.read().runs) > 2 * FLEET, timeout=LONG, description="it is at work")
        for old in list(fleet):
            fleet.append(start())
            (instance,) = [item for item in await observer.instances() if item.pid == old.pid]
            assert (await observer.quiet(instance.instance_id, wait=LONG)).outcome is OrderOutcome.DONE
            (idle,) = await observer.wait_until_idle(instance.instance_id, timeout=LONG)
            assert idle.outcome is OrderOutcome.DONE
            stopped = await observer.stop(instance.instance_id, wait=LONG)
            assert stopped.says == "arq's worker ends; it has no job in hand"
            assert await asyncio.to_thread(old.wait, LONG) == 0
            fleet.remove(old)
        await wait_until(all_alive, timeout=LONG, description="the new fleet is there")
    finally:
        is_over.set()
        await loading

    def all_have_run() -> bool:
        account = ledger.read()
        return account.enqueued <= account.succeeded()

    await wait_until(all_have_run, timeout=LONG, description="every job has succeeded", poll_interval=0.05)
    account = ledger.read()
    assert account.lost() == frozenset()
    assert len(account.runs) == len(account.enqueued), "each job has run once"
    assert {run.attempt for run in account.runs} == {1}
    assert (await observer.stats()).cancelled == 0


async def test_a_rolling_deploy_of_dramatiq_loses_no_message_and_runs_none_twice(masters: Masters):
    """Two masters of one process each are replaced one after the other, while messages of all lengths, and delayed ones, keep coming."""
    observer, is_over = masters.tracker, asyncio.Event()

    async def load() -> None:
        while not is_over.is_set():
            for seconds, delay_ms in ((0.0, None), (0.2, None), (0.5, None), (0.0, 700)):
                await asyncio.to_thread(masters.send, "hold", seconds, delay_ms=delay_ms)
            await asyncio.sleep(0.2)

    masters.start(processes=1, threads=3)
    masters.start(processes=1, threads=3)
    first = await masters.registered(2)
    loading = asyncio.create_task(load())
    try:
        await wait_until(lambda: len(masters.ledger.read().runs) > 8, timeout=LONG, description="they are at work")
        for instance in first:
            old = next(master for master in masters.started if master.pid == parent(instance.pid))
            masters.start(processes=1, threads=3)
            await masters.registered(3)
            assert (await observer.quiet(instance.instance_id, wait=LONG)).outcome is OrderOutcome.DONE
            (idle,) = await observer.wait_until_idle(instance.instance_id, timeout=LONG)
            assert idle.outcome is OrderOutcome.DONE
            stopped = await observer.stop(instance.instance_id, wait=LONG)
            assert stopped.says == f"its dramatiq master (pid {old.pid}) ends, and its only process when their messages are done"
            assert await asyncio.to_thread(old.wait, LONG) == 0
            masters.started.remove(old)
            await masters.registered(2)
    finally:
        is_over.set()
        await loading
    account = await masters.succeeded()
    assert len(account.runs) == len(account.enqueued), "each message has run once"
    stats = await observer.stats()
    assert (stats.retried, stats.cancelled, stats.orphaned) == (0, 0, 0)
    await masters.close()
