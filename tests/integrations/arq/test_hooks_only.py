"""The five hooks without ``install``: nothing is wrapped, so names are not known and outcomes only as far as arq tells."""

import asyncio

import pytest
from arq import Retry

from async_tracker import Tracker, current_job
from tests.harness.settings import KNOWN
from tests.harness.wait import wait_until
from tests.integrations.arq.running import result_of, wait_for_end


def settings_of(tracker, functions):
    names = ("on_startup", "on_shutdown", "on_job_start", "on_job_end", "after_job_end")
    return {"functions": functions, **{name: getattr(tracker, name) for name in names}}


async def look(ctx):
    job = current_job()
    assert job is not None
    return job.job_id, job.function, job.queue, ctx["async_tracker"].instance_id == job.instance_id


async def fail(ctx):
    raise ValueError


async def retry(ctx):
    if ctx["job_try"] == 1:
        raise Retry(defer=0.01)


async def hold(ctx):
    await asyncio.sleep(60)


async def test_a_run_is_tracked_under_its_queue_and_no_name(tracker, run_worker, pool, queue):
    await run_worker(settings_of(tracker, [look]))
    assert await result_of(await pool.enqueue_job("look", _job_id="42")) == ("42", None, queue, True)


async def test_the_queue_that_the_tracker_was_given_wins(make_tracker, run_worker, pool):
    await run_worker(settings_of(make_tracker(queue="mail"), [look]))
    _, _, queue, _ = await result_of(await pool.enqueue_job("look"))
    assert queue == "mail"


@pytest.mark.parametrize(("function", "ends", "counted"), [(look, 1, (1, 1, 0)), (fail, 1, (1, 1, 0)), (retry, 2, (2, 1, 1))])
async def test_an_end_is_an_end_and_a_retry_a_retry(tracker, observer, run_worker, pool, function, ends, counted):
    worker = await run_worker(settings_of(tracker, [function]))
    await pool.enqueue_job(function.__name__)
    await wait_for_end(worker, ends)
    await worker.stop()
    stats = await observer.stats()
    assert (stats.started, stats.ended, stats.retried) == counted
    assert stats.succeeded + stats.failed + stats.cancelled + stats.orphaned == 0
    assert [(row.function, row.queue) for row in stats.functions] == [(None, pool.default_queue_name)]


async def test_a_run_that_the_shutdown_ends_is_retried_and_no_orphan(tracker, observer, run_worker, pool):
    worker = await run_worker(settings_of(tracker, [hold]))
    await pool.enqueue_job("hold")
    await wait_until(observer.jobs, description="the job is in flight")
    worker.terminate()
    await worker.stop()
    stats = await observer.stats()
    assert (stats.started, stats.retried, stats.orphaned) == (1, 1, 0)
    assert await observer.jobs() == []


async def test_hooks_called_by_something_that_is_no_arq_worker_do_no_harm(tracker):
    ctx = {"job_id": "42"}
    for hook in (tracker.on_job_start, tracker.on_job_end, tracker.after_job_end, tracker.on_shutdown):
        await hook(ctx)
    assert tracker.instance_id is None


async def test_a_ctx_without_redis_is_logged_and_the_worker_works(tracker, caplog):
    await tracker.on_startup({})
    assert "the worker runs without it" in caplog.text
    assert tracker.instance_id is None


@pytest.mark.parametrize(("function", "ends", "counted"), [(look, 1, (1, 1, 0)), (fail, 1, (1, 1, 0)), (retry, 2, (2, 1, 1))])
async def test_a_hook_that_loses_the_context_of_the_job_makes_no_retry_of_an_end(
    tracker, observer, run_worker, pool, function, ends, counted
):
    """As `asyncio.wait_for` does before Python 3.12, and a task everywhere."""
    settings = settings_of(tracker, [function])

    async def on_job_start(ctx):
        await asyncio.create_task(tracker.on_job_start(ctx))

    worker = await run_worker({**settings, "on_job_start": on_job_start})
    await pool.enqueue_job(function.__name__)
    await wait_for_end(worker, ends)
    await worker.stop()
    stats = await observer.stats()
    assert (stats.started, stats.ended, stats.retried) == counted


async def test_a_tracker_of_the_users_own_has_its_own_hooks_called(namespace, run_worker, pool, observer):
    seen = []

    class Mine(Tracker):
        async def on_job_start(self, ctx):
            seen.append(ctx["job_id"])
            await super().on_job_start(ctx)

    worker = await run_worker(settings_of(Mine(namespace=namespace, **KNOWN), [look]))
    assert (await result_of(await pool.enqueue_job("look", _job_id="42")))[0] == "42"
    await wait_for_end(worker, 1)
    await worker.stop()
    assert (seen, (await observer.stats()).ended) == (["42"], 1)
