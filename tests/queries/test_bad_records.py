"""What somebody else wrote where our records stand: it is told of and skipped, and hides no other job."""

import json

import pytest

from tests.harness.servers import assert_no_leaks
from tests.harness.wait import wait_until


async def test_a_foreign_key_in_the_place_of_a_record_keeps_no_other_job_from_being_seen(tracker, redis_client, namespace):
    await redis_client.hset(f"{namespace}:job:42", "theirs", "1")
    async with tracker.register(), tracker.track("42"), tracker.track("43"):
        await wait_until(lambda: tracker.job("43"), description="the other job is seen")
        assert (await tracker.job("42")).job_id == "42"
    await assert_no_leaks(redis_client, namespace)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(json.dumps({"schema": 1, "instance": "w", "run": "r", "started_at_ms": 10**18}), id="a time that no calendar has"),
        pytest.param(
            json.dumps({"schema": 1, "instance": "w", "run": "r", "started_at_ms": 5, "enqueued_at_ms": -(10**18)}), id="nor this"
        ),
        pytest.param("[" * 100_000, id="without a bottom"),
    ],
)
async def test_a_record_that_nobody_can_read_is_told_of_and_skipped(tracker, redis_client, namespace, raw):
    async with tracker.register() as instance_id, tracker.track("43"):
        await wait_until(lambda: tracker.job("43"), description="the job is seen")
        await redis_client.set(f"{namespace}:job:42", raw.replace('"w"', json.dumps(instance_id)))
        await redis_client.sadd(f"{namespace}:jobs:{instance_id}", "42")
        snapshot = await tracker.snapshot()
    assert [job.job_id for job in snapshot.jobs] == ["43"]
    assert snapshot.corrupt == ("job:42",)


async def test_a_mark_that_is_no_time_does_not_stop_the_queries(tracker, redis_client, namespace):
    await redis_client.hset(f"{namespace}:gone", "stranger", "yes")
    async with tracker.register() as instance_id:
        assert [instance.instance_id for instance in await tracker.instances()] == [instance_id]
