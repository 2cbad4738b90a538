"""A long list of functions stands in Redis once for all instances that have it, and every answer names all of them."""

import json
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest
import redis.asyncio

from async_tracker import Tracker
from async_tracker.embedded import EmbeddedServer
from async_tracker.instance.function_list import FunctionList
from async_tracker.namespace import Namespace
from async_tracker.policy import Limits
from async_tracker.store import keys
from async_tracker.store.commands import Store
from async_tracker.store.instance_record import Description, encode_description, stored_functions
from benchmarks.queries import count_round_trips, named_connections, write_namespace
from tests.harness.settings import QUIET
from tests.harness.wait import wait_until

MANY = tuple(f"send_invoice_{number:04}" for number in range(1_000))
FEW = ("send", "pay", 'a newsletter\n\'or "two"')
LISTED = stored_functions(MANY)
LIST = keys.functions(LISTED.digest)
DESCRIBED = Description(library="asyncio", host="worker-7", host_id="0f", pid=7, functions=MANY)


async def instances_by_queue(tracker: Tracker) -> dict[str | None, tuple[str, ...]]:
    return {item.queue: item.functions for item in await tracker.instances()}


async def test_two_instances_with_a_thousand_functions_keep_one_list_and_every_question_names_all_of_them(
    redis_client, redis_url, namespace
):
    workers = [Tracker(namespace=namespace, redis_options={"url": redis_url}, **QUIET) for _ in range(3)]
    async with AsyncExitStack() as stack:
        for worker in workers:
            await stack.enter_async_context(worker)
        async with (
            workers[0].register(queue="a", functions=MANY) as first,
            workers[1].register(queue="b", functions=frozenset(MANY)),
            workers[2].register(queue="c", functions=FEW),
        ):
            asker = Tracker(namespace=namespace, redis=redis_client)
            expected = {"a": MANY, "b": MANY, "c": FEW}
            assert await instances_by_queue(asker) == expected
            for tracker in (asker, Tracker(namespace=namespace, redis=redis_client)):
                assert {item.queue: item.functions for item in (await tracker.snapshot()).instances} == expected
            one = await Tracker(namespace=namespace, redis=redis_client).instance(first)
            assert one is not None
            assert one.functions == MANY
            page, fleet = [Tracker(namespace=namespace, redis=redis_client) for _ in range(2)]
            assert {item.queue: item.functions for item in await page.instances(limit=3)} == expected
            assert {item.queue: item.functions for item in (await fleet.fleet()).instances} == expected

            lists = [name.decode() async for name in redis_client.scan_iter(f"{namespace}:functions:*")]
            assert lists == [f"{namespace}:{LIST}"], "of the short list there is none"
            assert 0 < await redis_client.ttl(lists[0]) <= 86_400
            stored = await redis_client.hgetall(f"{namespace}:instance:{first}")
            older_reads = json.loads(stored[b"functions"])
            assert tuple(older_reads) == MANY[: len(older_reads)]
            assert len(older_reads) > 40


async def test_the_list_is_written_again_where_redis_has_lost_it_and_its_first_names_are_told_meanwhile(redis_client, redis_url, namespace):
    tracker = Tracker(namespace=namespace, redis_options={"url": redis_url}, **{**QUIET, "heartbeat_interval": 0.05})
    async with tracker, tracker.register(queue="a", functions=MANY):
        await redis_client.delete(f"{namespace}:{LIST}")
        told = (await instances_by_queue(tracker))["a"]
        assert told == MANY[: len(told)]
        assert 40 < len(told) < len(MANY)
        async for name in redis_client.scan_iter(f"{namespace}:*"):
            await redis_client.delete(name)

        async def told_all() -> bool:
            return (await instances_by_queue(tracker)).get("a") == MANY

        await wait_until(told_all, description="the instance is registered again, and its list written")


async def test_the_list_is_renewed_when_that_is_due_and_sent_only_where_it_is_missing(redis_client, namespace):
    store = Store(Namespace(redis_client, namespace))
    sent_often, sent_once = FunctionList(renewed_every=0.0), FunctionList()
    for own in (sent_often, sent_once):
        await own.keep(store, DESCRIBED, "w:1:ab")
    await redis_client.expire(f"{namespace}:{LIST}", 5)
    before = (await redis_client.info("stats"))["total_net_input_bytes"]
    await sent_once.keep(store, DESCRIBED, "w:1:ab")
    assert await redis_client.ttl(f"{namespace}:{LIST}") <= 5, "it is not due"
    await sent_often.keep(store, DESCRIBED, "w:1:ab")
    assert await redis_client.ttl(f"{namespace}:{LIST}") > 5
    assert (await redis_client.info("stats"))["total_net_input_bytes"] - before < len(LISTED.whole) / 4
    sent_once.keep_again()
    await redis_client.delete(f"{namespace}:{LIST}")
    await sent_once.keep(store, DESCRIBED, "w:1:ab")
    assert (await redis_client.get(f"{namespace}:{LIST}")).decode() == LISTED.whole


async def test_functions_that_have_become_fewer_are_told_as_they_are(redis_client, redis_url, namespace):
    async with Tracker(namespace=namespace, redis_options={"url": redis_url}, **QUIET) as tracker:
        runtime = tracker.footing.runtime(tracker.footing.describe(queue="a", functions=MANY), make_adapter=lambda link: None)
        await runtime.start()
        try:
            assert (await instances_by_queue(tracker))["a"] == MANY
            runtime.describe_anew(tracker.footing.describe(queue="a", functions=FEW))

            async def told_few() -> bool:
                return (await instances_by_queue(tracker))["a"] == FEW

            await wait_until(told_few, description="the instance has registered with its new description")
        finally:
            await tracker.footing.leave(runtime)


@pytest.mark.parametrize("is_hash", [False, True])
async def test_what_another_program_keeps_under_the_name_of_a_list_is_told_as_corrupt_and_costs_the_list_alone(
    redis_client, redis_url, namespace, is_hash: bool
):
    if is_hash:
        await redis_client.hset(f"{namespace}:{LIST}", "another", "program's")
    else:
        await redis_client.set(f"{namespace}:{LIST}", b'["send"]\xff')
    tracker = Tracker(namespace=namespace, redis_options={"url": redis_url}, **QUIET)
    async with tracker, tracker.register(queue="a", functions=MANY):
        snapshot = await tracker.snapshot()
        told = snapshot.instances[0].functions
        assert told == MANY[: len(told)]
        assert len(told) > 40
        assert snapshot.corrupt == (() if is_hash else (LIST,))


async def test_a_user_who_may_not_write_it_has_a_worker_all_the_same(
    make_server: Callable[..., EmbeddedServer], namespace: str, caplog: pytest.LogCaptureFixture
):
    url = make_server().url
    async with redis.asyncio.Redis.from_url(url) as admin:
        await admin.execute_command("ACL", "SETUSER", "worker", "on", ">secret", f"~{namespace}:*", "+@all", "-set")
        options = {"url": url, "username": "worker", "password": "secret"}
        async with Tracker(namespace=namespace, redis_options=options, **QUIET) as tracker, tracker.register(queue="a", functions=MANY):
            told = (await instances_by_queue(tracker))["a"]
            assert told == MANY[: len(told)]
            assert len(told) > 40
    assert [record.getMessage().partition(" is not")[0] for record in caplog.records][:1] == ["the list of this worker's functions"]


async def test_a_snapshot_of_many_instances_with_long_lists_takes_four_round_trips(
    make_server: Callable[..., EmbeddedServer], namespace: str
):
    url = make_server().url
    with named_connections(url, 120) as connections:  # so many that their jobs are read in two halves
        client = redis.asyncio.Redis.from_url(url)
        await write_namespace(client, namespace, connections=connections, jobs_each=1)
        store = Store(Namespace(client, namespace))
        await store.list_functions(LISTED)
        fields = encode_description(DESCRIBED, Limits())
        for name in await client.zrange(f"{namespace}:instances", 0, -1):
            await client.hset(f"{namespace}:instance:{name.decode()}", mapping=fields)
        for question in ("snapshot", "instances"):
            asker = Tracker(namespace=namespace, redis=client)
            assert await count_round_trips(client, getattr(asker, question)) <= 4
            assert {item.functions for item in await asker.instances()} == {MANY}
        await client.aclose()
