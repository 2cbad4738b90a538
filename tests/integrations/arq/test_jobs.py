"""What is kept of a job between its hooks: counted once whoever looks at it and when, and let go of with its end."""

import gc
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from arq.worker import func

from async_tracker import current_job
from async_tracker.integrations.arq.job_run import ArqRun
from async_tracker.store.counters import field_name
from tests.harness.inside import runtime_of
from tests.harness.wait import wait_until
from tests.integrations.arq.running import wait_for_end

JOBS = 300


async def short(ctx):
    return None


async def asks(ctx):
    job = current_job()
    assert job is not None
    return job.job_id


async def fails(ctx):
    raise ValueError("told to")


@contextmanager
def somebody_looks(tracker) -> Iterator[None]:
    """A thread looks at the runs all the time, as the watchdog does once in a while."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.0005):  # all the time would leave a busy machine no time for the jobs
            runtime_of(tracker).journal.runs()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def kept() -> int:
    """Number of runs that somebody holds."""
    gc.collect()
    return sum(type(found) is ArqRun for found in gc.get_objects())


@pytest.mark.parametrize("is_looked_at", [False, True])
async def test_every_job_is_counted_once_whether_or_not_somebody_looks_meanwhile(tracker, observer, run_worker, pool, is_looked_at):
    for function in ("short", "asks", "fails"):
        for _ in range(JOBS // 3):
            await pool.enqueue_job(function)
    worker = await run_worker(tracker.install({"functions": [short, asks, fails]}))
    await wait_until(lambda: tracker.instance_id, description="the tracker has started")
    if is_looked_at:
        with somebody_looks(tracker):
            await wait_for_end(worker, JOBS)
    else:
        await wait_for_end(worker, JOBS)
    await worker.idle()
    counts = runtime_of(tracker).journal.counts
    assert (counts.started, runtime_of(tracker).journal.busy) == (JOBS, 0)
    await worker.stop()
    rows = {row.function: row for row in (await observer.stats()).functions}
    each = JOBS // 3
    assert {name: (row.started, row.succeeded, row.failed) for name, row in rows.items()} == {
        "short": (each, each, 0),
        "asks": (each, each, 0),
        "fails": (each, 0, each),
    }


async def test_a_start_is_counted_under_its_function_though_a_hook_asked_for_the_job_before(tracker, run_worker, pool, queue):
    counted = []

    async def hook(ctx):
        assert current_job() is not None

    async def counts(ctx):
        counted.append(runtime_of(tracker).journal.take_new_totals())

    worker = await run_worker(tracker.install({"functions": [func(counts, name="counts")], "on_job_start": hook}))
    await pool.enqueue_job("counts")
    await wait_for_end(worker, 1)
    assert [found.get(field_name("counts", queue, "started")) for found in counted] == [1]


@pytest.mark.parametrize("function", [short, asks, fails])
async def test_a_job_that_has_ended_is_not_kept_whatever_was_asked_of_it(tracker, run_worker, pool, function, monkeypatch):
    monkeypatch.setattr(logging.getLogger("arq.worker"), "disabled", True)  # pytest keeps what is logged, tracebacks and all
    monkeypatch.setattr("async_tracker.instance.pulse.TICK_SECONDS", 60.0)  # nobody looks after them
    before = kept()
    for _ in range(JOBS):
        await pool.enqueue_job(function.__name__)
    worker = await run_worker(tracker.install({"functions": [function]}))
    await wait_for_end(worker, JOBS)
    await worker.idle()
    await wait_until(lambda: kept() - before <= 20, description="arq has dropped its tasks, as it does with the next poll")
