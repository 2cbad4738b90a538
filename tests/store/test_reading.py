"""What a reader returns: what it found, and beside it the keys that hold something else."""

import pytest
from redis.asyncio import Redis

from async_tracker import StorageError
from async_tracker.namespace import Namespace
from async_tracker.policy import Limits
from async_tracker.store.instance_record import Description, encode_description
from async_tracker.store.reading import Reading
from async_tracker.store.run_record import RunRecord, encode_run

DESCRIPTION = Description(library="arq", host="h", host_id="0f", pid=7)


@pytest.fixture
def reading(redis_client, namespace) -> Reading:
    return Reading(Namespace(redis_client, namespace))


async def test_what_cannot_be_read_of_instances_is_in_the_result_and_in_no_later_one(reading, redis_client, namespace):
    await redis_client.hset(f"{namespace}:instance:good", mapping={**encode_description(DESCRIPTION, Limits()), "started_at_ms": 5})
    await redis_client.hset(f"{namespace}:instance:newer", mapping={"schema": "2", "library": "arq"})
    await redis_client.set(f"{namespace}:instance:foreign", "no hash")
    read = await reading.instances(["good", "newer", "foreign", "nowhere"])
    assert list(read.found) == ["good"]
    assert read.corrupt == ["instance:newer", "instance:foreign"]
    assert read.unreadable == {"newer": {"schema": "2", "library": "arq"}}
    assert (await reading.instances(["good"])).corrupt == []


async def test_a_key_in_place_of_the_jobs_of_an_instance_is_in_the_result(reading, redis_client, namespace):
    await redis_client.set(f"{namespace}:jobs:foreign", "no set")
    await redis_client.sadd(f"{namespace}:jobs:good", "42")
    asked, _ = await reading.ask_instances(["foreign", "good"], with_jobs=True)
    read, _ = await reading.held(asked, ["foreign", "good"])
    assert (read.found, read.corrupt) == ({"good": {"42": None}}, ["jobs:foreign"])
    _, refs = await reading.instances_and_refs(["foreign", "good"])
    assert refs == await reading.refs(["foreign", "good"]) == {"good": ["42"]}


async def test_what_is_adopted_and_what_runs_are_read_together(reading, redis_client, namespace):
    adopted = RunRecord(job_id="42", instance_id="dead", token="a", started_at_ms=1)
    running = RunRecord(job_id="42", instance_id="lives", token="b", started_at_ms=2)
    await redis_client.hset(f"{namespace}:orphans:dead", mapping={"42": encode_run(adopted), "43": "not JSON"})
    await redis_client.set(f"{namespace}:orphans:foreign", "no hash")
    await redis_client.set(f"{namespace}:job:42", encode_run(running))
    await redis_client.hset(f"{namespace}:settled:dead", "c", 5)
    found = await reading.adopted_and_runs(["dead", "foreign"], ["42", "43"])
    assert found == ({"dead": {"42": adopted}, "foreign": {}}, {"42": running}, {"dead"})


async def test_a_server_that_refuses_to_read_records_is_told_as_such(make_server, namespace):
    server = make_server(extra_args=("--user", *"reader on nopass ~* &* +@all -mget".split()))
    async with Redis(unix_socket_path=server.unix_socket_path, username="reader", password="any") as client:
        with pytest.raises(StorageError, match="refuses"):
            await Reading(Namespace(client, namespace)).raw_runs(["42"])
