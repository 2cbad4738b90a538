"""Live workers are not robbed: stopped, blocked, cut off, or with children of their own, each keeps its jobs while its process lives.

And silence does not last for ever: a lost host's jobs run again when its limit is over.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from async_tracker import Instance, InstanceState
from async_tracker.instance.host import host_id
from tests.crash.conftest import MakeFleet
from tests.crash.fleet import QUICK, Fleet
from tests.harness.servers import assert_no_leaks
from tests.harness.wait import lived, wait_until
from tests.harness.wire import WireProxy
from tests.harness.workers import WorkerProcess

TTL: float = QUICK["heartbeat_ttl"]


async def reaches(fleet: Fleet, worker: WorkerProcess, state: InstanceState, *, timeout: float = 30.0) -> Instance:
    """Wait until a worker's instance is judged to be in that state."""

    async def judged() -> Instance | None:
        found = await fleet.instance_of(worker)
        return found if found is not None and found.state is state else None

    found = await wait_until(judged, timeout=timeout, description=f"{worker.name} is {state}", poll_interval=0.05)
    assert found is not None
    return found


@asynccontextmanager
async def under_load(fleet: Fleet) -> AsyncIterator[None]:
    """Keep the queue busy with short jobs while the block runs."""

    is_over = False

    async def load() -> None:
        while not is_over:  # not cancelled: what the ledger knows of must have reached the queue
            await fleet.enqueue_many(3, "hold", 0.02)
            await asyncio.sleep(0.1)

    task = asyncio.create_task(load())
    try:
        yield
    finally:
        is_over = True
        await task


async def cut_connections(fleet: Fleet, *, named: str) -> int:
    """Have the server close the connections whose name begins so; returns how many there were."""
    listed = await fleet.pool.client_list()
    found = [client for client in listed if client["name"].startswith(named)]
    for client in found:
        await fleet.pool.execute_command("CLIENT", "KILL", "ID", client["id"])
    return len(found)


async def cut_when_there(fleet: Fleet, *, named: str, count: int = 1) -> None:
    """Have the server close the connections whose name begins so, once there are that many."""

    async def are_there() -> bool:
        return len([client for client in await fleet.pool.client_list() if client["name"].startswith(named)]) >= count

    await wait_until(are_there, timeout=30, description=f"{count} connections are named {named!r}")
    await cut_connections(fleet, named=named)


async def test_a_worker_that_is_stopped_for_three_ttl_and_resumed_keeps_its_jobs(fleet: Fleet, tmp_path: Path):
    """SIGSTOP, SIGCONT, under load. Allowed: lost 0, doubled 0, robbed 0."""
    (stopped,) = await fleet.start_ready(tracker=QUICK)
    jobs = await fleet.enqueue_many(3, "until_told", str(tmp_path / "end"))
    for job_id in jobs:
        await fleet.running(job_id)
    await fleet.start_ready(tracker=QUICK)
    before = await fleet.registered(stopped)
    async with under_load(fleet):
        stopped.suspend()
        since = time.monotonic()
        await reaches(fleet, stopped, InstanceState.STALLED_SILENT)
        await asyncio.sleep(max(0.0, 3.2 * TTL - (time.monotonic() - since)))
        assert not [run for job_id in jobs for run in fleet.ledger.read().runs_of(job_id)[1:]]
        stopped.resume()
        await reaches(fleet, stopped, InstanceState.ALIVE)
    (tmp_path / "end").touch()
    await fleet.succeeded()
    after = await fleet.registered(stopped)
    assert after.instance_id == before.instance_id
    await fleet.close()


async def test_a_blocked_loop_is_seen_with_the_line_that_blocks_and_keeps_its_jobs(fleet: Fleet, tmp_path: Path):
    """The job that blocks is seen although its start was still in the journal. Allowed: lost 0, doubled 0, robbed 0."""
    (blocked,) = await fleet.start_ready(tracker=QUICK)
    await fleet.start_ready(tracker=QUICK)
    job_id = await fleet.enqueue("block_until_told", str(tmp_path / "end"))
    blocked = await fleet.running(job_id)
    async with under_load(fleet):
        found = await reaches(fleet, blocked, InstanceState.STALLED_BLOCKED)
        assert "tests/crash/app.py" in found.blocked_at[0]
        assert found.blocked_for is not None
        job = await fleet.tracker.job(job_id)
        assert job is not None
        assert job.instance_id == found.instance_id
        (tmp_path / "end").touch()
        await reaches(fleet, blocked, InstanceState.ALIVE)
    await fleet.succeeded()
    await fleet.close()


async def test_a_blocked_worker_whose_connections_are_cut_again_and_again_keeps_its_jobs(fleet: Fleet):
    """First the loop's connection, then the watchdog's, then all of them. Allowed: lost 0, doubled 0, robbed 0."""
    await fleet.start_ready(2, tracker={**QUICK, "heartbeat_interval": 2.0, "heartbeat_ttl": 4.0})
    job_id = await fleet.enqueue("block", 9.0)
    blocked = await fleet.running(job_id)
    for named in ("async-tracker:", "async-tracker-watchdog:", "async-tracker"):
        await asyncio.sleep(1.0)
        await cut_when_there(fleet, named=named)
        await asyncio.sleep(1.3)  # longer than the grace
        found = await fleet.instance_of(blocked)
        assert found is not None
        assert found.state is not InstanceState.DEAD
    await fleet.succeeded(job_id)
    account = await fleet.close()
    assert len(account.runs_of(job_id)) == 1


async def test_a_worker_that_is_cut_off_while_its_loop_is_blocked_for_three_ttl_keeps_its_jobs_under_load(fleet: Fleet, tmp_path: Path):
    """Its connections are cut in the middle of the block, the watchdog's among them. Allowed: lost 0, doubled 0, robbed 0."""
    workers = await fleet.start_ready(2, tracker=QUICK)
    ids = {(await fleet.registered(worker)).instance_id for worker in workers}
    job_id = await fleet.enqueue("block_until_told", str(tmp_path / "end"))
    blocked = await fleet.running(job_id)
    since = time.monotonic()
    async with under_load(fleet):
        await reaches(fleet, blocked, InstanceState.STALLED_BLOCKED)
        await cut_when_there(fleet, named="async-tracker")
        await asyncio.sleep(1.1)  # longer than the grace: the watchdog has come back by itself
        found = await reaches(fleet, blocked, InstanceState.STALLED_BLOCKED)
        assert found.instance_id in ids
        await asyncio.sleep(max(0.0, 3.2 * TTL - (time.monotonic() - since)))
        (tmp_path / "end").touch()
        await reaches(fleet, blocked, InstanceState.ALIVE)
    await fleet.succeeded()
    assert {(await fleet.registered(worker)).instance_id for worker in workers} == ids
    account = await fleet.close()
    assert len(account.runs_of(job_id)) == 1


async def test_a_server_that_closes_idle_connections_makes_nobody_dead(make_server: Any, make_fleet: MakeFleet):
    """The server's ``timeout`` is shorter than a beat, and the loop is blocked. Allowed: lost 0, doubled 0, robbed 0."""
    server = make_server(extra_args=("--timeout", "1"))
    fleet = await make_fleet(server.url)
    await fleet.start_ready(2, tracker={**QUICK, "heartbeat_interval": 3.0, "heartbeat_ttl": 6.0})
    job_id = await fleet.enqueue("block", 7.0)
    await fleet.running(job_id)
    await fleet.succeeded(job_id)
    account = await fleet.close()
    assert len(account.runs_of(job_id)) == 1


async def test_a_worker_that_takes_a_while_to_find_its_way_back_is_within_its_grace(fleet: Fleet, wire: WireProxy):
    """Its connection is gone, and who sweeps looks many times before it has another. Allowed: lost 0, doubled 0, robbed 0."""
    patient = {**QUICK, "heartbeat_ttl": 10.0, "disconnect_grace": 4.0}
    await fleet.start_ready(tracker=patient, worker={"queue_name": "elsewhere"})
    (worker,) = await fleet.start_ready(tracker=patient, tracker_url=wire.url)
    instance_id = (await fleet.registered(worker)).instance_id
    job_id = await fleet.enqueue("hold", 4.0)
    await fleet.running(job_id)
    wire.refuse()
    wire.cut()
    await asyncio.sleep(6 * QUICK["sweep_interval"])
    wire.accept()
    await fleet.succeeded(job_id)
    assert (await fleet.registered(worker)).instance_id == instance_id
    account = await fleet.close()
    assert len(account.runs_of(job_id)) == 1


async def test_cutting_the_trackers_connections_of_live_workers_robs_nobody(fleet: Fleet):
    """CLIENT KILL, several times, of every connection of the tracker's. Allowed: lost 0, doubled 0, robbed 0."""
    workers = await fleet.start_ready(2, tracker=QUICK)
    ids = [(await fleet.registered(worker)).instance_id for worker in workers]
    jobs = await fleet.enqueue_many(4, "hold", 6.0)
    for job_id in jobs:
        await fleet.running(job_id)
    for _ in range(4):
        await cut_when_there(fleet, named="async-tracker", count=2)
        await asyncio.sleep(0.7)
    await asyncio.sleep(1.2)
    assert [(await fleet.registered(worker)).instance_id for worker in workers] == ids
    await fleet.succeeded()
    await fleet.close()


async def test_cutting_every_connection_loses_nothing(fleet: Fleet, tmp_path: Path):
    """arq may end its worker over it; then that is a death like another. Allowed: lost 0, robbed 0, doubled 2."""
    await fleet.start_ready(2, tracker=QUICK)
    jobs = await fleet.enqueue_many(6, "until_told", str(tmp_path / "end"))
    for job_id in jobs:
        await fleet.running(job_id)
    await fleet.pool.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await asyncio.sleep(0.5)
    (tmp_path / "end").touch()

    def done() -> bool:
        if fleet.note_deaths():
            fleet.start(tracker=QUICK)
        return fleet.ledger.read().lost() == frozenset()

    await wait_until(done, timeout=60, description="every job has succeeded", poll_interval=0.1)
    await fleet.succeeded()
    await fleet.close(doubled=2)


PROMISED_SECONDS = 5.0
"""How much longer than its silence limit a lost host's jobs wait at most."""


async def last_beat_of(fleet: Fleet, worker: WorkerProcess) -> int:
    """Tell when the last heartbeat of a worker arrived, in nanoseconds of the monotonic clock, which the ledger goes by."""
    instance = await fleet.instance_of(worker)
    assert instance is not None
    now_ns = time.monotonic_ns()  # before the other clock: a stall between the two then makes the beat earlier, and no wait shorter
    ago = datetime.now(UTC) - instance.heartbeat_at
    return now_ns - int(ago.total_seconds() * 1e9)


async def test_a_lost_host_is_given_the_silence_limit_and_no_more(fleet: Fleet, wire: WireProxy):
    """No FIN reaches the server, and nobody else is seen on that host. Allowed: lost 0, doubled 0."""
    limits = {**QUICK, "silence_limit": 4.0}
    (lost,) = await fleet.start_ready(tracker=limits, redis_url=wire.url)
    instance = await fleet.registered(lost)
    await fleet.pool.hset(f"{fleet.namespace}:instance:{instance.instance_id}", "host_id", "another-host")
    job_id = await fleet.enqueue("interrupted")
    await fleet.running(job_id)
    await fleet.start_ready(tracker=limits)
    wire.lose_hosts()
    lost.kill()
    async with lived() as waited:
        await reaches(fleet, lost, InstanceState.STALLED_SILENT)
        last_beat = await last_beat_of(fleet, lost)
        account = await fleet.succeeded(job_id)
    assert (account.runs_of(job_id)[1].started_at_ns - last_beat) / 1e9 > 4.0
    assert waited.seconds < 4.0 + PROMISED_SECONDS
    wire.cut()
    await fleet.close()


async def test_a_silent_process_on_a_host_that_is_seen_is_given_ten_times_the_silence_limit(fleet: Fleet, wire: WireProxy):
    """Another instance of the host beats, so the host is there. Allowed: lost 0, doubled 0."""
    limits = {**QUICK, "heartbeat_interval": 0.3, "heartbeat_ttl": 0.7, "silence_limit": 0.8}
    (lost,) = await fleet.start_ready(tracker=limits, redis_url=wire.url)
    job_id = await fleet.enqueue("interrupted")
    await fleet.running(job_id)
    (other,) = await fleet.start_ready(tracker={**QUICK, "heartbeat_ttl": 8.0, "silence_limit": 60.0})
    assert (await fleet.registered(other)).host_id == host_id()
    wire.lose_hosts()
    lost.kill()
    async with lived() as waited:
        last_beat = await last_beat_of(fleet, lost)
        account = await fleet.succeeded(job_id)
    assert (account.runs_of(job_id)[1].started_at_ns - last_beat) / 1e9 > 8.0
    assert waited.seconds < 8.0 + PROMISED_SECONDS
    wire.cut()
    await fleet.close()


async def test_the_children_of_a_killed_worker_do_not_keep_it_alive(fleet: Fleet, tmp_path: Path):
    """A process pool of forked children outlives the worker. Allowed: lost 0, doubled 0; recovered long before the silence limit."""
    (parent,) = await fleet.start_ready(tracker=QUICK)
    job_id = await fleet.enqueue("forking", 50.0, str(tmp_path))
    await fleet.running(job_id)
    await fleet.in_flight(job_id)
    await wait_until(lambda: len(list(tmp_path.glob("*.child"))) == 2, timeout=30, description="both children are at work")
    await fleet.start_ready(tracker=QUICK)
    parent.kill()
    await fleet.succeeded(job_id, timeout=30)
    os.killpg(parent.pid, 0)  # its children are there
    await fleet.close()


async def test_a_child_forked_while_the_watchdog_speaks_does_not_keep_its_dead_parent_alive(fleet: Fleet, tmp_path: Path):
    """Allowed: lost 0, doubled 0; recovered long before the silence limit."""
    await fleet.start_ready(2, tracker=QUICK)
    job_id = await fleet.enqueue("forking_blocked", 6.0, str(tmp_path / "child"))
    parent = await fleet.running(job_id)
    await reaches(fleet, parent, InstanceState.STALLED_BLOCKED)
    child = tmp_path / "child"
    await wait_until(lambda: child.exists() and child.read_text() != "", timeout=30, description="the child was forked and written down")
    parent.kill()
    await fleet.succeeded(job_id, timeout=30)
    os.kill(int(child.read_text()), signal.SIGKILL)
    await fleet.close()


async def test_beyond_the_stall_limit_a_blocked_worker_is_given_up_and_knows_it(fleet: Fleet, tmp_path: Path):
    """The only way to rob a process that says that it lives is to ask for it. Allowed: lost 0, doubled 1, robbed 1."""
    await fleet.start_ready(2, tracker={**QUICK, "stall_limit": 3.0})
    job_id = await fleet.enqueue("block_until_told", str(tmp_path / "end"))
    blocked = await fleet.running(job_id)
    old = await fleet.registered(blocked)
    await fleet.running(job_id, runs=2)
    (tmp_path / "end").touch()
    await wait_until(lambda: "was declared dead although it runs" in blocked.output(), timeout=30, description="the worker has found out")
    await fleet.succeeded()

    async def renamed() -> bool:
        found = await fleet.instance_of(blocked)
        return found is not None and found.instance_id != old.instance_id and found.state is InstanceState.ALIVE

    await wait_until(renamed, timeout=30, description="it goes on under another id")
    await fleet.close(doubled=1, overlapping=1)
    await assert_no_leaks(fleet.pool, fleet.namespace)


async def test_an_orphan_that_lives_knows_that_it_is_not_its_own_any_more(fleet: Fleet, tmp_path: Path):
    """Stopped beyond the silence limit, then resumed: ``owned`` and ``ensure_owned`` tell. Allowed: lost 0, doubled 1, robbed 1."""
    limits = {**QUICK, "silence_limit": 2.0}
    (stopped,) = await fleet.start_ready(tracker=limits)
    instance = await fleet.registered(stopped)
    await fleet.pool.hset(f"{fleet.namespace}:instance:{instance.instance_id}", "host_id", "another-host")
    job_id = await fleet.enqueue("careful", 20.0, str(tmp_path / "seen"))
    await fleet.running(job_id)
    await fleet.start_ready(tracker=limits)
    stopped.suspend()
    await fleet.succeeded(job_id)
    stopped.resume()
    await wait_until((tmp_path / "seen").exists, timeout=30, description="the late run has asked")
    assert (tmp_path / "seen").read_text() == f"lost noticed=True id={instance.instance_id}"
    assert await fleet.pool.zscore(f"{fleet.namespace}:instances", instance.instance_id) is None
    events = [event async for event in _all_events(fleet)]
    assert [event.instance_id for event in events if event.type == "ownership_lost"] == [instance.instance_id]
    await fleet.close(doubled=1, overlapping=1)


async def test_an_orphan_that_finishes_late_costs_nobody_else_a_run(fleet: Fleet, tmp_path: Path):
    """arq's finish of the late run deletes the newcomer's claim as well: still nothing is lost. Allowed: doubled 1, robbed 1."""
    limits = {**QUICK, "silence_limit": 2.0}
    (stopped,) = await fleet.start_ready(tracker=limits)
    instance = await fleet.registered(stopped)
    await fleet.pool.hset(f"{fleet.namespace}:instance:{instance.instance_id}", "host_id", "another-host")
    job_id = await fleet.enqueue("until_told", str(tmp_path / "end"))
    await fleet.running(job_id)
    await fleet.start_ready(tracker=limits)
    stopped.suspend()
    await fleet.running(job_id, runs=2)
    (tmp_path / "end").touch()
    stopped.resume()
    account = await fleet.succeeded(job_id)
    await wait_until(
        lambda: all(run.outcome for run in fleet.ledger.read().runs_of(job_id)), timeout=30, description="both runs have ended"
    )
    assert len(account.runs_of(job_id)) == 2
    await fleet.close(doubled=1, overlapping=1)


async def _all_events(fleet: Fleet) -> AsyncIterator[Any]:
    """Give the events so far."""
    count = await fleet.pool.xlen(f"{fleet.namespace}:events")
    stream = fleet.tracker.events(since="0-0")
    async for event in stream:
        yield event
        count -= 1
        if not count:
            return
