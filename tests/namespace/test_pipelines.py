"""Pipelines and transactions in a namespace, asynchronous and not."""

import pytest
import redis

from async_tracker.errors import UnsupportedCommand
from async_tracker.namespace import Namespace, SyncNamespace


@pytest.fixture
def ns(redis_client) -> Namespace:
    return Namespace(redis_client, "app")


@pytest.fixture
def sync_ns(raw) -> SyncNamespace:
    return SyncNamespace(raw, "app")


@pytest.mark.parametrize("transaction", [True, False])
async def test_what_is_queued_is_prefixed_and_what_comes_back_is_stripped(ns, raw, transaction):
    async with ns.pipeline(transaction=transaction) as pipe:
        assert pipe.set("k", 1).incr("k") is pipe
        pipe.rpush("list", "app:1")
        pipe.blpop("list", 1)
        pipe.keys("*")
        assert len(pipe) == 5
        assert await pipe.execute() == [True, 2, 1, (b"list", b"app:1"), [b"k"]]
        assert len(pipe) == 0
    assert raw.keys() == [b"app:k"]


async def test_a_pipeline_can_be_used_again(ns):
    async with ns.pipeline() as pipe:
        await pipe.rpush("list", "1").blpop("list", 1).execute()

        assert await pipe.get("k").rpush("list", 2).blpop("list", 1).execute() == [None, 1, (b"list", b"2")]


async def test_watched_keys_are_those_of_the_namespace(ns, raw):
    async with ns.pipeline() as pipe:
        await pipe.watch("k")
        raw.set("k", "not watched")
        assert await pipe.get("k") is None
        pipe.multi()
        assert await pipe.set("k", 1).execute() == [True]

        await pipe.watch("k", b"l")
        raw.set("app:k", "changed")
        pipe.multi()
        pipe.set("k", 2)
        with pytest.raises(redis.WatchError):
            await pipe.execute()
    assert raw.get("app:k") == b"changed"


async def test_replies_while_watching_are_stripped(ns):
    await ns.rpush("list", "1")
    async with ns.pipeline() as pipe:
        await pipe.watch("list")
        assert await pipe.blpop("list", 1) == (b"list", b"1")
        await pipe.unwatch()
        assert await pipe.set("k", 1).execute() == [True]


async def test_reset_forgets_what_was_queued(ns):
    pipe = ns.pipeline()
    pipe.blpop("list", 1).get("k")

    await pipe.reset()

    assert len(pipe) == 0
    assert await pipe.set("k", 1).execute() == [True]


async def test_a_transaction_is_tried_again_when_a_key_changes(ns, raw):
    tries: list[int] = []

    async def increment(pipe):
        value = int(await pipe.get("k") or 0)
        if not tries:
            raw.set("app:k", 41)
        tries.append(value)
        pipe.multi()
        pipe.set("k", value + 1)

    assert await ns.transaction(increment, "k") == [True]
    assert tries == [0, 41]
    assert raw.get("app:k") == b"42"


async def test_scripts_in_pipelines_are_loaded_first(ns, raw):
    script = ns.register_script("return redis.call('SET', KEYS[1], ARGV[1])")
    async with ns.pipeline() as pipe:
        await script(keys=["k"], args=["v"], client=pipe)
        assert await pipe.execute() == [b"OK"]
    assert raw.keys() == [b"app:k"]


@pytest.mark.parametrize("transaction", [True, False])
async def test_an_error_names_the_command_as_the_user_wrote_it(ns, transaction):
    async with ns.pipeline(transaction=transaction) as pipe:
        pipe.set("k", "text").lpush("k", "v")
        with pytest.raises(redis.ResponseError, match="LPUSH k v"):
            await pipe.execute()


async def test_errors_that_are_not_raised_stand_among_the_replies(ns):
    await ns.rpush("list", 1)
    replies = await ns.pipeline().lpush("k", 1).get("k").blpop("list", 1).execute(raise_on_error=False)

    assert replies[0] == 1
    assert isinstance(replies[1], redis.ResponseError)
    assert replies[2] == (b"list", b"1")


async def test_a_refused_command_is_refused_when_it_is_queued(ns, raw):
    async with ns.pipeline() as pipe:
        pipe.set("k", 1)
        with pytest.raises(UnsupportedCommand):
            pipe.flushdb()
        with pytest.raises(UnsupportedCommand):
            await pipe.immediate_execute_command("FLUSHALL")
        with pytest.raises(UnsupportedCommand):
            pipe.pipeline_execute_command("DBSIZE")
        assert await pipe.execute() == [True]


async def test_a_pipeline_without_commands_gives_nothing(ns):
    assert await ns.pipeline().execute() == []


async def test_the_modules_own_pipelines_are_refused_with_what_to_write_instead(ns, sync_ns):
    for namespace in (ns, sync_ns):
        with pytest.raises(UnsupportedCommand, match=r"pipeline\(\)\.json\(\)"):
            namespace.json().pipeline()
        with pytest.raises(UnsupportedCommand, match=r"pipeline\(\)\.ts\(\)"):
            namespace.ts().pipeline()


async def test_a_module_command_in_a_pipeline_is_prefixed(ns, raw):
    pipe = ns.pipeline()
    pipe.json().set("k", "$", {})

    assert pipe.command_stack[0][0][:2] == ("JSON.SET", "app:k")


def test_a_synchronous_pipeline_does_the_same(sync_ns, raw):
    raw.rpush("app:list", "app:1")
    with sync_ns.pipeline() as pipe:
        assert pipe.set("k", 1).blpop("list", 1).execute() == [True, (b"list", b"app:1")]
        pipe.watch("k")
        assert pipe.get("k") == b"1"
        raw.set("app:k", 2)
        pipe.multi()
        pipe.set("k", 3)
        with pytest.raises(redis.WatchError):
            pipe.execute()
        pipe.lpush("k", 1)
        with pytest.raises(redis.ResponseError, match="LPUSH k 1"):
            pipe.execute()
        script = sync_ns.register_script("return redis.call('SET', KEYS[1], ARGV[1])")
        script(keys=["s"], args=["v"], client=pipe)
        assert pipe.execute() == [b"OK"]

    def increment(pipe):
        value = int(pipe.get("k"))
        pipe.multi()
        pipe.set("k", value + 1)

    assert sync_ns.transaction(increment, "k") == [True]
    assert sorted(raw.keys()) == [b"app:k", b"app:s"]
