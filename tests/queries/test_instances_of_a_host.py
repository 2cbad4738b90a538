"""The instances of one host are asked for by the list of hosts: a probe reads its own, and not the fleet."""

from typing import Any

import pytest
import redis.asyncio

from async_tracker import Tracker
from async_tracker.clock import ServerClock
from async_tracker.instance.host import host_id
from async_tracker.namespace import Namespace
from async_tracker.policy import Limits
from async_tracker.queries.questions import Queries
from async_tracker.store import keys
from async_tracker.store.commands import Store
from async_tracker.store.instance_record import Description, encode_description
from async_tracker.store.observation import Connections
from async_tracker.store.scripts import HOSTS_LOOKED_AT
from async_tracker.store.writes import Judged
from tests.harness.servers import assert_no_leaks
from tests.harness.wait import wait_until


@pytest.fixture
def store(redis_client, namespace) -> Store:
    return Store(Namespace(redis_client, namespace))


async def join(store: Store, name: str, host: str) -> None:
    fields = {**encode_description(Description(library="asyncio", host="h", host_id=host, pid=7), Limits()), "state": "alive"}
    await store.register(name, 1, Connections().encode(), fields)


async def leave(store: Store, name: str) -> None:
    await store.leave(name, writes=[], beats=[], batches=[], clock=ServerClock(), lease=None)


async def kill(store: Store, name: str) -> None:
    observed = await store.observe("")
    judged = Judged(
        instance_id=name, heartbeat=observed.instances[name], connections=observed.connections[name], watchdog="", reason="killed"
    )
    assert await store.declare_dead(judged, "{}")


async def on_host(store: Store, host: str) -> list[str]:
    return sorted(item.instance_id for item in await Queries(store.redis).instances_on(host))


async def test_only_those_of_the_host_are_read(make_server):
    """On a server of its own, which counts what is read."""
    async with redis.asyncio.Redis.from_url(make_server().url) as client:
        store = Store(Namespace(client, "n"))
        for number in range(30):
            await join(store, f"w{number:02}", f"{number // 2:02}")
        assert await on_host(store, "07") == ["w14", "w15"]
        await client.config_resetstat()
        assert await on_host(store, "07") == ["w14", "w15"]
        assert (await client.info("commandstats"))["cmdstat_hgetall"]["calls"] == 2


async def test_where_none_of_the_host_lives_the_dead_are_read_and_those_that_are_not_listed(make_server):
    async with redis.asyncio.Redis.from_url(make_server().url) as client:
        store = Store(Namespace(client, "n"))
        for number in range(30):
            await join(store, f"w{number:02}", "elsewhere")
        await join(store, "died", "ab")
        await kill(store, "died")
        await store.redis.zrem(keys.HOSTS, "elsewhere w07")  # as if an older version had registered it
        assert await on_host(store, "ab") == ["died"]
        await client.config_resetstat()
        assert await on_host(store, "ab") == ["died"]
        assert await Queries(store.redis).unreadable_instances(host_id="ab") == []
        assert (await client.info("commandstats"))["cmdstat_hgetall"]["calls"] == 2 * 2


async def test_what_cannot_be_read_is_named_where_it_may_be_of_this_host(store):
    for name, host in (("here", "ab"), ("there", "cd")):
        await join(store, name, host)
        await store.redis.hset(keys.instance(name), "schema", 99)
    queries = Queries(store.redis)
    assert await queries.instances_on("ab") == []
    assert await queries.unreadable_instances(host_id="ab") == [keys.instance("here")]
    assert await queries.unreadable_instances() == [keys.instance("here"), keys.instance("there")]


async def test_what_an_older_version_has_buried_goes_off_the_list_of_hosts_in_some_minutes(store):
    for number in range(2 * HOSTS_LOOKED_AT):
        await store.redis.zadd(keys.HOSTS, {f"aa gone{number}": 0})
    for name in ("first", "second"):
        await join(store, name, "ab")
    await store.list_queues([], at_ms=0)
    assert await store.redis.zcard(keys.HOSTS) == HOSTS_LOOKED_AT + 2
    for minute in range(1, 4):
        await store.list_queues([], at_ms=60_000 * minute)
    assert await store.redis.zrange(keys.HOSTS, 0, -1) == [b"ab first", b"ab second"]


async def test_one_that_ended_or_was_declared_dead_is_listed_no_longer(store, redis_client, namespace):
    for name in ("left", "died", "lives"):
        await join(store, name, "ab")
    await leave(store, "left")
    await kill(store, "died")
    assert await store.redis.zrange(keys.HOSTS, 0, -1) == [b"ab lives"]
    assert await on_host(store, "ab") == ["lives"]
    assert await store.redis.ttl(keys.HOSTS) > 0


@pytest.mark.parametrize("how", ["not listed", "not a list", "all gone"])
async def test_where_the_list_of_hosts_does_not_name_them_all_instances_are_read(store, how):
    """One of an older version is not listed."""
    for name in ("one", "other"):
        await join(store, name, "ab")
    await join(store, "elsewhere", "cd")
    if how == "not listed":
        await store.redis.zrem(keys.HOSTS, "ab one")
    else:
        await store.redis.delete(keys.HOSTS)
    if how == "not a list":
        await store.redis.set(keys.HOSTS, "another program's")
        await join(store, "third", "ab")
    assert await on_host(store, "ab") == ["one", "other"] + (["third"] if how == "not a list" else [])
    await store.list_queues([], at_ms=1)


async def test_a_tracker_lists_the_instances_of_this_host(redis_client: Any, namespace: str, store: Store):
    async with Tracker(namespace=namespace, redis=redis_client) as tracker:
        assert await tracker.instances_here() == []
        async with tracker.register() as instance_id:
            await join(store, "elsewhere", "ab")
            here = await wait_until(tracker.instances_here, description="it is registered")
            assert [(item.instance_id, item.host_id) for item in here or []] == [(instance_id, host_id())]
            await leave(store, "elsewhere")
        assert await tracker.instances_here() == []
    await assert_no_leaks(redis_client, namespace)
