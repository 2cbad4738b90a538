"""How a worker ends: in order, drained, without a word, and in the middle of a job."""

import asyncio
import os
import signal

import pytest
from arq.worker import func

from tests.harness.inside import has_runtime
from tests.harness.wait import lived, wait_until
from tests.integrations.arq.running import result_of, wait_for_end
from tests.integrations.arq.with_and_without_tracker import HOOK_TIMEOUT


async def nap(ctx, seconds):
    await asyncio.sleep(seconds)
    return "rested"


async def hold(ctx):
    await asyncio.sleep(60)


async def test_a_worker_that_drains_says_so_and_beats_until_its_last_job_has_ended(tracker, observer, run_worker, pool):
    may_end = asyncio.Event()

    async def last(ctx):
        await may_end.wait()

    worker = await run_worker(tracker.install({"functions": [func(last, name="last")]}), job_completion_wait=30)
    job = await pool.enqueue_job("last")
    await wait_until(observer.jobs, description="the job is in flight")
    worker.terminate()

    async def draining():
        (instance,) = await observer.instances()
        return instance.state == "draining"

    await wait_until(draining, description="the instance says that it drains")
    (before,) = await observer.instances()

    async def beats():
        (instance,) = await observer.instances()
        return instance.heartbeat_at > before.heartbeat_at

    await wait_until(beats, description="it still beats")
    assert [found.job_id for found in await observer.jobs()] == [job.job_id]
    may_end.set()
    await worker.stop()
    assert await observer.instances() == []
    assert (await observer.stats()).succeeded == 1


async def test_a_worker_whose_on_shutdown_is_never_called_is_deregistered_all_the_same(tracker, observer, run_worker, pool):
    """``async_run`` in somebody's application: its main task ends, nobody closes the worker."""
    worker = await run_worker(tracker.install({"functions": [nap]}))
    assert await result_of(await pool.enqueue_job("nap", 0)) == "rested"
    worker.terminate()
    await worker.wait()

    async def gone():
        return not await observer.instances()

    await wait_until(gone, description="the instance is gone")
    await wait_until(lambda: tracker.instance_id is None, description="the tracker knows it")


async def test_a_worker_that_is_told_to_leave_before_it_hears_of_its_last_write_leaves_no_orphan(tracker, observer, run_worker, pool):
    """Redis has the result and has given the claim back; arq's task for the job is cancelled while it waits for that answer."""
    worker = await run_worker(tracker.install({"functions": [nap]}))
    finish, answered = worker.worker.finish_job, asyncio.Event()

    async def finish_and_wait_for_the_answer(*args):
        await finish(*args)
        await answered.wait()

    worker.worker.finish_job = finish_and_wait_for_the_answer
    assert await result_of(await pool.enqueue_job("nap", 0)) == "rested"
    worker.terminate()
    await worker.wait()

    async def gone():
        return not await observer.instances()

    await wait_until(gone, description="the instance is gone, and has left no orphan")
    answered.set()
    stats = await observer.stats()
    assert (stats.started, stats.succeeded, stats.orphaned) == (1, 1, 0)


async def test_one_tracker_serves_one_worker_after_another_in_one_process(tracker, observer, run_worker, pool):
    settings = tracker.install({"functions": [nap]})
    seen = set()
    for _ in range(2):
        worker = await run_worker(settings)
        assert await result_of(await pool.enqueue_job("nap", 0)) == "rested"
        seen.add(tracker.instance_id)
        await wait_for_end(worker, 1)
        await worker.stop()
    assert len(seen) == 2
    assert (await observer.stats()).succeeded == 2
    assert await observer.instances() == []


def claims_of(tracker):
    (tracked,) = tracker._hooks.workers
    return tracked.claims


async def test_claims_that_other_workers_won_do_not_delay_the_end(tracker, observer, run_worker, pool, wire, redis_client):
    """In a busy fleet most claims are lost to somebody; they are looked at together, and only one's own is given back."""
    worker = await run_worker(tracker.install({"functions": [nap]}), url=wire.url)
    assert await result_of(await pool.enqueue_job("nap", 0)) == "rested"
    held = claims_of(tracker).held
    for number in range(500):
        held[f"lost {number}"] = f"{tracker.instance_id}:lost{number}"
    job = await pool.enqueue_job("nap", 0, _defer_by=3600)
    claim = f"arq:in-progress:{job.job_id}"
    held[job.job_id] = f"{tracker.instance_id}:ours"
    await redis_client.set(claim, held[job.job_id], px=60_000)
    wire.forget_commands()
    await worker.stop()
    assert sum(wire.command_counts().values()) < 30
    assert await redis_client.exists(claim) == 0
    assert await observer.instances() == []


async def test_claims_that_other_workers_won_are_not_kept_without_end(tracker, run_worker, pool):
    worker = await run_worker(tracker.install({"functions": [nap]}))
    assert await result_of(await pool.enqueue_job("nap", 0)) == "rested"
    claims = claims_of(tracker)
    for number in range(5_000):
        claims.held[f"lost {number}"] = f"{tracker.instance_id}:lost{number}"
    await wait_until(lambda: len(claims.held) <= 1_000, description="the oldest are forgotten")
    assert "lost 4999" in claims.held
    assert len(claims.unstarted()) == len(claims.held)
    claims.held.clear()
    await worker.stop()


def start(workers, redis_url, namespace):
    env = {"TEST_REDIS_URL": redis_url, "TEST_NAMESPACE": namespace}
    worker = workers.start("tests.integrations.arq.app.WorkerSettings", env=env)
    worker.wait_for_output("Starting worker")
    return worker


async def gone(observer):
    await observer.recover()
    return not await observer.instances() and not await observer.orphans()


async def test_sigterm_puts_a_running_job_back_and_leaves_nothing(workers, observer, redis_url, namespace, pool, redis_client):
    worker = start(workers, redis_url, namespace)
    job = await pool.enqueue_job("hold")
    await wait_until(observer.jobs, timeout=30, description="the job is in flight")
    worker.ask_to_leave()
    assert await asyncio.to_thread(worker.wait) in (0, -signal.SIGTERM)
    assert (await observer.instances(), await observer.orphans()) == ([], [])
    assert await redis_client.exists(f"arq:in-progress:{job.job_id}") == 0
    assert await redis_client.zscore(pool.default_queue_name, job.job_id) is not None
    assert (await observer.stats()).cancelled == 1


async def test_a_job_that_exits_its_process_is_given_back(workers, observer, redis_url, namespace, pool, redis_client):
    """arq neither calls a hook nor gives its claim back then."""
    worker = start(workers, redis_url, namespace)
    for name in ("leave", "leave_at_once"):
        job = await pool.enqueue_job(name)
        assert await asyncio.to_thread(worker.wait) is not None
        await wait_until(lambda: gone(observer), timeout=30, description="nothing of the worker is left")
        assert await redis_client.exists(f"arq:in-progress:{job.job_id}") == 0
        assert await redis_client.zscore(pool.default_queue_name, job.job_id) is not None
        await redis_client.delete(pool.default_queue_name)
        worker = start(workers, redis_url, namespace)
    worker.ask_to_leave()
    await asyncio.to_thread(worker.wait)


async def test_a_child_forked_after_start_up_neither_speaks_nor_holds_on(tracker, observer, run_worker, pool):
    await run_worker(tracker.install({"functions": [nap]}))
    assert await result_of(await pool.enqueue_job("nap", 0)) == "rested"
    (before,) = await observer.instances()
    child = os.fork()
    if child == 0:
        os._exit(1 if has_runtime(tracker) else 0)
    assert os.waitpid(child, 0)[1] == 0
    assert await result_of(await pool.enqueue_job("nap", 0)) == "rested"
    (after,) = await observer.instances()
    assert (after.instance_id, after.connection_ids) == (before.instance_id, before.connection_ids)


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "apart"])
async def test_where_every_answer_takes_fifty_milliseconds_a_worker_leaves_in_order_and_with_all_it_has_counted(
    make_tracker, observer, run_worker, pool, wire, shared
):
    """What has to be said at the end is said in the time that a hook has by default; here it has more, as the machine may be busy."""
    tracker = make_tracker(**({} if shared else {"redis_options": {"url": wire.url}}), heartbeat_interval=5.0, hook_timeout=10.0)
    settings = tracker.install({"functions": [nap]})
    leave, took = settings["on_shutdown"], []

    async def timed(ctx):
        async with lived() as taken:
            await leave(ctx)
        took.append(taken.seconds)

    for attempt in range(3):
        worker = await run_worker({**settings, "on_shutdown": timed}, **({"url": wire.url} if shared else {}))
        await wait_until(observer.instances, description="the instance is registered")
        wire.delay(to_client=0.05)
        jobs = [await pool.enqueue_job("nap", 0) for _ in range(5)]
        assert [await result_of(job) for job in jobs] == ["rested"] * 5
        await wait_for_end(worker, 5)
        await worker.stop()
        wire.delay()
        assert await observer.instances() == []
        stats = await observer.stats()
        assert (stats.started, stats.succeeded) == (5 * (attempt + 1), 5 * (attempt + 1))
    assert len(took) == 3
    assert max(took) <= HOOK_TIMEOUT
