"""One queue for all: tracked and untracked workers, cron jobs, ids that are used again, and a Redis of the tracker's own."""

import asyncio
from pathlib import Path
from typing import Any

from async_tracker import InstanceState, RecoveryAction, Tracker
from tests.crash.conftest import MakeFleet
from tests.crash.fleet import SWIFT, Fleet
from tests.harness.wait import wait_until

NO_SWEEP = {**SWIFT, "recover": False}


async def died(fleet: Fleet, pid: int) -> None:
    """Wait until the instance of a killed process is judged dead."""

    async def dead() -> bool:
        found = [instance for instance in await fleet.tracker.instances() if instance.pid == pid]
        return not found or found[0].state is InstanceState.DEAD

    await wait_until(dead, timeout=30, description="the killed worker is dead")


async def test_kills_of_both_kinds_on_a_mixed_queue_leave_the_untracked_to_arq(fleet: Fleet):
    """An untracked worker's claim names nobody and is not touched; arq's own expiry is brought forward. Allowed: lost 0, robbed 0."""
    untracked = fleet.start(tracker=None)
    theirs = await fleet.enqueue("interrupted")
    await fleet.running(theirs)
    (tracked,) = await fleet.start_ready()
    untracked.suspend()
    ours = await fleet.enqueue("interrupted")
    assert (await fleet.running(ours)) is tracked
    await fleet.start_ready()
    untracked.kill()
    tracked.kill()
    await fleet.succeeded(ours)
    await asyncio.sleep(1.0)
    assert await fleet.pool.get(f"arq:in-progress:{theirs}") == b"1"
    assert len(fleet.ledger.read().runs_of(theirs)) == 1
    await fleet.pool.pexpire(f"arq:in-progress:{theirs}", 1)
    await fleet.succeeded(theirs)
    await fleet.close()


async def test_every_claim_of_a_tracked_worker_names_it_cron_included(fleet: Fleet):
    """A cron job that is killed is recovered like another. Allowed: lost 0."""
    (worker,) = await fleet.start_ready(cron_seconds=60.0)
    instance = await fleet.registered(worker)

    def ticking() -> str | None:
        return next((run.job_id for run in fleet.ledger.read().runs), None)

    job_id = await wait_until(ticking, timeout=30, description="the cron job runs")
    assert job_id is not None
    assert (await fleet.pool.get(f"arq:in-progress:{job_id}")).decode().startswith(f"{instance.instance_id}:")
    fleet.ledger.enqueued(job_id)
    await fleet.start_ready(cron_seconds=0.1)
    worker.kill()
    await fleet.succeeded(job_id)
    await fleet.close()


async def test_a_job_that_outlives_its_timeout_and_is_restarted_in_the_same_process_is_two_runs(fleet: Fleet, tmp_path: Path):
    """arq's expiry is brought forward; then the process dies under both. Allowed: lost 0; the overlap is arq's own."""
    (worker,) = await fleet.start_ready(worker={"job_timeout": 1})
    job_id = await fleet.enqueue("stubborn_until_told", str(tmp_path / "end"))
    await fleet.running(job_id)
    await fleet.in_flight(job_id)
    first = await fleet.tracker.job(job_id)
    await fleet.pool.pexpire(f"arq:in-progress:{job_id}", 1)
    assert (await fleet.running(job_id, runs=2)) is worker

    async def are_both_shown() -> bool:
        job = await fleet.tracker.job(job_id)
        return job is not None and first is not None and job.run != first.run and job.superseded == 1 and job.job_try == 2

    await wait_until(are_both_shown, timeout=30, description="the newest run is shown, and that there is an older one")
    worker.kill()
    (tmp_path / "end-3").touch()
    await fleet.start_ready()
    await fleet.succeeded(job_id)
    account = await fleet.close(overlapping=1)
    assert len(account.runs_of(job_id)) == 3


async def test_the_end_of_an_older_run_does_not_erase_the_newer_ones_record(fleet: Fleet, tmp_path: Path):
    """Allowed: lost 0, doubled 1; the overlap is arq's own."""
    await fleet.start_ready(worker={"job_timeout": 1, "max_tries": 10})
    job_id = await fleet.enqueue("stubborn_until_told", str(tmp_path / "end"))
    await fleet.running(job_id)
    await asyncio.sleep(1.5)  # longer than arq lets it run
    await fleet.pool.pexpire(f"arq:in-progress:{job_id}", 1)
    await fleet.running(job_id, runs=2)

    async def is_the_newer_one() -> bool:
        job = await fleet.tracker.job(job_id)
        return job is not None and job.job_try == 2

    await wait_until(is_the_newer_one, timeout=30, description="the newer run is shown")
    (tmp_path / "end-1").touch()
    await wait_until(lambda: fleet.ledger.read().runs_of(job_id)[0].outcome, timeout=30, description="the older run has ended")
    await asyncio.sleep(0.3)
    assert await is_the_newer_one()
    (tmp_path / "end-2").touch()
    await wait_until(lambda: fleet.ledger.read().runs_of(job_id)[1].outcome, timeout=30, description="the newer run has ended")

    async def gone() -> bool:
        return await fleet.tracker.job(job_id) is None

    await wait_until(gone, timeout=30, description="no record outlives its run")
    await fleet.close(doubled=1, overlapping=1)


async def test_an_orphan_that_another_worker_has_picked_up_again_is_left_alone(fleet: Fleet, tmp_path: Path):
    """arq's own expiry came first: the claim is somebody else's by the time of the sweep. Allowed: lost 0, doubled 0, robbed 0."""
    (worker,) = await fleet.start_ready(tracker=NO_SWEEP)
    job_id = await fleet.enqueue("until_told", str(tmp_path / "end"))
    await fleet.running(job_id)
    await fleet.in_flight(job_id)
    worker.kill()
    await fleet.pool.delete(f"arq:in-progress:{job_id}")
    fleet.start(tracker=None)
    await fleet.running(job_id, runs=2)
    await died(fleet, worker.pid)
    assert [done.action for done in await fleet.tracker.recover()] == [RecoveryAction.TAKEN]
    assert await fleet.pool.get(f"arq:in-progress:{job_id}") == b"1"
    (tmp_path / "end").touch()
    account = await fleet.succeeded(job_id)
    assert len(account.runs_of(job_id)) == 2
    await fleet.close()


async def test_an_id_that_was_enqueued_anew_and_runs_on_another_tracked_worker_is_left_alone(fleet: Fleet):
    """The new job's claim names its own worker. Allowed: lost 0, doubled 0, robbed 0."""
    (worker,) = await fleet.start_ready(tracker=NO_SWEEP)
    job_id = await fleet.enqueue("interrupted")
    await fleet.running(job_id)
    await fleet.in_flight(job_id)
    worker.kill()
    await fleet.pool.delete(f"arq:in-progress:{job_id}", f"arq:job:{job_id}", f"arq:retry:{job_id}")
    await fleet.pool.zrem("arq:queue", job_id)
    await fleet.enqueue("hold", 5.0, job_id=job_id)
    (second,) = await fleet.start_ready(tracker=NO_SWEEP)
    assert (await fleet.running(job_id, runs=2)) is second
    await fleet.in_flight(job_id, run_of=second)
    await died(fleet, worker.pid)
    assert {done.action for done in await fleet.tracker.recover()} <= {RecoveryAction.TAKEN}
    await fleet.succeeded(job_id)
    await fleet.close()


async def test_an_orphan_that_is_queued_no_more_is_not_recovered(fleet: Fleet):
    """Somebody took the job off the queue after its worker had died: nothing runs again, and nobody is told so. Allowed: runs 1."""
    (worker,) = await fleet.start_ready(tracker=NO_SWEEP)
    await fleet.pool.enqueue_job("interrupted", _job_id="cancelled")
    await fleet.running("cancelled")
    await fleet.in_flight("cancelled")
    worker.kill()
    await fleet.pool.zrem("arq:queue", "cancelled")
    await died(fleet, worker.pid)
    assert [done.action for done in await fleet.tracker.recover()] == [RecoveryAction.ENDED]
    assert (await fleet.tracker.stats()).recovered == 0
    assert await fleet.pool.zscore("arq:queue", "cancelled") is None
    await fleet.pool.delete("arq:in-progress:cancelled")
    await fleet.close()


async def test_where_arqs_redis_is_another_one_nothing_is_lost(make_server: Any, make_fleet: MakeFleet, redis_url: str):
    """Released there first, then counted here; the sweeper is killed as well. Allowed: lost 0, doubled 0, robbed 0."""
    apart = make_server()
    fleet = await make_fleet(redis_url, tracker_url=apart.url, arq_redis=redis_url)
    (sweeper,) = await fleet.start_ready(tracker_url=apart.url, worker={"queue_name": "elsewhere"})
    (worker,) = await fleet.start_ready(tracker_url=apart.url)
    jobs = await fleet.enqueue_many(4, "interrupted")
    for job_id in jobs:
        await fleet.running(job_id)
    await fleet.start_ready(tracker_url=apart.url)
    worker.kill()
    sweeper.kill()
    await fleet.succeeded()
    async with fleet.tracker.redis() as tracked:
        assert [await tracked.hlen(f"recoveries:{job_id}") for job_id in jobs] == [1, 1, 1, 1]
    await fleet.close()


async def test_where_arqs_redis_is_another_one_a_pill_is_quarantined_there_and_listed_here(
    make_server: Any, make_fleet: MakeFleet, redis_url: str, tmp_path: Path
):
    """Taken out of arq's Redis, kept in the tracker's, and put back into arq's. Allowed: lost 0, doubled 0, robbed 0."""
    apart = make_server()
    fleet = await make_fleet(redis_url, tracker_url=apart.url, arq_redis=redis_url)
    none: dict[str, Any] = {"tracker": {**SWIFT, "max_recoveries": 0}, "tracker_url": apart.url}
    (worker,) = await fleet.start_ready(**none)
    job_id = await fleet.enqueue("until_told", str(tmp_path / "end"))
    await fleet.running(job_id)
    await fleet.start_ready(**none)
    worker.kill()
    [kept] = await wait_until(fleet.tracker.quarantined, timeout=30, description="the job is quarantined")
    assert (kept.job_id, kept.deaths) == (job_id, 1)
    assert await fleet.pool.exists(f"arq:job:{job_id}", f"arq:in-progress:{job_id}") == 0
    (tmp_path / "end").touch()
    assert await fleet.tracker.retry_quarantined(job_id)
    await fleet.succeeded(job_id)
    await fleet.close()


async def test_two_that_recover_at_once_recover_each_orphan_once(fleet: Fleet):
    """By hand, twice each, where nobody else does; what they say they did is all there was to do. Allowed: lost 0, doubled 0, robbed 0."""
    (worker,) = await fleet.start_ready(tracker=NO_SWEEP)
    jobs = await fleet.enqueue_many(8, "interrupted", 0.2)
    for job_id in jobs:
        await fleet.running(job_id)
    worker.kill()
    await died(fleet, worker.pid)
    async with Tracker(namespace=fleet.namespace, redis_options={"url": fleet.redis_url}) as another:
        both = (fleet.tracker, another)
        parts = await asyncio.gather(*(tracker.recover() for tracker in both * 2))
    assert sorted(done.job_id for part in parts for done in part) == sorted(jobs)
    assert [await fleet.pool.hlen(f"{fleet.namespace}:recoveries:{job_id}") for job_id in jobs] == [1] * 8
    stats = await fleet.tracker.stats()
    assert (stats.orphaned, stats.recovered) == (8, 8)
    await fleet.start_ready(tracker=NO_SWEEP)
    await fleet.succeeded()
    await fleet.close()
