"""Queries of more jobs than one script reads: nothing is missing, nothing is mixed up, and nobody else has to wait for it."""

import asyncio

import pytest

from async_tracker.errors import StorageUnavailable
from async_tracker.namespace import Namespace
from async_tracker.policy import Limits
from async_tracker.queries.answers import job_of
from async_tracker.queries.questions import Queries
from async_tracker.queries.under_way import under_way
from async_tracker.store.instance_record import Description, encode_description
from async_tracker.store.reading import Reading
from async_tracker.store.run_record import RunRecord, encode_run
from tests.harness.turns import most_in_a_turn
from tests.harness.wait import wait_until

INSTANCES, JOBS_EACH = 3, 700
DESCRIPTION = Description(library="asyncio", host="h", host_id="0f", pid=7)


async def write_fleet(redis_client, namespace: str) -> None:
    """Write live instances with their jobs, as a worker does; the newest job is the first of the first instance."""
    seconds, _ = await redis_client.time()
    async with redis_client.pipeline(transaction=False) as pipe:
        for number in range(INSTANCES):
            name, refs = f"h:{number}:ab", [f"{number}-{job}" for job in range(JOBS_EACH)]
            fields = {**encode_description(DESCRIPTION, Limits()), "started_at_ms": 5}
            pipe.hset(f"{namespace}:instance:{name}", mapping=fields)
            pipe.zadd(f"{namespace}:instances", {name: (seconds + 60) * 1000})
            pipe.sadd(f"{namespace}:jobs:{name}", *refs)
            for job, ref in enumerate(refs):
                started_at_ms = seconds * 1000 - number * JOBS_EACH - job
                record = RunRecord(job_id=ref, instance_id=name, token=f"r{job}", function=f"f{number}", started_at_ms=started_at_ms)
                pipe.set(f"{namespace}:job:{ref}", encode_run(record))
        await pipe.execute()


@pytest.mark.parametrize("at_once", [10_000, 1_000, 50], ids=["one script reads all", "one script reads some", "one script reads none"])
async def test_however_the_records_are_read_the_answer_is_the_same(redis_client, namespace, at_once):
    proxy = Namespace(redis_client, namespace)
    await write_fleet(redis_client, namespace)
    await redis_client.set(f"{namespace}:job:0-7", b'{"schema":1},{"schema":1}')
    await redis_client.set(f"{namespace}:job:1-7", b"\0\0\0")
    await redis_client.set(f"{namespace}:job:1-8", b"")
    await redis_client.delete(f"{namespace}:job:2-7", f"{namespace}:job:2-8")
    await redis_client.rpush(f"{namespace}:job:2-8", "not ours")
    snapshot = await Queries(proxy, reading=Reading(proxy, records_at_once=at_once)).snapshot()
    assert snapshot.corrupt == ("job:0-7", "job:1-7", "job:1-8")
    missing = {"0-7", "1-7", "1-8", "2-7", "2-8"}
    oldest_first = [f"{number}-{job}" for number in reversed(range(INSTANCES)) for job in reversed(range(JOBS_EACH))]
    assert [job.job_id for job in snapshot.jobs] == [ref for ref in oldest_first if ref not in missing]
    assert {(job.instance_id, job.run, job.function) for job in snapshot.jobs} == {
        (f"h:{number}:ab", f"r{job}", f"f{number}")
        for number in range(INSTANCES)
        for job in range(JOBS_EACH)
        if f"{number}-{job}" not in missing
    }
    assert [instance.busy for instance in snapshot.instances] == [JOBS_EACH] * INSTANCES


@pytest.mark.parametrize("ref", ["", "\0", "a\0b", "naïve: *{42}\n", "\udcff"], ids=ascii)
async def test_whatever_a_job_is_called_it_is_found_and_its_neighbours_are(tracker, redis_client, namespace, ref):
    async with tracker.register(queue="a\0b"), tracker.track("41"), tracker.track(ref, function="\0"), tracker.track("43"):

        async def all_listed() -> bool:
            return {job.job_id for job in await tracker.jobs()} == {"41", ref, "43"}

        await wait_until(all_listed, description="all three are listed")
        assert (await tracker.job(ref)).function == "\0"
        assert [instance.queue for instance in await tracker.instances()] == ["a\0b"]


@pytest.mark.parametrize("at_a_time", [500, 50])
async def test_while_many_jobs_are_made_another_task_has_a_turn_after_every_so_many(redis_client, namespace, at_a_time):
    await write_fleet(redis_client, namespace)
    found, most = await most_in_a_turn(Queries(Namespace(redis_client, namespace), jobs_in_a_turn=at_a_time).snapshot(), job_of)
    assert len(found.jobs) == INSTANCES * JOBS_EACH
    assert most == at_a_time


async def test_a_job_that_runs_on_several_instances_is_one_job_with_older_runs(tracker, redis_client, namespace):
    await write_fleet(redis_client, namespace)
    for number in (1, 2):
        await redis_client.sadd(f"{namespace}:jobs:h:{number}:ab", "0-7")
    found = {job.job_id: (job.instance_id, job.superseded) for job in await tracker.jobs()}
    assert found.pop("0-7") == ("h:0:ab", 2)
    assert {superseded for _, superseded in found.values()} == {0}


@pytest.mark.parametrize("undivided", [100, 1], ids=["at once", "in two halves"])
async def test_whether_the_fleet_is_read_at_once_or_in_halves_no_instance_is_left_out(redis_client, namespace, undivided):
    queries = Queries(Namespace(redis_client, namespace), instances_undivided=undivided)
    await write_fleet(redis_client, namespace)
    await redis_client.zadd(f"{namespace}:dead", {"h:2:ab": 5})
    await redis_client.zrem(f"{namespace}:instances", "h:2:ab")
    snapshot = await queries.snapshot()
    assert [len(snapshot.jobs), len(snapshot.orphans), len(await queries.orphans())] == [2 * JOBS_EACH, JOBS_EACH, JOBS_EACH]
    assert [instance.busy for instance in snapshot.instances] == [JOBS_EACH] * INSTANCES


async def test_a_question_under_way_ends_with_the_block_that_asked_it():
    has_begun = has_ended = False

    async def question() -> None:
        nonlocal has_begun, has_ended
        has_begun = True
        try:
            await asyncio.sleep(3_600)
        finally:
            has_ended = True

    async def give_up() -> None:
        async with under_way(question):
            assert has_begun
            raise LookupError

    with pytest.raises(LookupError):
        await give_up()
    assert has_ended


async def test_what_a_question_under_way_raises_is_raised_as_it_is_where_its_answer_is_awaited():
    async def question() -> None:
        raise StorageUnavailable("Redis cannot be reached")

    async def ask() -> None:
        async with under_way(question) as answer:
            await asyncio.sleep(0)
            await answer.get()

    with pytest.raises(StorageUnavailable):
        await ask()


async def test_a_question_that_is_given_up_leaves_nothing_under_way(tracker, redis_client, namespace):
    await write_fleet(redis_client, namespace)
    await tracker.snapshot()
    before = asyncio.all_tasks()
    for turns in range(30):
        asking = asyncio.create_task(tracker.snapshot())
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait({asking})
        assert asyncio.all_tasks() <= before
    assert len(await tracker.jobs()) == INSTANCES * JOBS_EACH
