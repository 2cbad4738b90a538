"""How each run ended, as the counters tell it, beside what arq did."""

import asyncio
import time
from concurrent.futures import CancelledError as FutureCancelledError
from datetime import timedelta

import pytest
from arq import Retry, cron
from arq.jobs import Job
from arq.worker import JobExecutionFailed, RetryJob, func

from async_tracker import Stats, current_job
from async_tracker.records import OUTCOMES
from tests.harness.wait import wait_until
from tests.integrations.arq.running import result_of, wait_for_end


async def succeed(ctx, value=1):
    return value


async def fail(ctx):
    raise ValueError("broken")


async def retry_once(ctx):
    if ctx["job_try"] == 1:
        raise Retry(defer=0.01)
    return "second"


async def retry_job_once(ctx):
    if ctx["job_try"] == 1:
        raise RetryJob
    return "second"


async def hang(ctx):
    await asyncio.sleep(60)


async def outlive_its_timeout(ctx):
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return "finished all the same"


async def nap(ctx):
    await asyncio.sleep(0.05)


async def cancel_itself(ctx):
    if ctx["job_try"] == 1:
        raise asyncio.CancelledError
    return "second"


def outcomes_of(stats: Stats) -> dict[str, int]:
    return {name: getattr(stats, name) for name in ("started", *OUTCOMES) if getattr(stats, name)}


async def run_and_count(tracker, observer, run_worker, pool, function, *, ends=1, name=None, **settings):
    """Run one job to its end, stop the worker, and return arq's result and our counters."""
    worker = await run_worker(tracker.install({"functions": [function]}), **settings)
    job = await pool.enqueue_job(name or getattr(function, "name", None) or function.__name__)
    await wait_for_end(worker, ends)
    result = await result_of(job)
    await worker.stop()
    return result, outcomes_of(await observer.stats())


async def test_a_job_that_returns_succeeded(tracker, observer, run_worker, pool):
    result, counted = await run_and_count(tracker, observer, run_worker, pool, succeed)
    assert (result, counted) == (1, {"started": 1, "succeeded": 1})


async def test_a_job_that_raises_failed(tracker, observer, run_worker, pool):
    result, counted = await run_and_count(tracker, observer, run_worker, pool, fail)
    assert (repr(result), counted) == ("ValueError('broken')", {"started": 1, "failed": 1})


@pytest.mark.parametrize("function", [retry_once, retry_job_once])
async def test_a_job_that_asks_to_run_again_is_retried_and_its_second_run_counted_apart(tracker, observer, run_worker, pool, function):
    result, counted = await run_and_count(tracker, observer, run_worker, pool, function, ends=2)
    assert (result, counted) == ("second", {"started": 2, "retried": 1, "succeeded": 1})


class RateLimited(Retry):
    """A `Retry` of the user's own, made in its own way."""

    def __init__(self) -> None:
        super().__init__(defer=0.01)


class Again(RetryJob):
    pass


class Weary(asyncio.CancelledError):
    pass


class CancelledRetry(Retry, asyncio.CancelledError):
    """Both: arq asks first whether it is a `Retry`."""


class Refused(JobExecutionFailed):
    pass


class LookAlike(RuntimeError):
    """Called like arq's, and none of arq's."""


LookAlike.__name__ = "Retry"


@pytest.mark.parametrize(
    ("error", "outcome", "retry_jobs"),
    [
        (RateLimited, "retried", True),
        (Again, "retried", True),
        (Weary, "cancelled", True),
        (CancelledRetry, "retried", True),
        (Refused, "failed", True),
        (LookAlike, "failed", True),
        (FutureCancelledError, "failed", True),
        (ExceptionGroup, "failed", True),
        (RateLimited, "failed", False),
        (Again, "failed", False),
    ],
)
async def test_what_a_job_raises_is_what_arq_takes_it_for_subclasses_included(
    tracker, observer, run_worker, pool, error, outcome, retry_jobs
):
    async def raise_once(ctx):
        if ctx["job_try"] == 1:
            raise error("all", [Retry()]) if error is ExceptionGroup else error()

    worker = await run_worker(tracker.install({"functions": [func(raise_once, name="raise_once")], "retry_jobs": retry_jobs}))
    await pool.enqueue_job("raise_once")
    runs_again = outcome in ("retried", "cancelled")
    await wait_for_end(worker, 2 if runs_again else 1)
    await worker.stop()
    assert worker.worker.jobs_retried == (1 if runs_again else 0)
    counted = {"started": 2, outcome: 1, "succeeded": 1} if runs_again else {"started": 1, outcome: 1}
    assert outcomes_of(await observer.stats()) == counted


@pytest.mark.parametrize("allow_abort_jobs", [True, False])
async def test_who_is_cancelled_by_other_code_is_not_aborted(tracker, observer, run_worker, pool, allow_abort_jobs):
    async def cancel_own_task(ctx):
        if ctx["job_try"] == 1:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(60)

    worker = await run_worker(tracker.install({"functions": [func(cancel_own_task, name="own")], "allow_abort_jobs": allow_abort_jobs}))
    await pool.enqueue_job("own")
    await wait_for_end(worker, 2)
    await worker.stop()
    assert outcomes_of(await observer.stats()) == {"started": 2, "cancelled": 1, "succeeded": 1}


async def test_a_retry_in_answer_to_an_abort_is_a_retry_as_arq_has_it(tracker, observer, run_worker, pool):
    async def try_again(ctx):
        if ctx["job_try"] == 1:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise RateLimited from None

    worker = await run_worker(tracker.install({"functions": [func(try_again, name="again")], "allow_abort_jobs": True}))
    job = await pool.enqueue_job("again")
    await wait_until(lambda: worker.worker.job_tasks, description="the job runs")
    assert not await job.abort(timeout=10, poll_delay=0.02)
    await wait_for_end(worker, 2)
    await worker.stop()
    assert outcomes_of(await observer.stats()) == {"started": 2, "retried": 1, "succeeded": 1}


async def test_a_job_that_arq_times_out_before_its_first_statement_is_no_abort(tracker, observer, run_worker, pool):
    result, counted = await run_and_count(tracker, observer, run_worker, pool, func(succeed, name="none", timeout=0), allow_abort_jobs=True)
    assert isinstance(result, TimeoutError)
    assert counted == {"started": 1, "ended": 1}


async def test_a_cron_job_that_asks_to_run_again_is_retried(tracker, observer, run_worker, queue):
    item = cron(retry_once, name="nightly", hour=3, minute=0, run_at_startup=True, max_tries=2)
    worker = await run_worker(tracker.install({"cron_jobs": [item], "queue_name": queue}))
    await wait_until(lambda: worker.worker.jobs_retried, description="it was retried")
    await worker.stop()
    stats = outcomes_of(await observer.stats())
    assert (stats["retried"], stats.get("failed", 0)) == (1, 0)


async def test_where_arq_does_not_retry_a_retry_is_a_failure(tracker, observer, run_worker, pool):
    worker = await run_worker(tracker.install({"functions": [retry_once], "retry_jobs": False}))
    await pool.enqueue_job("retry_once")
    await wait_for_end(worker, 1)
    await worker.stop()
    assert worker.worker.jobs_failed == 1
    assert outcomes_of(await observer.stats()) == {"started": 1, "failed": 1}


async def test_a_job_over_its_timeout_timed_out(tracker, observer, run_worker, pool):
    result, counted = await run_and_count(tracker, observer, run_worker, pool, func(hang, name="hang", timeout=0.1))
    assert isinstance(result, TimeoutError)
    assert counted == {"started": 1, "timed_out": 1}


async def test_the_worker_wide_timeout_counts_where_the_function_has_none(tracker, observer, run_worker, pool):
    worker = await run_worker(tracker.install({"functions": [hang], "job_timeout": timedelta(milliseconds=100)}))
    await pool.enqueue_job("hang")
    await wait_for_end(worker, 1)
    await worker.stop()
    assert outcomes_of(await observer.stats()) == {"started": 1, "timed_out": 1}


async def test_a_job_that_swallows_its_timeout_and_returns_succeeded_as_arq_has_it(tracker, observer, run_worker, pool):
    result, counted = await run_and_count(
        tracker, observer, run_worker, pool, func(outlive_its_timeout, name="outlive", timeout=0.1), name="outlive"
    )
    assert (result, counted) == ("finished all the same", {"started": 1, "succeeded": 1})


async def test_a_job_that_is_aborted_is_aborted(tracker, observer, run_worker, pool):
    worker = await run_worker(tracker.install({"functions": [hang], "allow_abort_jobs": True}))
    job = await pool.enqueue_job("hang")
    await wait_until(lambda: worker.worker.job_tasks, description="the job runs")
    assert await job.abort(timeout=10, poll_delay=0.02)
    await worker.stop()
    assert outcomes_of(await observer.stats()) == {"started": 1, "aborted": 1}


async def test_an_abort_is_no_timeout_however_long_the_users_own_hook_takes_after_it(tracker, observer, run_worker, pool):
    timeout = 2.0
    began: list[float] = []

    async def begin(ctx):
        began.append(time.monotonic())

    async def slow_hook(ctx):
        await asyncio.sleep(began[0] + timeout + 0.1 - time.monotonic())

    settings = {"functions": [func(hang, name="hang", timeout=timeout)], "allow_abort_jobs": True}
    settings |= {"on_job_start": begin, "on_job_end": slow_hook}
    worker = await run_worker(tracker.install(settings))
    job = await pool.enqueue_job("hang")
    await wait_until(lambda: worker.worker.job_tasks, description="the job runs")
    assert await job.abort(timeout=10, poll_delay=0.02)
    await worker.stop()
    assert outcomes_of(await observer.stats()) == {"started": 1, "aborted": 1}
    (row,) = (await observer.stats()).functions
    assert row.run_time < timeout


async def test_a_job_cancelled_by_the_shutdown_of_its_worker_is_cancelled_and_runs_again_elsewhere(
    tracker, make_tracker, observer, run_worker, pool
):
    first = await run_worker(tracker.install({"functions": [hang]}))
    job = await pool.enqueue_job("hang")
    await wait_until(lambda: first.worker.job_tasks, description="the job runs")
    first.terminate()
    await first.stop()
    assert outcomes_of(await observer.stats()) == {"started": 1, "cancelled": 1}
    assert await observer.orphans() == []
    second = await run_worker(make_tracker().install({"functions": [func(succeed, name="hang")]}))
    assert await result_of(job) == 1
    await second.stop()
    assert outcomes_of(await observer.stats()) == {"started": 2, "cancelled": 1, "succeeded": 1}


async def test_a_job_that_cancels_itself_is_cancelled_and_runs_again(tracker, observer, run_worker, pool):
    result, counted = await run_and_count(tracker, observer, run_worker, pool, cancel_itself, ends=2)
    assert (result, counted) == ("second", {"started": 2, "cancelled": 1, "succeeded": 1})


async def test_what_never_started_is_not_counted_and_leaves_nothing(tracker, observer, run_worker, pool, queue, namespace, redis_client):
    """Expired, unknown, over its tries, aborted before its start, unreadable: arq calls no hook for any of them."""
    expired = await pool.enqueue_job("succeed", _job_id="expired")
    await redis_client.delete("arq:job:expired")
    unknown = await pool.enqueue_job("nobody_has_this", _job_id="unknown")
    tired = await pool.enqueue_job("succeed", _job_id="tired")
    await redis_client.set("arq:retry:tired", 9)
    unreadable = await pool.enqueue_job("succeed", _job_id="unreadable")
    await redis_client.set("arq:job:unreadable", b"\x80\x00", ex=60)
    doomed = await pool.enqueue_job("succeed", _job_id="doomed")
    await redis_client.zadd("arq:abort", {"doomed": 1})
    worker = await run_worker(tracker.install({"functions": [succeed], "allow_abort_jobs": True}))
    await wait_until(lambda: worker.worker.jobs_failed >= 5, description="five jobs have failed")
    for job in (expired, unknown, tired, unreadable, doomed):
        assert isinstance(await result_of(job), BaseException)
    assert (await observer.jobs(), outcomes_of(await observer.stats())) == ([], {})
    await worker.stop()
    assert await observer.instances() == []
    assert [key async for key in redis_client.scan_iter("arq:in-progress:*")] == []


async def test_a_cron_job_is_tracked_under_its_own_name(tracker, observer, run_worker, pool, queue):
    names = []

    async def nightly(ctx):
        job = current_job()
        names.append(job and job.function)

    worker = await run_worker(
        tracker.install({"cron_jobs": [cron(nightly, name="nightly", hour=3, minute=0, run_at_startup=True)], "queue_name": queue})
    )
    await wait_for_end(worker, 1)
    await worker.stop()
    (row,) = (await observer.stats()).functions
    assert (names, row.function, row.started, row.succeeded) == (["nightly"], "nightly", 1, 1)
    assert await observer.orphans() == []


async def test_every_run_is_counted_once_and_its_times_are_added_up(tracker, observer, run_worker, pool, queue):
    for _ in range(20):
        await pool.enqueue_job("nap")
    await pool.enqueue_job("fail")
    worker = await run_worker(tracker.install({"functions": [nap, fail]}))
    await wait_for_end(worker, 21)
    await worker.stop()
    rows = {row.function: row for row in (await observer.stats()).functions}
    assert (rows["nap"].started, rows["nap"].succeeded, rows["fail"].failed) == (20, 20, 1)
    assert rows["nap"].queue == queue
    assert 20 * 0.05 <= rows["nap"].run_time < 60
    assert rows["nap"].queue_wait >= 0
    assert (await observer.stats("fail")).started == 1
    assert (await observer.stats()).started == 21


async def test_the_status_of_a_job_is_arqs_own_all_the_time(tracker, run_worker, pool):
    worker = await run_worker(tracker.install({"functions": [hang]}))
    job: Job = await pool.enqueue_job("hang")
    assert (await job.status()).value in ("queued", "in_progress")
    await wait_until(lambda: worker.worker.job_tasks, description="the job runs")
    assert (await job.status()).value == "in_progress"
    worker.terminate()
    await worker.stop()
    assert (await job.status()).value == "queued"
