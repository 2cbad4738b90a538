"""A tracker that was told to call the worker's queue something else still recovers its jobs where arq keeps them."""

import asyncio

import pytest

from async_tracker import RecoveryAction
from tests.harness.judgement import declare_dead
from tests.harness.wait import wait_until


async def stay(ctx):
    await asyncio.sleep(60)


@pytest.mark.parametrize(
    ("max_recoveries", "action"), [(3, RecoveryAction.RECOVERED), (0, RecoveryAction.QUARANTINED)], ids=["recovered", "quarantined"]
)
async def test_a_job_is_found_in_the_queue_of_its_worker_whatever_the_tracker_calls_it(
    make_tracker, run_worker, pool, redis_client, redis_url, namespace, queue, max_recoveries, action
):
    tracker = make_tracker(queue="mail", recover=False)
    await run_worker(tracker.install({"functions": [stay]}))
    other = make_tracker(redis_options={"url": redis_url}, max_recoveries=max_recoveries)
    await pool.enqueue_job("stay", _job_id="42")
    job = await wait_until(lambda: other.job("42"), description="the job is in flight")
    assert job.queue == "mail"
    await wait_until(lambda: declare_dead(redis_client, namespace, job.instance_id), description="its worker is declared dead")
    first, *again = await other.recover()
    assert (first.job_id, first.action) == ("42", action)
    # The worker lives, and may have claimed the job once more under its old name before the sweep was over.
    assert {(item.job_id, item.action) for item in again} <= {("42", RecoveryAction.DELAYED)}
    if action is RecoveryAction.QUARANTINED:
        assert await redis_client.zscore(queue, "42") is None
        assert await other.retry_quarantined("42")
        assert await redis_client.zscore(queue, "42") is not None
