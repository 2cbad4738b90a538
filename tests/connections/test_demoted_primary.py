"""A primary that is demoted keeps its connections open and refuses every write: whoever stays on them is lost to tracking."""

import time

import pytest
import redis.asyncio

from async_tracker import Tracker
from async_tracker.store.observation import Connections
from tests.harness.servers import address_of
from tests.harness.wait import wait_until
from tests.harness.wire import WireProxy

BEAT = 1.0


@pytest.fixture
def pair(make_server):
    """A primary and its replica."""
    return make_server(tcp=True), make_server(tcp=True, extra_args=("--repl-diskless-sync-delay", "0"))


async def follow(client: redis.asyncio.Redis, port: int) -> None:
    """Make a server the replica of another, and wait until it is."""
    await client.execute_command("REPLICAOF", "127.0.0.1", str(port))

    async def in_sync() -> bool:
        status: str = (await client.info("replication")).get("master_link_status", "")
        return status == "up"

    await wait_until(in_sync, timeout=30, description="the replica follows")


async def test_an_instance_leaves_a_primary_that_was_demoted_and_leaves_the_shared_pool_alone(pair, namespace):
    old, new = pair
    async with redis.asyncio.Redis.from_url(old.tcp_url) as first, redis.asyncio.Redis.from_url(new.tcp_url) as second:
        await follow(second, old.port)
        with WireProxy(address_of(old.tcp_url)) as service:
            async with redis.asyncio.Redis.from_url(service.url) as shared, shared.client() as held:
                used = await held.client_id()
                tracker = Tracker(namespace=namespace, redis=shared, heartbeat_interval=BEAT, heartbeat_ttl=15.0, watchdog=False)
                async with tracker.register() as instance_id, tracker.track("42"):
                    await wait_until(lambda: first.exists(f"{namespace}:job:42"), description="the job is written")
                    await second.execute_command("REPLICAOF", "NO", "ONE")
                    await follow(first, new.port)
                    began, count = time.monotonic(), service.connection_count

                    await wait_until(lambda: service.connection_count >= count + 4, timeout=30, description="it tries other connections")
                    assert time.monotonic() - began >= 2.2 * BEAT, "once per beat, not per try"
                    service.lead_to(address_of(new.tcp_url))
                    server: str = (await second.info("server"))["run_id"]

                    async def arrived() -> bool:
                        stored = await second.hget(f"{namespace}:connections", instance_id)
                        registered = Connections.decode((stored or b"").decode())
                        return registered.server == server

                    await wait_until(arrived, timeout=30, description="it is registered at the successor")
                    assert await held.client_id() == used
                    assert tracker.instance_id == instance_id
                    async with tracker.track("43"):
                        await wait_until(lambda: second.exists(f"{namespace}:job:43"), description="the next job is written there")
