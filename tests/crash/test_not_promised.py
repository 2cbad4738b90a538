"""What is not promised, shown: where a live worker is taken for a dead one, and where a dead one's job is left to arq."""

import asyncio
from pathlib import Path

from arq.constants import in_progress_key_prefix

from async_tracker import InstanceState
from async_tracker.store.scripts import SCRIPTS
from tests.crash.fleet import QUICK, SWIFT, Fleet, script_call
from tests.crash.test_live_workers import cut_connections, reaches
from tests.harness.wait import wait_until
from tests.harness.wire import WireProxy


async def test_a_worker_that_cannot_come_back_within_its_grace_is_taken_for_dead_and_goes_on_as_another(
    fleet: Fleet, wire: WireProxy, tmp_path: Path
):
    """Its way to Redis is cut, that of the others is not. Allowed: lost 0; its one job runs twice."""
    await fleet.start_ready(tracker=SWIFT, worker={"queue_name": "elsewhere"})
    (worker,) = await fleet.start_ready(tracker=SWIFT, tracker_url=wire.url)
    old = (await fleet.registered(worker)).instance_id
    job_id = await fleet.enqueue("until_told", str(tmp_path / "end"))
    await fleet.running(job_id)
    await fleet.in_flight(job_id)
    await fleet.start_ready(tracker=SWIFT)
    wire.refuse()
    wire.cut()
    await fleet.running(job_id, runs=2)
    wire.accept()
    new = (await fleet.registered(worker)).instance_id
    assert new != old
    (tmp_path / "end").touch()
    await fleet.succeeded(job_id)
    await fleet.close(doubled=1, overlapping=1)


async def test_a_worker_that_is_stopped_and_cut_off_looks_like_one_that_was_killed(fleet: Fleet, tmp_path: Path):
    """SIGSTOP and CLIENT KILL. Allowed: lost 0; its one job runs twice."""
    (worker,) = await fleet.start_ready(tracker=SWIFT)
    job_id = await fleet.enqueue("until_told", str(tmp_path / "end"))
    await fleet.running(job_id)
    await fleet.in_flight(job_id)
    worker.suspend()
    assert await cut_connections(fleet, named="async-tracker") >= 1
    await fleet.start_ready(tracker=SWIFT)
    await fleet.running(job_id, runs=2)
    worker.resume()
    (tmp_path / "end").touch()
    await fleet.succeeded(job_id)
    await fleet.close(doubled=1, overlapping=1)


async def test_a_loop_that_blocks_with_the_interpreters_lock_looks_stopped_and_keeps_its_jobs(fleet: Fleet):
    """No thread of Python's runs, the watchdog neither. Allowed: lost 0, doubled 0, robbed 0."""
    await fleet.start_ready(2, tracker=QUICK)
    job_id = await fleet.enqueue("hold_the_lock", 4)
    worker = await fleet.running(job_id)
    instance_id = (await fleet.registered(worker)).instance_id
    await reaches(fleet, worker, InstanceState.STALLED_SILENT)
    await fleet.succeeded(job_id)
    assert (await fleet.registered(worker)).instance_id == instance_id
    account = await fleet.close()
    assert len(account.runs_of(job_id)) == 1


async def test_the_claim_of_a_worker_that_never_registered_is_left_to_arqs_expiry(fleet: Fleet, wire: WireProxy):
    """Killed before its registration arrived: its name says nothing to anybody. Allowed: lost 0, doubled 0, robbed 0."""
    held = wire.hold(script_call(SCRIPTS["register"]), times=None)
    victim = fleet.start(tracker=SWIFT, tracker_url=wire.url)
    await wait_until(lambda: held.caught, timeout=30, description="it tries to register")
    job_id = await fleet.enqueue("hold", 2.0)
    await fleet.running(job_id)
    victim.kill()
    fleet.ledger.killed(victim.pid)
    wire.cut()
    await fleet.start_ready(tracker=SWIFT)
    await asyncio.sleep(0.9)  # more than the grace and several sweeps
    assert await fleet.tracker.recover() == []
    assert await fleet.pool.delete(in_progress_key_prefix + job_id) == 1  # as its expiry would
    await fleet.succeeded(job_id)
    await fleet.close()
