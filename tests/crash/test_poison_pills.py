"""Poison pills: a job that keeps killing its worker is quarantined, its neighbours are not, and whoever awaits it is told."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest
from arq.jobs import Job, JobStatus
from arq.worker import JobExecutionFailed

from async_tracker import TrackerError
from tests.crash.fleet import SWIFT, Fleet
from tests.harness.wait import wait_until

STRICT = {**SWIFT, "max_recoveries": 2}
DEATHS = range(3, 6)
"""How often such a pill may have died: more than ``max_recoveries``, and as long as others die with it as often, up to twice as many."""

WATCHING = {**SWIFT, "recover": False}


async def keep_up(fleet: Fleet, job_id: str, *, tracker: dict[str, object], timeout: float = 90.0) -> None:
    """Replace every worker that dies until the job is quarantined."""

    async def quarantined() -> bool:
        if fleet.note_deaths():
            fleet.start(tracker=tracker, worker={"max_tries": 20})
        return job_id in {found.job_id for found in await fleet.tracker.quarantined()}

    await wait_until(quarantined, timeout=timeout, description="the pill is quarantined", poll_interval=0.1)


async def awaited(fleet: Fleet, job_id: str) -> str:
    """Await a job as a client does, and return what it is told."""
    with pytest.raises(JobExecutionFailed) as caught:
        await Job(job_id, fleet.pool).result(timeout=90, poll_delay=0.1)
    return str(caught.value)


async def test_a_pill_is_quarantined_its_neighbours_succeed_and_its_awaiter_is_told(fleet: Fleet):
    """It calls os._exit in its first statement, beside nine others. Allowed: lost 0 of the nine, doubled 0, robbed 0."""
    neighbours = await fleet.enqueue_many(9, "hold", 0.2)
    pill = await fleet.pool.enqueue_job("pill", _job_id="pill")
    assert pill is not None
    client = asyncio.create_task(awaited(fleet, "pill"))
    fleet.start(tracker=STRICT, worker={"max_tries": 20})
    await keep_up(fleet, "pill", tracker=STRICT)
    assert "workers died running it" in await client
    await fleet.succeeded(*neighbours)
    assert [(found.job_id, found.deaths in DEATHS) for found in await fleet.tracker.quarantined()] == [("pill", True)]
    assert await pill.status() is JobStatus.complete
    types = [event.type for event in await fleet.tracker.recent_events(1000)]
    assert types.count("quarantined") == 1
    assert await fleet.tracker.drop_quarantined("pill")
    await fleet.close()


async def test_a_pill_that_dies_where_no_worker_recovers_is_listed_and_can_be_recovered_by_hand(fleet: Fleet):
    """It dies in its first statement, so that nothing but its claim knows of it. Allowed: lost 0."""
    await fleet.start_ready(2, tracker=WATCHING, worker={"max_tries": 20})
    await fleet.pool.enqueue_job("pill", _job_id="pill")
    await wait_until(fleet.note_deaths, timeout=30, description="its worker has died")
    [orphan] = await wait_until(fleet.tracker.orphans, timeout=30, description="the pill is an orphan")
    assert orphan.job_id == "pill"
    for worker in fleet.started:
        worker.kill()
    [done] = await fleet.tracker.recover()
    assert (done.job_id, done.deaths) == ("pill", 1)
    assert await fleet.pool.exists("arq:in-progress:pill") == 0
    await forgotten(fleet, "pill")
    await fleet.close()


async def test_who_only_tracks_buries_no_instance_before_its_death_is_counted(fleet: Fleet):
    """The one that recovers stands still until the others have judged and looked. Allowed: lost 0."""
    await fleet.start_ready(tracker=WATCHING, worker={"queue_name": "elsewhere"})
    await fleet.start_ready(tracker=SWIFT)
    (recovering,) = await fleet.start_ready(tracker=SWIFT, worker={"queue_name": "elsewhere"})
    recovering.suspend()
    await fleet.pool.enqueue_job("pill", _job_id="pill")
    await wait_until(fleet.note_deaths, timeout=30, description="its worker has died")
    await wait_until(fleet.tracker.orphans, timeout=30, description="who only tracks has found the pill")
    recovering.resume()

    async def counted() -> bool:
        return bool(await fleet.pool.hlen(f"{fleet.namespace}:recoveries:pill") == 1)

    await wait_until(counted, timeout=30, description="the death is counted")
    assert await fleet.pool.exists("arq:in-progress:pill") == 0
    await forgotten(fleet, "pill")
    await fleet.close()


async def forgotten(fleet: Fleet, job_id: str) -> None:
    """Take a job off the queue, so that it kills nobody any more."""
    await fleet.pool.zrem("arq:queue", job_id)
    await fleet.pool.delete(f"arq:job:{job_id}", f"arq:retry:{job_id}")


@pytest.mark.soak
async def test_with_default_settings_a_pill_is_quarantined_at_its_fourth_death(fleet: Fleet):
    """Allowed: lost 0 of the nine, doubled 0, robbed 0."""
    neighbours = await fleet.enqueue_many(9, "hold", 1.0)
    await fleet.pool.enqueue_job("pill", _job_id="pill")
    fleet.start(tracker={})
    await keep_up(fleet, "pill", tracker={}, timeout=300)
    assert [found.deaths >= 4 for found in await fleet.tracker.quarantined()] == [True]
    await fleet.succeeded(*neighbours)
    assert await fleet.tracker.drop_quarantined("pill")
    await fleet.close()


RSS_LIMIT_BYTES = 150 * 2**20
"""How large a worker may be before it is killed: more than twice what it has without the job, and less than what the job eats."""
APPETITE_BYTES = 240 * 2**20


class OutOfMemoryKiller:
    """Kills, as the kernel does, whichever worker is larger than the limit."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.kills = 0

    def look(self) -> None:
        for worker in [worker for worker in self._fleet.started if worker.exit_code is None]:
            with contextlib.suppress(FileNotFoundError):  # it has ended since
                pages = int(Path(f"/proc/{worker.pid}/statm").read_text().split()[1])
                if pages * os.sysconf("SC_PAGE_SIZE") > RSS_LIMIT_BYTES:
                    worker.kill()
                    self.kills += 1


async def test_a_pill_that_eats_memory_until_it_is_killed_is_quarantined_and_its_neighbours_succeed(fleet: Fleet):
    """Beside nine others, and awaited. Allowed: lost 0 of the nine, robbed 0; doubled those that a kill meets in arq's finish."""
    neighbours = await fleet.enqueue_many(9, "hold", 0.2)
    assert await fleet.pool.enqueue_job("hungry", APPETITE_BYTES, _job_id="hungry") is not None
    client = asyncio.create_task(awaited(fleet, "hungry"))
    fleet.start(tracker=STRICT, worker={"max_tries": 20})
    killer = OutOfMemoryKiller(fleet)

    async def quarantined() -> bool:
        killer.look()
        if fleet.note_deaths():
            fleet.start(tracker=STRICT, worker={"max_tries": 20})
        return bool(await fleet.tracker.quarantined())

    await wait_until(quarantined, timeout=90, description="the job that eats memory is quarantined", poll_interval=0.02)
    assert "workers died running it" in await client
    await fleet.succeeded(*neighbours)
    (kept,) = await fleet.tracker.quarantined()
    assert (kept.job_id, kept.function) == ("hungry", "hungry")
    assert killer.kills == kept.deaths
    assert kept.deaths in DEATHS
    assert await fleet.tracker.drop_quarantined("hungry")
    await fleet.close(doubled=9)


async def test_a_job_that_is_killed_for_its_hunger_is_quarantined_and_can_be_retried_and_dropped(fleet: Fleet, tmp_path: Path):
    """Somebody kills whatever process runs it. Allowed: runs as often as it is killed."""
    once = {**SWIFT, "max_recoveries": 1}
    await fleet.start_ready(tracker=once)
    await fleet.pool.enqueue_job("victim", str(tmp_path), _job_id="hungry")

    async def quarantined() -> bool:
        for flag in tmp_path.glob("*.runs"):
            pid = int(flag.stem)
            known = await fleet.tracker.job("hungry")
            if known is None or f":{pid}:" not in known.instance_id or known.function is None:
                continue  # a job that dies within the journal's linger is recovered all the same, and nobody knows its function
            flag.unlink()
            os.kill(pid, signal.SIGKILL)
        if fleet.note_deaths():
            fleet.start(tracker=once)
        return bool(await fleet.tracker.quarantined())

    await wait_until(quarantined, timeout=60, description="the job is quarantined", poll_interval=0.05)
    (kept,) = await fleet.tracker.quarantined()
    assert (kept.job_id, kept.function, kept.deaths) == ("hungry", "victim", 2)
    assert await fleet.pool.zscore("arq:queue", "hungry") is None

    assert await fleet.tracker.retry_quarantined("hungry")
    runs = len(fleet.ledger.read().runs_of("hungry"))
    worker = await fleet.running("hungry", runs=runs + 1)
    assert await fleet.tracker.quarantined() == []
    worker.kill()
    fleet.start(tracker=once)
    worker = await fleet.running("hungry", runs=runs + 2)  # its deaths were forgotten: this was the first again
    worker.kill()
    fleet.start(tracker=once)
    await wait_until(fleet.tracker.quarantined, timeout=60, description="it is quarantined again", poll_interval=0.05)
    assert await fleet.tracker.drop_quarantined("hungry")
    with pytest.raises(TrackerError, match="not quarantined"):
        await fleet.tracker.drop_quarantined("hungry")
    await fleet.close()


async def test_a_quarantined_job_whose_id_was_enqueued_anew_is_not_retried(fleet: Fleet):
    """The result that quarantine left is gone, and somebody has given the id to another job. Allowed: lost 0, doubled 0."""
    none = {**SWIFT, "max_recoveries": 0}
    await fleet.pool.enqueue_job("pill", _job_id="42")
    fleet.start(tracker=none)
    await keep_up(fleet, "42", tracker=none)
    await fleet.pool.delete("arq:result:42")
    await fleet.enqueue("hold", 0.5, job_id="42")
    assert not await fleet.tracker.retry_quarantined("42")
    assert len(await fleet.tracker.quarantined()) == 1
    await fleet.succeeded("42")
    assert await fleet.tracker.drop_quarantined("42")
    await fleet.close()


async def test_a_job_of_one_try_is_failed_by_arq_not_run_twice(fleet: Fleet):
    """The try counter is left alone: a recovered job that may run once only is ended by arq. Allowed: runs 1."""
    await fleet.start_ready(worker={"max_tries": 1})
    await fleet.pool.enqueue_job("interrupted", _job_id="once")
    worker = await fleet.running("once")
    await fleet.start_ready(worker={"max_tries": 1})
    worker.kill()
    assert "max 1 retries exceeded" in await awaited(fleet, "once")
    account = await fleet.close()
    assert len(account.runs_of("once")) == 1


async def test_deaths_while_draining_count_against_nobody(fleet: Fleet):
    """Killed by an impatient supervisor in the middle of an orderly shutdown. Allowed: lost 0, doubled 0."""
    (leaving,) = await fleet.start_ready(worker={"job_completion_wait": 60})
    job_id = await fleet.enqueue("interrupted")
    await fleet.running(job_id)
    leaving.ask_to_leave()

    async def draining() -> bool:
        found = await fleet.instance_of(leaving)
        return found is not None and found.state == "draining"

    await wait_until(draining, timeout=30, description="the worker drains")
    await fleet.start_ready()
    leaving.kill()
    await fleet.succeeded(job_id)
    assert await fleet.pool.exists(f"{fleet.namespace}:recoveries:{job_id}") == 0
    await fleet.close()
