"""What is seen of a job while it runs, and when that is written."""

import asyncio

import pytest
from arq.worker import func

from async_tracker import LeaseLost, current_job
from tests.harness.inside import runtime_of
from tests.harness.leaving import deregister
from tests.harness.wait import wait_until
from tests.integrations.arq.running import result_of, wait_for_end


async def nothing(ctx):
    return None


async def test_everything_about_a_running_job_is_seen(tracker, observer, run_worker, pool, queue):
    may_end = asyncio.Event()

    async def send(ctx):
        job = current_job()
        assert job is not None
        await job.progress(0.25, "a quarter")
        await may_end.wait()
        return await asyncio.to_thread(lambda: current_job() is job) and job.job_id

    await run_worker(tracker.install({"functions": [func(send, name="send", timeout=77)]}))
    queued = await pool.enqueue_job("send", _job_id="naïve: *{42}\n")
    (job,) = await wait_until(observer.jobs, description="the job is in flight")
    assert (job.job_id, job.function, job.queue, job.job_try, job.library) == (queued.job_id, "send", queue, 1, "arq")
    assert (job.instance_id, job.timeout, job.args) == (tracker.instance_id, 77.0, None)
    assert job.enqueued_at <= job.started_at

    async def shows_progress():
        found = await observer.job(queued.job_id)
        return found is not None and (found.progress, found.progress_message) == (0.25, "a quarter")

    await wait_until(shows_progress, description="its progress is seen")
    (instance,) = await observer.instances()
    assert (instance.functions, instance.concurrency, instance.queue) == (("send",), 10, queue)
    may_end.set()
    assert await result_of(queued) == queued.job_id


async def test_the_claim_of_a_running_job_carries_the_token_of_its_run(tracker, observer, run_worker, pool, redis_client):
    may_end = asyncio.Event()

    async def send(ctx):
        await may_end.wait()

    await run_worker(tracker.install({"functions": [func(send, name="send")]}))
    queued = await pool.enqueue_job("send")
    (job,) = await wait_until(observer.jobs, description="the job is in flight")
    claim = await redis_client.get(f"arq:in-progress:{queued.job_id}")
    assert claim.decode() == f"{job.instance_id}:{job.run}"
    may_end.set()
    await result_of(queued)


async def test_a_job_whose_claim_was_made_under_an_id_that_was_declared_dead_since_is_not_owned(tracker, observer, run_worker, pool, wire):
    """Another worker was told to run it: this one must not show it as its own, nor count its end."""
    seen = []

    async def send(ctx):
        job = current_job()
        assert job is not None
        seen.append((job.owned, job.instance_id, runtime_of(tracker).journal.busy))
        with pytest.raises(LeaseLost):
            await job.ensure_owned()

    await run_worker(tracker.install({"functions": [func(send, name="send")]}), url=wire.url)
    await wait_until(observer.instances, description="the worker is registered")
    old = tracker.instance_id
    held = wire.hold({"INCR", "INCRBY"})  # what arq asks between the claim and the start
    queued = await pool.enqueue_job("send")
    await asyncio.to_thread(held.wait_until_caught)
    await deregister(runtime_of(tracker).store, old)
    await wait_until(lambda: tracker.instance_id != old, description="the worker has found out, by its next beat")
    held.release()
    await result_of(queued)
    assert seen == [(False, old, 0)]
    assert tracker.instance_id != old
    assert runtime_of(tracker).journal.take_new_totals() == {}


async def test_with_durable_the_start_is_written_before_the_first_statement_of_the_job(make_tracker, namespace, run_worker, pool):
    async def look(ctx):
        return await ctx["redis"].exists(f"{namespace}:job:{ctx['job_id']}")

    await run_worker(make_tracker(durable=True, hook_timeout=10.0).install({"functions": [func(look, name="look")]}))
    for _ in range(5):
        assert await result_of(await pool.enqueue_job("look")) == 1


async def test_a_job_that_starts_and_ends_within_a_linger_is_counted_and_never_written(
    make_tracker, observer, run_worker, pool, wire, namespace
):
    worker = await run_worker(make_tracker(linger=5.0, gather=5.0).install({"functions": [nothing]}), url=wire.url)
    for number in range(20):
        await pool.enqueue_job("nothing", _job_id=f"short {number}")
    await wait_for_end(worker, 20)
    await worker.stop()
    sent = b" ".join(word for command in wire.commands for word in command)
    assert f"{namespace}:job:short".encode() not in sent
    assert (await observer.stats()).succeeded == 20


async def test_an_untracked_worker_on_the_same_queue_is_left_alone(tracker, observer, run_worker, pool, redis_client):
    may_end = asyncio.Event()

    async def send(ctx):
        await may_end.wait()
        return "sent"

    await run_worker({"functions": [func(send, name="send")]})
    queued = await pool.enqueue_job("send")

    async def is_claimed():
        return await redis_client.get(f"arq:in-progress:{queued.job_id}") == b"1"

    await wait_until(is_claimed, description="the untracked worker runs it")
    await run_worker(tracker.install({"functions": [func(send, name="send")]}))
    await wait_until(observer.instances, description="the tracked worker is there")
    assert await observer.recover() == []
    assert await is_claimed()
    assert await observer.jobs() == []
    may_end.set()
    assert await result_of(queued) == "sent"
