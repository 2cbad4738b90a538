"""A namespace over a cluster of three: slots follow from full names, nothing is lost, nothing goes to the wrong node."""

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.crc import key_slot

from async_tracker.embedded import EmbeddedServer
from async_tracker.errors import UnsupportedCommand
from async_tracker.namespace import Namespace, SyncNamespace
from tests.harness.ports import ports
from tests.harness.wait import wait_until, wait_until_sync

SLOTS = 16_384
NODES = 3


def start_cluster(servers: list[EmbeddedServer]) -> None:
    """Make one cluster of servers that know nothing of each other, each with its share of the slots."""
    ports = [server.port or 0 for server in servers]
    clients = [redis.Redis(port=port, protocol=2) for port in ports]
    bounds = [SLOTS * at // NODES for at in range(NODES + 1)]
    for epoch, (client, (first, end)) in enumerate(zip(clients, itertools.pairwise(bounds), strict=True), 1):
        client.execute_command("CLUSTER SET-CONFIG-EPOCH", epoch)
        client.execute_command("CLUSTER ADDSLOTS", *range(first, end))
        client.execute_command("CLUSTER MEET", "127.0.0.1", ports[0])

    def is_complete() -> bool:
        infos = [client.execute_command("CLUSTER INFO") for client in clients]
        shares = [len(client.execute_command(b"CLUSTER SLOTS")) for client in clients]
        return shares == [NODES] * NODES and all(info["cluster_state"] == "ok" for info in infos)

    wait_until_sync(is_complete, timeout=30, description="all nodes knew each other and all slots")
    for client in clients:
        client.close()


@pytest.fixture(scope="module")
def cluster(server_binary) -> Iterator[int]:
    """The port of a node of a cluster."""
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "5000")
    with ExitStack() as stack:
        take_port = stack.enter_context(ports())
        taken = [take_port(bus=True) for _ in range(NODES)]
        servers = [stack.enter_context(EmbeddedServer(binary=server_binary, port=port, extra_args=options)) for port in taken]
        start_cluster(servers)
        yield servers[0].port or 0


@pytest.fixture
def raw_cluster(cluster: int) -> Iterator["redis.RedisCluster"]:
    client = redis.RedisCluster(host="127.0.0.1", port=cluster)
    client.flushall(target_nodes=redis.RedisCluster.PRIMARIES)
    yield client
    client.close()


@pytest.fixture
async def ns(cluster: int, raw_cluster: Any) -> AsyncIterator[Namespace]:
    client = redis.asyncio.RedisCluster(host="127.0.0.1", port=cluster)
    yield Namespace(client, "app")
    await client.aclose()


@pytest.fixture
def sync_ns(raw_cluster: Any) -> SyncNamespace:
    return SyncNamespace(raw_cluster, "app")


KEYS = [f"k{number}" for number in range(60)]
SAME_SLOT_WITHOUT_PREFIX = ["k8", "k1306"]


def test_the_example_keys_share_a_slot_only_without_the_prefix():
    assert key_slot(b"k8") == key_slot(b"k1306")
    assert key_slot(b"app:k8") != key_slot(b"app:k1306")


async def test_keys_of_many_slots_are_written_read_and_deleted(ns, raw_cluster):
    for key in KEYS:
        await ns.set(key, f"value of {key}")

    assert await ns.mget_nonatomic(KEYS) == [f"value of {key}".encode() for key in KEYS]
    assert await ns.exists(*KEYS, "nothing") == len(KEYS)
    assert await ns.touch(*KEYS) == len(KEYS)
    assert raw_cluster.get("app:k7") == b"value of k7"
    assert await ns.delete(*KEYS[:30]) == 30
    assert await ns.unlink(*KEYS[30:]) == 30


async def test_keys_whose_slots_differ_only_by_the_prefix_are_no_cross_slot_error(ns, sync_ns):
    assert await ns.mset_nonatomic(dict.fromkeys(SAME_SLOT_WITHOUT_PREFIX, "v")) == [True, True]
    assert await ns.mget_nonatomic(*SAME_SLOT_WITHOUT_PREFIX) == [b"v", b"v"]
    assert await ns.exists(*SAME_SLOT_WITHOUT_PREFIX) == 2
    assert sync_ns.mget_nonatomic(SAME_SLOT_WITHOUT_PREFIX) == [b"v", b"v"]
    assert sync_ns.touch(*SAME_SLOT_WITHOUT_PREFIX) == 2
    assert sync_ns.delete(*SAME_SLOT_WITHOUT_PREFIX) == 2


async def test_hash_tags_of_users_keep_keys_together(ns):
    assert await ns.mset({"{tag}a": 1, "{tag}b": 2}) is True
    assert await ns.mget("{tag}a", "{tag}b") == [b"1", b"2"]


async def test_nothing_is_lost_in_a_pipeline(ns, raw_cluster):
    async with ns.pipeline() as pipe:
        for key in KEYS:
            pipe.set(key, 1)
        pipe.delete(*KEYS[:10])
        pipe.unlink(*SAME_SLOT_WITHOUT_PREFIX)
        pipe.mset_nonatomic({"x": 1, "y": 2})
        replies = await pipe.execute()

    left = {f"app:{key}".encode() for key in [*KEYS[10:], "x", "y"]}
    assert replies[: len(KEYS)] == [True] * len(KEYS)
    assert set(raw_cluster.keys(target_nodes=redis.RedisCluster.PRIMARIES)) == left


def test_nothing_is_lost_in_a_synchronous_pipeline(sync_ns, raw_cluster):
    with sync_ns.pipeline() as pipe:
        for key in KEYS:
            pipe.set(key, 1)
        pipe.delete(*KEYS[:10]).unlink(*SAME_SLOT_WITHOUT_PREFIX).mset_nonatomic({"x": 1})
        pipe.execute()

    assert sync_ns.count() == len(KEYS) - 10 + 1
    assert set(sync_ns.scan_iter("k1?")) == {f"k1{digit}".encode() for digit in range(10)}


async def test_a_failing_command_is_named_as_it_was_written(ns, sync_ns):
    await ns.set("k", "text")
    pipe = ns.pipeline()
    pipe.set("j", 1).lpush("k", "v")
    with pytest.raises(redis.ResponseError, match=r"Command # 2 \(LPUSH k v\)"):
        await pipe.execute()
    sync_pipe = sync_ns.pipeline()
    sync_pipe.set("j", 1).lpush("k", "v")
    with pytest.raises(redis.ResponseError, match=r"Command # 2 \(LPUSH k v\)"):
        sync_pipe.execute()


async def test_scanning_counting_and_clearing_cover_all_nodes_and_only_the_namespace(ns, raw_cluster):
    for key in KEYS:
        raw_cluster.set(f"other:{key}", "decoy")
        await ns.set(key, 1)

    assert {key async for key in ns.scan_iter()} == {key.encode() for key in KEYS}
    assert sorted(await ns.keys("k1?")) == [f"k1{digit}".encode() for digit in range(10)]
    assert await ns.count() == len(KEYS)
    assert await ns.clear() == len(KEYS)
    assert len(raw_cluster.keys(target_nodes=redis.RedisCluster.PRIMARIES)) == len(KEYS)


async def test_scripts_locks_and_keyslot_use_full_names(ns, sync_ns, raw_cluster):
    assert await ns.eval("return redis.call('SET', KEYS[1], ARGV[1])", 1, "k", "v") == b"OK"
    assert raw_cluster.get("app:k") == b"v"
    assert sync_ns.keyslot("k8") == key_slot(b"app:k8")
    assert await ns.cluster_keyslot("k8") == key_slot(b"app:k8")
    with sync_ns.lock("lock", timeout=5):
        assert raw_cluster.exists("app:lock")


async def test_what_would_reach_other_keys_is_refused_over_a_cluster_too(ns, sync_ns):
    for call in (ns.flushall, ns.dbsize, ns.randomkey, sync_ns.flushall, sync_ns.dbsize, sync_ns.randomkey):
        with pytest.raises(UnsupportedCommand):
            call()


async def test_namespaces_in_namespaces_over_a_cluster_are_one(ns, raw_cluster):
    inner: Any = Namespace(ns, "b")

    assert await inner.mset_nonatomic({"k8": 1, "k1306": 2}) == [True, True]
    assert raw_cluster.get("app:b:k8") == b"1"


async def test_channels_are_in_the_namespace_over_a_cluster_too(sync_ns, raw_cluster):
    with sync_ns.pubsub() as pubsub:
        pubsub.subscribe("news")
        heard: list[Any] = []

        async def listen() -> bool:
            message = pubsub.get_message(timeout=0.05)
            if message is not None:
                heard.append(message)
            if len(heard) == 1:
                raw_cluster.publish("app:news", "1")
            return len(heard) >= 2

        await wait_until(listen, timeout=10, description="a message was heard")
    assert [(m["type"], m["channel"]) for m in heard[:2]] == [("subscribe", b"news"), ("message", b"news")]


async def test_sharded_channels_go_to_the_node_of_their_full_name(sync_ns, raw_cluster, oracle):
    if "SSUBSCRIBE" not in oracle.commands:  # Redis 6.2 has none
        return
    channels = [f"channel{number}" for number in range(12)]
    with sync_ns.pubsub() as pubsub:
        pubsub.ssubscribe(*channels)
        heard: set[bytes] = set()

        async def listen() -> bool:
            for channel in channels:
                raw_cluster.spublish(f"app:{channel}", "1")
            for _ in range(4 * len(channels)):
                message = pubsub.get_sharded_message(timeout=0.01)
                if message is not None and message["type"] == "smessage":
                    heard.add(message["channel"])
            return len(heard) == len(channels)

        await wait_until(listen, timeout=10, description="every sharded channel was heard")
    assert heard == {channel.encode() for channel in channels}
