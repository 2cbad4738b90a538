"""Another server in the place of the one that an instance wrote to: what the old one alone was told is told to the new one, at once."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis.asyncio

from async_tracker import InstanceState, StorageError, Tracker
from async_tracker.embedded import EmbeddedServer
from async_tracker.instance.runs import current
from async_tracker.store.observation import Connections
from async_tracker.store.scripts import SCRIPTS
from async_tracker.store.writes import OrderToPlace
from tests.crash.fleet import script_call
from tests.harness.inside import runtime_of
from tests.harness.servers import address_of
from tests.harness.settings import KNOWN
from tests.harness.wait import wait_until
from tests.harness.wire import WireProxy

RARE = {**KNOWN, "heartbeat_interval": 60.0, "heartbeat_ttl": 120.0, "silence_limit": 200.0, "watchdog": False}
"""So rare that what is right after a failover was made right by the first beats, and not by one that was due anyway."""


class Pair:
    """A primary and its replica, each with a client of the test's own, and the address under which a service is found."""

    def __init__(self, old: EmbeddedServer, new: EmbeddedServer, service: WireProxy) -> None:
        self.service = service
        self._new_address = address_of(new.tcp_url)
        self._old_port = old.port
        self.old, self.new = redis.asyncio.Redis.from_url(old.tcp_url), redis.asyncio.Redis.from_url(new.tcp_url)
        self.replica_url = new.tcp_url

    async def replicate(self) -> None:
        """Make the new server a replica, and wait until it has all that the old one has."""
        await self.new.execute_command("REPLICAOF", "127.0.0.1", str(self._old_port))
        await self.caught_up()

    async def caught_up(self) -> None:
        """Wait until the replica has all that was written up to now."""
        written: int = (await self.old.info("replication"))["master_repl_offset"]

        async def has_all() -> bool:
            status = await self.new.info("replication")
            return status.get("master_link_status") == "up" and int(status["slave_repl_offset"]) >= written

        await wait_until(has_all, timeout=30, description="the replica has everything")

    async def aclose(self) -> None:
        await self.old.aclose()
        await self.new.aclose()

    async def part(self) -> None:
        """From here on the replica is told nothing more."""
        await self.new.execute_command("REPLICAOF", "NO", "ONE")

    def fail_over(self) -> None:
        """Lead every client to the new server."""
        self.service.lead_to(self._new_address)
        self.service.cut()


@pytest.fixture
async def pair(make_server: Callable[..., EmbeddedServer]) -> AsyncIterator[Pair]:
    old, new = (make_server(tcp=True, extra_args=("--repl-diskless-sync-delay", "0")) for _ in range(2))
    with WireProxy(address_of(old.tcp_url)) as service:
        made = Pair(old, new, service)
        await made.replicate()
        yield made
        await made.aclose()


async def told(client: Any, namespace: str) -> tuple[int, int]:
    """Give how many runs are counted as started, and how many as succeeded."""
    stats = await Tracker(namespace=namespace, redis=client).stats()
    return stats.started, stats.succeeded


async def test_a_failover_that_loses_the_newest_writes_leaves_records_and_counters_right_within_two_beats(pair: Pair, namespace: str):
    async with Tracker(namespace=namespace, redis_options={"url": pair.service.url}, **RARE) as tracker, AsyncExitStack() as late:
        async with tracker.register() as instance_id:
            jobs = f"{namespace}:jobs:{instance_id}"
            async with AsyncExitStack() as lost:
                for job_id in ("ends unseen", "stays"):
                    stack = lost if job_id == "ends unseen" else late
                    await stack.enter_async_context(tracker.track(job_id, function="send"))

                async def written() -> bool:
                    return bool(await pair.old.scard(jobs) == 2)

                await wait_until(written, description="the runs are written")
                await pair.caught_up()
                await pair.part()
            await late.enter_async_context(tracker.track("starts unseen", function="send"))

            async def only_the_old_one_knows() -> bool:
                listed: set[bytes] = await pair.old.smembers(jobs)
                return listed == {b"stays", b"starts unseen"}

            await wait_until(only_the_old_one_knows, description="the old server was told what is lost with it")
            assert await pair.new.smembers(jobs) == {b"ends unseen", b"stays"}
            pair.service.forget_commands()
            pair.fail_over()

            async def right() -> bool:
                listed: set[bytes] = await pair.new.smembers(jobs)
                return listed == {b"stays", b"starts unseen"}

            await wait_until(right, timeout=30, description="the new server lists what is in flight")
            assert await pair.new.exists(f"{namespace}:job:starts unseen", f"{namespace}:job:ends unseen") == 1
            beats = [command for command in pair.service.commands if script_call(SCRIPTS["beat"])(command)]
            assert 1 <= len(beats) <= 4, "each beat is sent twice where the server does not know the script yet"
            assert await told(pair.new, namespace) == (3, 1)
            await late.aclose()
        assert await tracker.orphans() == []
    current.set(None)  # runs that end in another order than they began leave one of them in hand, in the task of all tests


async def test_an_answer_that_only_the_old_server_has_is_given_to_the_new_one(pair: Pair, namespace: str):
    """The caller who waits for it would hear that none came, and the order would be taken back although it was carried out."""
    async with Tracker(namespace=namespace, redis_options={"url": pair.service.url}, **RARE) as tracker, tracker.register() as instance_id:
        await pair.caught_up()
        await pair.part()
        store = runtime_of(tracker).store
        order = OrderToPlace(order_id="5f", kind="quiet", text='{"kind":"quiet","by":"ann","arguments":{}}')
        await store.order({instance_id: order}, beyond_ms=60_000)
        runtime_of(tracker).heartbeat.hurry()  # in place of the beat that is due in a minute

        async def is_answered() -> bool:
            return bool(await pair.old.exists(f"{namespace}:answer:5f"))

        await wait_until(is_answered, timeout=30, description="it is answered on the old server")
        assert not await pair.new.exists(f"{namespace}:answer:5f")
        pair.fail_over()

        async def is_answered_again() -> bool:
            return b'"outcome":"done"' in (await pair.new.get(f"{namespace}:answer:5f") or b"")

        await wait_until(is_answered_again, timeout=30, description="it is answered on the new server")
        assert tracker.is_quiet


async def test_counters_of_the_lost_second_are_counted_once_and_those_that_arrived_not_twice(pair: Pair, namespace: str):
    async def has(client: Any, runs: int) -> bool:
        return await told(client, namespace) == (runs, runs)

    beating = {**RARE, "heartbeat_interval": 0.2}
    async with Tracker(namespace=namespace, redis_options={"url": pair.service.url}, **beating) as tracker, tracker.register():
        for runs in (1, 2):
            async with tracker.track("1", function="send"):
                pass
            await wait_until(lambda runs=runs: has(pair.old, runs), description="the old server has counted")
            if runs == 1:
                await pair.caught_up()
                await pair.part()
        assert await told(pair.new, namespace) == (1, 1)
        pair.fail_over()
        await wait_until(lambda: has(pair.new, 2), timeout=30, description="the new server has counted the same")


async def test_questions_at_a_replica_say_so_and_judge_by_heartbeats_while_recovery_refuses_it(pair: Pair, namespace: str):
    beating = {**RARE, "heartbeat_interval": 0.5, "heartbeat_ttl": 30.0}
    async with (
        Tracker(namespace=namespace, redis_options={"url": pair.service.url}, **beating) as tracker,
        tracker.register() as instance_id,
    ):
        fields = await pair.old.hgetall(f"{namespace}:instance:{instance_id}")
        asking = Tracker(namespace=namespace, redis=pair.new)
        assert (await tracker.snapshot()).role == "primary"
        seconds, _ = await pair.old.time()
        await pair.old.hset(f"{namespace}:instance:long gone", mapping={**fields, "library": "of no one here"})
        await pair.old.zadd(f"{namespace}:instances", {"long gone": seconds * 1000 - 600_000})
        await pair.caught_up()
        snapshot = await asking.snapshot()
        assert snapshot.role == snapshot.to_dict()["role"] == "replica"
        states = {item.instance_id: item.state for item in snapshot.instances}
        assert states == {instance_id: InstanceState.ALIVE, "long gone": InstanceState.DEAD}
        for dry_run in (True, False):
            with pytest.raises(StorageError, match="it is a replica"):
                await asking.recover(dry_run=dry_run)


async def test_who_has_not_come_back_is_counted_apart_and_then_dead_at_no_job_s_cost(pair: Pair, namespace: str):
    """Of two that were there before the failover, one comes back; the other's process ended with the old server."""
    beating = {**RARE, "heartbeat_interval": 0.5, "heartbeat_ttl": 4.0, "sweep_interval": 0.1}
    async with (
        Tracker(namespace=namespace, redis_options={"url": pair.service.url}, **beating) as tracker,
        tracker.register() as instance_id,
    ):
        await wait_until(lambda: pair.old.exists(f"{namespace}:server"), description="a sweep has noted the old server")
        fields = await pair.old.hgetall(f"{namespace}:instance:{instance_id}")
        server: str = (await pair.old.info("server"))["run_id"]
        connections = Connections(server=server, ids={await pair.old.client_id(): "async-tracker:lost"}).encode()
        await pair.old.client_setname("async-tracker:lost")
        seconds, _ = await pair.old.time()
        async with pair.old.pipeline() as pipe:
            pipe.hset(f"{namespace}:instance:lost", mapping=fields).hset(f"{namespace}:connections", "lost", connections)
            pipe.sadd(f"{namespace}:jobs:lost", "42").zadd(f"{namespace}:instances", {"lost": seconds * 1000})
            await pipe.execute()
        await pair.caught_up()
        await pair.part()
        seen: set[str] = set()
        pair.fail_over()

        async def is_dead() -> bool:
            try:
                snapshot = await tracker.snapshot()
            except StorageError:
                return False
            states = {item.instance_id: item.state for item in snapshot.instances}
            seen.add(states["lost"])
            assert snapshot.returning == sum(state is InstanceState.RETURNING for state in states.values())
            return states[instance_id] is InstanceState.ALIVE and states["lost"] is InstanceState.DEAD

        await wait_until(is_dead, timeout=60, description="the one that does not come back is declared dead", poll_interval=0.02)
        assert seen == {InstanceState.RETURNING, InstanceState.DEAD}
        declared: dict[bytes, bytes] = {}

        async def was_declared() -> bool:
            declared.update(await pair.new.hgetall(f"{namespace}:instance:lost"))
            return b"died_at_ms" in declared

        await wait_until(was_declared, description="a sweep has declared it dead")
        assert declared.get(b"blameless") == b"1"
        assert b"it has not come back since Redis" in declared.get(b"death_reason", b"")
        assert tracker.instance_id == instance_id


async def test_where_no_sweep_has_noted_the_change_patience_ends_too(redis_client: Any, namespace: str, monkeypatch: pytest.MonkeyPatch):
    """A fleet that went down as a whole with its server has no instance left that could note the new one."""
    short: dict[str, Any] = {**KNOWN, "heartbeat_interval": 0.1, "heartbeat_ttl": 0.5, "watchdog": False}
    async with Tracker(namespace=namespace, redis=redis_client, **short) as tracker, tracker.register() as instance_id:
        await wait_until(tracker.instances, description="it is registered")
        fields = await redis_client.hgetall(f"{namespace}:instance:{instance_id}")
    await redis_client.hset(f"{namespace}:server", mapping={"run_id": "another", "since_ms": -1})
    await redis_client.hset(f"{namespace}:instance:last", mapping=fields)
    seconds, micros = await redis_client.time()
    await redis_client.zadd(f"{namespace}:instances", {"last": seconds * 1000 + micros // 1000})
    asking = Tracker(namespace=namespace, redis=redis_client)
    assert [item.state for item in await asking.instances()] == [InstanceState.RETURNING]
    await redis_client.zadd(f"{namespace}:instances", {"last": seconds * 1000 - 600_000})
    # A server is taken for a new one for no longer than it runs, and that of a test is young.
    monkeypatch.setattr("async_tracker.liveness.evidence.UNNOTED_SECONDS", 0.0)

    async def is_dead() -> bool:
        return [item.state for item in await asking.instances()] == [InstanceState.DEAD]

    await wait_until(is_dead, timeout=30, description="it is no longer taken for one that may return")
