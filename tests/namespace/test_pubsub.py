"""Channels and patterns are in the namespace; messages come back without it; nobody else's are heard."""

from typing import Any

import pytest
import redis
import redis.asyncio

from async_tracker.errors import UnsupportedCommand
from async_tracker.namespace import Namespace, SyncNamespace
from tests.harness.wait import wait_until


async def messages(pubsub: Any, wanted: int) -> list[dict[str, Any]]:
    """Read so many messages, not counting the confirmations."""
    found: list[dict[str, Any]] = []

    async def read() -> bool:
        message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=0.05)
        if message is not None:
            found.append(message)
        return len(found) >= wanted

    await wait_until(read, timeout=5, description=f"{wanted} messages were heard")
    return found


@pytest.fixture(params=[2, 3])
async def ns(request, redis_url):
    client = redis.asyncio.Redis.from_url(redis_url, protocol=request.param)
    yield Namespace(client, "a*p")
    await client.aclose()


async def test_a_message_is_heard_on_its_channel_without_the_namespace(ns, raw):
    async with ns.pubsub() as pubsub:
        await pubsub.subscribe("news")
        assert (await confirmation(pubsub))["channel"] == b"news"

        raw.publish("news", "somebody else's")
        raw.publish("aXp:news", "somebody else's")
        raw.publish("a*p:news", "1")
        await ns.publish("news", "2")

        assert [(m["channel"], m["data"]) for m in await messages(pubsub, 2)] == [(b"news", b"1"), (b"news", b"2")]


async def confirmation(pubsub: Any) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    async def read() -> bool:
        message = await pubsub.get_message(timeout=0.05)
        if message is not None:
            found.append(message)
        return bool(found)

    await wait_until(read, timeout=5, description="a subscription was confirmed")
    return found[0]


async def test_a_pattern_matches_in_the_namespace_only(ns, raw):
    async with ns.pubsub() as pubsub:
        await pubsub.psubscribe("n[ew]ws*")
        assert (await confirmation(pubsub))["channel"] == b"n[ew]ws*"

        raw.publish("aXp:news", "decoy")
        raw.publish("a*p:newspaper", "x")
        message = (await messages(pubsub, 1))[0]

    assert (message["pattern"], message["channel"], message["data"]) == (b"n[ew]ws*", b"newspaper", b"x")


async def test_handlers_are_called_and_subscriptions_end(ns):
    heard: list[Any] = []
    async with ns.pubsub() as pubsub:
        await pubsub.subscribe(news=heard.append)
        await pubsub.psubscribe(**{"p*": heard.append})
        await wait_until_subscribed(ns, "news")
        await ns.publish("news", "1")
        await ns.publish("paper", "2")

        async def both_heard() -> bool:
            await pubsub.get_message(timeout=0.05)
            return len(heard) == 2

        await wait_until(both_heard, timeout=5, description="both handlers were called")
        await pubsub.unsubscribe("news")
        await pubsub.punsubscribe("p*")

        async def left() -> bool:
            await pubsub.get_message(timeout=0.05)
            return not pubsub.subscribed

        await wait_until(left, timeout=5, description="both subscriptions ended")
    assert [m["channel"] for m in heard] == [b"news", b"paper"]


async def wait_until_subscribed(ns: Namespace, channel: str) -> None:
    async def subscribed() -> bool:
        counts = await ns.pubsub_numsub(channel)
        pairs = list(counts.items()) if isinstance(counts, dict) else [tuple(pair) for pair in counts]
        return pairs == [(channel.encode(), 1)]

    await wait_until(subscribed, timeout=5, description=f"{channel} has a subscriber")


async def test_subscriptions_survive_a_lost_connection(ns, raw):
    async with ns.pubsub() as pubsub:
        await pubsub.subscribe("news")
        await confirmation(pubsub)
        raw.client_kill_filter(_type="pubsub")
        heard: list[Any] = []

        async def heard_again() -> bool:
            raw.publish("a*p:news", "x")
            try:
                message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=0.05)
            except redis.ConnectionError:
                return False
            if message is not None:
                heard.append(message)
            return bool(heard)

        await wait_until(heard_again, timeout=10, description="a message was heard on a new connection")

    assert heard[0]["channel"] == b"news"


async def test_channels_are_listed_without_the_namespace_and_only_its_own(ns, raw):
    async with ns.pubsub() as pubsub, redis.asyncio.Redis(connection_pool=ns.redis.connection_pool).pubsub() as other:
        await other.subscribe("aXp:decoy")
        await pubsub.subscribe("news", "paper")
        await wait_until_subscribed(ns, "paper")

        assert sorted(await ns.pubsub_channels()) == [b"news", b"paper"]
        assert await ns.pubsub_channels("n*") == [b"news"]
        assert sorted(await ns.execute_command("PUBSUB", "CHANNELS")) == [b"news", b"paper"]
        assert await ns.execute_command("PUBSUB", "NUMSUB", "news") in ([b"news", 1], {b"news": 1})


@pytest.fixture
async def notifying(make_server):
    """A client of a server that notifies of every change."""
    client = redis.asyncio.Redis.from_url(make_server(extra_args=("--notify-keyspace-events", "KEA")).url)
    yield client
    await client.aclose()


async def test_keyspace_notifications_tell_of_the_namespaces_own_keys(notifying):
    ns, db = Namespace(notifying, "a*p"), 0
    async with ns.pubsub() as pubsub:
        await pubsub.subscribe(f"__keyspace@{db}__:k", f"__keyevent@{db}__:del")
        await pubsub.psubscribe("__keyspace@*__:p*")
        for _ in range(3):
            await confirmation(pubsub)

        for key in ("k", "aXp:k", "other__:a*p:p"):
            await notifying.set(key, 1)
            await notifying.delete(key)
        await ns.set("k", 1)
        await ns.set("pp", 1)
        await ns.delete("k")
        heard = await messages(pubsub, 4)

    assert [(m["channel"].decode(), m["data"]) for m in heard if b"keyspace" in m["channel"]] == [
        (f"__keyspace@{db}__:k", b"set"),
        (f"__keyspace@{db}__:pp", b"set"),
        (f"__keyspace@{db}__:k", b"del"),
    ]
    assert [(m["channel"].decode(), m["data"]) for m in heard if b"keyevent" in m["channel"]] == [(f"__keyevent@{db}__:del", b"k")]


@pytest.mark.parametrize("pattern", ["__key*__:*", "__keyspace@0__*", "__keyevent*", "__subkeyspace@0__:k"])
async def test_a_pattern_of_notifications_that_cannot_be_confined_is_refused(ns, pattern):
    async with ns.pubsub() as pubsub:
        with pytest.raises(UnsupportedCommand):
            await pubsub.psubscribe(pattern)


async def test_a_synchronous_pubsub_does_the_same(raw):
    ns = SyncNamespace(raw, "a*p")
    with ns.pubsub() as pubsub:
        pubsub.subscribe("news")
        pubsub.psubscribe("n*")
        heard: list[Any] = []

        async def listen() -> bool:
            message = pubsub.get_message(timeout=0.05)
            if message is not None:
                heard.append(message)
            if len(heard) == 2:
                ns.publish("news", "1")
            return len(heard) == 4

        await wait_until(listen, timeout=5, description="two confirmations and two messages were heard")
    assert [m["channel"] for m in heard] == [b"news", b"n*", b"news", b"news"]
    assert heard[3]["pattern"] == b"n*"


async def test_sharded_channels_are_in_the_namespace_too(redis_client, raw, oracle):
    if "SSUBSCRIBE" not in oracle.commands or not hasattr(raw.pubsub(), "ssubscribe"):
        return
    ns = SyncNamespace(raw, "app")
    with ns.pubsub() as pubsub:
        pubsub.ssubscribe("news")
        heard: list[Any] = []

        async def listen() -> bool:
            message = (
                pubsub.get_sharded_message(timeout=0.05) if hasattr(pubsub, "get_sharded_message") else pubsub.get_message(timeout=0.05)
            )
            if message is not None:
                heard.append(message)
            if len(heard) == 1:
                ns.execute_command("SPUBLISH", "news", "1")
            return len(heard) >= 2

        await wait_until(listen, timeout=5, description="a sharded message was heard")
        assert ns.execute_command("PUBSUB", "SHARDCHANNELS") == [b"news"]
    assert [(m["type"], m["channel"]) for m in heard[:2]] == [("ssubscribe", b"news"), ("smessage", b"news")]
