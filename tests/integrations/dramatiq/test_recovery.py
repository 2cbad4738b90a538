"""What becomes of the messages of a process that was killed. Two masters: one stops all its processes when it loses one."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
from dramatiq import Message

from async_tracker import AbortOutcome, Event, RecoveryAction, StorageError, Tracker
from async_tracker.embedded import EmbeddedServer
from tests.harness.alive import lives
from tests.harness.inside import abort_soon
from tests.harness.ledger import Ledger
from tests.harness.settings import KNOWN
from tests.harness.wait import lived, wait_until
from tests.harness.workers import Workers
from tests.integrations.dramatiq.masters import DONE_SECONDS, QUICK, Masters

DEFAULTS: dict[str, Any] = {}


async def test_what_a_killed_process_ran_and_had_prefetched_runs_again_long_before_dramatiq_would_see_to_it(masters: Masters):
    masters.start(processes=1, threads=2, settings=DEFAULTS)
    [victim] = await masters.registered(1)
    running = [masters.send("interrupted", 4.0), masters.send("interrupted", 4.0)]
    for message_id in running:
        await masters.in_flight(message_id)
    prefetched = [masters.send("hold", 0.0), masters.send("hold", 0.0)]
    broker_id = await masters.broker_id(victim.instance_id)
    await wait_until(lambda: len(masters.acks(broker_id)) == 4, timeout=DONE_SECONDS, description="four messages are fetched")
    masters.start(processes=1, threads=2, settings=DEFAULTS)
    await masters.registered(2)

    masters.kill(victim.pid)
    async with lived() as taken:
        for message_id in running:
            job = await masters.in_flight(message_id, elsewhere_than=victim.instance_id)
            assert job.instance_id != victim.instance_id
    assert taken.seconds < 30.0  # dramatiq waits for a minute before it looks, and then looks by chance
    account = await masters.succeeded()
    assert [len(account.runs_of(message_id)) for message_id in running] == [2, 2]
    assert [len(account.runs_of(message_id)) for message_id in prefetched] == [1, 1]
    assert masters.acks(broker_id) == set()
    assert masters.broker.client.zscore("dramatiq:__heartbeats__", broker_id) is not None  # dramatiq's own maintenance needs it
    stats = await masters.tracker.stats()
    assert (stats.orphaned, stats.recovered) == (2, 2)
    await masters.close()


async def test_a_message_whose_process_is_killed_while_it_aborts_it_does_not_run_again(masters: Masters):
    """Its thread is in a call that no exception reaches. Another thread of that process has a message that is given back."""
    masters.start(processes=1, threads=2, settings={**QUICK, **KNOWN}, TEST_ABORT="1")
    [victim] = await masters.registered(1)
    aborted, other = masters.send("interrupted", must=False), masters.send("interrupted")
    for message_id in (aborted, other):
        await masters.in_flight(message_id)
    found = await abort_soon(masters.tracker, aborted, wait=0.5)
    assert found.outcome is AbortOutcome.GOES_ON
    masters.kill(victim.pid)
    masters.start(processes=1, threads=2)
    account = await masters.succeeded()

    def is_over() -> bool:
        return masters.broker.client.hlen("dramatiq:default.XQ.msgs") == 1

    await wait_until(is_over, timeout=DONE_SECONDS, description="it is a dead letter")
    assert [len(account.runs_of(message_id)) for message_id in (aborted, other)] == [1, 2]
    [dead_letter] = masters.broker.client.hvals("dramatiq:default.XQ.msgs")
    assert Message.decode(dead_letter).message_id == aborted
    await masters.close()


async def test_only_the_messages_that_had_started_are_counted_as_deaths(masters: Masters):
    masters.start(processes=1, threads=1)
    [victim] = await masters.registered(1)
    running = masters.send("interrupted")
    await masters.in_flight(running)
    prefetched = masters.send("hold", 0.0)
    broker_id = await masters.broker_id(victim.instance_id)
    await wait_until(lambda: len(masters.acks(broker_id)) == 2, timeout=DONE_SECONDS, description="both messages are fetched")
    masters.start(processes=1, threads=1)
    await masters.registered(2)
    masters.kill(victim.pid)
    await masters.succeeded()
    async with masters.tracker.redis() as redis:
        assert await redis.exists(f"recoveries:dramatiq:{running}") == 1
        assert await redis.exists(f"recoveries:dramatiq:{prefetched}") == 0
    events = [event async for event in _first_events(masters, 3)]
    assert {event.job_id for event in events} == {running, None}
    await masters.close()


async def test_messages_that_wait_for_their_time_in_a_killed_process_still_run_at_their_time(masters: Masters):
    masters.start(processes=1, threads=1)
    [victim] = await masters.registered(1)
    broker_id = await masters.broker_id(victim.instance_id)
    soon = masters.send("hold", 0.0, delay_ms=6_000)
    far = masters.send("hold", 0.0, delay_ms=86_000_000, must=False)
    await wait_until(lambda: len(masters.acks(broker_id, "default.DQ")) == 2, timeout=DONE_SECONDS, description="both are fetched")
    masters.start(processes=1, threads=1)
    survivor = next(one for one in await masters.registered(2) if one.instance_id != victim.instance_id)
    masters.kill(victim.pid)
    other_broker = await masters.broker_id(survivor.instance_id)
    await wait_until(
        lambda: masters.acks(other_broker, "default.DQ"), timeout=DONE_SECONDS, description="the other process waits with them"
    )
    await wait_until(
        lambda: masters.acks(broker_id, "default.DQ") == set(), timeout=DONE_SECONDS, description="none is left with the dead process"
    )
    account = await masters.succeeded()
    assert account.runs_of(far) == ()
    assert len(account.runs_of(soon)) == 1
    assert (await masters.tracker.stats()).orphaned == 0
    await masters.close()


async def test_a_message_that_kills_its_process_at_once_is_quarantined_and_its_neighbours_succeed(masters: Masters):
    settings = {**QUICK, "max_recoveries": 1}
    masters.start(processes=1, threads=1, settings=settings)
    masters.start(processes=1, threads=1, settings=settings)
    await masters.registered(2)
    for master in masters.started:  # one that loses its process before it is up waits for it for ever, tracked or not
        master.wait_for_output("is booting up")
    pill = masters.send("die_at_once", must=False)
    neighbours = [masters.send("hold", 0.05) for _ in range(9)]

    async def quarantined() -> bool:
        for master in list(masters.started):
            if master.exit_code is not None:  # it stops when it loses a process, and a supervisor starts it anew
                masters.started.remove(master)
                masters.start(processes=1, threads=1, settings=settings)
        return pill in {item.job_id for item in await masters.tracker.quarantined()}

    await wait_until(quarantined, timeout=2 * DONE_SECONDS, description="the pill is quarantined", poll_interval=0.1)
    [item] = await masters.tracker.quarantined()
    assert (item.library, item.queue, item.deaths) == ("dramatiq", "default", 2)
    await masters.succeeded(*neighbours)

    assert await masters.tracker.drop_quarantined(pill)
    assert await masters.tracker.quarantined() == []
    await masters.close()


async def test_a_quarantined_message_can_be_let_run_again(masters: Masters):
    settings = {**QUICK, "max_recoveries": 0}
    for _ in range(2):
        masters.start(processes=1, threads=1, settings=settings)
    instances = await masters.registered(2)
    message_id = masters.send("interrupted")
    held_by = (await masters.in_flight(message_id)).instance_id
    masters.kill(next(instance.pid for instance in instances if instance.instance_id == held_by))
    await wait_until(masters.tracker.quarantined, timeout=DONE_SECONDS, description="the message is quarantined")
    assert await masters.tracker.retry_quarantined(message_id)
    account = await masters.succeeded()
    assert len(account.runs_of(message_id)) == 2
    assert await masters.tracker.quarantined() == []
    await masters.close()


async def test_random_kills_lose_nothing(masters: Masters):
    for _ in range(2):
        masters.start(processes=2, threads=2)
    await masters.registered(4)
    messages = [masters.send("hold", 0.05 * (index % 8), queue="default") for index in range(120)]
    messages += [masters.send("hold_async", 0.05 * (index % 8), queue="slow") for index in range(40)]
    for round_number in range(3):
        await wait_until(
            lambda wanted=25 * (round_number + 1): len(masters.ledger.read().runs) >= wanted,
            timeout=DONE_SECONDS,
            description="some messages have run",
        )
        busy = [instance for instance in await masters.tracker.instances() if instance.state == "alive"]
        masters.kill(next(instance.pid for instance in busy if lives(instance.pid)))
        masters.start(processes=2, threads=2)
        await wait_until(lambda: _alive(masters), timeout=DONE_SECONDS, description="four processes are alive again")
    account = await masters.succeeded(timeout=2 * DONE_SECONDS)
    assert account.lost() == frozenset()
    assert set(messages) == account.succeeded()
    masters.started = [master for master in masters.started if master.exit_code is None]
    await masters.close()


async def test_a_process_that_runs_out_of_time_to_leave_gives_its_message_to_another_without_blame(masters: Masters):
    masters.start(processes=1, threads=1, arguments="--worker-shutdown-timeout 100")
    [leaving] = await masters.registered(1)
    message_id = masters.send("interrupted", 4.0)
    await masters.in_flight(message_id)
    masters.start(processes=1, threads=1)
    await masters.registered(2)
    masters.started[0].ask_to_leave()
    await wait_until(lambda: not lives(leaving.pid), timeout=DONE_SECONDS, description="the process has ended")
    masters.note_deaths()
    await masters.in_flight(message_id, elsewhere_than=leaving.instance_id)
    await masters.succeeded()
    async with masters.tracker.redis() as redis:
        assert await redis.exists(f"recoveries:dramatiq:{message_id}") == 0
    await masters.close()


async def test_two_processes_that_share_a_broker_id_are_not_recovered_while_one_of_them_lives(masters: Masters):
    for _ in range(2):
        masters.start(processes=1, threads=1, TEST_BROKER_ID="one-for-both", dramatiq_queue_prefetch="1")
    first, second = await masters.registered(2)
    names = sorted((first.instance_id, second.instance_id))
    assert f"{names[0]} and {names[1]} share their claims" in await doctor(masters)
    message_ids = [masters.send("interrupted"), masters.send("interrupted")]
    jobs = [await masters.in_flight(message_id) for message_id in message_ids]
    victim = next(instance for instance in (first, second) if instance.instance_id == jobs[0].instance_id)
    survivor = next(instance for instance in (first, second) if instance is not victim)
    masters.kill(victim.pid)

    async def orphaned() -> bool:
        return message_ids[0] in {orphan.job_id for orphan in await masters.tracker.orphans()}

    await wait_until(orphaned, timeout=DONE_SECONDS, description="the message is an orphan")
    assert await masters.tracker.recover() == []
    assert await orphaned()
    assert len(masters.acks("one-for-both")) == 2
    masters.kill(survivor.pid)
    masters.start(processes=1, threads=2)
    await masters.succeeded()
    masters.started = masters.started[2:]
    await masters.close()


async def test_a_process_that_is_no_worker_recovers_without_dramatiq(masters: Masters):
    masters.start(processes=1, threads=1)
    [victim] = await masters.registered(1)
    message_id = masters.send("interrupted")
    await masters.in_flight(message_id)
    masters.kill(victim.pid)
    [planned] = await wait_until(
        lambda: masters.tracker.recover(dry_run=True), timeout=DONE_SECONDS, description="the recovery is planned", poll_interval=0.1
    )
    assert (planned.job_id, planned.action, planned.dry_run) == (message_id, RecoveryAction.RECOVERED, True)
    done = await masters.tracker.recover()
    assert [(item.job_id, item.library, item.action) for item in done] == [(message_id, "dramatiq", RecoveryAction.RECOVERED)]
    masters.started.clear()
    masters.start(processes=1, threads=1)
    await masters.succeeded()
    await masters.close()


async def test_the_tracker_may_have_a_redis_of_its_own_and_the_messages_are_recovered_where_they_are(
    workers: Workers, ledger: Ledger, redis_url: str, namespace: str, make_server: Callable[..., EmbeddedServer]
):
    own = make_server()
    settings = {**QUICK, "redis_options": {"url": own.url}}
    async with (
        Tracker(namespace=namespace, redis_options={"url": own.url}) as astray,
        Tracker(namespace=namespace, redis_options={"url": own.url}, dramatiq_redis=redis_url) as tracker,
    ):
        masters = Masters(workers=workers, ledger=ledger, redis_url=redis_url, namespace=namespace, tracker=tracker)
        masters.start(processes=1, threads=1, settings=settings)
        [victim] = await masters.registered(1)
        message_id = masters.send("interrupted")
        await masters.in_flight(message_id)
        with pytest.raises(StorageError, match="TRACKER_DRAMATIQ_REDIS_URL"):
            await astray.recover()
        assert [depth.depth for depth in await tracker.queues() if depth.queue == "default"] == [1]
        masters.start(processes=1, threads=1, settings=settings)
        await masters.registered(2)
        masters.kill(victim.pid)
        account = await masters.succeeded()
        assert len(account.runs_of(message_id)) == 2
        await masters.close()
        masters.broker.client.connection_pool.disconnect()


async def doctor(masters: Masters) -> str:
    """Ask the command line what is wrong."""
    command = [
        sys.executable,
        "-m",
        "async_tracker.cli",
        "--redis-url",
        masters.redis_url,
        "--namespace",
        masters.namespace,
        "doctor",
        "--json",
    ]
    return (await anyio.run_process(command, check=False)).stdout.decode()


async def _alive(masters: Masters) -> bool:
    return len([instance for instance in await masters.tracker.instances() if instance.state == "alive"]) >= 4


async def _first_events(masters: Masters, count: int) -> AsyncIterator[Event]:
    async with asyncio.timeout(DONE_SECONDS):
        async for event in masters.tracker.events(since="0-0"):
            yield event
            count -= 1
            if not count:
                return
