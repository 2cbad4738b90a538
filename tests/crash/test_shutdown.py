"""Orderly ends: a rolling restart loses nothing and leaves no keys, whenever the signal comes and however often."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from async_tracker.store.scripts import SCRIPTS
from tests.crash.fleet import SWIFT, Fleet, script_call
from tests.harness.servers import assert_no_leaks
from tests.harness.wait import wait_until
from tests.harness.wire import WireProxy
from tests.harness.workers import WorkerProcess

PATIENT = {"max_tries": 100}
UNHURRIED = {**SWIFT, "hook_timeout": 5.0}
"""For workers of which it is asked right after their end what they have left: a busy machine may need more than a quarter of a second."""


async def test_a_rolling_restart_under_load_loses_nothing_and_leaves_no_keys(fleet: Fleet):
    """Each worker in turn is replaced and asked to leave; each SIGTERM consumes a try.

    Allowed: lost 0, robbed 0; doubled 0, but for the jobs of a worker whose signal met arq writing down the end of one: that fails in
    arq's ``close``, ends it with 1 before ``on_shutdown``, and leaves what it was writing down to the sweep.
    """
    alive = await fleet.start_ready(3, worker=PATIENT, tracker=UNHURRIED)
    failed = 0
    for _ in range(3):
        await fleet.enqueue_many(10, "hold", 0.4)
        (replacement,) = await fleet.start_ready(worker=PATIENT, tracker=UNHURRIED)
        leaving, alive = alive[0], [*alive[1:], replacement]
        leaving.ask_to_leave()
        if leaving.wait() == 0:
            assert await fleet.instance_of(leaving) is None
        else:
            failed += 1
            await gone(fleet, leaving)
    fleet.note_deaths()
    await fleet.succeeded()
    account = await fleet.close(doubled=10 * failed)
    assert len(account.succeeded()) == 30


async def gone(fleet: Fleet, worker: WorkerProcess) -> None:
    """Wait until the sweep has found out that a worker has ended."""

    async def is_gone() -> bool:
        return await fleet.instance_of(worker) is None

    await wait_until(is_gone, timeout=30, description=f"{worker.name} is no instance any more")


async def test_a_sigterm_that_meets_arq_writing_down_an_end_loses_no_count_and_blames_no_job(fleet: Fleet, wire: WireProxy):
    """arq's ``close`` fails then, and nobody calls ``on_shutdown``: with the tracker or without. Allowed: lost 0, doubled 1."""
    seldom = {**SWIFT, "heartbeat_interval": 20.0, "heartbeat_ttl": 60.0}  # no beat of the loop carries the counts
    (leaving,) = await fleet.start_ready(worker=PATIENT, tracker=seldom, redis_url=wire.url)
    await fleet.succeeded(*await fleet.enqueue_many(10, "hold", 0.0))
    held = wire.hold(lambda command: command[0] == b"SET" and command[1].startswith(b"arq:result:"))
    job_id = await fleet.enqueue("hold", 0.1)
    await wait_until(lambda: held.caught, timeout=30, description="arq writes down how the job ended")
    leaving.ask_to_leave()
    assert leaving.wait() == 1, leaving.output()
    wire.cut()  # its connections have ended with it
    fleet.note_deaths()
    await fleet.start_ready(worker=PATIENT)
    await gone(fleet, leaving)
    await fleet.succeeded(job_id)
    assert await fleet.pool.exists(f"{fleet.namespace}:recoveries:{job_id}") == 0
    await wait_until(lambda: fleet.counted("hold", 12), timeout=30, description="both runs of the job are counted, and all before it")
    await fleet.close(doubled=1)


async def test_a_worker_that_waits_for_its_jobs_beats_until_the_last_has_ended(fleet: Fleet, tmp_path: Path):
    """SIGTERM with job_completion_wait: draining, not robbed. Allowed: lost 0, doubled 0, robbed 0, runs 1 each."""
    (leaving,) = await fleet.start_ready(worker={"job_completion_wait": 60}, tracker=UNHURRIED)
    jobs = await fleet.enqueue_many(3, "until_told", str(tmp_path / "end"))
    for job_id in jobs:
        await fleet.running(job_id)
    await fleet.start_ready()
    leaving.ask_to_leave()

    async def draining() -> bool:
        found = await fleet.instance_of(leaving)
        return found is not None and found.state == "draining"

    await wait_until(draining, timeout=30, description="the worker drains")
    before = (await fleet.registered(leaving)).heartbeat_at

    async def has_beaten_since() -> bool:
        return (await fleet.registered(leaving)).heartbeat_at > before

    await wait_until(has_beaten_since, timeout=30, description="it beats while it waits")
    (tmp_path / "end").touch()
    leaving.wait()
    assert await fleet.instance_of(leaving) is None
    account = await fleet.close()
    assert [len(account.runs_of(job_id)) for job_id in jobs] == [1, 1, 1]


async def test_the_last_worker_of_all_leaves_no_keys(fleet: Fleet):
    """Nobody is left who would sweep after it. Allowed: lost 0."""
    (only,) = await fleet.start_ready(tracker=UNHURRIED)
    await fleet.enqueue_many(5, "hold", 0.05)
    await fleet.succeeded()
    only.ask_to_leave()
    assert only.wait() == 0
    await assert_no_leaks(fleet.pool, fleet.namespace)
    assert await fleet.tracker.instances() == []
    await fleet.close()


@pytest.mark.parametrize("pause", [0.0, 0.05, 0.3])
async def test_a_second_sigterm_loses_nothing(fleet: Fleet, pause: float):
    """Whatever it interrupts. Allowed: lost 0, doubled 0, robbed 0."""
    (leaving,) = await fleet.start_ready(worker=PATIENT)
    jobs = await fleet.enqueue_many(5, "interrupted", 0.1)
    for job_id in jobs:
        await fleet.running(job_id)
    await fleet.start_ready(worker=PATIENT)
    leaving.ask_to_leave()
    await asyncio.sleep(pause)
    leaving.ask_to_leave()
    leaving.wait()
    fleet.note_deaths()
    await fleet.succeeded()
    await fleet.close()


@pytest.mark.parametrize("hook", ["on_job_start", "on_job_end", "after_job_end"])
async def test_sigterm_during_a_hook_loses_nothing(fleet: Fleet, tmp_path: Path, hook: str):
    """A user's hook is cancelled half-way, and with it arq's own bookkeeping.

    Allowed: lost 0, robbed 0; doubled 1 where the job had succeeded and arq was not let to write that down. Nobody waits for arq's
    own expiry, and the death is not counted against the job.
    """
    (leaving,) = await fleet.start_ready(worker=PATIENT, slow_hooks=[hook], hook_flag=str(tmp_path / "in-the-hook"), hook_seconds=30.0)
    job_id = await fleet.enqueue("hold", 0.1)
    await wait_until((tmp_path / "in-the-hook").exists, timeout=30, description="the hook runs")
    await fleet.start_ready(worker=PATIENT)
    leaving.ask_to_leave()
    leaving.wait()
    fleet.note_deaths()
    await fleet.succeeded(job_id)
    assert await fleet.pool.exists(f"{fleet.namespace}:recoveries:{job_id}") == 0
    await fleet.close(doubled=1 if hook == "on_job_end" else 0)


async def test_a_worker_that_is_gone_before_its_loop_could_say_that_it_was_asked_to_leave_blames_no_job(
    fleet: Fleet, tmp_path: Path, wire: WireProxy
):
    """The beat that would say so stands behind another one, which the server has not answered. Allowed: lost 0, doubled 1."""
    options: dict[str, Any] = {"slow_hooks": ["on_job_end"], "hook_flag": str(tmp_path / "in-the-hook"), "hook_seconds": 30.0}
    (leaving,) = await fleet.start_ready(worker=PATIENT, redis_url=wire.url, **options)
    job_id = await fleet.enqueue("hold", 0.1)
    await wait_until((tmp_path / "in-the-hook").exists, timeout=30, description="the hook runs")
    held = wire.hold(script_call(SCRIPTS["beat"]))
    await wait_until(lambda: held.caught, timeout=30, description="a beat is under way")
    leaving.ask_to_leave()
    leaving.wait()
    wire.cut()  # its connections have ended with it
    fleet.note_deaths()
    await fleet.start_ready(worker=PATIENT)
    await fleet.succeeded(job_id)
    assert await fleet.pool.exists(f"{fleet.namespace}:recoveries:{job_id}") == 0
    await fleet.close(doubled=1)


async def test_sigterm_at_random_moments_loses_nothing(fleet: Fleet):
    """Many short jobs, so that the signal meets arq between any two steps. Allowed: lost 0, robbed 0; doubled what each end interrupts."""
    few = {**PATIENT, "max_jobs": 5}
    for round_number in range(3):
        leaving: WorkerProcess
        (leaving,) = await fleet.start_ready(worker=few)
        await fleet.enqueue_many(60, "hold", 0.001)
        await asyncio.sleep(0.05 + 0.07 * round_number)
        leaving.ask_to_leave()
        leaving.wait()
    await fleet.start_ready(worker=PATIENT)
    await fleet.succeeded()
    await fleet.close(doubled=3 * few["max_jobs"])
