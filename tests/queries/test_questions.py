"""Queries on trackers that were never entered, on clients of every kind, and among records that are not ours."""

import asyncio
import dataclasses
import json

import pytest
import redis.asyncio

from async_tracker import CorruptRecord, Tracker
from tests.harness.settings import KNOWN
from tests.harness.wait import wait_until


async def test_a_tracker_answers_without_being_entered_and_closes_what_it_opened(make_tracker, redis_url, namespace):
    worker = make_tracker()
    async with worker.register(), worker.track("42"):
        await wait_until(worker.jobs, description="the job is in flight")
        asking = Tracker(namespace=namespace, redis_options={"url": redis_url, "client_name": "asking"})
        assert [job.job_id for job in await asking.jobs()] == ["42"]
        async with asking.redis() as proxy:
            names = [client["name"] for client in await proxy.redis.client_list()]
            assert "asking" in names
        await asking.aclose()
        async with worker.redis() as proxy:
            await wait_until(lambda: nobody_called(proxy.redis, "asking"), description="its connections are closed")
        assert len(await asking.jobs()) == 1  # and it connects again when it is asked again
        await asking.aclose()


async def nobody_called(client, name):
    return name not in [found["name"] for found in await client.client_list()]


async def test_a_shared_client_is_never_closed(redis_client, namespace):
    async with Tracker(namespace=namespace, redis=redis_client) as tracker:
        assert await tracker.instances() == []
        async with tracker.register():
            pass
        connection = await redis_client.client_id()
    assert await redis_client.client_id() == connection


async def test_many_may_ask_at_once(make_tracker):
    tracker = make_tracker()
    async with tracker.register(), tracker.track("42"):
        await wait_until(tracker.jobs, description="the job is in flight")
        answers = await asyncio.gather(*(tracker.jobs() for _ in range(30)))
    assert {job.job_id for answer in answers for job in answer} == {"42"}


@pytest.mark.parametrize(
    "options",
    [
        {"decode_responses": True},
        {"decode_responses": True, "encoding": "latin-1"},
        {"protocol": 3},
        {"protocol": 3, "decode_responses": True},
        {"single_connection_client": True},
        {"max_connections": 3},
        {"username": "default", "password": ""},
        {"health_check_interval": 1, "retry_on_timeout": True},
    ],
    ids=str,
)
async def test_whatever_the_client_decodes_it_can_be_shared(redis_url, namespace, options):
    client = redis.asyncio.Redis.from_url(
        redis_url, **{name: value for name, value in options.items() if name != "single_connection_client"}
    )
    if options.get("single_connection_client"):
        client = redis.asyncio.Redis(connection_pool=client.connection_pool, single_connection_client=True)
    try:
        tracker = Tracker(namespace=namespace, redis=client, **KNOWN)
        async with tracker.register(queue="naïve"), tracker.track("ключ", function="é") as job:
            (found,) = await wait_until(tracker.jobs, description="the job is in flight")
            assert (found.job_id, found.function) == ("ключ", "é")
            assert [instance.queue for instance in await tracker.instances()] == ["naïve"]
            await job.ensure_owned()
            snapshot = await tracker.snapshot()
            assert (len(snapshot.instances), len(snapshot.jobs), snapshot.corrupt) == (1, 1, ())
            assert await tracker.recover() == []
        assert [row.function for row in (await tracker.stats()).functions] == ["é"]
        await tracker.aclose()
    finally:
        await client.aclose()
        await client.connection_pool.disconnect()


GARBAGE = [
    b"",
    b"not json",
    b"[]",
    b'{"schema":99}',
    b'{"schema":1}',
    b'{"schema":1,"instance":7,"run":"r","started_at_ms":1,"library":"arq"}',
    b"\xff\xfe",
]


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_a_record_that_is_not_ours_is_reported_and_skipped(make_tracker, redis_client, namespace, garbage):
    tracker = make_tracker()
    async with tracker.register(), tracker.track("good"), tracker.track("bad"):
        await wait_until(lambda: both_in_flight(tracker), description="both jobs are in flight")
        await redis_client.set(f"{namespace}:job:bad", garbage)
        assert [job.job_id for job in await tracker.jobs()] == ["good"]
        assert (await tracker.snapshot()).corrupt == ("job:bad",)
        with pytest.raises(CorruptRecord) as corrupt:
            await tracker.job("bad")
        assert corrupt.value.key == "job:bad"
        await tracker.recover()


async def both_in_flight(tracker):
    return len(await tracker.jobs()) == 2


@pytest.mark.parametrize("fields", [{"schema": "99"}, {"pid": "none"}, {"limits": "[]"}, {"functions": "{"}, {"started_at_ms": "soon"}])
async def test_an_instance_that_another_version_wrote_is_reported_and_skipped(make_tracker, redis_client, namespace, fields):
    tracker, other = make_tracker(watchdog=False), make_tracker()
    async with tracker.register(), other.register() as strange:
        await redis_client.hset(f"{namespace}:instance:{strange}", mapping=fields)
        assert [instance.instance_id for instance in await tracker.instances()] == [tracker.instance_id]
        assert (await tracker.snapshot()).corrupt == (f"instance:{strange}",)
        assert await tracker.recover() == []


@pytest.mark.parametrize("name", ["instance:{id}", "jobs:{id}", "job:good"])
async def test_a_key_of_another_type_breaks_no_query_no_sweep_and_no_worker(make_tracker, redis_client, namespace, name):
    tracker = make_tracker()
    async with tracker.register() as instance_id, tracker.track("good"):
        await wait_until(tracker.jobs, description="the job is in flight")
        key = f"{namespace}:{name.format(id=instance_id)}"
        await redis_client.delete(key)
        await redis_client.rpush(key, "not", "ours")
        snapshot = await tracker.snapshot()
        assert snapshot.corrupt == (name.format(id=instance_id),) or name == "job:good"
        await tracker.recover()
        async with tracker.track("another"):
            await asyncio.sleep(0.05)
        await redis_client.delete(key)


async def test_everything_that_is_answered_is_ready_for_json(make_tracker):
    tracker = make_tracker(tags=("blue",))
    async with tracker.register(queue="mail"), tracker.track("42", function="send"):
        await wait_until(tracker.jobs, description="the job is in flight")
        for record in (await tracker.snapshot(), await tracker.stats(), *await tracker.instances(), *await tracker.jobs()):
            assert json.loads(json.dumps(record.to_dict()))
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(record, dataclasses.fields(record)[0].name, None)


async def test_the_proxies_speak_in_the_namespace_and_know_what_is_beneath(make_tracker, redis_client, namespace):
    tracker = make_tracker()
    async with tracker.redis() as r:
        await r.set("test_key", "v")
        assert (r.namespace, await r.redis.get(f"{namespace}:test_key")) == (namespace, b"v")
    with tracker.redis_sync() as r:
        assert (r.ping(), r.get("test_key")) == (True, b"v")
        assert "redis_version" in r.redis.info()
    assert await asyncio.to_thread(get_in_a_thread, tracker) == b"v"
    await redis_client.delete(f"{namespace}:test_key")


def get_in_a_thread(tracker):
    with tracker.redis_sync() as r:
        return r.get("test_key")
