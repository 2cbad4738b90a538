"""Redis behind three sentinels: found by its url everywhere, and found again after a failover."""

import asyncio
from contextlib import aclosing
from typing import Any

import anyio.to_thread
import pytest
from redis.asyncio.sentinel import Sentinel

from async_tracker import OrderOutcome, StorageError, Tracker
from async_tracker.connections.access import describe
from tests.cli.conftest import Cli
from tests.crash.fleet import open_fleet
from tests.harness.ledger import Ledger
from tests.harness.ports import TakePort
from tests.harness.settings import KNOWN
from tests.harness.wait import wait_until
from tests.harness.ways import PASSWORD, SENTINEL_PASSWORD, Sentinels
from tests.harness.workers import Workers
from tests.integrations.dramatiq.masters import Masters
from tests.servers.sequel import BEATING, counts_whole, right_again


async def test_its_url_is_taken_everywhere_and_what_is_shown_can_be_given_back(
    sentinels: Sentinels, namespace: str, redis_url: str, monkeypatch: pytest.MonkeyPatch, take_port: TakePort
):
    first = sentinels.ports[0]
    seemingly = sentinels.url.replace(f"@127.0.0.1:{first}", f"@127.0.0.1:{take_port()},127.0.0.1:{first}")
    manager = Sentinel(
        [("127.0.0.1", port) for port in sentinels.ports], sentinel_kwargs={"password": SENTINEL_PASSWORD}, password=PASSWORD
    )
    given = manager.master_for("main")
    cli = Cli(url=sentinels.url, namespace=namespace)
    tracker = Tracker(namespace=namespace, redis_options={"url": sentinels.url}, **BEATING, **KNOWN)
    async with tracker, tracker.register() as instance_id:
        for arguments in ({"redis_options": {"url": seemingly}}, {"redis": given}):
            async with Tracker(namespace=namespace, **arguments) as other:
                assert [item.instance_id for item in await other.instances()] == [instance_id]
                with other.redis_sync() as r:
                    assert r.hlen("connections") == 1
        assert describe(given) == sentinels.shown
        with monkeypatch.context() as environment:
            for variable in ("TRACKER_REDIS_URL", "REDIS_URL"):
                environment.setenv(variable, sentinels.url)
                async with Tracker.from_env(namespace=namespace) as other:
                    assert [item.instance_id for item in await other.instances()] == [instance_id]
                environment.delenv(variable)
            environment.setenv("TRACKER_DRAMATIQ_REDIS_URL", sentinels.url)
            async with Tracker(namespace=namespace, redis_options={"url": redis_url}, arq_redis=sentinels.url) as other:
                for library in ("arq", "dramatiq"):
                    client = other.footing.registry.client_apart(library)
                    assert (describe(client), await client.ping()) == (sentinels.shown, True)
        for command in (("ps",), ("check", "--timeout", "30"), ("doctor",), ("recover", "--dry-run"), ("jobs",)):
            answer = await cli.within(*command, "--json")
            assert answer.code in (0, 1 if command == ("doctor",) else 0), answer
            assert "s3nt" not in answer.out + answer.err
            assert "m@st" not in answer.out + answer.err
            if command in (("ps",), ("doctor",)):
                assert answer.document["redis"] == sentinels.shown
            if command == ("ps",):
                assert [item["redis"] for item in answer.document["instances"]] == [sentinels.shown]
    await given.aclose()
    for watcher in manager.sentinels:
        await watcher.aclose()

    right = f"write redis+sentinel://127.0.0.1:{first}/mymaster/0"
    plain = f"redis://:{SENTINEL_PASSWORD.replace('?', '%3F')}@127.0.0.1:{first}/0"
    no_sentinel = f"redis+sentinel://127.0.0.1:{sentinels.primary}/main?sentinel_password={PASSWORD.replace('@', '%40')}"
    for url, said in (
        (plain, right),
        (no_sentinel, f"it is no sentinel: write redis://127.0.0.1:{sentinels.primary}/0"),
        (sentinels.url.replace("/main/", "/other/"), "it watches over no service 'other'"),
    ):
        async with Tracker(namespace=namespace, redis_options={"url": url}) as lost:
            for question in (lost.instances, lost.stats, lost.recover):
                with pytest.raises(StorageError) as refused:
                    await question()
                assert said in str(refused.value)
                assert "s3nt" not in str(refused.value)
    answer = await Cli(url=plain, namespace=namespace).within("doctor", "--json")
    assert right in answer.out
    async with Tracker(namespace=namespace, redis_options={"url": plain}) as lost, lost.register():
        await wait_until(lambda: lost.is_behind, description="a worker that is led to a sentinel says so")


@pytest.mark.lasts
async def test_failovers_lose_nothing_rob_no_worker_and_leave_no_ghost(
    sentinels: Sentinels, namespace: str, redis_url: str, workers: Workers, ledger: Ledger
):
    """One that was asked for, then one after the death of the primary, over the whole of which the loop of a worker is blocked."""
    async with aclosing(await open_fleet(workers, ledger, redis_url, namespace, tracker_url=sentinels.url, arq_redis=redis_url)) as fleet:
        started = await fleet.start_ready(3, tracker=BEATING, tracker_url=sentinels.url, worker={"max_jobs": 4})
        ids = {(await fleet.registered(worker)).instance_id for worker in started}
        before = sentinels.primary
        await fleet.enqueue_many(6, "hold", 3.0)
        await anyio.to_thread.run_sync(sentinels.fail_over)
        second = await anyio.to_thread.run_sync(lambda: sentinels.promoted(instead_of=before))
        await right_again(fleet, ids)
        await fleet.succeeded()

        long = await fleet.enqueue_many(4, "hold", 12.0)
        blocking = await fleet.enqueue("block", 15.0)
        for job_id in (*long, blocking):
            await fleet.in_flight(job_id)
        await anyio.to_thread.run_sync(sentinels.kill_primary)
        await anyio.to_thread.run_sync(lambda: sentinels.promoted(instead_of=second))
        await fleet.succeeded()
        await right_again(fleet, ids)
        await counts_whole(fleet, 11)
        await fleet.close()


@pytest.mark.lasts
async def test_orders_that_meet_the_death_of_the_primary_are_answered_or_taken_back(sentinels: Sentinels, namespace: str):
    """One that is not heard by then, one that may be under way, and one that stands. What a caller is told is what is so."""
    way: dict[str, Any] = {"namespace": namespace, "redis_options": {"url": sentinels.url}}
    quick, slow, late = Tracker(**way, **BEATING), Tracker(**way, heartbeat_interval=20.0, heartbeat_ttl=60.0), Tracker(**way, **BEATING)
    async with Tracker(**way) as person, quick, slow, late, quick.register(queue="mail") as first, slow.register(queue="mail") as second:
        await anyio.to_thread.run_sync(sentinels.heal)
        before = sentinels.primary
        await person.quiet(queue="parcels", stands_for=3600.0)
        with sentinels.client(before) as client:  # what is to be seen after the failover has reached a replica before it
            await anyio.to_thread.run_sync(lambda: client.wait(2, 30_000))
        stopping = asyncio.create_task(person.stop(second, wait=40.0))
        with sentinels.client(before) as client:
            key = f"{namespace}:instance:{second}"
            await wait_until(lambda: bool(client.hexists(key, "orders")), description="the order stands in its hash")
        quieting = asyncio.create_task(person.quiet(first, wait=40.0))  # it may be placed by then, under way, or answered
        await anyio.to_thread.run_sync(sentinels.kill_primary)
        await anyio.to_thread.run_sync(lambda: sentinels.promoted(instead_of=before))
        stopped = await stopping
        try:
            made_quiet = (await quieting).outcome
        except StorageError:  # it could not be placed, and its caller was told so
            made_quiet = None
        assert {stopped.outcome, made_quiet} <= {OrderOutcome.DONE, OrderOutcome.UNANSWERED, None}
        assert slow.is_stopping == (stopped.outcome is OrderOutcome.DONE)

        def is_as_told() -> bool:
            return made_quiet is None or quick.is_quiet == (made_quiet is OrderOutcome.DONE)

        await wait_until(is_as_told, timeout=60, description="what was taken back is undone")
        assert [order.queue for order in await person.standing_orders()] == ["parcels"]
        async with late.register(queue="parcels"):
            await wait_until(lambda: late.is_quiet, timeout=60, description="it begins quiet")


@pytest.mark.lasts
async def test_a_failover_and_a_kill_amid_another_lose_no_message_of_dramatiq_and_rob_no_process(
    sentinels: Sentinels, namespace: str, redis_url: str, workers: Workers, ledger: Ledger
):
    """The broker is on one server. The death of the process is found by a server that it never came to, and counts against no message."""
    await anyio.to_thread.run_sync(sentinels.heal)
    beating = {**BEATING, "redis_options": {"url": sentinels.url}}
    async with Tracker(namespace=namespace, redis_options={"url": sentinels.url}, dramatiq_redis=redis_url) as tracker:
        masters = Masters(workers=workers, ledger=ledger, redis_url=redis_url, namespace=namespace, tracker=tracker)
        for _ in range(2):
            masters.start(processes=1, threads=4, settings=beating)
        started = await masters.registered(2)
        before = sentinels.primary
        for _ in range(6):
            masters.send("hold", 3.0)
        await anyio.to_thread.run_sync(sentinels.fail_over)
        second = await anyio.to_thread.run_sync(lambda: sentinels.promoted(instead_of=before))
        await right_again(masters, {item.instance_id for item in started})
        await masters.succeeded()

        message_id = masters.send("interrupted")
        victim = (await masters.in_flight(message_id)).instance_id
        for _ in range(4):
            masters.send("hold", 6.0)
        (survivor,) = (item.instance_id for item in started if item.instance_id != victim)
        await anyio.to_thread.run_sync(sentinels.kill_primary)
        masters.kill(next(item.pid for item in started if item.instance_id == victim))
        await anyio.to_thread.run_sync(lambda: sentinels.promoted(instead_of=second))
        account = await masters.succeeded()
        assert len(account.runs_of(message_id)) == 2
        assert [run.pid for run in account.runs_of(message_id)][1] == next(item.pid for item in started if item.instance_id == survivor)

        async def is_alone() -> bool:
            try:
                return {item.instance_id for item in await tracker.instances()} == {survivor}
            except StorageError:
                return False

        await wait_until(is_alone, timeout=60, description="the dead process is buried", poll_interval=0.1)
        await right_again(masters, {survivor})
        async with tracker.redis() as namespaced:
            assert await namespaced.exists(f"recoveries:dramatiq:{message_id}") == 0
        await masters.close()
        masters.broker.client.close()
