"""The same scenarios over every integration."""

import asyncio
import os
import signal

import pytest

from async_tracker import AbortOutcome, Chain, InstanceState, OrderOutcome, RecoveryAction, UnsupportedControl
from tests.harness.wait import wait_until
from tests.integrations.conformance.stage import SECONDS, Stage

KNOWS_WAITS = {"arq", "dramatiq"}
"""The libraries that tell when a job was due."""

RECOVERING = pytest.mark.parametrize("driver", ["arq", "dramatiq", "listq"], indirect=True)


async def test_a_worker_is_listed_while_it_works_and_leaves_nothing(stage: Stage):
    [instance] = await stage.start_ready()
    assert instance.library == stage.driver.library
    assert {"hold", "fail", "die"} == set(instance.functions)
    assert instance.queues
    assert instance.concurrency is not None
    stage.leave()
    assert await stage.tracker.instances() == []
    await stage.close()


async def test_a_job_is_seen_from_its_start_to_its_end(stage: Stage):
    [instance] = await stage.start_ready()
    job_id = await stage.hold()
    job = await stage.in_flight(job_id)
    assert (job.job_id, job.instance_id, job.library) == (job_id, instance.instance_id, stage.driver.library)
    assert (job.function, job.job_try, job.progress, job.progress_message) == ("hold", 1, 0.5, "half way")
    assert job.queue in instance.queues
    assert [found.job_id for found in await stage.tracker.jobs()] == [job_id]
    stage.tell()
    await stage.succeeded()
    await stage.send("fail", must=False)
    await wait_until(lambda: len(stage.ledger.read().runs) == 2, timeout=SECONDS, description="the failing job has run")

    async def none() -> bool:
        return not await stage.tracker.jobs() and not any(queue.depth for queue in await stage.tracker.queues())

    await wait_until(none, timeout=SECONDS, description="no job is in flight, or still being ended by its library")
    await stage.close()
    stats = {row.function: row for row in (await stage.tracker.stats()).functions}
    assert (stats["hold"].started, stats["hold"].succeeded, stats["hold"].queue) == (1, 1, job.queue)
    assert (stats["fail"].started, stats["fail"].failed) == (1, 1)
    recent = {row.function: row for row in (await stage.tracker.stats(window=3_600)).functions}
    assert None not in (recent["hold"].run_time_p50, recent["fail"].run_time_p99), "each library has its histograms"
    assert (recent["hold"].queue_wait_p50 is not None) == (stage.driver.library in KNOWS_WAITS)


def frames_of(chain: Chain) -> list[str]:
    """Give the frames of a chain and of what it branches into: a coroutine of dramatiq's stands behind the thread that waits for it."""
    return [*chain.frames, *(frame for branch in chain.branches for frame in frames_of(branch))]


async def test_a_job_in_flight_shows_where_it_waits_and_is_aborted_or_its_library_cannot(stage: Stage):
    [instance] = await stage.start_ready()
    aborts = stage.driver.library == "arq"
    job_id = await stage.hold(must=not aborts)
    await stage.in_flight(job_id)
    seen = await stage.tracker.stacks(instance.instance_id, wait=SECONDS)
    assert [(group.job_ids, group.function) for group in seen.jobs] == [((job_id,), "hold")]
    assert any(frame.endswith(" hold") for frame in frames_of(seen.jobs[0].chain))
    if aborts:
        assert (await stage.tracker.abort(job_id, wait=SECONDS)).outcome is AbortOutcome.ABORTED
    else:
        with pytest.raises(UnsupportedControl, match=f"{stage.driver.library}.* cannot be aborted"):
            await stage.tracker.abort(job_id, wait=SECONDS)
        stage.tell()
        await stage.succeeded()
    await stage.close()


async def test_a_worker_is_quiet_and_resumes_or_says_that_its_library_cannot(stage: Stage):
    """A worker of the page's library has no controls."""
    [instance] = await stage.start_ready()
    if stage.driver.library == "listq":
        for order in (stage.tracker.quiet, stage.tracker.resume, stage.tracker.stop):
            with pytest.raises(UnsupportedControl, match="listq"):
                await order(instance.instance_id, wait=SECONDS)
        await stage.close()
        return
    job_id = await stage.send("hold", 1.0)
    await stage.in_flight(job_id)
    answer = await stage.tracker.quiet(instance.instance_id, wait=SECONDS)
    assert answer.outcome is OrderOutcome.DONE
    assert [found.state for found in await stage.tracker.instances()] == [InstanceState.QUIET]
    [idle] = await stage.tracker.wait_until_idle(instance.instance_id, timeout=SECONDS)
    assert idle.outcome is OrderOutcome.DONE
    assert job_id in stage.ledger.read().succeeded()
    assert (await stage.tracker.resume(instance.instance_id, wait=SECONDS)).outcome is OrderOutcome.DONE
    await stage.send("hold", 0.0)
    await stage.succeeded()
    await stage.close()


async def test_a_suspended_worker_keeps_its_job(stage: Stage):
    await stage.start_ready(2)
    job_id = await stage.hold()
    job = await stage.in_flight(job_id)
    instance = await stage.tracker.instance(job.instance_id)
    assert instance is not None
    os.kill(instance.pid, signal.SIGSTOP)

    async def silent() -> bool:
        found = await stage.tracker.instance(job.instance_id)
        return found is not None and found.state == "stalled_silent" and found.heartbeat_age > 3.0  # two ttls

    await wait_until(silent, timeout=SECONDS, description="the worker is silent")
    assert await stage.tracker.orphans() == []
    stage.tell()
    os.kill(instance.pid, signal.SIGCONT)
    account = await stage.succeeded()
    assert len(account.runs_of(job_id)) == 1
    await stage.close()


async def test_what_a_killed_worker_ran_is_an_orphan_where_no_worker_recovers(stage: Stage):
    await stage.start_ready(2, recover=False, heartbeat_ttl=15.0)  # it is not taken for stalled on the way to its death, however late
    job_id = await stage.hold(must=False)
    job = await stage.in_flight(job_id)
    await stage.kill(job.instance_id)

    async def listed() -> bool:
        return [(found.job_id, found.library) for found in await stage.tracker.orphans()] == [(job_id, stage.driver.library)]

    async def told() -> list[str]:
        return [event.type for event in await stage.tracker.recent_events()]

    async def is_told() -> bool:
        return "orphaned" in await told()

    await wait_until(listed, timeout=SECONDS, description="the job is an orphan")
    await wait_until(is_told, timeout=SECONDS, description="that it was orphaned is told")
    await asyncio.sleep(0.9)
    assert await listed()
    assert await told() == ["instance_dead", "orphaned"]
    assert (await stage.tracker.stats()).orphaned == 1
    if stage.driver.recovers:
        [done] = await stage.tracker.recover()
        assert await told() == ["instance_dead", "orphaned", "recovered"]
        assert (await stage.tracker.stats()).orphaned == 1
        assert (done.job_id, done.library, done.action) == (job_id, stage.driver.library, RecoveryAction.RECOVERED)
        await stage.in_flight(job_id, elsewhere_than=job.instance_id)
        stage.tell()
        await stage.close()


@RECOVERING
async def test_what_a_killed_worker_ran_runs_again_once(stage: Stage):
    await stage.start_ready(3)
    job_id = await stage.hold()
    job = await stage.in_flight(job_id)  # before there are others: dramatiq 2.0.0 may run one first that it has fetched with it
    others = [await stage.hold() for _ in range(8)]  # none of them is about to end when its worker is killed
    await stage.kill(job.instance_id)
    stage.tell()
    account = await stage.succeeded()
    assert len(account.runs_of(job_id)) == 2
    assert all(len(account.runs_of(other)) <= 2 for other in others)
    assert account.doubled() == frozenset()
    await stage.close()
    stats = await stage.tracker.stats("hold")
    assert stats.orphaned >= 1
    assert stats.orphaned == stats.recovered


@RECOVERING
async def test_three_that_recover_by_hand_at_once_recover_each_orphan_once(stage: Stage):
    """Nobody else does: what they say that they have done must be what there was to do, each by one of them."""
    await stage.start_ready(1, recover=False)
    job_id = await stage.hold()
    job = await stage.in_flight(job_id)
    await stage.kill(job.instance_id)
    stage.tell()

    async def orphaned() -> bool:
        return [found.job_id for found in await stage.tracker.orphans()] == [job_id]

    await wait_until(orphaned, timeout=SECONDS, description="the job is an orphan")
    done = [one for part in await asyncio.gather(*(stage.tracker.recover() for _ in range(3))) for one in part]
    assert [one.job_id for one in done] == [job_id]
    assert (await stage.tracker.stats()).recovered == 1
    await stage.start_ready(1, recover=False)
    account = await stage.succeeded()
    assert len(account.runs_of(job_id)) == 2
    await stage.close()


@RECOVERING
@pytest.mark.parametrize("after", [0.0, 0.001, 0.02, 0.1])
async def test_a_job_that_kills_its_worker_is_quarantined_under_its_functions_name_and_may_run_again(stage: Stage, after: float):
    """Also while it is too young to be written, and before the event loop has had a turn."""
    settings = {"max_recoveries": 1}
    await stage.start_ready(2, **settings)
    job_id = await stage.send("die", after, must=False)

    async def quarantined() -> bool:
        for worker in list(stage.started):
            if worker.exit_code is not None:
                stage.started.remove(worker)
                stage.start(**settings)
        return bool(await stage.tracker.quarantined())

    await wait_until(quarantined, timeout=2 * SECONDS, description="the job is quarantined", poll_interval=0.1)
    [item] = await stage.tracker.quarantined()
    assert (item.job_id, item.function, item.library, item.deaths) == (job_id, "die", stage.driver.library, 2)
    assert await stage.tracker.retry_quarantined(job_id)
    assert await wait_until(quarantined, timeout=2 * SECONDS, description="it is quarantined again", poll_interval=0.1)
    assert await stage.tracker.drop_quarantined(job_id)
    assert await stage.tracker.quarantined() == []
    await stage.close()


@RECOVERING
async def test_how_full_a_queue_is_counts_what_waits_and_what_runs(stage: Stage):
    [instance] = await stage.start_ready()
    job_id = await stage.hold()
    await stage.in_flight(job_id)
    depths = [depth for depth in await stage.tracker.queues() if depth.queue in instance.queues]
    assert [(depth.depth, depth.library) for depth in depths] == [(1, stage.driver.library)]
    stage.tell()
    await stage.succeeded()
    await stage.close()
