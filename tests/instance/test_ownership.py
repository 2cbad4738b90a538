"""``ensure_owned`` where Redis has lost what it knew: nobody was declared dead, and nobody may be told so."""

import pytest

from async_tracker import LeaseLost, StorageError
from tests.harness.inside import runtime_of
from tests.harness.leaving import deregister
from tests.harness.wait import wait_until


async def test_data_that_the_server_has_lost_is_no_proof_that_the_job_was_given_away(make_tracker, redis_client):
    tracker = make_tracker(heartbeat_interval=30.0, heartbeat_ttl=60.0, silence_limit=60.0)
    async with tracker.register(), tracker.track("42") as job:
        await job.ensure_owned()
        await redis_client.flushdb()
        with pytest.raises(StorageError, match="knows nothing of instance"):
            await job.ensure_owned()
        assert job.owned


async def test_once_the_instance_is_known_again_the_job_is_owned_as_before(make_tracker, redis_client, namespace):
    tracker = make_tracker(heartbeat_interval=0.2)
    async with tracker.register() as instance_id, tracker.track("42") as job:
        await redis_client.flushdb()

        async def is_back() -> bool:
            return await redis_client.zscore(f"{namespace}:instances", instance_id) is not None

        await wait_until(is_back, description="the instance is registered again")
        await job.ensure_owned()


async def test_an_instance_that_has_ended_owns_nothing(tracker):
    async with tracker.register():
        context = tracker.track("42")
        job = await context.__aenter__()
        runtime = runtime_of(tracker)
        await deregister(runtime.store, runtime.instance_id)
        with pytest.raises(LeaseLost):
            await job.ensure_owned()
        await context.__aexit__(None, None, None)
