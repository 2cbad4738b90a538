"""Redis that is a cluster: the tracker in one slot of it, arq beside it on a single server, and the slot's owner changes."""

from contextlib import AsyncExitStack, aclosing

import anyio.to_thread
import pytest
import redis.asyncio

from async_tracker import InstanceState, StorageError, Tracker, UnsupportedCommand
from async_tracker.connections.access import describe
from tests.cli.conftest import Cli
from tests.crash.fleet import open_fleet
from tests.harness.ledger import Ledger
from tests.harness.ports import TakePort
from tests.harness.settings import KNOWN
from tests.harness.wait import wait_until
from tests.harness.ways import Cluster
from tests.harness.workers import Workers
from tests.integrations.dramatiq.masters import Masters
from tests.servers.sequel import BEATING, counts_whole, right_again


async def is_behind(tracker: Tracker) -> None:
    await wait_until(lambda: tracker.is_behind, description="a worker that is led to a node says so")


async def test_its_url_and_its_client_are_taken_everywhere_and_what_is_shown_can_be_given_back(
    cluster: Cluster, namespace: str, take_port: TakePort
):
    tagged = f"{{app}}{namespace}"
    seemingly = cluster.url.replace("redis+cluster://", f"redis+cluster://127.0.0.1:{take_port()},")
    given = redis.asyncio.RedisCluster(host="127.0.0.1", port=cluster.primaries[0].port or 0)
    cli = Cli(url=cluster.url, namespace=tagged)
    async with AsyncExitStack() as stack:
        tracker = await stack.enter_async_context(Tracker(namespace=tagged, redis_options={"url": cluster.url}, **BEATING, **KNOWN))
        instance_id = await stack.enter_async_context(tracker.register())
        await stack.enter_async_context(tracker.track("42", function="send"))
        await wait_until(tracker.jobs, description="the job is listed")
        for arguments in ({"redis_options": {"url": seemingly}}, {"redis": given}):
            async with Tracker(namespace=tagged, **arguments) as other:
                assert [job.instance_id for job in await other.jobs()] == [instance_id]
                (found,) = await other.instances()
                assert (found.state, found.connection_ids) == (InstanceState.ALIVE, found.connection_ids)
                assert len(found.connection_ids) == 1
                with other.redis_sync() as r:
                    assert r.hlen("connections") == 1
                async with other.redis() as namespaced:
                    with pytest.raises(UnsupportedCommand):
                        namespaced.flushall()
        for command in (("ps",), ("check", "--timeout", "30"), ("doctor",), ("recover", "--dry-run"), ("jobs",)):
            answer = await cli.within(*command, "--json")
            assert answer.code in (0, 1 if command == ("doctor",) else 0), answer
            if command in (("ps",), ("doctor",)):
                assert answer.document["redis"] == cluster.url
                assert "single Redis" not in answer.out
    async with Tracker(namespace=tagged, redis=given).redis() as namespaced:
        assert describe(namespaced.redis) == f"redis+cluster://127.0.0.1:{cluster.primaries[0].port}"
    await given.aclose()


async def test_the_url_of_one_node_or_of_a_server_that_is_no_node_is_refused_with_what_to_write(
    cluster: Cluster, namespace: str, make_server
):
    tagged = f"{{app}}{namespace}"
    for node in (cluster.owner(), next(node for node in cluster.primaries if node is not cluster.owner())):
        right = f"is a node of a cluster: write redis+cluster://127.0.0.1:{node.port}"
        async with Tracker(namespace=tagged, redis_options={"url": node.tcp_url}) as lost:
            with pytest.raises(StorageError, match=right.replace("+", r"\+")):
                await lost.instances()
            async with lost.register():
                await is_behind(lost)
        answer = await Cli(url=node.tcp_url, namespace=tagged).within("doctor", "--json")
        assert right in answer.out
    alone = make_server(tcp=True)
    async with Tracker(namespace=tagged, redis_options={"url": f"redis+cluster://127.0.0.1:{alone.port}"}) as lost:
        with pytest.raises(StorageError, match=f"it is no node of a cluster: write redis://127.0.0.1:{alone.port}/0"):
            await lost.instances()
    answer = await Cli(url=cluster.url, namespace=namespace).within("ps")
    assert (answer.code, "in YAML" in answer.err) == (2, True), answer


@pytest.mark.lasts
async def test_a_slot_that_moves_and_a_primary_that_dies_lose_nothing_rob_no_worker_and_leave_no_ghost(
    cluster: Cluster, namespace: str, redis_url: str, workers: Workers, ledger: Ledger
):
    tagged = f"{{app}}{namespace}"
    async with aclosing(await open_fleet(workers, ledger, redis_url, tagged, tracker_url=cluster.url, arq_redis=redis_url)) as fleet:
        started = await fleet.start_ready(3, tracker=BEATING, tracker_url=cluster.url, worker={"max_jobs": 4})
        ids = {(await fleet.registered(worker)).instance_id for worker in started}
        home = cluster.owner()
        other = next(node for node in cluster.primaries if node is not home)
        for to in (other, home):
            await fleet.enqueue_many(3, "hold", 3.0)
            await anyio.to_thread.run_sync(lambda to=to: cluster.move_slot(to, half_way=1.5))
            await right_again(fleet, ids)
        await fleet.succeeded()

        long = await fleet.enqueue_many(4, "hold", 12.0)
        blocking = await fleet.enqueue("block", 15.0)
        for job_id in (*long, blocking):
            await fleet.in_flight(job_id)
        home.kill()
        await anyio.to_thread.run_sync(
            lambda: cluster.wait(lambda: cluster.owner() is cluster.replica and cluster.is_well(cluster.replica), "the replica is promoted")
        )
        await fleet.succeeded()
        await right_again(fleet, ids)
        await counts_whole(fleet, 11)
        await fleet.close()
        home.start()
        await anyio.to_thread.run_sync(lambda: cluster.wait(lambda: cluster.is_replica(home), "the node is back, as a replica"))


@pytest.mark.lasts
async def test_a_worker_that_dies_while_the_slot_moves_is_recovered_and_its_death_counts_against_no_job(
    cluster: Cluster, namespace: str, redis_url: str, workers: Workers, ledger: Ledger
):
    """The slot moves at the moment at which a worker is killed: its connection says nothing on the new server."""
    tagged = f"{{app}}{namespace}"
    async with aclosing(await open_fleet(workers, ledger, redis_url, tagged, tracker_url=cluster.url, arq_redis=redis_url)) as fleet:
        started = await fleet.start_ready(2, tracker=BEATING, tracker_url=cluster.url)
        victim = started[0]
        jobs = await fleet.enqueue_many(4, "hold", 4.0)
        for job_id in jobs:
            await fleet.in_flight(job_id)
        held = {run.job_id for run in fleet.ledger.read().runs if run.pid == victim.pid}
        victim.kill()
        await anyio.to_thread.run_sync(cluster.move_slot, cluster.another_primary())
        states: set[str] = set()

        async def recovered() -> bool:
            try:
                states.update(item.state for item in await fleet.tracker.instances() if item.pid == victim.pid)
            except StorageError:
                return False
            return set(jobs) <= fleet.ledger.read().succeeded()

        await wait_until(recovered, timeout=90, description="every job has succeeded", poll_interval=0.05)
        if InstanceState.RETURNING in states:  # else it was found dead before the slot had moved
            async with fleet.tracker.redis() as namespaced:
                assert [job_id for job_id in held if await namespaced.exists(f"recoveries:{job_id}")] == []
        await fleet.succeeded()
        await fleet.close()


async def test_beside_a_broker_on_one_server_a_killed_process_of_dramatiq_is_recovered_once_also_while_the_slot_moves(
    cluster: Cluster, namespace: str, redis_url: str, workers: Workers, ledger: Ledger
):
    """The tracker is in a slot of the cluster, the messages are not. The first process dies while all is well, the second with the slot."""
    tagged = f"{{app}}{namespace}"
    way = {"redis_options": {"url": cluster.url}}
    async with Tracker(namespace=tagged, dramatiq_redis=redis_url, **way) as tracker:
        masters = Masters(workers=workers, ledger=ledger, redis_url=redis_url, namespace=tagged, tracker=tracker)
        for _ in range(3):
            masters.start(processes=1, threads=4, settings={**BEATING, **way})
        started = {item.instance_id: item.pid for item in await masters.registered(3)}
        assert {item.redis for item in await tracker.instances()} == {cluster.url}

        async def begin() -> tuple[str, str]:
            message_id = masters.send("interrupted")
            return message_id, (await masters.in_flight(message_id)).instance_id

        first, victim = await begin()
        masters.kill(started.pop(victim))
        await masters.succeeded()
        async with tracker.redis() as namespaced:
            assert await namespaced.hlen(f"recoveries:dramatiq:{first}") == 1
        second, victim = await begin()
        assert victim in started
        others = [masters.send("hold", 2.0) for _ in range(4)]
        masters.kill(started.pop(victim))
        await anyio.to_thread.run_sync(lambda: cluster.move_slot(cluster.another_primary(), half_way=1.0))
        account = await masters.succeeded()
        assert {message_id: len(account.runs_of(message_id)) for message_id in (first, second)} == {first: 2, second: 2}
        assert account.runs_of(second)[1].pid in started.values()
        assert set(others) <= account.succeeded()

        async def is_alone() -> bool:
            try:
                return {item.instance_id for item in await tracker.instances()} == set(started)
            except StorageError:
                return False

        await wait_until(is_alone, timeout=60, description="the dead are buried", poll_interval=0.1)
        await right_again(masters, set(started))
        await masters.close()
        masters.broker.client.close()
