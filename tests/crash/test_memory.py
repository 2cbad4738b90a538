"""The memory of a worker that is tracked for long: flat, by what it says of itself with every heartbeat."""

import time

import pytest

from tests.crash.fleet import SWIFT, Fleet
from tests.harness.wait import wait_until
from tests.harness.workers import WorkerProcess

AT_ONCE = 500
GROWTH_BYTES = 4 * 2**20


async def rss_bytes(fleet: Fleet, worker: WorkerProcess) -> int:
    instance = await fleet.registered(worker)
    assert instance.rss_bytes is not None
    return instance.rss_bytes


@pytest.mark.soak
async def test_the_memory_of_a_worker_does_not_grow_with_the_jobs_that_it_has_run(fleet: Fleet, soak_minutes: float):
    (worker,) = await fleet.start_ready(tracker=SWIFT, worker={"keep_result": 0, "max_jobs": 50})
    until, early, jobs = time.monotonic() + 60 * soak_minutes, 0, 0

    async def is_idle() -> bool:
        return int(await fleet.pool.zcard(fleet.pool.default_queue_name)) == 0

    while time.monotonic() < until:
        for _ in range(AT_ONCE):
            await fleet.pool.enqueue_job("noop")
        await wait_until(is_idle, timeout=120, description="the jobs are worked off", poll_interval=0.1)
        jobs += AT_ONCE
        if not early and until - time.monotonic() < 48 * soak_minutes:  # a fifth of it: what is filled once is full by then
            early = await rss_bytes(fleet, worker)
    late = await rss_bytes(fleet, worker)
    assert early
    assert late - early <= GROWTH_BYTES, f"{(late - early) / 2**20:.1f} MB more after {jobs} jobs"
